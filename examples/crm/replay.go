package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
)

// lineageType is the payload type of an OpenLineage event.
const lineageType = "application/vnd.openlineage+json"

// lineageStream is the stream of a replay.
const lineageStream = "openlineage"

func runReplay(ctx context.Context, args []string, out, errOut io.Writer) error {
	var o options
	var files fileList
	set := flag.NewFlagSet("crm replay", flag.ContinueOnError)
	o.flags(set, "openlineage-replay")
	set.Var(&files, "events", "`file` of OpenLineage events, JSON or NDJSON; may be repeated, and more may follow the flags")
	if err := o.parse(set, args, errOut); err != nil {
		return err
	}
	files = append(files, set.Args()...)
	if len(files) == 0 {
		return fmt.Errorf("%w: no files of events; see crm replay -help", errUsage)
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("make the service's directory: %w", err)
	}
	key, err := ownKey(filepath.Join(o.dir, "object.key"))
	if err != nil {
		return err
	}
	// All files are read before anything is logged: a bad file at the end
	// would leave half a replay, and events are for ever.
	events, err := readLineage(files, key)
	if err != nil {
		return err
	}
	keep, err := newKeeper(o.out)
	if err != nil {
		return err
	}
	return replay(ctx, o, events, keep, out)
}

func replay(ctx context.Context, o options, events []client.Event, keep *keeper, out io.Writer) error {
	started := time.Now()
	a, err := openAudit(ctx, o.log, o.migration, []string{lineageStream}, keep)
	if err != nil {
		return err
	}
	if err := a.append(ctx, lineageStream, events...); err != nil {
		return err
	}
	if err := a.caught(a.migration.Close(ctx)); err != nil {
		return err
	}
	if err := a.finish(ctx); err != nil {
		return err
	}
	printf(out, "%d OpenLineage events logged, all under a published checkpoint after %.1f s\n", a.events, time.Since(started).Seconds())
	return nil
}

// A fileList is a flag that can be repeated.
type fileList []string

func (l *fileList) String() string { return fmt.Sprint(*l) }

// Set adds a file.
func (l *fileList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// readLineage reads files of OpenLineage events. It reports every bad file.
func readLineage(files []string, key []byte) ([]client.Event, error) {
	var all []client.Event
	var errs []error
	for _, name := range files {
		events, err := readLineageFile(name, key)
		if err != nil {
			errs = append(errs, fmt.Errorf("read events of %s: %w", name, err))
		}
		all = append(all, events...)
	}
	return all, errors.Join(errs...)
}

func readLineageFile(name string, key []byte) (events []client.Event, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// NDJSON and a single event are both a sequence of JSON values.
	d := json.NewDecoder(bufio.NewReader(f))
	for n := 1; ; n++ {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return nil, fmt.Errorf("event %d: %w", n, err)
		}
		e, err := lineageEvent(bytes.Clone(raw), key)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", n, err)
		}
		events = append(events, e)
	}
}

// A lineage is the part of an OpenLineage event (spec 2-0-2) that the log's
// event speaks of. The rest is in the payload, every byte of it.
type lineage struct {
	Run      *struct{ RunID string }
	Job      *named
	Dataset  *named
	Inputs   []named
	Outputs  []named
	Producer string
}

type named struct{ Namespace, Name string }

// lineageEvent makes the log's event of an OpenLineage event. The payload is
// the event's own bytes: what the producer said, not what we made of it.
func lineageEvent(raw, key []byte) (client.Event, error) {
	var l lineage
	if err := json.Unmarshal(raw, &l); err != nil {
		return client.Event{}, err
	}
	e := client.Event{Type: lineageType, Payload: raw}
	switch {
	case l.Producer == "":
		return client.Event{}, errors.New("no producer: this is not an OpenLineage event")
	case l.Run != nil && l.Run.RunID != "" && l.Job != nil:
		e.Kind = "lineage.run"
		e.Objects = append(e.Objects, log.Object{Name: opaque(key, "run", l.Run.RunID), Role: "run"})
	case l.Run == nil && l.Job != nil:
		e.Kind = "lineage.job"
	case l.Run == nil && l.Dataset != nil:
		e.Kind = "lineage.dataset"
	default:
		return client.Event{}, errors.New("neither a run of a job, nor a job, nor a dataset: this is not an OpenLineage event")
	}
	if l.Job != nil {
		e.Objects = append(e.Objects, l.Job.object(key, "job"))
	}
	if l.Dataset != nil {
		e.Objects = append(e.Objects, l.Dataset.object(key, "dataset"))
	}
	for _, d := range l.Inputs {
		e.Objects = append(e.Objects, d.object(key, "input"))
	}
	for _, d := range l.Outputs {
		e.Objects = append(e.Objects, d.object(key, "output"))
	}
	e.Objects = distinct(e.Objects)
	return e, nil
}

// object names a job or dataset by an opaque id: names of files and tables can
// name a person, and an event can never be erased. The name is in the payload.
func (n named) object(key []byte, role string) log.Object {
	kind := "dataset"
	if role == "job" {
		kind = "job"
	}
	return log.Object{Name: opaque(key, kind, n.Namespace+"\n"+n.Name), Role: role}
}

// opaque gives the same id for the same thing, as long as the key is kept.
func opaque(key []byte, kind, name string) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("lineage/" + kind + "\n" + name))
	return "o:" + hex.EncodeToString(m.Sum(nil)[:16])
}

// distinct drops repeated objects, and those over the log's limit: an event
// with more datasets can be found by the first ones, and holds all in its payload.
func distinct(objects []log.Object) []log.Object {
	var kept []log.Object
	for _, o := range objects {
		if !slices.Contains(kept, o) && len(kept) < log.ObjectsMax {
			kept = append(kept, o)
		}
	}
	return kept
}
