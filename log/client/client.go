// Package client is the SDK for services that log a data migration.
//
// A [Client] opens a [Migration], the migration opens a [Stream] for each thing
// that is moved, and [Stream.Append] logs events. The client chains and signs
// them, keeps the salts of their payloads' commitments, sends them in batches
// and tries again until they are acknowledged. [Client.Wait] returns when all of
// it is under a published checkpoint.
//
// Nothing that the log says is believed. The client rebuilds each entry from its
// own event and the log's part, so that a leaf hash is its own; checks each
// receipt against these hashes; checks each entry's inclusion under a checkpoint
// of the log's key; and checks that each checkpoint extends the one before. What
// contradicts what the log signed is an [*Evidence], and the last thing that the
// client does: it never goes on from a head that it did not compute.
//
// An acknowledged event is durable on the log's machine. It is final under a
// published checkpoint; witnesses' cosignatures are the auditor's to judge.
//
// Left out so far: an outbox on disk, so events that are not acknowledged are
// lost with the process, and acknowledged ones are kept as leaf hashes alone until
// they are proven: when a log loses them the client can show it, and cannot submit
// them again (the outbox will); and going on with a stream that another process began.
//
// The package trusts the keys and the clock that it is given. Formats: ../FORMAT.md.
package client

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/reader"
	"golang.org/x/mod/sumdb/note"
)

// tilesMax bounds the tiles of 16 KiB that are kept to make proofs from.
const tilesMax = 512

// Config says which log a client writes to, and as whom.
type Config struct {
	URL        string             // of the log, such as "https://log.example.org"
	Token      string             // of the principal
	LogKey     string             // vkey that signs checkpoints; its name is the log's origin
	ReceiptKey string             // vkey that signs receipts; its name is ORIGIN/receipt
	Principal  string             // whose token it is, and whose streams
	Key        ed25519.PrivateKey // signs the streams; registered for the principal

	// Checkpoint is the last one that was seen of this log, a signed note: see
	// [Client.Checkpoint]. Newer ones have to extend it. Nil: the first is believed.
	Checkpoint []byte

	HTTP *http.Client // nil: one with up to 64 idle connections
	TLS  *tls.Config  // of that one: roots and a client certificate; nil: the system's roots. Not with HTTP

	// AllowPlainHTTP lets the token go over HTTP without TLS to another machine, where
	// whoever listens on the way can take it.
	AllowPlainHTTP bool

	BatchEvents   int // events in a request, at most; 0 means 100
	BatchBytes    int // bytes of a request, unless one event alone has more; 0 means 1 MiB
	PendingEvents int // acknowledged events that wait for their proof, about; 0 means 250,000. Then Append waits

	// PromiseMax is the longest time until publication that a receipt may promise, the
	// promise_ms of the log's entry 0; 0 means 24 hours. A receipt with a later date
	// would convict nobody: it is not taken, and the request fails with [ErrPromise].
	PromiseMax time.Duration

	Attempts   int           // to send a request before giving up; 0 means 10
	BackoffMin time.Duration // before the second attempt, doubling; 0 means 100 ms
	BackoffMax time.Duration // between attempts, unless the log asks for more; 0 means 10 s
	Timeout    time.Duration // of one attempt; 0 means 1 minute

	Logger *slog.Logger     // nil: silent
	Now    func() time.Time // nil: time.Now. Times of events that have none
}

