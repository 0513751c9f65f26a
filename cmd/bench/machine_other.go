//go:build !linux

package main

import "os"

// dataSync is what the journal's commits cost.
func dataSync(f *os.File) error { return f.Sync() }

func fileSystem(string) string { return "file system unknown" }

func settle() {}

func room(string) uint64 { return 0 }

func kernel() string { return "unknown" }

func loadAverage() string { return "unknown" }

func readUsage() usage { return usage{} }
