package migrate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// appendRow appends the canonical form of a row, the one that is hashed: per
// value N; for NULL, I and a decimal number and ; for an integer, T and the
// length in bytes and : and the bytes for a text; a newline at the end. No two
// rows have the same form, whatever their texts hold.
func appendRow(b []byte, row []any) []byte {
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			b = append(b, "N;"...)
		case int64:
			b = append(strconv.AppendInt(append(b, 'I'), v, 10), ';')
		case string:
			b = append(strconv.AppendInt(append(b, 'T'), int64(len(v)), 10), ':')
			b = append(b, v...)
		default:
			// The schemas hold integers and texts only.
			panic(fmt.Sprintf("migrate: no canonical form of a %T", v))
		}
	}
	return append(b, '\n')
}

// hashRows is the SHA-256 over the canonical rows, in hexadecimal.
func hashRows(rows [][]any) string {
	h := sha256.New()
	var b []byte
	for _, row := range rows {
		b = appendRow(b[:0], row)
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// A digest is half a SHA-256: for finding equal rows within one run.
type digest [16]byte

func digestOf(row []any) digest {
	full := sha256.Sum256(appendRow(nil, row))
	return digest(full[:16])
}

// identities makes the names under which persons and their addresses are known
// in the new system. Without the key they reveal nothing: not even to somebody
// who tries all telephone numbers.
type identities struct{ key []byte }

// person gives the opaque id of the customer with that id in the source.
func (i identities) person(id int64) string {
	return "p:" + i.token("customer", strconv.FormatInt(id, 10))
}

// token stands for a value: equal values have equal tokens.
func (i identities) token(what, value string) string {
	m := hmac.New(sha256.New, i.key)
	m.Write([]byte("crm/" + what + "\n" + value))
	return hex.EncodeToString(m.Sum(nil)[:16])
}
