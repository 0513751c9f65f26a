package client

import "github.com/pipe-roll/piperoll/log"

// Acknowledged stands for a request of one event that the log took, without its cost.
func (c *Client) Acknowledged(index uint64, leaf log.Hash) {
	c.pend(pending{first: index, leaves: []log.Hash{leaf}})
}

// RewriteRecords reads the records of a group and writes them again.
func RewriteRecords(b []byte) (again []byte, err error) {
	all, err := parseRecords(b)
	for i := range all {
		again = all[i].append(again)
	}
	return again, err
}
