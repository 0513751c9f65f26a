package log

import (
	"errors"
	"slices"
	"testing"
)

// Migrations of which one's name begins the other's share names of streams:
// by its name crm/x/a can be of crm/x and of crm. A principal that owns it in
// the one must not reach the other through it.
func TestStreamBelongsToOneMigration(t *testing.T) {
	const victim, own, stream, thief = "crm", "crm/x", "crm/x/a", "thief"
	opening := StreamOpen{Mode: ModeLogKept, Owner: thief}
	opened := NewStream(auditOrigin, stream)
	first := Event{Log: auditOrigin, Kind: "stream.open", Migration: own, Stream: stream, Seq: 1, Prev: opened.Hash}
	if err := opened.Check(first, thief); err != nil {
		t.Fatal(err)
	}
	opened.Advance(first, first.Hash(), 0, &opening, true)

	for name, kind := range map[string]string{
		"takeover":  "migration.open",  // its opener would own the victim's migration
		"closing":   "migration.close", // nothing could follow in it
		"poisoning": "migration.load",  // an event that no account lists
	} {
		s := opened
		e := Event{Log: auditOrigin, Kind: kind, Migration: victim, Stream: stream, Seq: 2, Prev: s.Hash}
		if err := checkStreamName(stream, victim); err != nil {
			t.Fatalf("%s: the name alone tells: %v", name, err)
		}
		if err := s.Check(e, thief); !errors.Is(err, ErrMigration) {
			t.Errorf("%s: Stream.Check = %v, want %v", name, err, ErrMigration)
		}
		// Who has the state of one migration at hand takes no event of another.
		for _, m := range []Migration{{Name: own}, {Name: own, Owner: thief, Control: stream}} {
			if err := m.Check(e, thief, nil); !errors.Is(err, ErrMigration) {
				t.Errorf("%s: Migration.Check with the state of %q = %v, want %v", name, own, err, ErrMigration)
			}
		}
		e.Migration = own
		if err := s.Check(e, thief); err != nil {
			t.Errorf("%s within %q: Stream.Check = %v", name, own, err)
		}
	}
}

// A log that let it happen is found, also if the audit has only a part of the stream.
func TestAuditOfStreamThatChangesItsMigration(t *testing.T) {
	for name, drop := range map[string][]uint64{"all at hand": nil, "with a gap": {4, 5}} {
		l := newFakeLog(t)
		l.add(auditOrigin, "log/open", "log.open", LogOpen{Origin: auditOrigin}.Marshal())
		l.add("thief", "crm/x/a", "stream.open", StreamOpen{nil, ModeLogKept, "thief"}.Marshal())
		l.add("victim", "crm/control", "stream.open", StreamOpen{nil, ModeLogKept, "victim"}.Marshal())
		l.add("victim", "crm/control", "migration.open", MigrationOpen{}.Marshal())
		for range 3 { // entries 4 to 6
			l.add("thief", "crm/x/a", "migration.load", nil)
		}
		// Its opening was in crm/x: the others, in crm, were to be refused.
		l.entries[1].Entry.Event.Migration = "crm/x"
		for before, i := 1, 4; i <= 6; before, i = i, i+1 {
			l.entries[i].Entry.Event.Prev = l.entries[before].Entry.Event.Hash()
		}
		l.entries = slices.DeleteFunc(l.entries, func(x Exhibit) bool { return slices.Contains(drop, x.Index) })
		if failed, _ := audited(t, AuditConfig{Origin: auditOrigin}, l.entries); !slices.Contains(failed, "integrity.chain") {
			t.Errorf("%s: %v fails, want integrity.chain", name, failed)
		}
	}
}
