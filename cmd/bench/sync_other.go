//go:build !linux

package main

import "os"

// dataSync is what the journal's commits cost.
func dataSync(f *os.File) error { return f.Sync() }
