package log

import (
	"maps"
	"slices"
	"strings"
)

// An auditMigration is a migration as far as its entries are at hand.
type auditMigration struct {
	Migration
	plain      bool // only kinds of customers and of streams: nobody said it would be opened
	entries    uint64
	refused    uint64 // events whose seq a refusal took
	noOpen     bool   // the payload of migration.open is not at hand
	end        *MigrationClose
	unreadable []string // streams whose stream.open has no payload at hand
}

func (a *Audit) migration(x Exhibit, open *StreamOpen) {
	e, by := x.Entry.Event, x.Entry.Log.By
	if e.Migration == serverMigration {
		return
	}
	m := a.migrations[e.Migration]
	if m == nil {
		m = &auditMigration{Migration: Migration{Name: e.Migration}, plain: true}
		a.migrations[e.Migration] = m
	}
	m.entries++
	m.plain = m.plain && (strings.HasPrefix(e.Kind, "x.") || strings.HasPrefix(e.Kind, "stream."))
	listed := open
	if m.noOpen {
		listed = nil // what migration.open lists is not known
	}
	if err := m.Check(e, by, listed); err != nil {
		a.f.Fail("integrity.migration", "entry %d: %v", x.Index, err)
	}
	var opened *MigrationOpen
	switch e.Kind {
	case "stream.open":
		if open == nil {
			m.unreadable = append(m.unreadable, e.Stream)
		}
	case "migration.open":
		opened = a.migrationOpen(m, x)
	case "migration.close":
		a.migrationClose(m, x)
	}
	m.Advance(e, by, opened)
}

func (a *Audit) migrationOpen(m *auditMigration, x Exhibit) *MigrationOpen {
	m.noOpen = true
	if x.Payload == nil {
		return nil
	}
	o, err := ParseMigrationOpen(x.Payload)
	if err != nil {
		a.unreadable("integrity.migration", x, err)
		return nil
	}
	for _, st := range o.Streams {
		if !strings.HasPrefix(st.Stream, m.Name+"/") {
			a.f.Fail("integrity.migration", "entry %d: migration.open of %q lists stream %q", x.Index, m.Name, st.Stream)
		}
	}
	a.listed += len(o.Streams)
	m.noOpen = false
	return &o
}

func (a *Audit) migrationClose(m *auditMigration, x Exhibit) {
	if x.Payload == nil {
		return
	}
	end, err := ParseMigrationClose(x.Payload)
	if err != nil {
		a.unreadable("integrity.migration", x, err)
		return
	}
	a.listed += len(end.Streams)
	m.end = &end
}

// finishMigrations says which migrations are complete: every one that is seen
// or asked for is, or what is missing.
func (a *Audit) finishMigrations() {
	streams := make(map[string][]Stream)
	for _, name := range slices.Sorted(maps.Keys(a.streams)) {
		s := a.streams[name]
		streams[s.Migration] = append(streams[s.Migration], s.Stream)
	}
	for _, name := range a.c.Migrations {
		if a.migrations[name] == nil {
			a.f.Fail("complete.migration", "INCOMPLETE: migration %q: no entry of it is at hand", name)
		}
	}
	complete, entries := 0, uint64(0)
	for _, name := range slices.Sorted(maps.Keys(a.migrations)) {
		m := a.migrations[name]
		if m.plain && m.Owner == "" && !slices.Contains(a.c.Migrations, name) {
			a.f.Skip("complete.other", "%d entries of %q: never opened as a migration, so nothing says where it ends", m.entries, name)
			continue
		}
		if a.later[name] {
			a.f.Skip("complete.migration", "migration %q: payloads of it are of a version that this program does not know", name)
			continue
		}
		missing := m.missing(streams[name])
		for _, what := range missing {
			a.f.Fail("complete.migration", "INCOMPLETE: migration %q: %s", name, what)
		}
		switch {
		case len(missing) > 0:
		case m.refused > 0:
			a.f.Skip("complete.migration", "migration %q: %d of its events were refused: the log alone says so, and they are not at hand", name, m.refused)
		default:
			complete++
			entries += m.entries
		}
	}
	a.f.Pass("integrity.migration", "every event fits the state of its migration")
	if complete == 0 {
		a.f.Skip("complete.migration", "no complete migration is at hand")
		return
	}
	a.f.Pass("complete.migration", "%d migrations with %d entries: every stream is at hand, from its opening to its end", complete, entries)
}

// missing names everything that the migration lacks.
func (m *auditMigration) missing(streams []Stream) (all []string) {
	if m.Owner == "" {
		all = append(all, "migration.open is missing")
	} else if m.noOpen {
		all = append(all, "the payload of migration.open is missing or unreadable")
	}
	for _, s := range m.unreadable {
		all = append(all, "the payload of stream.open of "+s+" is missing or unreadable")
	}
	switch {
	case !m.Closed:
		return append(all, "migration.close is missing: it is not closed, or its end is withheld")
	case m.end == nil:
		return append(all, "the payload of migration.close is missing or unreadable")
	}
	if err := m.CheckAccount(*m.end, streams); err != nil {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				all = append(all, e.Error())
			}
		}
	}
	return all
}
