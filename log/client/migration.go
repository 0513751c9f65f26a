package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pipe-roll/piperoll/log"
)

// controlStream is where a migration is opened and closed.
const controlStream = "control"

// A MigrationConfig says what belongs to a migration.
type MigrationConfig struct {
	// Streams are the names, without the migration's, of the streams that this
	// principal will open. A migration that lacks one of them is incomplete.
	Streams []string
	// Others are streams of other principals, by their full names. Nobody else may
	// open one in this migration.
	Others []log.StreamOwner
}

// A Migration is one migration, open. It is safe for concurrent use.
type Migration struct {
	client *Client
	name   string
	owned  bool // by this client: it has the control stream
	config MigrationConfig

	mu      sync.Mutex
	streams map[string]*Stream // by full name, the control stream apart; opened, or about to be
	control *Stream
	opened  bool
	closed  bool
}

// OpenMigration opens a migration, with its control stream. The name is for
// good: a migration is opened once in a log. After [ErrUnacknowledged] the same
// call sends the same bytes again.
func (c *Client) OpenMigration(ctx context.Context, name string, config MigrationConfig) (*Migration, error) {
	c.mu.Lock()
	m := c.opening[name]
	if m == nil {
		m = c.newMigration(name, config)
		m.owned = true
		m.control = m.newStream(controlStream)
		c.opening[name] = m
	}
	c.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opened {
		return nil, fmt.Errorf("open migration %q: it is open already", name)
	}
	if err := m.open(ctx); err != nil {
		if !errors.Is(err, ErrUnacknowledged) {
			c.mu.Lock()
			delete(c.opening, name)
			c.mu.Unlock()
		}
		return nil, fmt.Errorf("open migration %q: %w", name, err)
	}
	m.opened = true
	return m, nil
}

func (m *Migration) open(ctx context.Context) error {
	expected := slices.Clone(m.config.Others)
	for _, s := range m.config.Streams {
		expected = append(expected, log.StreamOwner{Owner: m.client.cfg.Principal, Stream: m.name + "/" + s})
	}
	slices.SortFunc(expected, func(a, b log.StreamOwner) int { return cmp.Compare(a.Stream, b.Stream) })
	payload := log.MigrationOpen{Streams: expected}.Marshal()
	if _, err := log.ParseMigrationOpen(payload); err != nil {
		return fmt.Errorf("%w; are all streams named, and each once?", err)
	}
	return m.control.start(ctx, Event{Kind: "migration.open", Type: log.JSONType, Payload: payload})
}

// JoinMigration gives a migration that another principal opens and closes. It
// only does for OpenStream; Close closes the streams opened through it.
func (c *Client) JoinMigration(name string) *Migration {
	return c.newMigration(name, MigrationConfig{})
}

func (c *Client) newMigration(name string, config MigrationConfig) *Migration {
	return &Migration{client: c, name: name, config: config, streams: make(map[string]*Stream)}
}

// Name is the migration's name.
func (m *Migration) Name() string { return m.name }

// Control is the control stream, for what concerns the migration as a whole,
// such as migration.start, migration.reconcile and migration.cutover. It is nil
// if the migration is another principal's.
func (m *Migration) Control() *Stream { return m.control }

// OpenStream opens the stream MIGRATION/NAME, signed by the client's key. After
// [ErrUnacknowledged] the same call sends the same bytes again.
func (m *Migration) OpenStream(ctx context.Context, name string) (*Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full := m.name + "/" + name
	if m.closed {
		return nil, fmt.Errorf("open stream %q: migration is %w", full, ErrClosed)
	}
	if m.control != nil && name == controlStream {
		return nil, fmt.Errorf("open stream %q: it is the control stream, see Control", full)
	}
	s := m.streams[full]
	if s != nil && s.End().Last > 0 {
		return nil, fmt.Errorf("open stream %q: it is open already", full)
	}
	if s == nil {
		s = m.newStream(name)
		m.streams[full] = s
	}
	if err := s.start(ctx); err != nil {
		if !errors.Is(err, ErrUnacknowledged) {
			delete(m.streams, full)
		}
		return nil, fmt.Errorf("open stream %q: %w", full, err)
	}
	return s, nil
}

// Close closes the streams that are still open and then, with migration.close,
// the migration: it lists the end of every stream, so that nobody can leave one
// out or cut it short. Nothing can be appended afterwards.
//
// others are the ends of the other principals' streams: what their [Stream.End]
// returns, by a way of their own. An error says what is not closed; Close can be
// called again, with the same others.
func (m *Migration) Close(ctx context.Context, others ...log.StreamEnd) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	if err := m.close(ctx, others); err != nil {
		return fmt.Errorf("close migration %q: %w", m.name, err)
	}
	m.closed = true
	return nil
}

func (m *Migration) close(ctx context.Context, others []log.StreamEnd) error {
	ends := slices.Clone(others)
	for _, s := range m.streams {
		if err := s.Close(ctx); err != nil {
			return err
		}
		ends = append(ends, s.End())
	}
	if !m.owned {
		return nil
	}
	if err := m.missing(ends); err != nil {
		return err
	}
	slices.SortFunc(ends, func(a, b log.StreamEnd) int { return cmp.Compare(a.Stream, b.Stream) })
	payload := log.MigrationClose{Streams: ends}.Marshal()
	if _, err := log.ParseMigrationClose(payload); err != nil {
		return err
	}
	return m.control.finish(ctx, Event{Kind: "migration.close", Type: log.JSONType, Payload: payload})
}

// missing says which of the announced streams have no end: a migration that
// is closed without them is incomplete for ever.
func (m *Migration) missing(ends []log.StreamEnd) error {
	announced := make([]string, 0, len(m.config.Streams)+len(m.config.Others))
	for _, s := range m.config.Streams {
		announced = append(announced, m.name+"/"+s)
	}
	for _, s := range m.config.Others {
		announced = append(announced, s.Stream)
	}
	var errs []error
	for _, name := range announced {
		if !slices.ContainsFunc(ends, func(e log.StreamEnd) bool { return e.Stream == name }) {
			errs = append(errs, fmt.Errorf("stream %q was announced and never opened: open it, or give its end", name))
		}
	}
	return errors.Join(errs...)
}
