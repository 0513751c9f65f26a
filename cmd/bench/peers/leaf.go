package main

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync/atomic"

	"github.com/pipe-roll/piperoll/cmd/bench/measure"
)

// leaves returns a source of entries that are all different, since Trillian
// takes an entry once.
func leaves() func() []byte {
	entry := make([]byte, measure.EntryBytes)
	rand.Read(entry)
	var n atomic.Uint64
	return func() []byte {
		e := slices.Clone(entry)
		binary.BigEndian.PutUint64(e, n.Add(1))
		return e
	}
}
