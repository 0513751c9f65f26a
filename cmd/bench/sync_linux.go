package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// dataSync is what the journal's commits cost: fdatasync.
func dataSync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
