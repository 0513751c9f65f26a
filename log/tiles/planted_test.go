package tiles

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// mender is a file system that makes every checksum right which it reads: with it, there are none.
type mender struct{ disk.FS }

func (m mender) Open(name string) (disk.File, error) {
	f, err := m.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return mendedFile{f, name}, nil
}

type mendedFile struct {
	disk.File
	name string
}

func (f mendedFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	switch {
	case strings.Contains(f.name, "checkpoints") && off == 0:
		mendRecords(b[:n])
	case len(b) == slotFileBytes:
		for _, slot := range [][]byte{b[:slotBytes], b[slotStride:]} {
			sum := sha256.Sum256(slot[:slotSumAt])
			copy(slot[slotSumAt:], sum[:])
		}
	}
	return n, err
}

func mendRecords(b []byte) {
	for at := 0; at+recordHeadBytes < len(b); {
		n := int(binary.BigEndian.Uint32(b[at:]))
		if n == 0 || at+recordHeadBytes+n > len(b) {
			return
		}
		binary.BigEndian.PutUint32(b[at+4:], recordSum(b[at:at+recordHeadBytes+n]))
		at += (recordHeadBytes + n + recordAlign - 1) / recordAlign * recordAlign
	}
}

// hoarder is a file system that cuts nothing off: writes of zeros do nothing.
type hoarder struct{ disk.FS }

func (h hoarder) Open(name string) (disk.File, error) {
	f, err := h.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return hoardedFile{f}, nil
}

type hoardedFile struct{ disk.File }

func (f hoardedFile) WriteAt(b []byte, off int64) (int, error) {
	if kept := bytes.TrimRight(b, "\x00"); len(b) > 512 {
		n, err := f.File.WriteAt(kept, off)
		return n + len(b) - len(kept), err
	}
	return f.File.WriteAt(b, off)
}

// TestPlantedBugs shows that TestCrashes finds what it is there to find.
func TestPlantedBugs(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine looks at many worlds: nothing to race with")
	}
	crashfs.Hurry(t)
	lie := func(l crashfs.Liar) func(*crashfs.FS) disk.FS {
		return func(f *crashfs.FS) disk.FS { return l.Over(f) }
	}
	flip := func(name string, at func([]byte) int) func(*crashfs.FS) {
		return func(f *crashfs.FS) {
			files := f.Files()
			newest := ""
			for file := range files {
				if strings.Contains(file, name) {
					newest = max(newest, file)
				}
			}
			if i := at(files[newest]); i >= 0 {
				f.Flip(newest, int64(i), 1)
			}
		}
	}
	for name, e := range map[string]*explorer{
		"no sync":                        {wrap: lie(crashfs.Liar{NoSync: true})},
		"no sync of folders":             {wrap: lie(crashfs.Liar{NoSyncDir: true})},
		"failed sync ignored":            {fails: true, wrap: lie(crashfs.Liar{NoError: true})},
		"no check of sums":               {wrap: func(f *crashfs.FS) disk.FS { return mender{f} }},
		"ghost record after truncation":  {wrap: func(f *crashfs.FS) disk.FS { return hoarder{f} }},
		"flipped bit in the newest slot": {damage: flip("anchor/anchor", newestSlot)},
		"flipped bit in the newest checkpoint": {damage: flip("checkpoints/", func(b []byte) int {
			return len(bytes.TrimRight(b, "\x00")) - 1
		})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e.seeds = 4
			for seed := uint64(1); len(e.Bad) == 0; seed++ {
				if e.Points > 40_000 {
					t.Fatalf("not found in %d crash points", e.Points)
				}
				e.explore(seed, 12)
			}
			t.Logf("found after %d crash points: %.300v", e.Points, e.Bad[0])
		})
	}
}

// newestSlot is where a byte of the newer of two slots is, -1 if they are twins: then the other one counts.
func newestSlot(b []byte) int {
	first, second := binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[slotStride+24:])
	switch {
	case first > second:
		return 40
	case second > first:
		return slotStride + 40
	}
	return -1
}
