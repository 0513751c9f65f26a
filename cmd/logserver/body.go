package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/sync/semaphore"
)

// bodyStep is what a body takes first of the bytes of all bodies; then it doubles.
const bodyStep = 64 << 10

// A requestBody is a request's body with its share of the bytes of all bodies. The share grows as bytes come, never for
// bytes that are only announced: a few slow clients would hold it all, and stop everybody's appends.
type requestBody struct {
	io.ReadCloser
	all  *semaphore.Weighted
	most int64  // bytes that can come
	came int64  // bytes that have
	held int64  // of all
	text []byte // the whole, once it was read
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.came == b.held && b.held < b.most {
		more := min(max(bodyStep, b.held), b.most-b.held)
		if !b.all.TryAcquire(more) {
			return 0, fmt.Errorf("%w: too many bodies at once", errOverloaded)
		}
		b.held += more
	}
	if room := b.held - b.came; room > 0 {
		p = p[:min(int64(len(p)), room)]
	}
	n, err := b.ReadCloser.Read(p)
	b.came += int64(n)
	return n, err
}

// release gives the share back, as often as it is called.
func (b *requestBody) release() {
	b.all.Release(b.held)
	b.held, b.came, b.text = 0, 0, nil
}

// releaseBody gives back what the body of a request holds: it has been committed, and whoever waits longer than that
// must not keep others from sending.
func releaseBody(r *http.Request) {
	if b, ok := r.Body.(*requestBody); ok {
		b.release()
	}
}

// bodyText gives the body of a request, as far as a handler has asked for it.
func bodyText(r *http.Request) []byte {
	if b, ok := r.Body.(*requestBody); ok {
		return b.text
	}
	return nil
}

// limitBodies bounds every body, and the bytes of all bodies together.
func limitBodies(h http.Handler, limits Limits, all *semaphore.Weighted, fail func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := r.ContentLength
		switch {
		case n == 0:
			h.ServeHTTP(w, r)
			return
		case n > limits.BodyBytes:
			fail(w, r, fmt.Errorf("%w: body of %d bytes, at most %d", errTooLarge, n, limits.BodyBytes))
			return
		case n < 0:
			n = limits.BodyBytes // chunked: it may become that much
		}
		b := &requestBody{ReadCloser: http.MaxBytesReader(w, r.Body, limits.BodyBytes), all: all, most: n}
		defer b.release()
		r = r.WithContext(r.Context()) // the server looks at its own for whether to read the rest before it answers
		r.Body = b
		h.ServeHTTP(w, r)
	})
}

// readBody reads a body that limitBodies has bounded.
func readBody(r *http.Request) ([]byte, error) {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, fmt.Errorf("%w: Content-Encoding %q; send it as it is", errMediaType, enc)
	}
	text := make([]byte, 0, min(max(512, r.ContentLength), bodyStep))
	for {
		n, err := r.Body.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			if b, ok := r.Body.(*requestBody); ok {
				b.text = text
			}
			return text, nil
		case errors.As(err, &tooLarge):
			return nil, fmt.Errorf("%w: body of more than %d bytes", errTooLarge, tooLarge.Limit)
		case errors.Is(err, errOverloaded):
			return nil, err
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("%w: its body did not come in time: %w", errTimeout, err)
		case err != nil:
			return nil, fmt.Errorf("%w body: it was cut short: %w", log.ErrMalformed, err)
		}
		if len(text) == cap(text) {
			more := len(text)
			if r.ContentLength > 0 {
				more = max(1, min(more, int(r.ContentLength)-len(text)))
			}
			text = slices.Grow(text, more)
		}
	}
}
