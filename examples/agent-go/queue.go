package main

import "sync"

// fate is what follows when all bytes of a queue are written.
type fate int

const (
	open   fate = iota
	ended       // the direction ends
	closed      // the socket is closed
	reset       // the socket is reset
)

// queue holds bytes on their way to a socket. A goroutine writes them, so that nobody waits for a slow reader; credit
// bounds what can be in it.
type queue struct {
	lock  sync.Mutex
	wake  *sync.Cond
	bytes []byte
	fate  fate
}

func newQueue() *queue {
	q := &queue{}
	q.wake = sync.NewCond(&q.lock)
	return q
}

func (q *queue) put(b []byte) {
	q.lock.Lock()
	q.bytes = append(q.bytes, b...)
	q.lock.Unlock()
	q.wake.Signal()
}

func (q *queue) end(f fate) {
	q.lock.Lock()
	q.fate = f
	q.lock.Unlock()
	q.wake.Signal()
}

// take waits for bytes, at most so many, or for another fate than before.
func (q *queue) take(most int, before fate) ([]byte, fate) {
	q.lock.Lock()
	defer q.lock.Unlock()
	for len(q.bytes) == 0 && q.fate == before {
		q.wake.Wait()
	}
	n := min(most, len(q.bytes))
	if n == 0 {
		return nil, q.fate
	}
	taken := q.bytes[:n:n]
	if q.bytes = q.bytes[n:]; len(q.bytes) == 0 {
		q.bytes = nil
	}
	return taken, before
}
