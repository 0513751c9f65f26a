package main

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
)

// coverModule makes a module's folders and a profile, and returns a gate on them.
func coverModule(t *testing.T, profile, exclusions string) func(minimum string, folders ...string) error {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.org/m\n")
	write(t, filepath.Join(dir, "log/log.go"), "package log\n")
	write(t, filepath.Join(dir, "login/login.go"), "package login\n")
	write(t, filepath.Join(dir, "c.out"), profile)
	write(t, filepath.Join(dir, "exclusions.txt"), exclusions)
	return func(minimum string, folders ...string) error {
		return run(t.Context(), t.Output(), append([]string{
			"cover", "-root", dir, "-profile", filepath.Join(dir, "c.out"),
			"-exclusions", filepath.Join(dir, "exclusions.txt"), "-min", minimum, "--",
		}, folders...))
	}
}

// Ten statements in log and below: the second binary covers what the first
// did not. login must not count as part of log.
const profile = `mode: set
example.org/m/log/log.go:1.1,2.1 6 1
example.org/m/log/log.go:3.1,4.1 3 0
example.org/m/log/x/x.go:1.1,2.1 1 0
example.org/m/login/login.go:1.1,2.1 1000 1
example.org/m/log/log.go:1.1,2.1 6 0
example.org/m/log/log.go:3.1,4.1 3 1
example.org/m/log/x/x.go:1.1,2.1 1 0
`

func TestCoverage(t *testing.T) {
	gate := coverModule(t, profile, "# nothing\n")
	if err := gate("90", "log", "witness"); err != nil {
		t.Errorf("gate at 90%% = %v, want nil", err)
	}
	if err := gate("90.1", "log"); !errors.Is(err, errFailed) {
		t.Errorf("gate at 90.1%% = %v, want errFailed", err)
	}
}

func TestCoverageExclusions(t *testing.T) {
	if err := coverModule(t, profile, "log/x needs a broken disk\n")("100", "log"); err != nil {
		t.Errorf("gate with an exclusion = %v, want nil", err)
	}
	if err := coverModule(t, profile, "log/x/x.go needs a broken disk\n")("100", "log"); err != nil {
		t.Errorf("gate with an excluded file = %v, want nil", err)
	}
	for _, bad := range []string{"log/x\n", "log/x \n", "log/y gone\n", "log/ a folder is named without a slash\n"} {
		if err := coverModule(t, profile, bad)("0", "log"); !errors.Is(err, errFailed) {
			t.Errorf("gate with exclusion %q = %v, want errFailed", bad, err)
		}
	}
}

func TestCoverageOfNothing(t *testing.T) {
	if err := coverModule(t, "mode: set\n", "")("0", "log"); !errors.Is(err, errFailed) {
		t.Errorf("gate of a folder nobody measured = %v, want errFailed", err)
	}
	for _, bad := range []string{"garbage\n", "a.go:1.1,2.1 x 1\n", "a.go:1.1,2.1 1 -1\n", "a.go:1.1,2.1 1\n"} {
		if err := coverModule(t, bad, "")("0", "log"); err == nil {
			t.Errorf("gate on profile %q = nil, want an error", bad)
		}
	}
}

func TestPercentRoundsDown(t *testing.T) {
	c := coverage{}.plus(block{statements: 94_999, covered: true}).plus(block{statements: 5_001})
	if c.Percent != 94.99 {
		t.Errorf("percent = %v, want 94.99", c.Percent)
	}
}

func TestRecordedProfile(t *testing.T) {
	blocks, err := readProfile("testdata/cover.out", sampleTests)
	if err != nil {
		t.Fatal(err)
	}
	want := []coverage{{Package: "good", Statements: 3, Covered: 2, Percent: 66.66}}
	if got := byPackage(blocks); !slices.Equal(got, want) {
		t.Errorf("byPackage = %+v, want %+v", got, want)
	}
}
