package client

import "github.com/pipe-roll/piperoll/log"

// Acknowledged stands for a request of one event that the log took, without its cost.
func (c *Client) Acknowledged(index uint64, leaf log.Hash) {
	c.acknowledged(pending{first: index, leaves: []log.Hash{leaf}})
}
