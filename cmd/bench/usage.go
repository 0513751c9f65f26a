package main

import "time"

// A usage is what the machine's cores did, up to a time or between two. On a
// machine that does not tell it is zero.
type usage struct {
	at                    time.Time
	elapsed               time.Duration
	busy, steal, all, own time.Duration
}

func (u usage) since(before usage) usage {
	return usage{
		at: u.at, elapsed: u.at.Sub(before.at),
		busy: u.busy - before.busy, steal: u.steal - before.steal, all: u.all - before.all, own: u.own - before.own,
	}
}

// foreign is how many cores worked for others. The kernel's own threads are
// among them, those that write for us too.
func (u usage) foreign() float64 {
	if u.elapsed == 0 {
		return 0
	}
	return max(0, float64(u.busy-u.own)/float64(u.elapsed))
}

// stolen is the share of the time that the hypervisor gave to others, in percent.
func (u usage) stolen() float64 {
	if u.all == 0 {
		return 0
	}
	return 100 * float64(u.steal) / float64(u.all)
}
