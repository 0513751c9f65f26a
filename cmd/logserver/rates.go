package main

import (
	"sync"

	"golang.org/x/time/rate"
)

// ratesMax bounds the principals whose rate is remembered, twice: those who asked of late, and those before them.
const ratesMax = 10_000

// rates are the rates of principals. Their memory is bounded, and yet nobody gets a full bucket back by letting many
// others ask: whoever asks again before ratesMax others have asked is remembered.
type rates struct {
	perSecond rate.Limit
	burst     int

	mu   sync.Mutex
	late map[string]*rate.Limiter // guarded by mu, as old
	old  map[string]*rate.Limiter
}

// newRates gives rates for limits; nil if they do not bound them.
func newRates(l Limits) *rates {
	if l.RequestsPerSecond == 0 {
		return nil
	}
	return &rates{perSecond: rate.Limit(l.RequestsPerSecond), burst: max(1, l.Burst), late: make(map[string]*rate.Limiter)}
}

// allow says whether a principal may send a request now.
func (r *rates) allow(name string) bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.late[name]
	if l == nil {
		if l = r.old[name]; l == nil {
			l = rate.NewLimiter(r.perSecond, r.burst)
		}
		if len(r.late) >= ratesMax {
			r.old, r.late = r.late, make(map[string]*rate.Limiter)
		}
		r.late[name] = l
	}
	return l.Allow()
}
