package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
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

// Keep what is not acknowledged, and what a log is caught at.
func ExampleStream_Append() {
	deal := func(err error) string {
		var evidence *client.Evidence
		var refused *client.Refused
		switch {
		case errors.As(err, &evidence):
			// The log contradicts itself. Save it, and stop.
			return "stop: " + string(evidence.Claim)
		case errors.Is(err, client.ErrUnacknowledged):
			// No answer: Flush, or the next Append, sends the same again.
			return "flush later"
		case errors.As(err, &refused):
			// Nothing of the request is in the log.
			return "refused: " + refused.Title
		}
		return "done"
	}
	fmt.Println(deal(nil))
	fmt.Println(deal(&client.Refused{Status: 403, Title: "not permitted"}))
	fmt.Println(deal(fmt.Errorf("append: %w", client.ErrUnacknowledged)))
	// Output:
	// done
	// refused: not permitted
	// flush later
}
