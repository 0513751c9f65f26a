package reader

import (
	"container/list"
	"sync"
)

// A Cache keeps what was used last, up to a cost. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	costMax int
	mu      sync.Mutex
	cost    int                 // guarded by mu
	items   map[K]*list.Element // guarded by mu
	order   *list.List          // guarded by mu; of *item[K, V], last used first
}

type item[K comparable, V any] struct {
	key   K
	value V
	cost  int
}

// NewCache returns an empty cache that holds items of together at most costMax, in whatever unit Put is given.
func NewCache[K comparable, V any](costMax int) *Cache[K, V] {
	return &Cache[K, V]{costMax: costMax, items: map[K]*list.Element{}, order: list.New()}
}

// Get returns the value kept for key.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*item[K, V]).value, true
}

// Put keeps value for key, in place of an earlier one, and drops what was not used for longest.
func (c *Cache[K, V]) Put(key K, value V, cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[key]; ok {
		c.drop(e)
	}
	c.items[key] = c.order.PushFront(&item[K, V]{key, value, cost})
	c.cost += cost
	for c.cost > c.costMax {
		c.drop(c.order.Back())
	}
}

// Clear drops everything.
func (c *Cache[K, V]) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.items)
	c.order.Init()
	c.cost = 0
}

func (c *Cache[K, V]) drop(e *list.Element) {
	i := c.order.Remove(e).(*item[K, V])
	delete(c.items, i.key)
	c.cost -= i.cost
}
