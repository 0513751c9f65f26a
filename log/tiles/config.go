package tiles

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"golang.org/x/mod/sumdb/note"
)

// A Source is the durable order of the entries. The journal is one.
type Source interface {
	// Size returns how many entries are durable.
	Size() uint64
	// Wait returns when Size is at least size, or ctx is done, or it never will be.
	Wait(ctx context.Context, size uint64) error
	// Entries returns durable entries from index from on: at least one, at most limit, and no more than fit into
	// maxBytes after the first.
	Entries(from uint64, limit, maxBytes int) ([][]byte, error)
}

// Config says where a tree is, who signs it, and how often.
type Config struct {
	Dir       string // served tree; nobody else writes to it
	StateDir  string // on the same file system as Dir, never served
	AnchorDir string // better on another disk: backups of StateDir must not roll it back; may be StateDir
	FS        disk.FS

	Origin   string        // name of the log, first line of its checkpoints
	Signer   note.Signer   // named Origin; deterministic, as Ed25519 is
	Verifier note.Verifier // of Signer's key: every signature is verified before it leaves
	Source   Source

	Round       time.Duration // between starts of rounds while there is work; default 50 ms
	Publish     time.Duration // between publications while there is work; default 1 s
	Idle        time.Duration // between publications of an unchanged head; default 10 min
	StopTimeout time.Duration // for the last publication, after Run was told to stop; default 10 s

	// Cosign asks witnesses to cosign a signed checkpoint and returns it with their signatures added. It fails when
	// the policy is not met; then nothing is published, and the next due publication tries again with the newest
	// head. If nil, what the log signed is published.
	Cosign func(ctx context.Context, signed []byte) ([]byte, error)

	KeepPartials int              // published checkpoints whose partial tiles stay as files; default 16
	CacheBytes   int              // full tiles and bundles kept in memory; default 16 MiB
	Rebuild      bool             // Open derives all tiles again from Source, whatever the files and the recovery point say
	Now          func() time.Time // wall clock; default time.Now
	Logger       *slog.Logger     // default discards
}

func (c Config) withDefaults() Config {
	setDefault(&c.Round, 50*time.Millisecond)
	setDefault(&c.Publish, time.Second)
	setDefault(&c.Idle, 10*time.Minute)
	setDefault(&c.StopTimeout, 10*time.Second)
	setDefault(&c.KeepPartials, 16)
	setDefault(&c.CacheBytes, 16<<20)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault[T ~int | ~int64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// validate reports everything that is wrong.
func (c Config) validate() error {
	var errs []error
	wrong := func(bad bool, what string) {
		if bad {
			errs = append(errs, errors.New("tiles config: "+what))
		}
	}
	wrong(c.Dir == "" || c.StateDir == "" || c.AnchorDir == "", "Dir, StateDir and AnchorDir must be set")
	wrong(filepath.Clean(c.Dir) == filepath.Clean(c.StateDir) || filepath.Clean(c.Dir) == filepath.Clean(c.AnchorDir), "Dir is served and can be neither StateDir nor AnchorDir")
	wrong(c.FS == nil, "FS must be set")
	wrong(!log.ValidName(c.Origin), fmt.Sprintf("Origin %q is not a name", c.Origin))
	wrong(c.Signer == nil || c.Signer.Name() != c.Origin, "Signer must be named as the origin")
	wrong(c.Verifier == nil || c.Verifier.Name() != c.Origin, "Verifier must be named as the origin")
	wrong(c.Source == nil, "Source must be set")
	wrong(c.Round < 0 || c.Publish < 0 || c.Idle < 0 || c.StopTimeout < 0, "durations must not be negative")
	wrong(c.KeepPartials < 0 || c.CacheBytes < 0, "KeepPartials and CacheBytes must not be negative")
	return errors.Join(errs...)
}

func (c Config) anchorFile() string   { return filepath.Join(c.AnchorDir, "anchor") }
func (c Config) recoveryFile() string { return filepath.Join(c.StateDir, "recovery") }
func (c Config) storeDir() string     { return filepath.Join(c.StateDir, "checkpoints") }
func (c Config) tmpDir() string       { return filepath.Join(c.StateDir, "tmp") }
