package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/pipe-roll/piperoll/log"
)

func cmdAppend(ctx context.Context, args []string, out, errOut io.Writer, in io.Reader) int {
	var r remote
	var migration, kind, mediaType string
	var objects []draftObject
	var lines bool
	return clientCommand("append", args, out, errOut, `logserver append -url URL -token-file FILE -migration M [-kind K] [-object NAME:ROLE]… [-type T] PAYLOAD|-

Appends one event with the payload, in a stream that the log keeps for the
token's principal, and prints the server's answer: index, entry's parts,
receipt. Nobody but the log attests such an event; the token needs the
permission log:append-unsigned. With -lines, the file has prepared lines of
events instead, chained and signed by who made them.

Examples:
  logserver append -url $URL -token-file curl.token -migration crm-2026 -kind audit.note note.json
  echo 'approved' | logserver append -url $URL -token-file curl.token -migration crm-2026 -type text/plain -
  logserver append -url $URL -token-file crm.token -lines signed.ndjson
`, &r, func(fs *flag.FlagSet) {
		fs.StringVar(&migration, "migration", "", "`migration` that the event belongs to")
		fs.StringVar(&kind, "kind", "audit.note", "`kind` of the event")
		fs.StringVar(&mediaType, "type", log.JSONType, "media `type` of the payload")
		fs.BoolVar(&lines, "lines", false, "the file has prepared lines, as POST /v1/events takes them")
		fs.Func("object", "what it is about, as `NAME:ROLE`; may be repeated", func(v string) error {
			i := strings.LastIndexByte(v, ':')
			if i < 0 {
				return errors.New("want NAME:ROLE")
			}
			objects = append(objects, draftObject{v[:i], v[i+1:]})
			return nil
		})
	}, func(fs *flag.FlagSet) error {
		if fs.NArg() != 1 || !lines && migration == "" {
			return fmt.Errorf("%w: want -migration and one payload", errUsage)
		}
		b, err := readInput(fs.Arg(0), in)
		if err != nil {
			return err
		}
		contentType := "application/x-ndjson"
		if !lines {
			contentType = "application/json"
			if b, err = draftBody(draftEvent{kind, migration, objects, mediaType}, b); err != nil {
				return err
			}
		}
		answer, _, err := r.do(ctx, http.MethodPost, "/v1/events", contentType, b)
		if err != nil {
			return err
		}
		_, err = out.Write(answer)
		return err
	})
}

type draftObject struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

type draftEvent struct {
	Kind      string        `json:"kind"`
	Migration string        `json:"migration"`
	Objects   []draftObject `json:"objects,omitempty"`
	Type      string        `json:"type"`
}

func draftBody(e draftEvent, payload []byte) ([]byte, error) {
	event, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	if e.Type == log.JSONType {
		if payload, err = log.Canonical(payload); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		return fmt.Appendf(nil, `{"event":%s,"payload":%s}`, event, payload), nil
	}
	return fmt.Appendf(nil, `{"event":%s,"payload_b64":%q}`, event, base64.StdEncoding.EncodeToString(payload)), nil
}

func readInput(name string, in io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(in, answerMaxBytes))
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return b, nil
}

func cmdSearch(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	var r remote
	filters := url.Values{}
	var limit int
	return clientCommand("search", args, out, errOut, `logserver search -url URL -token-file FILE [FILTERS]

Prints entries that match all filters, in the order of the log, a line of JSON
each: {"entry":…,"index":N}.

Examples:
  logserver search -url $URL -token-file auditor.token -migration crm-2026 -kind migration.reject
  logserver search -url $URL -token-file auditor.token -by crm-migrator -from 1767225600000
`, &r, func(fs *flag.FlagSet) {
		for _, name := range []string{"migration", "stream", "kind", "actor", "object", "by", "from", "to"} {
			fs.Func(name, "`"+name+"` to match (from and to: received, Unix milliseconds)", func(v string) error {
				filters.Set(name, v)
				return nil
			})
		}
		fs.IntVar(&limit, "limit", 0, "`number` of entries to stop after; 0 for all")
	}, func(fs *flag.FlagSet) error {
		if fs.NArg() != 0 {
			return fmt.Errorf("%w: unexpected %q", errUsage, fs.Arg(0))
		}
		n := 0
		return r.search(ctx, filters, func(item foundJSON) (bool, error) {
			n++
			_, err := fmt.Fprintf(out, "{\"entry\":%s,\"index\":%d}\n", item.Entry, item.Index)
			return n != limit, err
		})
	})
}

