package migrate

// The payloads of the events. Fields are in the order of their JSON names and
// hold no floats, so that encoding/json writes canonical JSON (RFC 8785).

type startPayload struct {
	BatchRows  int                   `json:"batch_rows"`
	Duplicates int                   `json:"duplicates"` // customers that will be merged into others
	Limit      int64                 `json:"limit"`      // 0: all rows
	Tables     map[string]sourceSize `json:"tables"`
}

// sourceSize is what a table of the source holds before anything is moved.
type sourceSize struct {
	HashTotal int64 `json:"hash_total"` // sum of the ids: a total without a meaning but for control
	Rows      int64 `json:"rows"`
}

type extractPayload struct {
	Batch   int    `json:"batch"` // from 1
	FirstID int64  `json:"first_id"`
	LastID  int64  `json:"last_id"`
	Rows    int    `json:"rows"`
	SHA256  string `json:"sha256"` // of the canonical source rows
	Table   string `json:"table"`
}

type transformPayload struct {
	Batch        int            `json:"batch"`
	Filtered     map[string]int `json:"filtered"` // rows by reason
	FilteredRows []reasonedRow  `json:"filtered_rows"`
	Loaded       int            `json:"loaded"` // rows that will be loaded
	Merged       int            `json:"merged"`
	MergedRows   []mergedRow    `json:"merged_rows"`
	Rejected     int            `json:"rejected"`
	Repairs      map[string]int `json:"repairs"` // fields emptied or read by a special rule
	Rows         int            `json:"rows"`
	SHA256       string         `json:"sha256"` // of the canonical rows that will be loaded
	Steps        []string       `json:"steps"`
	Table        string         `json:"table"`
}

type rejectPayload struct {
	Batch        int            `json:"batch"`
	Rejected     map[string]int `json:"rejected"` // rows by reason
	RejectedRows []reasonedRow  `json:"rejected_rows"`
	Table        string         `json:"table"`
}

type loadPayload struct {
	Batch  int              `json:"batch"`
	Rows   int              `json:"rows"`
	SHA256 string           `json:"sha256"`
	Table  string           `json:"table"`
	Totals map[string]int64 `json:"totals"` // by currency, in its smallest coin
}

type verifyPayload struct {
	Batches           int    `json:"batches"`
	BatchesDiffering  []int  `json:"batches_differing"`
	ForeignKeysBroken int    `json:"foreign_keys_broken"`
	Rows              int    `json:"rows"`
	RowsUnannounced   int    `json:"rows_unannounced"` // rows of the target that no load event speaks of
	SHA256            string `json:"sha256"`           // of all canonical rows, read back
	Table             string `json:"table"`
}

type cutoverPayload struct {
	Target string `json:"target"`
}

// A reasonedRow is a row of the source and why it was not loaded.
type reasonedRow struct {
	ID     int64  `json:"id"`
	Reason string `json:"reason"`
}

// A mergedRow is a row of the source and the one that stands for it now.
type mergedRow struct {
	ID   int64 `json:"id"`
	Into int64 `json:"into"`
}
