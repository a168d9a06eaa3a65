package main

import (
	"sync/atomic"
	"time"
)

const (
	pingTime   = 2 * time.Second
	silentTime = 6 * time.Second // PINGs of so long without a byte end a tunnel
	mostSent   = 1 << 16         // bytes of one message of ours
)

// tunnel is one connection to a hub. Two goroutines read and write it; its other members are the agent's goroutine's.
type tunnel struct {
	agent *agent
	ws    *websocket
	out   *queue
	gone  bool

	token            string // the last that this hub was shown
	waits            *time.Timer
	claims           bool   // what its last HELLO was
	said             uint64 // and its last_epoch
	epoch            uint64
	replica, session string
	cluster          bool // there are other hubs
	away             bool // GOAWAY has come, or a newer owner is known

	grace time.Duration // of its hub and us, for a flow without a way

	pingTime time.Duration
	pings    uint64
	heard    atomic.Bool // a byte came since the last PING
	silent   time.Duration
}

func newTunnel(a *agent, ws *websocket, token string) *tunnel {
	t := &tunnel{agent: a, ws: ws, token: token, out: newQueue(), pingTime: pingTime}
	go t.read()
	go t.write()
	a.after(pingTime, t.ping)
	return t
}

// send queues a frame, under the tunnel's epoch.
func (t *tunnel) send(fr frame) {
	fr.epoch = t.epoch
	if !t.gone {
		t.out.put(fr.append(nil))
	}
}

func (t *tunnel) read() {
	for {
		fr, err := readFrame(listening{t})
		if err != nil {
			t.agent.post <- func() { t.failed(err) }
			return
		}
		t.agent.post <- func() { t.agent.frame(t, fr) }
	}
}

// listening notes that bytes come.
type listening struct{ t *tunnel }

func (l listening) Read(p []byte) (int, error) {
	n, err := l.t.ws.Read(p)
	l.t.heard.Store(true)
	return n, err
}

func (t *tunnel) failed(err error) {
	if ours, is := err.(*closing); is && !ours.theirs {
		t.agent.end(t, err)
		return
	}
	t.ws.conn.Close()
	t.agent.lost(t, err)
}

func (t *tunnel) write() {
	for now := open; now == open; {
		var data []byte
		data, now = t.out.take(mostSent, now)
		if len(data) == 0 || t.ws.write(opBinary, data) != nil {
			return // the reader tells why
		}
	}
}

// ping keeps the tunnel alive. It counts what it does, not time, so that an agent that has stood still itself does not
// take that for the hub's silence.
func (t *tunnel) ping() {
	if t.gone {
		return
	}
	t.silent += t.pingTime
	if t.heard.Swap(false) {
		t.silent = 0
	}
	if t.silent >= silentTime {
		t.agent.end(t, &closing{code: 4001, text: "keepalive_timeout"})
		return
	}
	t.pings++
	t.send(frame{typ: PING, seq: t.pings})
	t.agent.after(t.pingTime, t.ping)
}
