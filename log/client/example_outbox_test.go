package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/pipe-roll/piperoll/log/client"
)

// A service that may be killed at any time: it runs again with the same outbox, asks
// its stream how far it was, and goes on from there.
func Example_resume() {
	f := newFake(nil) // a log in memory
	srv := httptest.NewServer(f)
	defer srv.Close()
	f.url = srv.URL
	dir, err := os.MkdirTemp("", "piperoll")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	rows := []string{"Ada", "Grace", "Edsger", "Barbara", "Donald"}

	// life is the service, from its start to its end, after so many rows.
	life := func(ctx context.Context, most int) (err error) {
		cfg := f.config()
		cfg.Outbox = &client.OutboxConfig{Dir: filepath.Join(dir, "outbox")}
		c, err := client.New(cfg)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		// Opened the first time, resumed every other time.
		m, err := c.OpenMigration(ctx, "crm-2026", client.MigrationConfig{Streams: []string{"customers"}})
		if err != nil {
			return err
		}
		if m.Closed() {
			fmt.Println("nothing is left to do")
			return c.Wait(ctx) // for what the last life did not see through
		}
		s, err := m.OpenStream(ctx, "customers")
		if err != nil {
			return err
		}
		done := int(s.End().Last) - 1 // events, beside stream.open
		fmt.Println("rows in the log or on their way:", done)
		for _, name := range rows[done:min(done+most, len(rows))] {
			payload := fmt.Appendf(nil, `{"name":%q}`, name)
			// On its way for good when Put returns; Append would wait for the receipt.
			if err := s.Put(ctx, client.Event{Kind: "migration.load", Payload: payload}); err != nil {
				return err
			}
		}
		if done+most < len(rows) {
			return errors.New("killed")
		}
		return errors.Join(m.Close(ctx), c.Wait(ctx))
	}
	ctx := context.Background()
	fmt.Println(life(ctx, 2))
	fmt.Println(life(ctx, 1))
	fmt.Println(life(ctx, 9))
	fmt.Println(life(ctx, 9))
	// Output:
	// rows in the log or on their way: 0
	// killed
	// rows in the log or on their way: 2
	// killed
	// rows in the log or on their way: 3
	// <nil>
	// nothing is left to do
	// <nil>
}
