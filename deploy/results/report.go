package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// outcomes of a test, in pytest's words.
const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped"
)

// A report is one test run. Down to Tests it has the schema of
// pytest-json-report; the rest are additions, which that schema allows.
type report struct {
	Created     float64           `json:"created"`  // end of the run, Unix seconds
	Duration    float64           `json:"duration"` // wall time, seconds
	ExitCode    int               `json:"exitcode"` // of go test
	Root        string            `json:"root"`
	Environment map[string]string `json:"environment"`
	Summary     summary           `json:"summary"`
	Commit      string            `json:"commit"`   // hex, or "unknown" outside a repository
	Modified    bool              `json:"modified"` // the tree differed from Commit
	NotRun      []string          `json:"not_run"`  // what tests printed as "NOT RUN: ..."
	Coverage    []coverage        `json:"coverage,omitempty"`
	Tests       []test            `json:"tests"`
}

type summary struct {
	Passed    int `json:"passed"`
	Failed    int `json:"failed"`
	Skipped   int `json:"skipped"`
	Total     int `json:"total"`
	Collected int `json:"collected"`
}

// A coverage is a package's statements and how many of them ran in any test.
type coverage struct {
	Package    string  `json:"package"` // folder in the repository, "." for its root
	Statements int     `json:"statements"`
	Covered    int     `json:"covered"`
	Percent    float64 `json:"percent"`
}

// A test is a Go test, example, fuzz target's seeds or subtest; or, as
// "folder::package", the failure of a package that no test of it accounts for.
type test struct {
	NodeID   string `json:"nodeid"` // log/entry_test.go::TestEntry/subtest
	Lineno   *int   `json:"lineno,omitempty"`
	Outcome  string `json:"outcome"`
	Setup    stage  `json:"setup"`
	Call     stage  `json:"call"`
	Teardown stage  `json:"teardown"`
}

// A stage is a part of a test. Go has no setup and teardown of its own, so
// these always pass in no time.
type stage struct {
	Duration float64 `json:"duration"` // seconds
	Outcome  string  `json:"outcome"`
	Longrepr string  `json:"longrepr,omitempty"` // output of a test that did not pass
}

// summarise counts the tests.
func summarise(tests []test) summary {
	s := summary{Total: len(tests), Collected: len(tests)}
	for _, t := range tests {
		switch t.Outcome {
		case passed:
			s.Passed++
		case skipped:
			s.Skipped++
		default:
			s.Failed++
		}
	}
	return s
}

// encode writes one line a test, so that two runs can be compared with diff.
func (r report) encode() ([]byte, error) {
	tests := r.Tests
	r.Tests = nil
	head, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode results: %w", err)
	}
	head, ok := bytes.CutSuffix(head, []byte("null\n}"))
	if !ok {
		panic("results: tests are not the last field of a report")
	}
	var b bytes.Buffer
	b.Write(head)
	b.WriteString("[")
	for i, t := range tests {
		line, err := json.Marshal(t)
		if err != nil {
			return nil, fmt.Errorf("encode test %s: %w", t.NodeID, err)
		}
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n  ")
		b.Write(line)
	}
	b.WriteString("\n ]\n}\n")
	return b.Bytes(), nil
}

// readReport reads a results file. Fields of other tools are passed over.
func readReport(file string) (report, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return report{}, fmt.Errorf("read results: %w", err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return report{}, fmt.Errorf("read results %s: %w: %w", file, errFailed, err)
	}
	return r, nil
}