// search pages through what matches, until each says stop.
func (r *remote) search(ctx context.Context, filters url.Values, each func(foundJSON) (more bool, err error)) error {
	query := url.Values{"limit": {fmt.Sprint(pageMax)}}
	maps.Copy(query, filters)
	for {
		b, err := r.get(ctx, "/v1/events?"+query.Encode())
		if err != nil {
			return err
		}
		var page pageJSON
		if err := json.Unmarshal(b, &page); err != nil {
			return fmt.Errorf("%w: search: the answer is not a page: %w", errCheck, err)
		}
		for _, item := range page.Items {
			if more, err := each(item); err != nil || !more {
				return err
			}
		}
		if page.NextCursor == "" {
			return nil
		}
		query.Set("cursor", page.NextCursor)
	}
}

// parse parses what a log found.
func (f foundJSON) parse() (log.Entry, error) {
	e, err := log.ParseEntry(f.Entry)
	if err != nil {
		err = fmt.Errorf("%w: entry %d: %w", errCheck, f.Index, err)
	}
	return e, err
}

func cmdProve(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	var r remote
	var index, from, to int64
	var file, entryFile string
	return clientCommand("prove", args, out, errOut, `logserver prove -url URL -token-file FILE -index N [-entry-out FILE] [-out FILE]
       logserver prove -url URL -token-file FILE -from OLD -to NEW [-out FILE]

Fetches the proof that an entry is under the published checkpoint, or that the
tree of one published checkpoint extends that of another, by their sizes; checks
it with the log's key; and writes it. A proof of inclusion is what verifier proof
takes, with the entry.

Exit code 1: the proof does not hold, and is not written. 3: it holds, but without
-log-vkey nobody knows whose checkpoint it is; or there is no such checkpoint, or
none yet.

Examples:
  logserver prove -url $URL -token-file auditor.token -log-vkey log.vkey -index 4 -entry-out 4.json -out 4.tlog-proof
  logserver prove -url $URL -token-file auditor.token -log-vkey log.vkey -from 100 -to 2000
`, &r, func(fs *flag.FlagSet) {
		fs.Int64Var(&index, "index", -1, "`index` of the entry")
		fs.Int64Var(&from, "from", -1, "older `size`")
		fs.Int64Var(&to, "to", -1, "newer `size`")
		fs.StringVar(&file, "out", "", "`file` for the proof; default standard output")
		fs.StringVar(&entryFile, "entry-out", "", "`file` for the entry")
	}, func(fs *flag.FlagSet) error {
		var proof []byte
		var err error
		switch {
		case fs.NArg() != 0, (index < 0) == (from < 0 || to < from):
			return fmt.Errorf("%w: want -index, or -from and -to, which is not less", errUsage)
		case index >= 0:
			proof, err = r.proveEntry(ctx, uint64(index), entryFile)
		default:
			proof, err = r.proveGrowth(ctx, uint64(from), uint64(to))
		}
		if err != nil {
			return err
		}
		if file == "" {
			_, err = out.Write(proof)
		} else {
			err = os.WriteFile(file, proof, 0o644)
		}
		if err != nil {
			return err
		}
		return r.established()
	})
}

func (r *remote) proveGrowth(ctx context.Context, from, to uint64) ([]byte, error) {
	old, err := r.published(ctx, from)
	if err != nil {
		return nil, err
	}
	next, err := r.published(ctx, to)
	if err != nil {
		return nil, err
	}
	return r.consistency(ctx, old, next)
}

func (r *remote) proveEntry(ctx context.Context, index uint64, entryFile string) ([]byte, error) {
	b, e, err := r.entry(ctx, index)
	if err != nil {
		return nil, err
	}
	signed, err := r.get(ctx, "/checkpoint")
	if err != nil {
		return nil, err
	}
	c, err := r.checkpoint(signed)
	if err != nil {
		return nil, err
	}
	if e.Event.Log != c.Origin {
		return nil, fmt.Errorf("%w: entry %d is of log %q, the checkpoint of %q", errCheck, index, e.Event.Log, c.Origin)
	}
	if index >= c.Size {
		return nil, fmt.Errorf("%w: entry %d is not under a published checkpoint yet, the last has size %d: try again later", errNotEstablished, index, c.Size)
	}
	p, err := r.inclusion(ctx, c.Head, index, log.LeafHash(b))
	if err != nil {
		return nil, err
	}
	if entryFile != "" {
		if err := os.WriteFile(entryFile, b, 0o644); err != nil {
			return nil, err
		}
	}
	p.Checkpoint = signed
	return p.Marshal(), nil
}
