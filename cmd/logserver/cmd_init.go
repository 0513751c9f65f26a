package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/tiles"
	"golang.org/x/mod/sumdb/note"
)

// promise is how long after it was received an entry is under a checkpoint at
// the latest, by its receipt. It is fixed in entry 0.
const promise = 24 * time.Hour

// semantics are the versions of the folds that begin with entry 0.
var semantics = []string{"fold-1"}

const configTemplate = `# Configuration of logserver. Unknown keys are errors. Paths are relative to
# this file. What is not here has its default; cmd/logserver/config.go has all.

# The log's name in every checkpoint and event. It can never change.
origin: %s

# Where to serve; port 0 takes a free one. The file addr says what was bound.
listen: %s
# Where to serve /metrics; empty for nowhere. The file admin.addr says what was bound.
admin_listen: 127.0.0.1:0

# Keep the anchor on another disk if you can: it is what finds out that
# data_dir was restored from an old backup.
data_dir: data
anchor_dir: anchor
checkpoint_key: keys/checkpoint.key
receipt_key: keys/receipt.key

# tls:
#   cert: cert.pem
#   key: key.pem
#   client_ca: clients.pem   # demand client certificates as well

# A checkpoint is signed every round while there is work, and published every
# publish; an idle log publishes every idle_publish.
round: 50ms
publish: 1s
idle_publish: 10m
`

func cmdInit(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	fs := newFlags("init", errOut, `logserver init -dir DIR -origin ORIGIN [-listen ADDR]

Makes a new log in DIR: two signing keys, the configuration, entry 0 with the
keys, and an administrator's token. Nothing may be there already.

Example:
  logserver init -dir mylog -origin log.example.com/2026
`)
	dir := fs.String("dir", "", "`folder` to make")
	origin := fs.String("origin", "", "the log's `name`, such as log.example.com/2026; it can never change")
	listen := fs.String("listen", defaults().Listen, "`address` to serve on")
	if code, done := parseFlags(fs, args, out); done {
		return code
	}
	if *dir == "" || *origin == "" || fs.NArg() != 0 {
		fs.Usage()
		return exitUsage
	}
	logger := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := initLog(ctx, *dir, *origin, *listen, logger); err != nil {
		printf(errOut, "logserver: init %s: %v\n", *dir, err)
		return exitCode(err)
	}
	printf(out, `Made log %s in %s
  log.vkey, receipt.vkey  the log's public keys: give them to auditors by another channel than the log
  policy                  the same as a tlog-policy file, with no witnesses yet
  admin.token             the administrator's token (secret)
  keys/                   the signing keys (secret; back them up apart from the data)
Next: logserver serve -config %s
`, *origin, *dir, filepath.Join(*dir, "config.yaml"))
	return exitOK
}

// initLog makes the log beside its place, and moves it there when it is whole.
func initLog(ctx context.Context, dir, origin, listen string, logger *slog.Logger) error {
	dir = filepath.Clean(dir)
	if names, err := os.ReadDir(dir); len(names) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(fmt.Errorf("%w: the folder is not empty", errUsage), err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".part")
	if err != nil {
		return err
	}
	if err := fillLog(ctx, part, origin, listen, logger); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	if err := os.Rename(part, dir); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return disk.OS().SyncDir(filepath.Dir(dir))
}

