package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// What a body is taken for is made of its own bytes, and the strict parsers of log have seen each part.
func FuzzLine(f *testing.F) {
	for _, e := range described().examples("POST /v1/events") {
		f.Add(e.text, e.contentType == ndjson)
	}
	f.Add([]byte(`{"event":{"kind":"x.csv","migration":"m1","objects":[{"role":"t","name":"a"}],"type":"text/csv","time":5},"payload_b64":"YSxi"}`), false)
	s := &site{ledger: &ledger{c: Config{Origin: testOrigin}}}
	f.Fuzz(func(t *testing.T, body []byte, several bool) {
		contentType := "application/json"
		if several {
			contentType = ndjson
		}
		texts, err := splitBody(contentType, body, 4)
		if err != nil {
			wantProblem(t, err)
			return
		}
		for _, text := range texts {
			l, err := parseLine(text)
			if err != nil {
				wantProblem(t, err)
				continue
			}
			if !bytes.Contains(text, l.event) {
				t.Fatalf("the event of %q is %q", text, l.event)
			}
			if draft, err := isDraft(l.event); err != nil {
				wantProblem(t, err)
				continue
			} else if !draft {
				continue // FuzzEvent has it
			}
			e, err := s.draft(l, principal{name: "curl"})
			if err != nil {
				wantProblem(t, err)
				continue
			}
			if again, err := log.ParseEvent(e.Marshal()); err != nil || !bytes.Equal(again.Marshal(), e.Marshal()) {
				t.Errorf("the draft %q becomes %s: %v", text, e.Marshal(), err)
			}
		}
	})
}

// wantProblem wants an error that tells the client what was wrong: a 500 would be our own mistake.
func wantProblem(t *testing.T, err error) {
	t.Helper()
	if p := problemOf(err); p.Status >= 500 {
		t.Errorf("%v is answered with %d", err, p.Status)
	}
}

func FuzzSearchQuery(f *testing.F) {
	for _, q := range []string{"migration=m1&kind=migration.load", "from=1&to=5&limit=1000&cursor=7", "kind=a&kind=b", "limit=0", "migration=%zz"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		values, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		q, err := searchQuery(values)
		if err != nil {
			wantProblem(t, err)
			return
		}
		if q.Limit < 1 || q.Limit > pageMax {
			t.Errorf("%q has the limit %d", raw, q.Limit)
		}
		for _, name := range []string{q.Migration, q.Stream, q.Kind, q.Actor, q.Object, q.By} {
			if name != "" && !log.ValidName(name) {
				t.Errorf("%q searches for %q", raw, name)
			}
		}
	})
}

// What a log answers to a search is an entry, or refused.
func FuzzFound(f *testing.F) {
	for _, status := range []string{"GET /v1/entries/{index}"} {
		content := described().get(described().operation(status), "responses", "200", "content", "application/json", "examples", "load", "value")
		f.Add(append(append([]byte(`{"entry":`), asSent(content)...), `,"index":5}`...))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var found foundJSON
		if json.Unmarshal(text, &found) != nil {
			return
		}
		if e, err := found.parse(); err == nil && !bytes.Equal(e.Marshal(), found.Entry) {
			t.Errorf("%q comes back as %q", found.Entry, e.Marshal())
		}
	})
}

// A key that is taken is the one of the text, whole.
func FuzzKeyRequest(f *testing.F) {
	f.Add("crm", "crm-migrator+fdc64c39+AaBzrvZaTg2C/AKLUOPWwJTOfk701oH8gxKF7rzVdXSc", "", "")
	f.Add("crm", "crm-migrator+fdc64c39+AaBzrvZaTg2C/AKLUOPWwJTOfk701oH8gxKF7rzVdXSc", strings.Repeat("A", 86)+"==", `{"alg":"ed25519","key":"`+strings.Repeat("A", 43)+`=","sig":"`+strings.Repeat("A", 86)+`=="}`)
	f.Fuzz(func(t *testing.T, principal, vkey, proof, previous string) {
		k, err := keyRequest{Principal: principal, VKey: vkey, Proof: proof, Previous: []byte(previous)}.parse()
		if err != nil {
			wantProblem(t, err)
			return
		}
		again, err := log.ParseKeyRegistered(k.Marshal())
		if err != nil || !bytes.Equal(again.Marshal(), k.Marshal()) || (k.Proof != nil) != (proof != "") || (k.Previous != nil) != (previous != "") {
			t.Errorf("%q %q %q %q becomes %s: %v", principal, vkey, proof, previous, k.Marshal(), errors.Join(err))
		}
	})
}
