package sequencer

import (
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// Names of migrations nest. Nobody gets at crm through a stream of crm/x that
// crm could have by its name: not in one batch with its opening, nor later.
func TestNobodyTakesOverAnothersMigration(t *testing.T) {
	w := newWorld(t, nil)
	victim := w.service("victim", "crm/control")
	victim.must(victim.request("stream.open", victim.opening(), "migration.open", log.MigrationOpen{}.Marshal()))
	thief := w.service("thief", "crm/x/a")

	// nested makes the thief's next request: the first own events are of crm/x, the others of crm.
	nested := func(own int, events ...any) Request {
		r := thief.request(events...)
		hash := thief.stream.Hash
		for i := range r.Events {
			if i < own {
				r.Events[i].Migration = "crm/x"
			}
			r.Events[i].Prev = hash
			hash = r.Events[i].Hash()
		}
		thief.sign(&r)
		return r
	}
	attacks := map[string][]any{
		"takeover":  {"migration.open", log.MigrationOpen{}.Marshal()},
		"closing":   {"migration.close", log.MigrationClose{}.Marshal()},
		"poisoning": {"migration.load", nil},
	}
	for name, attack := range attacks {
		t.Log(name, "in a batch")
		w.refused(nested(1, append([]any{"stream.open", thief.opening()}, attack...)...), log.ErrMigration)
	}
	thief.must(nested(1, "stream.open", thief.opening()))
	for name, attack := range attacks {
		t.Log(name, "in a request of its own")
		w.refused(nested(0, attack...), log.ErrMigration)
	}
	thief.must(nested(2, "migration.open", log.MigrationOpen{}.Marshal(), "migration.close", log.MigrationClose{}.Marshal()))

	if m := w.seq.state.migrations["crm"]; m.Owner != "victim" || m.Closed || m.Control != "crm/control" {
		t.Errorf("migration crm is %+v, want it as the victim opened it", m.Migration)
	}
	victim.must(victim.request("migration.close", log.MigrationClose{}.Marshal()))
	w.check()
}
