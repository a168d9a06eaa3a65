package main

import (
	"context"
	"crypto/subtle"
	"net"
	"sync/atomic"
	"time"
)

// Times and sizes of section 13; those that are this agent's own choice say so.
const (
	window      = 256 << 10 // bytes that the hub may have under way on a flow
	mostKept    = 256 << 10 // of the target's bytes that are kept for a flow: ours
	piece       = 16 << 10  // bytes of an M_DATA: ours, so that flows take turns
	dialTime    = 5 * time.Second
	graceTime   = 30 * time.Second // of a flow without a way
	openingTime = 10 * time.Second // the same, while the target is dialled
	ackTime     = 10 * time.Millisecond
	askTime     = time.Second     // between two M_RESUMEs for the same byte
	resetTime   = 2 * time.Second // that a reset waits for credit, or behind bytes
)

// flow is this end of one client's connection: sections 6 and 7. Its methods run in the agent's one goroutine, but for
// those of the target's socket that say otherwise (target.go).
type flow struct {
	agent  *agent
	id     cid
	secret [secretSize]byte
	over   bool
	waits  *time.Timer // runs while the flow has no way

	way   *tunnel // nil: it waits
	left  *tunnel // what brought M_DETACH
	asked bool    // M_RESUME on a new way is unanswered: nothing may be sent

	// the client's bytes
	wanted  uint64 // r: the next number
	theyEnd bool   // the end has come, too
	taken   uint64 // bytes that the target's socket has taken
	told    bool   // the target was told the end
	saidAck uint64
	limit   uint64 // granted
	repeat  bool   // a duplicate is to be acknowledged again
	lacks   bool   // a gap was seen while the target is dialled
	filling bool   // M_RESUME for a gap has gone, and nothing has come
	hole    uint64 // the number asked for last, and when
	askedAt time.Time
	asking  *time.Timer // an M_GAP that came too early is made up for

	// the target's bytes
	kept     []byte // those that are not acknowledged
	base     uint64 // the number of the first of them
	next     uint64 // to be sent
	top      uint64 // the highest number ever sent, and one more
	credit   uint64
	weEnd    bool // the target has ended
	finSent  bool
	finAcked bool
	why      uint16 // M_RST with this reason follows all bytes

	stopDial context.CancelFunc
	conn     *net.TCPConn // nil: the target is dialled
	out      *queue
	reading  bool
	more     chan struct{}
	shut     atomic.Bool
}

// out

func (f *flow) ack() uint64 {
	switch {
	case f.conn == nil:
		return 0
	case f.theyEnd:
		return f.wanted + 1
	}
	return f.wanted
}

func (f *flow) end() uint64 { return f.base + uint64(len(f.kept)) }

// say sends a frame that acknowledges and grants.
func (f *flow) say(fr frame) {
	if f.way == nil {
		return
	}
	f.limit = max(f.limit, f.taken+window)
	f.saidAck, f.repeat = f.ack(), false
	fr.cid, fr.ack, fr.limit = f.id, f.saidAck, f.limit
	f.way.send(fr)
}

func (f *flow) acknowledge(typ byte) {
	f.say(frame{typ: typ})
	f.pump()
}

// pump sends what credit allows, and what follows it; reads on if there is room; and is where a flow is found over.
func (f *flow) pump() {
	if f.over || f.conn == nil {
		return
	}
	for f.way != nil && !f.asked && f.next < f.end() && f.next < f.credit {
		n := min(piece, f.end()-f.next, f.credit-f.next)
		at := f.next - f.base
		f.say(frame{typ: M_DATA, seq: f.next, payload: f.kept[at : at+n]})
		f.next += n
		f.top = max(f.top, f.next)
	}
	if f.way != nil && !f.asked && f.next >= f.end() {
		if f.weEnd && !f.finSent {
			f.finSent = true
			f.say(frame{typ: M_FIN, seq: f.end()})
			f.top = max(f.top, f.end()+1)
		}
		if f.why != 0 {
			f.rst(f.why)
			return
		}
	}
	if !f.reading && !f.weEnd && f.why == 0 && len(f.kept) < mostKept {
		f.reading = true
		f.more <- struct{}{}
	}
	if f.told && f.finAcked && f.saidAck > f.wanted {
		f.forget(closed)
	}
}

// fail ends the flow because of its target: what that has said goes first (7.4). Without a way there is
// nobody to tell, unless bytes wait.
func (f *flow) fail(why uint16) {
	if f.conn == nil || f.way == nil && len(f.kept) == 0 {
		f.rst(why)
		return
	}
	f.why = why
	f.hurry(why)
	f.pump()
}

// hurry gives bytes that wait for credit so long, each time that they get any. An end that waits is waited for.
func (f *flow) hurry(why uint16) {
	next := f.next
	time.AfterFunc(resetTime, func() {
		f.agent.post <- func() {
			switch {
			case f.over || f.weEnd:
			case f.way != nil && !f.asked && f.next == next:
				f.rst(why)
			default:
				f.hurry(why)
			}
		}
	})
}

// rst ends the flow at both ends.
func (f *flow) rst(why uint16) {
	if f.way != nil {
		f.way.send(frame{typ: M_RST, code: why, cid: f.id})
	}
	f.forget(reset)
}

// forget ends the flow at this end alone.
func (f *flow) forget(how fate) {
	f.over = true
	f.agent.forget(f)
	f.stopWaiting()
	f.stopDial()
	close(f.more)
	if f.conn == nil {
		return
	}
	patience := graceTime
	if how == reset {
		patience = resetTime
	}
	f.conn.SetWriteDeadline(time.Now().Add(patience))
	f.out.end(how)
}

