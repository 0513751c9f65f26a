package log

import (
	"errors"
	"reflect"
	"testing"
)

// structural gives a payload of each kind of FORMAT.md section 5, its writer
// under its kind.
func structural() map[string]interface{ Marshal() []byte } {
	since, proof := uint64(1), [64]byte{}
	key := PublicKey{9}
	return map[string]interface{ Marshal() []byte }{
		"log.open":             &LogOpen{Origin: "o"},
		"stream.open":          &StreamOpen{Mode: ModeLogKept, Owner: "p"},
		"migration.open":       &MigrationOpen{[]StreamOwner{{"p", "m/s"}}},
		"migration.close":      &MigrationClose{[]StreamEnd{{Last: 1, Stream: "m/s"}}},
		"key.registered":       &KeyRegistered{Key: key, Previous: &Sig{}, Principal: "p", Proof: &proof},
		"key.revoked":          &KeyRevoked{CompromisedSince: &since},
		"access.token.created": &TokenCreated{ID: "t", Principal: "p", Role: "r"},
		"access.token.revoked": &TokenRevoked{ID: "t"},
		"payload.erased":       &PayloadErased{Authority: "a"},
		"log.refused":          &Refused{Reason: "r", Route: "/"},
	}
}

// integers gives every integer within v.
func integers(v reflect.Value) (found []reflect.Value) {
	switch v.Kind() {
	case reflect.Uint64:
		found = append(found, v)
	case reflect.Struct:
		for _, field := range v.Fields() {
			found = append(found, integers(field)...)
		}
	case reflect.Pointer:
		found = integers(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			found = append(found, integers(v.Index(i))...)
		}
	}
	return found
}

// What a writer makes of an integer that the format does not have, no log takes.
func TestIntegersOfPayloadsAreBounded(t *testing.T) {
	count := 0
	for kind, p := range structural() {
		e := Event{Kind: kind, Payload: &Ref{Type: JSONType}}
		if err := CheckPayload(e, p.Marshal()); err != nil {
			t.Errorf("%s: CheckPayload(%s) = %v", kind, p.Marshal(), err)
		}
		for _, n := range integers(reflect.ValueOf(p)) {
			count++
			for value, want := range map[uint64]error{maxInt: nil, maxInt + 1: ErrMalformed, 1<<64 - 1: ErrMalformed} {
				n.SetUint(value)
				if err := CheckPayload(e, p.Marshal()); !errors.Is(err, want) {
					t.Errorf("%s: CheckPayload(%s) = %v, want %v", kind, p.Marshal(), err, want)
				}
			}
			n.SetUint(1)
		}
	}
	if count != 6 {
		t.Errorf("%d integers in payloads, want 6", count)
	}
}

// The kinds with payloads of a fixed shape have one type, and so one limit:
// 32 MiB of another type are no stream.open.
func TestStructuralPayloadsHaveOneType(t *testing.T) {
	for kind, p := range structural() {
		migration := "m"
		if ClassOf(kind) == Server {
			migration = serverMigration
		}
		e := Event{Actor: "p", Kind: kind, Log: "o", Migration: migration, Stream: migration + "/s", Seq: 1}
		for mediaType, want := range map[string]error{JSONType: nil, "application/vnd.openlineage+json": ErrMalformed, "text/plain": ErrMalformed} {
			e.Payload = &Ref{Type: mediaType}
			if err := e.Validate(); !errors.Is(err, want) {
				t.Errorf("Validate of %s with a payload of type %s = %v, want %v", kind, mediaType, err, want)
			}
			if _, err := ParseEvent(e.Marshal()); !errors.Is(err, want) {
				t.Errorf("ParseEvent of %s with a payload of type %s = %v, want %v", kind, mediaType, err, want)
			}
			if err := CheckPayload(e, p.Marshal()); !errors.Is(err, want) {
				t.Errorf("CheckPayload of %s of type %s = %v, want %v", kind, mediaType, err, want)
			}
		}
		if err := CheckPayload(e, nil); err == nil {
			t.Errorf("CheckPayload of %s takes an empty payload", kind)
		}
		e.Payload = nil
		if err := errors.Join(e.Validate(), CheckPayload(e, nil)); err != nil {
			t.Errorf("%s without a payload: %v", kind, err)
		}
	}
	if err := CheckPayload(Event{Kind: "x.y", Payload: &Ref{Type: "text/plain"}}, []byte("anything")); err != nil {
		t.Errorf("CheckPayload of a customer's own kind = %v", err)
	}
}
