package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
)

const keysHelp = `logserver keys new    -principal NAME -out FILE [-origin ORIGIN]
       logserver keys list   -url URL -token-file FILE
       logserver keys add    -url URL -token-file FILE -principal NAME -vkey VKEY [-proof BASE64]
       logserver keys revoke -url URL -token-file FILE -id HEX [-compromised-since INDEX]

new makes an Ed25519 key pair: the private half in FILE (mode 0600), which stays
with the service; the public half on standard output, for the administrator and
for auditors. With -origin, a second line has the signature that proves
possession to that log. The others ask a server; add and revoke need admin.

Examples:
  logserver keys new -principal crm-migrator -out crm.key > crm.vkey
  logserver keys list -url $URL -token-file admin.token
  logserver keys revoke -url $URL -token-file admin.token -id 1f…
`

func cmdKeys(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "new":
		return keysNew(args, out, errOut)
	case "list", "add", "revoke":
		return keysRemote(ctx, verb, args, out, errOut)
	case "-h", "-help", "--help", "help":
		printf(out, "Usage: %s", keysHelp)
		return exitOK
	}
	printf(errOut, "Usage: %s", keysHelp)
	return exitUsage
}

func keysNew(args []string, out, errOut io.Writer) int {
	fs := newFlags("keys new", errOut, keysHelp)
	principal := fs.String("principal", "", "whose key it is, a `name`")
	file := fs.String("out", "", "`file` for the private half")
	origin := fs.String("origin", "", "`origin` of a log to prove possession to")
	if code, done := parseFlags(fs, args, out); done {
		return code
	}
	if !log.ValidName(*principal) || *file == "" || fs.NArg() != 0 {
		fs.Usage()
		return exitUsage
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, *principal)
	if err == nil {
		err = writeNew(*file, []byte(skey+"\n"), 0o600)
	}
	if err != nil {
		printf(errOut, "logserver: keys new: %v\n", err)
		return exitCode(err)
	}
	printf(out, "%s\n", vkey)
	if *origin == "" {
		return exitOK
	}
	seed, err := seedOf(skey)
	if err != nil {
		printf(errOut, "logserver: keys new: %v\n", err)
		return exitCode(err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	proof := ed25519.Sign(key, log.PossessionText(*origin, *principal, log.PublicKey(key.Public().(ed25519.PublicKey))))
	printf(out, "%s\n", base64.StdEncoding.EncodeToString(proof))
	return exitOK
}

func keysRemote(ctx context.Context, verb string, args []string, out, errOut io.Writer) int {
	var r remote
	var add keyRequest
	var id string
	since := int64(-1)
	return clientCommand("keys", args, out, errOut, keysHelp, &r, func(fs *flag.FlagSet) {
		switch verb {
		case "add":
			fs.StringVar(&add.Principal, "principal", "", "whose key it is, a `name`")
			fs.StringVar(&add.VKey, "vkey", "", "public `key`")
			fs.StringVar(&add.Proof, "proof", "", "`signature` that proves possession")
		case "revoke":
			fs.StringVar(&id, "id", "", "`id` of the key, as list prints it")
			fs.Int64Var(&since, "compromised-since", -1, "`index` from which its signatures are doubtful")
		}
	}, func(*flag.FlagSet) error {
		switch verb {
		case "list":
			return r.listKeys(ctx, out)
		case "add":
			return r.sendJSON(ctx, out, http.MethodPost, "/v1/keys", add)
		}
		var req revokeRequest
		if since >= 0 {
			n := uint64(since)
			req.CompromisedSince = &n
		}
		return r.sendJSON(ctx, out, http.MethodDelete, "/v1/keys/"+url.PathEscape(id), req)
	})
}

func (r *remote) sendJSON(ctx context.Context, out io.Writer, method, path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	answer, _, err := r.do(ctx, method, path, "application/json", b)
	if err != nil {
		return err
	}
	_, err = out.Write(answer)
	return err
}

// listKeys folds the log's key entries, and prints what is registered.
func (r *remote) listKeys(ctx context.Context, out io.Writer) error {
	revoked := make(map[string]uint64)
	err := r.search(ctx, url.Values{"kind": {"key.revoked"}}, func(item foundJSON) (bool, error) {
		e, err := item.parse()
		for _, o := range e.Event.Objects {
			if o.Role == "key" {
				revoked[o.Name] = item.Index
			}
		}
		return true, err
	})
	if err != nil {
		return err
	}
	return r.search(ctx, url.Values{"kind": {"key.registered"}}, func(item foundJSON) (bool, error) {
		e, err := item.parse()
		if err != nil {
			return false, err
		}
		var id, principal string
		for _, o := range e.Event.Objects {
			switch o.Role {
			case "key":
				id = o.Name
			case "principal":
				principal = o.Name
			}
		}
		state := "valid"
		if i, ok := revoked[id]; ok {
			state = fmt.Sprintf("revoked by entry %d", i)
		}
		if _, err := hex.DecodeString(id); err != nil {
			return false, fmt.Errorf("%w: entry %d names key %q", errCheck, item.Index, id)
		}
		_, err = fmt.Fprintf(out, "%s %s registered by entry %d, %s\n", id, principal, item.Index, state)
		return true, err
	})
}
