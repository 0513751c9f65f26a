package log

import (
	"encoding/hex"
	"strconv"
)

// A Refusal is a place in a stream that a refused event took.
type Refusal struct {
	Stream string
	Seq    uint64
	Hash   Hash // EventHash of the refused event: the Prev of the next one
}

// RefusalOf reads the place that a log.refused took: from exactly one object
// each in the roles stream, seq and event. Any other event took nothing.
// Seq 1 is never taken: it is stream.open's, and a stream that lost it could
// never be opened. So a refusal moves only a stream that somebody opened.
// Everybody has to read it alike, or their heads of the stream differ.
// Source: FORMAT.md, "Streams and migrations".
func RefusalOf(e Event) (Refusal, bool) {
	if e.Kind != serverRefused {
		return Refusal{}, false
	}
	found := make(map[string][]string)
	for _, o := range e.Objects {
		found[o.Role] = append(found[o.Role], o.Name)
	}
	stream, seqText, hashText := found["stream"], found["seq"], found["event"]
	if len(stream) != 1 || len(seqText) != 1 || len(hashText) != 1 {
		return Refusal{}, false
	}
	seq, err := strconv.ParseUint(seqText[0], 10, 53)
	if err != nil || seq <= 1 || strconv.FormatUint(seq, 10) != seqText[0] {
		return Refusal{}, false
	}
	hash, err := hex.DecodeString(hashText[0])
	if err != nil || len(hash) != len(Hash{}) || hex.EncodeToString(hash) != hashText[0] {
		return Refusal{}, false
	}
	return Refusal{stream[0], seq, Hash(hash)}, true
}
