package reader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/tlog"
)

// checkpointPath is where a log has its checkpoint (c2sp.org/tlog-tiles).
const checkpointPath = "checkpoint"

// ErrTooLarge means that a resource has more bytes than its kind can have.
var ErrTooLarge = errors.New("resource is larger than its kind allows")

// A StatusError is an answer over HTTP other than 200; of a 404 errors.Is also says fs.ErrNotExist.
type StatusError struct {
	Path string
	Code int
}

func (e *StatusError) Error() string {
	return "GET " + e.Path + ": status " + strconv.Itoa(e.Code) + " " + http.StatusText(e.Code)
}

// Is reports a 404 as fs.ErrNotExist.
func (e *StatusError) Is(target error) bool {
	return e.Code == http.StatusNotFound && target == fs.ErrNotExist
}

// A Remote is a log behind a URL prefix.
type Remote struct {
	prefix, token string
	client        *http.Client
}

// HTTP reads the log below the URL prefix. A token that is not empty is sent as bearer token: entry bundles may need
// one. Time-outs are client's; a request is made once, but a partial tile that is gone is cut from the full one.
func HTTP(prefix, token string, client *http.Client) *Remote {
	return &Remote{strings.TrimSuffix(prefix, "/"), token, client}
}

// Tile implements [TileFetcher].
func (r *Remote) Tile(ctx context.Context, id log.TileID) ([]byte, error) {
	return fetch(id, func(path string, maxBytes int) ([]byte, error) { return r.get(ctx, path, maxBytes) })
}

// Checkpoint returns the log's published checkpoint, unverified.
func (r *Remote) Checkpoint(ctx context.Context) ([]byte, error) {
	return r.get(ctx, checkpointPath, log.NoteMaxBytes)
}

// SignedCheckpoint returns the newest checkpoint that the log signed, published or not, unverified.
func (r *Remote) SignedCheckpoint(ctx context.Context) ([]byte, error) {
	return r.get(ctx, checkpointPath+"/signed", log.NoteMaxBytes)
}

// CheckpointAt returns the checkpoint of one published size, unverified; fs.ErrNotExist if that size was not published.
func (r *Remote) CheckpointAt(ctx context.Context, size uint64) ([]byte, error) {
	return r.get(ctx, checkpointPath+"/"+strconv.FormatUint(size, 10), log.NoteMaxBytes)
}

func (r *Remote) get(ctx context.Context, path string, maxBytes int) (body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.prefix+"/"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", path, err)
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return nil, &StatusError{path, resp.StatusCode}
	}
	return readAll(path, resp.Body, maxBytes)
}

// A Directory is a log in a directory in the layout of c2sp.org/tlog-tiles.
type Directory struct{ files fs.FS }

// Dir reads the log in the directory path.
func Dir(path string) *Directory { return &Directory{os.DirFS(path)} }

// Tile implements [TileFetcher].
func (d *Directory) Tile(_ context.Context, id log.TileID) ([]byte, error) {
	return fetch(id, d.get)
}

// Checkpoint returns the log's published checkpoint, unverified.
func (d *Directory) Checkpoint(context.Context) ([]byte, error) {
	return d.get(checkpointPath, log.NoteMaxBytes)
}

func (d *Directory) get(path string, maxBytes int) (data []byte, err error) {
	f, err := d.files.Open(path)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readAll(path, f, maxBytes)
}

func readAll(path string, from io.Reader, maxBytes int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, int64(maxBytes)+1))
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", path, err)
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("fetch %s: %w: above %d bytes", path, ErrTooLarge, maxBytes)
	}
	return data, nil
}

// fetch gets id, or cuts it from the full tile: a log may delete a partial tile once the full one exists.
func fetch(id log.TileID, get func(path string, maxBytes int) ([]byte, error)) ([]byte, error) {
	maxBytes := id.Width * tlog.HashSize
	if id.IsBundle() {
		maxBytes = id.Width * (2 + log.EntryMaxBytes)
	}
	data, err := get(id.Path(), maxBytes)
	if err == nil || id.Width == log.TileWidth || !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	full := id
	full.Width = log.TileWidth
	data, err = fetch(full, get)
	if err != nil {
		return nil, err
	}
	return Cut(data, id)
}

// Cut returns the first id.Width hashes or entries of a tile or bundle that has at least as many.
func Cut(data []byte, id log.TileID) ([]byte, error) {
	end := id.Width * tlog.HashSize
	if id.IsBundle() {
		end = 0
		for range id.Width {
			if end+2 > len(data) {
				return nil, fmt.Errorf("cut %s: %w entry bundle", id.Path(), log.ErrMalformed)
			}
			end += 2 + int(binary.BigEndian.Uint16(data[end:]))
		}
	}
	if end > len(data) {
		return nil, fmt.Errorf("cut %s: %w: %d bytes are too few", id.Path(), log.ErrMalformed, len(data))
	}
	return data[:end:end], nil
}