// ways

// leave makes the flow wait, within the grace.
func (f *flow) leave(by *tunnel) {
	f.way, f.left, f.asked = nil, by, false
	if f.waits != nil {
		return // it has lost its way before
	}
	grace := f.agent.grace
	if f.conn == nil {
		grace = openingTime
	}
	f.waits = time.AfterFunc(grace, func() {
		f.agent.post <- func() {
			if !f.over && f.way == nil {
				f.forget(reset)
			}
		}
	})
}

func (f *flow) stopWaiting() {
	if f.waits != nil {
		f.waits.Stop()
		f.waits = nil
	}
}

// come takes the flow to a tunnel. Bytes go there when M_RESUME is answered; while the target is dialled there is
// nothing to ask for.
func (f *flow) come(t *tunnel) {
	f.stopWaiting()
	f.way, f.left = t, nil
	if f.conn != nil {
		f.asked = true
		f.resume()
	}
}

func (f *flow) resume() {
	f.hole, f.askedAt = f.wanted, time.Now()
	f.say(frame{typ: M_RESUME, payload: f.secret[:]})
}

// ask sends M_RESUME because a relay has dropped frames (6.5): for the same byte once, or after M_GAP
// once in askTime.
func (f *flow) ask(because byte) {
	switch {
	case f.conn == nil:
		f.lacks = true
	case f.way == nil || f.asking != nil || because != M_GAP && (f.asked || f.filling):
	case f.hole == f.wanted && time.Since(f.askedAt) < askTime:
		f.asking = time.AfterFunc(askTime-time.Since(f.askedAt), func() {
			f.agent.post <- func() {
				f.asking = nil
				if !f.over && f.way != nil {
					f.filling = true
					f.resume()
				}
			}
		})
	default:
		f.filling = true
		f.resume()
	}
}

// again goes back to what the hub wants next.
func (f *flow) again(ack uint64) {
	f.asked = false
	f.next = min(max(ack, f.base), f.end())
	f.finSent = false
	f.pump()
}

// in

// frame takes one of this flow's, under the tunnel's epoch: the second table of section 15.
func (f *flow) frame(t *tunnel, fr frame) {
	switch fr.typ {
	case M_OPEN:
		if f.way == nil {
			f.come(t)
		}
		return
	case M_RESUME:
		f.resumed(t, fr)
		return
	case M_RST:
		if f.way == t || f.left == t {
			how := reset
			if f.theyEnd {
				how = closed
			}
			f.forget(how)
		}
		return
	}
	if f.way != t {
		return // it was on its way
	}
	switch fr.typ {
	case M_OPEN_ACK:
		f.rst(flowControl)
	case M_DETACH:
		f.leave(t)
	case M_GAP:
		f.ask(M_GAP)
	default:
		if !f.heed(fr) {
			f.rst(flowControl)
			return
		}
		switch fr.typ {
		case M_DATA:
			f.data(fr)
		case M_FIN:
			f.fin(fr)
		case M_RESUME_ACK:
			if f.asked {
				f.again(fr.ack)
			}
		}
		f.pump()
	}
}

// resumed answers the hub's M_RESUME; a wrong secret is an unknown flow's.
func (f *flow) resumed(t *tunnel, fr frame) {
	if subtle.ConstantTimeCompare(fr.payload, f.secret[:]) == 0 {
		t.send(frame{typ: M_RST, code: unknownFlow, cid: f.id})
		return
	}
	f.stopWaiting()
	f.way, f.left = t, nil
	if !f.heed(fr) {
		f.rst(flowControl)
		return
	}
	f.say(frame{typ: M_RESUME_ACK})
	f.again(fr.ack)
}

// heed takes what a frame acknowledges and grants; false if that was never sent.
func (f *flow) heed(fr frame) bool {
	if fr.ack > f.top {
		return false
	}
	if fr.ack > f.base {
		f.finAcked = fr.ack > f.end()
		n := min(fr.ack-f.base, uint64(len(f.kept)))
		f.kept = f.kept[n:]
		f.base += n
		f.next = max(f.next, f.base)
	}
	f.credit = max(f.credit, fr.limit)
	return true
}

func (f *flow) data(fr frame) {
	end := fr.seq + uint64(len(fr.payload))
	switch {
	case f.theyEnd && end > f.wanted, end > f.limit:
		f.rst(flowControl)
	case fr.seq > f.wanted:
		f.ask(M_DATA)
	case end > f.wanted:
		f.out.put(fr.payload[f.wanted-fr.seq:])
		f.wanted, f.filling = end, false
		if f.conn == nil {
			return // acknowledged by M_OPEN_ACK
		}
		if f.wanted-f.saidAck >= window/5 {
			f.acknowledge(M_ACK)
		} else {
			f.agent.acknowledgeSoon(f)
		}
	default:
		f.repeat = true
		f.agent.acknowledgeSoon(f)
	}
}

func (f *flow) fin(fr frame) {
	switch {
	case fr.seq < f.wanted:
		f.rst(flowControl)
	case fr.seq > f.wanted && f.theyEnd:
		f.rst(flowControl)
	case fr.seq > f.wanted:
		f.ask(M_FIN)
	default:
		if !f.theyEnd {
			f.theyEnd, f.filling = true, false
			f.out.end(ended)
		}
		f.acknowledge(M_ACK)
	}
}