// withDefaults fills in what is left empty.
func (c Config) withDefaults() Config {
	def := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	wait := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	def(&c.BatchEvents, 100)
	def(&c.BatchBytes, 1<<20)
	def(&c.PendingEvents, 250_000)
	def(&c.Attempts, 10)
	wait(&c.BackoffMin, 100*time.Millisecond)
	wait(&c.BackoffMax, 10*time.Second)
	wait(&c.Timeout, time.Minute)
	wait(&c.PromiseMax, 24*time.Hour)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// validate reports everything that is wrong.
func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("client config: "+format, args...)) }
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		bad("URL %q: want https://HOST or http://HOST", c.URL)
	} else if u.Scheme == "http" && !loopback(u.Hostname()) && !c.AllowPlainHTTP {
		bad("URL %q would send the token without TLS to another machine: use https, or set AllowPlainHTTP", c.URL)
	}
	if c.HTTP != nil && c.TLS != nil {
		bad("TLS is for the client's own HTTP client: set it in the one that HTTP gives")
	}
	if c.Token == "" || strings.ContainsAny(c.Token, " \r\n\t") {
		bad("Token is empty or has white space in it")
	}
	if !log.ValidName(c.Principal) {
		bad("Principal %q is not a name", c.Principal)
	}
	if len(c.Key) != ed25519.PrivateKeySize {
		bad("Key has %d bytes, want %d: see NewKey and ReadKeyFile", len(c.Key), ed25519.PrivateKeySize)
	} else if err := public(c.Key).Check(); err != nil {
		bad("Key: %w", err)
	}
	origin, _, err := log.ParseVKey(c.LogKey)
	if err != nil {
		bad("LogKey: %w", err)
	} else if !log.ValidName(origin) {
		bad("LogKey: origin %q is not a name", origin)
	}
	if name, _, err := log.ParseVKey(c.ReceiptKey); err != nil {
		bad("ReceiptKey: %w", err)
	} else if name != log.ReceiptKeyName(origin) {
		bad("ReceiptKey is named %q, want %q", name, log.ReceiptKeyName(origin))
	}
	for _, n := range []int64{
		int64(c.BatchEvents), int64(c.BatchBytes), int64(c.PendingEvents), int64(c.Attempts),
		int64(c.BackoffMin), int64(c.BackoffMax), int64(c.Timeout), int64(c.PromiseMax),
	} {
		if n < 0 {
			bad("a limit is %d, want 0 for the default, or more", n)
		}
	}
	return errors.Join(errs...)
}

// A Client writes to one log as one principal. It is safe for concurrent use.
type Client struct {
	cfg        Config
	base       string // URL without a slash at the end
	origin     string
	key        log.PublicKey
	logKey     note.Verifier
	receiptKey note.Verifier
	http       *http.Client
	tree       *reader.Reader

	settling chan struct{} // held by the one goroutine that looks at checkpoints

	mu            sync.Mutex
	opening       map[string]*Migration // opened, or about to be
	pending       []pending             // acknowledged, not yet proven; in order of acknowledgement
	pendingEvents int
	seen          seen
	evidence      *Evidence
}

// New makes a client. It reports everything that is wrong with the
// configuration, and does not talk to the log.
func New(c Config) (*Client, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	logKey, err := note.NewVerifier(c.LogKey)
	if err != nil {
		return nil, fmt.Errorf("client config: LogKey: %w", err)
	}
	receiptKey, err := note.NewVerifier(c.ReceiptKey)
	if err != nil {
		return nil, fmt.Errorf("client config: ReceiptKey: %w", err)
	}
	// Following a redirect would send events, and perhaps the token, where nobody configured.
	h := c.client()
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &Client{
		cfg: c, base: strings.TrimRight(c.URL, "/"), origin: logKey.Name(), key: public(c.Key),
		logKey: logKey, receiptKey: receiptKey, http: &h,
		settling: make(chan struct{}, 1), opening: make(map[string]*Migration),
	}
	tiles := h
	tiles.Timeout = c.Timeout
	client.tree = reader.New(reader.HTTP(client.base, c.Token, &tiles), tilesMax)
	if c.Checkpoint != nil {
		cp, err := log.OpenCheckpoint(c.Checkpoint, logKey)
		if err != nil {
			return nil, fmt.Errorf("client config: Checkpoint: %w", err)
		}
		client.seen = seen{cp.Head, c.Checkpoint}
	}
	return client, nil
}

// client is the HTTP client that is configured. The default transport of the
// process is not asked for: it is the application's, and may be of any type.
func (c Config) client() http.Client {
	if c.HTTP != nil {
		return *c.HTTP
	}
	return http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 100, MaxIdleConnsPerHost: 64,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second, TLSClientConfig: c.TLS.Clone(),
	}}
}

// Origin is the log's name.
func (c *Client) Origin() string { return c.origin }

// Evidence is what the log was caught at, or nil. After that every call of the
// client, its migrations and its streams fails with it.
func (c *Client) Evidence() *Evidence {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.evidence
}

// convict keeps the first evidence, and returns what is kept.
func (c *Client) convict(e *Evidence) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.evidence == nil {
		c.evidence = e
		c.cfg.Logger.Error("caught the log", "claim", e.Claim, "err", e)
	}
	return c.evidence
}

// usable is the evidence as an error, nil if there is none.
func (c *Client) usable() error {
	if e := c.Evidence(); e != nil {
		return e
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func public(key ed25519.PrivateKey) log.PublicKey {
	return log.PublicKey(key.Public().(ed25519.PublicKey))
}
