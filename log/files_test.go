package log

import (
	"bytes"
	"errors"
	"testing"
)

func TestVectorsOfSalts(t *testing.T) {
	var v struct {
		Good []struct{ Name, Text, Salt string }
		Bad  []vector
	}
	vectors(t, "salt", &v)
	for _, c := range v.Good {
		salt, err := ParseSalt([]byte(c.Text))
		if err != nil || !bytes.Equal(salt[:], unhex(t, c.Salt)) || string(MarshalSalt(salt)) != c.Text {
			t.Errorf("ParseSalt(%q) = %x, %v, want %s", c.Text, salt, err, c.Salt)
		}
	}
	for _, c := range v.Bad {
		_, err := ParseSalt(c.bytes(t))
		checkRefused(t, "salt", c, err)
	}
}

func TestVectorsOfSubmitters(t *testing.T) {
	var v struct {
		Good []struct {
			Name, Text string
			Keys       []struct{ Principal, Key string }
		}
		Bad []vector
	}
	vectors(t, "submitters", &v)
	for _, c := range v.Good {
		s, err := ParseSubmitters([]byte(c.Text))
		if err != nil || len(s.keys) != len(c.Keys) {
			t.Errorf("%s: ParseSubmitters = %d keys, %v, want %d", c.Name, len(s.keys), err, len(c.Keys))
		}
		for _, k := range c.Keys {
			if !s.Has(k.Principal, hashOf(t, k.Key)) {
				t.Errorf("%s: key %s of %s is not listed", c.Name, k.Key, k.Principal)
			}
		}
	}
	for _, c := range v.Bad {
		if _, err := ParseSubmitters(c.bytes(t)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: ParseSubmitters = %v, want %v", c.Name, err, ErrMalformed)
		}
	}
}
