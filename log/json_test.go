package log

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// Members gives an object's members as written, and is as strict as Canonical.
func TestMembers(t *testing.T) {
	got, err := Members([]byte(` { "b" : [1, {"b":2}] ,"\u0061":"x" } `))
	want := []Member{{"b", []byte(`[1, {"b":2}]`)}, {"a", []byte(`"x"`)}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Members = %q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{"", " ", "[]", `"x"`, `{"a":1,"a":2}`, `{} x`, `{"a":{"b":1,"b":2}}`, `{"a":01}`, "{"} {
		if got, err := Members([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("Members(%q) = %q, %v, want %v", bad, got, err, ErrMalformed)
		}
	}
}

func TestJSONString(t *testing.T) {
	const escapes = `"\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00"`
	const value = "\"\\/\b\f\n\r\tAé😀"
	if got, err := JSONString([]byte(escapes)); err != nil || got != value {
		t.Errorf("JSONString(%s) = %q, %v, want %q", escapes, got, err, value)
	}
	want := `"\"\\/\b\f\n\r\tAé😀\u0000"`
	if got := string(appendJSONString(nil, value+"\x00")); got != want {
		t.Errorf("a string is written as %s, want %s", got, want)
	}
	for _, bad := range []string{"", "x", `"`, `"a" `, `"a"b`, `"\`, `"\x"`, `"\ud83dx"`, "\"\x01\"", "\"\xff\""} {
		if got, err := JSONString([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("JSONString(%q) = %q, %v, want %v", bad, got, err, ErrMalformed)
		}
	}
}

func TestObjects(t *testing.T) {
	const good = `[{"name":"a","role":"b"},{"name":"c","role":"d"}]`
	if got, err := ParseObjects([]byte(good)); err != nil || !reflect.DeepEqual(got, []Object{{"a", "b"}, {"c", "d"}}) {
		t.Errorf("ParseObjects(%s) = %v, %v", good, got, err)
	}
	many := "[" + strings.TrimSuffix(strings.Repeat(`{"name":"a","role":"b"},`, ObjectsMax+1), ",") + "]"
	for _, bad := range []string{"", "{}", "[", "[,]", good + " ", strings.Replace(good, "a", "a b", 1), many} {
		if got, err := ParseObjects([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseObjects(%q) = %v, %v, want %v", bad, got, err, ErrMalformed)
		}
	}
}
