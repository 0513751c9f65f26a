package log

import (
	"fmt"
	"strconv"
	"strings"
)

// An ExportKind is a kind of file in a directory of events with proofs.
type ExportKind int

// The files of such a directory. Anything else in it is refused: what nobody
// checks must not travel with what was checked. Proofs are of the entries in
// the tree of exactly the directory's checkpoint.
const (
	ExportCheckpoint  ExportKind = iota // checkpoint: signed note, with cosignatures
	ExportEvent                         // events/INDEX.json: the entry, the exact leaf
	ExportProof                         // proofs/INDEX.tlog-proof: its inclusion proof
	ExportPayload                       // payloads/INDEX.payload: what the event commits to
	ExportSalt                          // payloads/INDEX.salt: see [MarshalSalt]
	ExportConsistency                   // consistency/OLD.proof: from size OLD to the checkpoint's size
	ExportReceipt                       // receipts/INDEX.receipt: named for its first entry
)

// exportDigits is the least number of digits of an index in a file name, so
// that a listing of up to 10^12 entries is in the order of the log.
const exportDigits = 12

// exportNames gives folder and suffix of a kind; the checkpoint has no number.
func exportNames(kind ExportKind) (folder, suffix string, digits int) {
	switch kind {
	case ExportEvent:
		return "events", ".json", exportDigits
	case ExportProof:
		return "proofs", ".tlog-proof", exportDigits
	case ExportPayload:
		return "payloads", ".payload", exportDigits
	case ExportSalt:
		return "payloads", ".salt", exportDigits
	case ExportConsistency:
		return "consistency", ".proof", 1
	case ExportReceipt:
		return "receipts", ".receipt", exportDigits
	}
	return "", "checkpoint", 0
}

// ExportFolders lists the folders of a directory of events with proofs.
func ExportFolders() []string {
	return []string{"consistency", "events", "payloads", "proofs", "receipts"}
}

// An ExportFile names one file of a directory of events with proofs.
type ExportFile struct {
	Kind   ExportKind
	Number uint64 // index, or old size; 0 for the checkpoint
}

// Folder gives the folder that holds the file, "" for the directory itself.
func (f ExportFile) Folder() string {
	folder, _, _ := exportNames(f.Kind)
	return folder
}

// Name gives the file's name in its folder.
func (f ExportFile) Name() string {
	_, suffix, digits := exportNames(f.Kind)
	if digits == 0 {
		return suffix
	}
	return fmt.Sprintf("%0*d%s", digits, f.Number, suffix)
}

// Path gives the file's path in the directory, with slashes.
func (f ExportFile) Path() string {
	if folder := f.Folder(); folder != "" {
		return folder + "/" + f.Name()
	}
	return f.Name()
}

// MaxBytes is the size beyond which a reader refuses the file.
func (f ExportFile) MaxBytes() int {
	switch f.Kind {
	case ExportEvent:
		return EntryMaxBytes
	case ExportProof:
		return NoteMaxBytes + 8192
	case ExportPayload:
		return LineageMaxBytes
	case ExportSalt:
		return saltTextBytes
	case ExportConsistency:
		return 8192
	}
	return NoteMaxBytes
}

// ParseExportName gives the file that name, in a folder of the directory,
// stands for. It accepts exactly what [ExportFile.Name] returns.
func ParseExportName(folder, name string) (ExportFile, error) {
	for kind := ExportCheckpoint; kind <= ExportReceipt; kind++ {
		in, suffix, _ := exportNames(kind)
		digits, ok := strings.CutSuffix(name, suffix)
		if in != folder || !ok {
			continue
		}
		f := ExportFile{Kind: kind}
		if kind != ExportCheckpoint {
			n, err := strconv.ParseUint(digits, 10, 53)
			if err != nil {
				continue
			}
			f.Number = n
		}
		if f.Name() == name {
			return f, nil
		}
	}
	return ExportFile{}, fmt.Errorf("%w name %q in folder %q of a directory of events with proofs", ErrMalformed, name, folder)
}

// saltTextBytes is the size of a salt's file: base64 of 32 bytes, and LF.
const saltTextBytes = 45

// MarshalSalt gives the text of a payload's salt: its base64 and LF.
func MarshalSalt(salt [32]byte) []byte {
	return append(b64.AppendEncode(nil, salt[:]), '\n')
}

// ParseSalt parses what MarshalSalt returns.
func ParseSalt(text []byte) (salt [32]byte, err error) {
	s := lines{what: "salt", rest: string(text)}
	salt = s.hash("")
	return salt, s.end()
}