func fillLog(ctx context.Context, dir, origin, listen string, logger *slog.Logger) error {
	file := filepath.Join(dir, "config.yaml")
	c := defaults()
	c.Origin, c.Listen = origin, listen
	if err := errors.Join(c.validate(), refuseTestKey(origin)); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o700); err != nil {
		return err
	}
	vkey, err := makeKey(filepath.Join(dir, c.CheckpointKey), origin)
	if err != nil {
		return err
	}
	receiptVKey, err := makeKey(filepath.Join(dir, c.ReceiptKey), log.ReceiptKeyName(origin))
	if err != nil {
		return err
	}
	files := map[string]string{
		"config.yaml":  fmt.Sprintf(configTemplate, origin, listen),
		"log.vkey":     vkey + "\n",
		"receipt.vkey": receiptVKey + "\n",
		"policy":       "# Check these keys by another channel than the one this file came by.\nlog " + vkey + "\nlog " + receiptVKey + "\nquorum none\n",
	}
	for name, text := range files {
		if err := writeNew(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if c, err = readConfig(file); err != nil {
		return err
	}
	return firstEntries(ctx, c, vkey, receiptVKey, logger)
}

// firstEntries makes entry 0, which names the keys, and the administrator's token.
func firstEntries(ctx context.Context, c Config, vkey, receiptVKey string, logger *slog.Logger) error {
	key, err := readKey(c.CheckpointKey, c.Origin)
	if err != nil {
		return err
	}
	j, err := journal.Create(c.journalConfig(logger, 0))
	if err != nil {
		return err
	}
	_, err = j.Append(ctx, []log.Record{entryZero(c, vkey, receiptVKey)})
	if err == nil {
		err = tiles.Create(c.tilesConfig(key, j, logger))
	}
	if err := errors.Join(err, j.Close()); err != nil {
		return fmt.Errorf("write entry 0: %w", err)
	}
	return withLedger(ctx, c, logger, func(ctx context.Context, l *ledger) error {
		a, err := l.createToken(ctx, local("log"), tokenRequest{Principal: "admin", Role: "admin", ExpiresDays: tokenDaysMax})
		if err != nil {
			return err
		}
		return writeNew(filepath.Join(c.dir, "admin.token"), []byte(a.Token+"\n"), 0o600)
	})
}

// entryZero is the log's own statement of its keys.
func entryZero(c Config, vkey, receiptVKey string) log.Record {
	event, payload := serverEvent{
		kind: "log.open", stream: streamOpen, by: "log",
		payload: log.LogOpen{
			Origin: c.Origin, PromiseMS: uint64(promise.Milliseconds()), Semantics: semantics,
			Keys: []log.LogKey{{Purpose: log.PurposeCheckpoint, VKey: vkey}, {Purpose: log.PurposeReceipt, VKey: receiptVKey}},
		}.Marshal(),
	}.event()
	payload.Lasting = true
	event.Log, event.Seq, event.Prev = c.Origin, 1, log.StreamStart(c.Origin, streamOpen)
	part := log.Part{Attested: log.AttestedByLog, Auth: "log", By: "log", Received: event.Time}
	rand.Read(part.Blind[:])
	return log.Record{Entry: log.Entry{Event: event, Log: part}.Marshal(), Payload: payload}
}

// withLedger runs f on an open log, without serving it.
func withLedger(ctx context.Context, c Config, logger *slog.Logger, f func(context.Context, *ledger) error) error {
	l, err := openLedger(ctx, c, logger)
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- l.run(run) }()
	err = f(ctx, l)
	stop()
	return errors.Join(err, <-ended, l.close())
}

func makeKey(file, name string) (vkey string, err error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", fmt.Errorf("make key %q: %w", name, err)
	}
	return vkey, writeNew(file, []byte(skey+"\n"), 0o600)
}

// writeNew writes a file that must not exist, durably. One that it cannot write whole it removes: who frees the disk
// and tries again must not find half a key in the way.
func writeNew(file string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, errors.Join(err, os.Remove(file)))
	}
	return nil
}

func trimLine(b []byte) []byte { return []byte(strings.TrimSuffix(string(b), "\n")) }

// newFlags makes a command's flags, with its help.
func newFlags(name string, errOut io.Writer, help string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(errOut)
	fs.Usage = func() {
		printf(fs.Output(), "Usage: %s\nFlags:\n", help)
		fs.PrintDefaults()
	}
	return fs
}

// parseFlags parses args; done means that the command ends with code.
func parseFlags(fs *flag.FlagSet, args []string, out io.Writer) (code int, done bool) {
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			fs.SetOutput(out)
			fs.Usage()
			return exitOK, true
		}
	}
	if err := fs.Parse(args); err != nil {
		return exitUsage, true
	}
	return 0, false
}
