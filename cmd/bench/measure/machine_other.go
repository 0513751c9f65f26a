//go:build !linux

package measure

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// dataSync is what the journal's commits cost.
func dataSync(f *os.File) error { return f.Sync() }

func fileSystem(string) string { return "file system unknown" }

func settle() {}

func room(string) uint64 { return 0 }

func kernel() string { return "unknown" }

func loadAverage() string { return "unknown" }

func readUsage() usage { return usage{} }

// CPU is what this process has used so far; 0 where nobody tells.
func CPU() time.Duration { return 0 }

// RSS is the memory of a process.
func RSS(int) (float64, error) { return 0, errors.ErrUnsupported }

// DiskBytes is what a file takes on the disk.
func DiskBytes(info fs.FileInfo) int64 { return info.Size() }

// Uncache lets the kernel forget the contents of a folder's files.
func Uncache(string) error { return errors.ErrUnsupported }
