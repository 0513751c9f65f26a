package main

import "github.com/pipe-roll/piperoll/log/disk"

// An unsyncedFS says that it syncs, and does not.
type unsyncedFS struct{ disk.FS }

type unsyncedFile struct{ disk.File }

func (unsyncedFS) SyncDir(string) error { return nil }
func (unsyncedFile) Sync() error        { return nil }
func (unsyncedFile) WriteBack() error   { return nil }

func (u unsyncedFS) Open(name string) (disk.File, error) {
	f, err := u.FS.Open(name)
	return unsyncedFile{f}, err
}

func (u unsyncedFS) Create(name string) (disk.File, error) {
	f, err := u.FS.Create(name)
	return unsyncedFile{f}, err
}
