package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"golang.org/x/mod/sumdb/note"
)

// Move a table and log every step.
func Example() {
	f := newFake(nil) // a log in memory
	srv := httptest.NewServer(f)
	defer srv.Close()

	ctx := context.Background()
	c, err := client.New(client.Config{
		URL: srv.URL, Token: token,
		LogKey: f.vkey, ReceiptKey: f.receiptVKey, // by another way than the URL
		Principal: "crm-migration", Key: f.key,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := c.OpenMigration(ctx, "crm-2026", client.MigrationConfig{Streams: []string{"customers"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := m.OpenStream(ctx, "customers")
	if err != nil {
		fmt.Println(err)
		return
	}
	placed, err := s.Append(
		ctx,
		client.Event{Kind: "migration.extract", Objects: []log.Object{{Name: "crm.customers", Role: "source"}}, Payload: []byte(`{"rows":1000}`)},
		client.Event{Kind: "migration.load", Objects: []log.Object{{Name: "erp.partners", Role: "target"}}, Payload: []byte(`{"rows":998}`)},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	// Durable now. Close lists what there is; after Wait it is proven to be in the log.
	if err := errors.Join(m.Close(ctx), c.Wait(ctx)); err != nil {
		fmt.Println(err)
		return
	}
	proof, err := c.Proof(ctx, placed[1])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("events:", len(placed))
	fmt.Println("proven: entry", proof.Index)
	// Output:
	// events: 2
	// proven: entry 5
}

// Make a key, and what registers it.
func ExampleNewKey() {
	dir, err := os.MkdirTemp("", "piperoll")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	key, err := client.NewKey()
	if err != nil {
		fmt.Println(err)
		return
	}
	path := filepath.Join(dir, "crm.key")
	if err := client.WriteKeyFile(path, "crm-migration", key); err != nil {
		fmt.Println(err)
		return
	}
	name, key, err := client.ReadKeyFile(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	proof := client.PossessionProof("log.example.com/2026", name, key)
	fmt.Println(name, len(proof))
	// Output: crm-migration 64
}

// What can come of an append, and what to do then.
func ExampleStream_Append() {
	f := newFake(nil) // a log in memory, which can be made to fail
	srv := httptest.NewServer(f)
	defer srv.Close()
	f.url = srv.URL
	ctx := context.Background()
	c, err := client.New(f.config())
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := c.OpenMigration(ctx, "crm-2026", client.MigrationConfig{Streams: []string{"customers"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := m.OpenStream(ctx, "customers")
	if err != nil {
		fmt.Println(err)
		return
	}
	load := func() {
		placed, err := s.Append(ctx, client.Event{Kind: "migration.load", Payload: []byte(`{"rows":998}`)})
		fmt.Print(len(placed), " acknowledged; ")
		var evidence *client.Evidence
		var refused *client.Refused
		switch {
		case errors.As(err, &evidence):
			// The log contradicts itself: keep it with Save, and stop.
			fmt.Println("caught:", evidence.Claim)
		case errors.Is(err, client.ErrUnacknowledged):
			// Nobody knows: Flush, or the next Append before anything else, sends the same again.
			fmt.Println("in doubt:", s.Unacknowledged())
		case errors.As(err, &refused):
			// Nothing of it is in the log. The stream can go on.
			fmt.Println("refused:", refused.Title)
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println("done")
		}
	}
	answer := func(status int, title string) {
		f.with(func() {
			f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				f.problem(w, status, title, "says the example", nil)
				return true
			}
		})
	}
	load()
	answer(http.StatusForbidden, "forbidden")
	load()
	answer(http.StatusServiceUnavailable, "read-only")
	load()
	f.with(func() { f.before = nil })
	load() // and what was in doubt
	f.with(func() {
		f.receipt = func(r *log.Receipt) note.Signer { r.Leaves[0] ^= 1; return nil }
	})
	load()
	// Output:
	// 1 acknowledged; done
	// 0 acknowledged; refused: forbidden
	// 0 acknowledged; in doubt: 1
	// 2 acknowledged; done
	// 0 acknowledged; caught: receipt
}
