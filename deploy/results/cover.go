package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A block is a run of statements in a coverage profile.
type block struct {
	file       string // relative to the repository's root
	statements int
	covered    bool
}

// readProfile reads a profile of go test. With -coverpkg each test binary
// reports every block, so one block comes many times: it ran if it ran in any.
func readProfile(file string, where locator) ([]block, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read coverage profile: %w", err)
	}
	blocks := map[string]block{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "mode: ") {
			continue
		}
		f := strings.Fields(line) // file.go:1.2,3.4 statements count
		name, _, ok := strings.Cut(line, ".go:")
		if !ok || len(f) != 3 {
			return nil, fmt.Errorf("read coverage profile: line %q", line)
		}
		n, err1 := strconv.Atoi(f[1])
		count, err2 := strconv.ParseUint(f[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read coverage profile: line %q: %w", line, err)
		}
		b := block{where.folder(name + ".go"), n, count > 0 || blocks[f[0]].covered}
		blocks[f[0]] = b
	}
	return slices.Collect(maps.Values(blocks)), nil
}

// byPackage adds blocks up, in the order of the packages' names.
func byPackage(blocks []block) []coverage {
	sums := map[string]coverage{}
	for _, b := range blocks {
		c := sums[path.Dir(b.file)]
		c.Package = path.Dir(b.file)
		sums[c.Package] = c.plus(b)
	}
	return slices.SortedFunc(maps.Values(sums), func(a, b coverage) int { return cmp.Compare(a.Package, b.Package) })
}

// plus returns c with b counted. Percent is rounded down to 1/100, so that 94.999 never reads as 95.
func (c coverage) plus(b block) coverage {
	c.Statements += b.statements
	if b.covered {
		c.Covered += b.statements
	}
	if c.Statements > 0 {
		c.Percent = float64(c.Covered*10000/c.Statements) / 100
	}
	return c
}

// addCoverage puts the packages of a profile into the report.
func (r *report) addCoverage(profile string, where locator) error {
	blocks, err := readProfile(profile, where)
	if err != nil {
		return err
	}
	r.Coverage = byPackage(blocks)
	return nil
}

// checkCoverage fails when a folder, its subfolders included, is below the minimum.
// Folders that do not exist yet are passed over; one that holds Go code and no
// covered statement fails, since it means that nothing measured it.
func checkCoverage(out io.Writer, root, profile, exclusions string, minimum float64, folders []string) error {
	where, err := newLocator(root)
	if err != nil {
		return err
	}
	blocks, err := readProfile(profile, where)
	if err != nil {
		return err
	}
	blocks, err = exclude(out, blocks, exclusions)
	if err != nil {
		return err
	}
	packages := byPackage(blocks)
	var low []string
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(root, folder)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		whole := coverage{Package: folder}
		for _, b := range blocks {
			if within(b.file, folder) {
				whole = whole.plus(b)
			}
		}
		show(out, "%6.2f%%  %s with its subfolders, %d statements\n", whole.Percent, folder, whole.Statements)
		for _, p := range packages {
			if within(p.Package, folder) {
				show(out, "%6.2f%%    %s, %d of %d statements\n", p.Percent, p.Package, p.Covered, p.Statements)
			}
		}
		if whole.Statements == 0 || whole.Percent < minimum {
			low = append(low, folder)
		}
	}
	if len(low) > 0 {
		return fmt.Errorf("statement coverage below %.1f%% in %s: %w", minimum, strings.Join(low, ", "), errFailed)
	}
	return nil
}

// within reports whether file is folder or lies in it.
func within(file, folder string) bool {
	return file == folder || strings.HasPrefix(file, folder+"/")
}

// exclude drops the blocks of paths that a file lists, one "path reason" a line.
// A path without a reason or without statements fails: nobody would notice it go stale.
func exclude(out io.Writer, blocks []block, file string) ([]block, error) {
	if file == "" {
		return blocks, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read coverage exclusions: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		if strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("coverage exclusion %s has no reason: %w", name, errFailed)
		}
		n := len(blocks)
		blocks = slices.DeleteFunc(blocks, func(b block) bool { return within(b.file, name) })
		if len(blocks) == n {
			return nil, fmt.Errorf("coverage exclusion %s matches nothing, remove it: %w", name, errFailed)
		}
		show(out, "excluded %s: %s\n", name, strings.TrimSpace(reason))
	}
	return blocks, nil
}
