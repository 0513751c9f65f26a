package client

import "github.com/pipe-roll/piperoll/log"

// Acknowledged stands for a request of one event that the log took, without its cost.
func (c *Client) Acknowledged(index uint64, leaf log.Hash) {
	c.pend(pending{first: index, leaves: []log.Hash{leaf}})
}

// Chains is how many streams an outbox has something to do for.
func (c *Client) Chains() int {
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	return len(c.outbox.chains)
}
