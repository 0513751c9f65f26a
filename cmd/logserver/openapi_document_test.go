package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTheDescriptionHasEveryRoute(t *testing.T) {
	var served []string
	for _, route := range slices.Concat((&site{ledger: &ledger{}}).table(), (&host{}).table(), (&host{}).adminTable(nil)) {
		served = append(served, route.method+" "+strings.Replace(route.path, "...}", "}", 1))
	}
	slices.Sort(served)
	if operations := slices.Sorted(slices.Values(described().operations())); !slices.Equal(operations, served) {
		t.Errorf("described: %q\nserved: %q", operations, served)
	}
}

func TestTheDescriptionHasEveryProblemUnderItsStatus(t *testing.T) {
	var inDocument, inUse []string
	for status, types := range described().problems() {
		for _, name := range types {
			inDocument = append(inDocument, status+" "+name)
		}
	}
	inUse = append(inUse, "500 "+problemOf(errors.New("anything")).Type)
	for _, k := range kinds {
		inUse = append(inUse, fmt.Sprint(k.status, " ", problemPrefix, k.name))
		if k.hint == "" {
			t.Errorf("%s does not say what to do", k.name)
		}
	}
	if got, want := unique(inDocument), unique(inUse); !slices.Equal(got, want) {
		t.Errorf("described: %q\nin use: %q", got, want)
	}
}

func unique(all []string) []string { return slices.Compact(slices.Sorted(slices.Values(all))) }

// That the server takes those of requests, TestTheServerGivesEveryAnswerThatIsDescribed sees to.
func TestEveryExampleFitsItsSchema(t *testing.T) {
	d := described()
	parameters, bodies := 0, 0
	for _, name := range d.operations() {
		for _, in := range []string{"path", "query", "header"} {
			for param, p := range d.parameters(name, in) {
				example := d.get(p, "example")
				if example.value == nil {
					if in == "path" {
						t.Errorf("%s: the parameter %s has no example", name, param)
					}
					continue
				}
				if err := d.checkText(d.get(p, "schema"), fmt.Sprint(example.value)); err != nil {
					t.Errorf("%s: the example of %s: %v", name, param, err)
				}
				parameters++
			}
		}
		operation := d.operation(name)
		contents := map[string]node{"request": d.get(operation, "requestBody", "content")}
		for _, status := range d.get(operation, "responses").keys() {
			contents[status] = d.get(operation, "responses", status, "content")
		}
		if contents["request"].value != nil && len(d.examples(name)) == 0 {
			t.Errorf("%s: its body has no example", name)
		}
		for of, content := range contents {
			for _, contentType := range content.keys() {
				examples := d.get(content, contentType, "examples")
				for _, key := range examples.keys() {
					if err := d.checkContent(d.get(content, contentType), contentType, asSent(d.get(examples, key, "value"))); err != nil {
						t.Errorf("%s: the example %s of %s: %v", name, key, of, err)
					}
					bodies++
				}
			}
		}
	}
	t.Logf("%d examples of parameters, %d of bodies", parameters, bodies)
}
