package log

import "testing"

// BenchmarkMembers checks a line of a request as strictly as the server does.
func BenchmarkMembers(b *testing.B) {
	line := []byte(`{"event":{"actor":"svc12","kind":"migration.load","log":"log.example/bench","migration":"m12",` +
		`"objects":[{"name":"crm.customers","role":"source"},{"name":"dwh.party","role":"target"}],` +
		`"payload":{"commitment":"sGVkIHRvIHRoZSBzdHJlYW1zIG9mIGl0cyBvd25lciE=","type":"application/json"},` +
		`"prev":"c2VxIG9mIHRoZSBsYXN0IGV2ZW50IGluIHRoZSBzdHJlYW0=","seq":7,"stream":"m12/s","time":1764000000000,"v":1},` +
		`"payload":{"rows":1000,"table":"customers"},"salt":"AAECAwQFBgcICQoLDA0ODw=="}`)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Members(line); err != nil {
			b.Fatal(err)
		}
	}
}
