package log

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Migration is the state of one migration: a fold over migration.open and
// migration.close, run by the sequencer and by the verifier.
type Migration struct {
	Name     string
	Owner    string        // who opened it; "" before migration.open
	Control  string        // the stream that migration.open is in
	Expected []StreamOwner // as migration.open lists them
	Closed   bool
}

// ErrMigration means that an event does not fit the state of its migration.
var ErrMigration = errors.New("event does not fit its migration")

// Check says whether e, sent by the principal by, fits. open is the payload of
// a stream.open, else nil.
func (m *Migration) Check(e Event, by string, open *StreamOpen) error {
	switch {
	case m.Name != "" && e.Migration != m.Name:
		return fmt.Errorf("%w: event of migration %q, not of %q", ErrMigration, e.Migration, m.Name)
	case m.Closed:
		return fmt.Errorf("%w: %q is closed", ErrMigration, m.Name)
	case e.Kind == "migration.open" && m.Owner != "":
		return fmt.Errorf("%w: %q is open already", ErrMigration, m.Name)
	case e.Kind == "migration.close" && m.Owner == "":
		return fmt.Errorf("%w: %q was never opened", ErrMigration, m.Name)
	case e.Kind == "migration.close" && (by != m.Owner || e.Stream != m.Control):
		return fmt.Errorf("%w: %q is closed by its owner, in stream %q", ErrMigration, m.Name, m.Control)
	case open != nil && m.Owner != "" && by != m.Owner && !slices.Contains(m.Expected, StreamOwner{open.Owner, e.Stream}):
		return fmt.Errorf("%w: migration.open does not list stream %q with owner %q", ErrMigration, e.Stream, open.Owner)
	}
	return nil
}

// Advance moves the migration over e, an event that passed Check. opened is
// the payload of a migration.open, else nil.
func (m *Migration) Advance(e Event, by string, opened *MigrationOpen) {
	m.Name = e.Migration
	switch e.Kind {
	case "migration.open":
		m.Owner, m.Control = by, e.Stream
		if opened != nil {
			m.Expected = opened.Streams
		}
	case "migration.close":
		m.Closed = true
	}
}

// CheckAccount says whether streams, all those of the migration that are at
// hand, are the whole of it: exactly those that end lists, each to its end,
// beside the control stream, which migration.close itself ends; and all that
// migration.open had announced. It reports everything that is missing.
func (m *Migration) CheckAccount(end MigrationClose, streams []Stream) error {
	var errs []error
	have := make(map[string]Stream, len(streams))
	for _, s := range streams {
		have[s.Name] = s
	}
	listed := map[string]bool{m.Control: true}
	for _, want := range end.Streams {
		listed[want.Stream] = true
		got, ok := have[want.Stream]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("stream %q, %d events, is missing", want.Stream, want.Last))
		case got.Seq != want.Last || got.Hash != want.Hash:
			errs = append(errs, fmt.Errorf("stream %q ends at seq %d, migration.close says %d", want.Stream, got.Seq, want.Last))
		}
	}
	for _, s := range streams {
		if !listed[s.Name] {
			errs = append(errs, fmt.Errorf("stream %q is not in migration.close", s.Name))
		}
	}
	for _, x := range m.Expected {
		if !listed[x.Stream] {
			errs = append(errs, fmt.Errorf("stream %q was announced by migration.open and is not in migration.close", x.Stream))
		}
	}
	if _, self := have[m.Control]; !self || !strings.HasPrefix(m.Control, m.Name+"/") {
		errs = append(errs, fmt.Errorf("control stream %q is missing", m.Control))
	}
	return errors.Join(errs...)
}
