package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/pipe-roll/piperoll/log"
)

// filesMax bounds the files of one kind in a directory: 8 bytes of memory each.
const filesMax = 5_000_000

// A directory is one of events with proofs, opened: what files it has, and
// nothing of their content. Nothing outside it is read, whatever it links to.
type directory struct {
	root    *os.Root
	folders map[string]*os.Root
	numbers map[log.ExportKind][]uint64 // in ascending order
}

// openDirectory lists a directory. Whatever does not belong in it goes to f.
func openDirectory(name string, f *log.Findings) (*directory, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	d := &directory{root, make(map[string]*os.Root), make(map[log.ExportKind][]uint64)}
	if err := d.scan(f); err != nil {
		d.close()
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	return d, nil
}

// close closes what is only read: errors have no consequence.
func (d *directory) close() {
	for _, r := range d.folders {
		_ = r.Close()
	}
	_ = d.root.Close()
}

func (d *directory) scan(f *log.Findings) error {
	var folders []string
	err := each(d.root, func(e fs.DirEntry) error {
		switch {
		case e.IsDir() && slices.Contains(log.ExportFolders(), e.Name()):
			folders = append(folders, e.Name())
			return nil
		case e.IsDir():
			f.Fail("integrity.layout", "folder %q does not belong here", e.Name())
			return nil
		}
		return d.add("", e, f)
	})
	for _, folder := range folders {
		if err != nil {
			break
		}
		if d.folders[folder], err = d.root.OpenRoot(folder); err != nil {
			delete(d.folders, folder)
			break
		}
		err = each(d.folders[folder], func(e fs.DirEntry) error { return d.add(folder, e, f) })
	}
	for _, numbers := range d.numbers {
		slices.Sort(numbers)
	}
	if len(d.numbers[log.ExportCheckpoint]) == 0 && err == nil {
		f.Fail("integrity.checkpoint", "there is no file named checkpoint")
	}
	return err
}

// each calls do for what is in a folder, a bounded part at a time.
func each(r *os.Root, do func(fs.DirEntry) error) error {
	f, err := r.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	for {
		const part = 4096
		entries, err := f.ReadDir(part)
		for _, e := range entries {
			if err := do(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *directory) add(folder string, e fs.DirEntry, f *log.Findings) error {
	file, err := log.ParseExportName(folder, e.Name())
	if err != nil {
		f.Fail("integrity.layout", "%v: nobody checks it, so it must not be here", err)
		return nil
	}
	if !e.Type().IsRegular() {
		f.Fail("integrity.layout", "%s is no regular file", file.Path())
		return nil
	}
	info, err := e.Info() // came with the listing of a Root; Lstat would be a system call more for each file
	if err != nil {
		return err
	}
	switch most := int64(file.MaxBytes()); {
	case info.Size() > most:
		// As if it was not there: a byte added to one file must not keep the
		// others from being looked at.
		f.Fail("integrity.layout", "%s has %d bytes, at most %d", file.Path(), info.Size(), most)
	case len(d.numbers[file.Kind]) == filesMax:
		return fmt.Errorf("%w: more than %d files in %q", log.ErrLimit, filesMax, folder)
	default:
		d.numbers[file.Kind] = append(d.numbers[file.Kind], file.Number)
	}
	return nil
}

// folder gives one of the folders, "" the directory itself.
func (d *directory) folder(name string) *os.Root {
	if name == "" {
		return d.root
	}
	return d.folders[name]
}

// has says whether there is such a file.
func (d *directory) has(kind log.ExportKind, number uint64) bool {
	_, ok := slices.BinarySearch(d.numbers[kind], number)
	return ok
}

// read reads a file that the listing has.
func (d *directory) read(kind log.ExportKind, number uint64) ([]byte, error) {
	return d.readInto(nil, kind, number)
}

// readInto is read into buf, if that is large enough: with four files for each
// entry, most of the time goes into system calls and buffers.
func (d *directory) readInto(buf []byte, kind log.ExportKind, number uint64) ([]byte, error) {
	file := log.ExportFile{Kind: kind, Number: number}
	f, err := d.open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	return readAll(f, buf, file.Path(), file.MaxBytes())
}

func (d *directory) open(file log.ExportFile) (*os.File, error) {
	f, err := d.folder(file.Folder()).Open(file.Name())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file.Path(), err)
	}
	return f, nil
}

// checkNames finds files that stand alone: a proof or a payload of no event
// shows that an event was taken away.
func (d *directory) checkNames(f *log.Findings) {
	pair := func(kind, needs log.ExportKind, reason string) {
		for _, n := range d.numbers[kind] {
			if !d.has(needs, n) {
				f.Fail("integrity.layout", "%s is there and %s is not: %s",
					log.ExportFile{Kind: kind, Number: n}.Path(), log.ExportFile{Kind: needs, Number: n}.Path(), reason)
			}
		}
	}
	pair(log.ExportEvent, log.ExportProof, "nothing shows that the entry is in the log")
	pair(log.ExportProof, log.ExportEvent, "the entry was taken away")
	pair(log.ExportPayload, log.ExportEvent, "the entry was taken away")
	pair(log.ExportPayload, log.ExportSalt, "the payload cannot be checked without its salt")
	pair(log.ExportSalt, log.ExportPayload, "the payload was taken away")
	f.Pass("integrity.layout", "%d entries with their proofs, %d payloads; nothing else is in the directory",
		len(d.numbers[log.ExportEvent]), len(d.numbers[log.ExportPayload]))
}
