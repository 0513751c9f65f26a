package reader

import (
	"bytes"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// What a server calls a tile is cut to the width that was asked for, or refused.
func FuzzCut(f *testing.F) {
	f.Add("tile/0/000.p/2", make([]byte, 3*32))
	f.Add("tile/entries/000.p/2", []byte("\x00\x01a\x00\x00\x00\x02bc"))
	f.Fuzz(func(t *testing.T, path string, data []byte) {
		id, err := log.ParseTilePath(path)
		if err != nil {
			return
		}
		cut, err := Cut(data, id)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(data, cut) {
			t.Fatalf("Cut of %s is %x, which %x does not begin with", path, cut, data)
		}
		if id.IsBundle() {
			_, err = log.ParseBundle(cut, id.Width)
		} else {
			_, err = log.ParseTile(cut, id.Width)
		}
		if err != nil {
			t.Errorf("Cut of %s is %x: %v", path, cut, err)
		}
	})
}
