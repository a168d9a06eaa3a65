package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"time"
)

// Times and sizes of section 13.
const (
	pauseFirst     = 200 * time.Millisecond
	pauseMost      = 30 * time.Second
	standsFor      = 10 * time.Second // until the pauses are short again
	supersededTime = 30 * time.Second
	claimTime      = 3 * time.Second // HELLO_ACK after a claim over a standby
	fencedTime     = 5 * time.Second // between claims that M_DETACH makes
	moveTime       = 60 * time.Second
	tokenTime      = time.Second // between two looks at the token's file: ours
	mostRemembered = 16384
	tenYears       = 10 * 365 * 24 * 3600 * 1_000_000 // microseconds, as epochs are
	from2026       = 1_767_225_600_000_000

	software = "agent-go/1"
)

type settings struct {
	hubs      []string // URLs
	id        string
	targets   map[string]string // host:port by connector
	tokenFile string
}

// agent has all tunnels and flows. One goroutine runs what is posted; nothing else touches its state, so nothing is
// locked, and nothing that it does may wait.
type agent struct {
	settings
	post     chan func()
	instance string

	owner    *tunnel
	standby  *tunnel // its HELLO_ACK has come
	greeting *tunnel // its first HELLO, or its claim over a standby, is unanswered
	dialling bool    // a pause before a dial, or a dial
	pausing  *time.Timer
	hub      int              // of hubs: the next to dial
	pause    [2]time.Duration // bounds of the pauses: to claim, to stand by
	notUntil time.Time        // Retry-After
	quiet    time.Time        // no claims before: superseded

	grace   time.Duration // of a flow without a way, at the last owner
	granted uint64        // the highest epoch that was granted, or that M_DETACH has told of
	say     uint64        // the least that the next claim says as last_epoch
	fenced  time.Time
	moving  string // the hub that MOVE names

	flows      map[cid]*flow
	remembered map[cid]bool // flows that are over: the last ones
	order      []cid
	quick      map[*flow]bool // to acknowledge soon
}

func newAgent(s settings) *agent {
	var instance [16]byte
	rand.Read(instance[:])
	return &agent{
		settings: s, post: make(chan func(), 256), instance: hex.EncodeToString(instance[:]),
		pause: [2]time.Duration{pauseFirst, pauseFirst},
		flows: map[cid]*flow{}, remembered: map[cid]bool{}, quick: map[*flow]bool{},
	}
}

func (a *agent) run() {
	a.seek()
	a.after(tokenTime, a.lookForToken)
	for act := range a.post {
		act()
	}
}

func (a *agent) after(d time.Duration, act func()) *time.Timer {
	return time.AfterFunc(d, func() { a.post <- act })
}

func (a *agent) token() string {
	text, err := os.ReadFile(a.tokenFile)
	if err != nil {
		log.Print(err)
	}
	return strings.TrimSpace(string(text))
}

func (a *agent) lookForToken() {
	if token := a.token(); token != "" {
		for _, t := range []*tunnel{a.owner, a.standby} {
			if t != nil && t.token != token {
				t.token = token
				t.send(frame{typ: AUTH, payload: []byte(token)})
			}
		}
	}
	a.after(tokenTime, a.lookForToken)
}

// tunnels

// seek makes of the tunnels that there are those that there should be. It is called when something has changed.
func (a *agent) seek() {
	leave := a.owner == nil || a.owner.away || a.moving != ""
	switch {
	case a.greeting != nil:
	case a.owner == nil && time.Now().Before(a.quiet):
		a.after(time.Until(a.quiet), a.seek)
	case leave && a.standby != nil && (a.moving == "" || a.standby.replica == a.moving):
		a.hello(a.standby, true)
		claim := a.standby
		claim.waits = a.after(claimTime, func() { a.end(claim, &closing{code: 4005, text: "handshake_timeout"}) })
	case a.dialling:
	case a.owner == nil, a.owner.cluster && len(a.hubs) > 1 && a.standby == nil:
		a.dial()
	}
}

// dial opens a tunnel to the next hub, after a pause.
func (a *agent) dial() {
	bound := &a.pause[0]
	if a.owner != nil {
		bound = &a.pause[1]
	}
	pause := mathrand.N(*bound)
	*bound = min(2**bound, pauseMost)
	a.dialling = true
	a.pausing = a.after(max(pause, time.Until(a.notUntil)), func() {
		a.pausing = nil
		url, token := a.hubs[a.hub], a.token()
		a.hub = (a.hub + 1) % len(a.hubs)
		go func() {
			ws, err := dialWebsocket(url, token)
			a.post <- func() { a.connected(ws, token, err) }
		}()
	})
}

func (a *agent) connected(ws *websocket, token string, err error) {
	a.dialling = false
	if err != nil {
		log.Print(err)
		var no *refused
		if errors.As(err, &no) && no.wait > 0 {
			a.notUntil = time.Now().Add(no.wait)
		}
		a.seek()
		return
	}
	t := newTunnel(a, ws, token)
	t.waits = a.after(connectTime, func() { a.end(t, &closing{code: 4005, text: "handshake_timeout"}) })
	a.hello(t, a.owner == nil)
}

// hello introduces the agent on a tunnel: to claim, or to stand by.
func (a *agent) hello(t *tunnel, claims bool) {
	last := max(a.granted, a.say)
	if claims {
		a.say = last + 1
	}
	connectors := []string{}
	for name := range a.targets {
		connectors = append(connectors, name)
	}
	body, _ := json.Marshal(hello{
		Version: versionHere, AgentID: a.id, Instance: a.instance, Connectors: connectors, LastEpoch: last,
		Standby: !claims, Features: []string{"packed_open", "moves"}, Window: window, Software: software,
	})
	t.claims, t.said = claims, last
	a.greeting = t
	t.send(frame{typ: HELLO, payload: body})
}

func (a *agent) welcomed(t *tunnel, body []byte) {
	ack, err := readHelloAck(body)
	switch {
	case err != nil:
		a.end(t, err)
	case t == a.owner:
		if ack.epoch != t.epoch || ack.replicaID != t.replica || ack.session != t.session {
			a.end(t, broken("another HELLO_ACK than before"))
			return
		}
		t.cluster = ack.cluster
	case t != a.greeting:
		a.end(t, broken("a HELLO_ACK that nobody asked for"))
	case t.claims && ack.epoch <= max(a.granted, t.said), !t.claims && ack.epoch != 0:
		a.end(t, broken("epoch %d is granted, the last was %d", ack.epoch, max(a.granted, t.said)))
	default:
		a.greeting = nil
		t.waits.Stop()
		t.replica, t.session, t.cluster = ack.replicaID, ack.session, ack.cluster
		t.grace = min(graceTime, seconds(ack.grace, graceTime))
		t.pingTime = min(pingTime, seconds(ack.pingTimeout, 2*pingTime)/2)
		if len(ack.refused) > 0 {
			log.Printf("the token does not cover %v", ack.refused)
		}
		if t.claims {
			a.owned(t, ack.epoch)
		} else if a.owner != nil && t.replica == a.owner.replica {
			a.end(t, &closing{code: 1001, text: "going_away"}) // no other hub
		} else {
			a.standby = t
			a.shortAgain(&a.standby, t, &a.pause[1])
		}
	}
	a.seek()
}

// owned moves everything to the tunnel that has the newest epoch.
func (a *agent) owned(t *tunnel, epoch uint64) {
	log.Printf("%s owns us under epoch %d", t.replica, epoch)
	t.epoch, a.granted, a.moving = epoch, epoch, ""
	a.grace = t.grace
	if a.standby == t {
		a.standby = nil
	}
	before := a.owner
	a.owner = t
	if before != nil {
		a.end(before, &closing{code: 1001, text: "going_away"})
	}
	for _, f := range a.flows {
		f.come(t)
	}
	a.shortAgain(&a.owner, t, &a.pause[0])
}

// shortAgain ends the growth of pauses when a tunnel has stood for long enough.
func (a *agent) shortAgain(place **tunnel, t *tunnel, bound *time.Duration) {
	a.after(standsFor, func() {
		if *place == t {
			*bound = pauseFirst
		}
	})
}

// end closes a tunnel for our reason.
func (a *agent) end(t *tunnel, err error) {
	why := &closing{code: 1011, text: "internal"}
	errors.As(err, &why)
	if !t.gone {
		go t.ws.end(why)
		a.lost(t, err)
	}
}

// lost forgets a tunnel that has ended.
func (a *agent) lost(t *tunnel, err error) {
	if t.gone {
		return
	}
	t.gone = true
	t.out.end(closed)
	t.waits.Stop()
	var said *closing
	log.Printf("a tunnel has ended: %v", err)
	errors.As(err, &said)
	if a.greeting == t {
		a.greeting = nil
		if said != nil && said.theirs && said.code == 1002 && t.claims {
			a.granted, a.say = 0, 0 // what we have said may be from a registry that was poisoned
		}
	}
	if a.standby == t {
		a.standby = nil
	}
	if a.owner == t {
		a.owner = nil
		if said != nil && said.theirs && said.code == 4003 {
			a.quiet = time.Now().Add(supersededTime)
		}
		if a.pausing != nil && a.pausing.Stop() { // it was for a standby
			a.dialling, a.pausing = false, nil
		}
	}
	for _, f := range a.flows {
		if f.way == t {
			f.leave(nil)
		}
	}
	a.seek()
}

// fence claims again above an epoch that another hub has granted (8.19).
func (a *agent) fence(epoch uint64) {
	if epoch > max(a.granted, from2026)+tenYears || epoch <= a.granted || time.Since(a.fenced) < fencedTime {
		return
	}
	a.fenced, a.granted = time.Now(), epoch
	if a.standby != nil {
		a.owner.away = true
		a.seek()
	} else {
		a.end(a.owner, &closing{code: 1001, text: "going_away"})
	}
}

// move seeks the hub that owns us wants to (8.20): a standby there, and then its ownership.
func (a *agent) move(body []byte) error {
	replica, err := readMove(body)
	if err != nil || replica == a.owner.replica {
		return err
	}
	a.moving = replica
	owner := a.owner
	a.after(moveTime, func() {
		if a.moving == replica && a.owner == owner {
			a.moving = ""
			owner.send(frame{typ: MOVE, payload: body})
		}
	})
	if a.standby != nil && a.standby.replica != replica {
		a.end(a.standby, &closing{code: 1001, text: "going_away"})
	}
	a.seek()
	return nil
}

// frames

// frame is the first table of section 15.
func (a *agent) frame(t *tunnel, fr frame) {
	if t.gone {
		return
	}
	switch fr.typ {
	case HELLO, ANNOUNCE:
		a.end(t, broken("a frame of type %d from a hub", fr.typ))
	case HELLO_ACK:
		a.welcomed(t, fr.payload)
	case PING:
		t.send(frame{typ: PONG, seq: fr.seq})
	case PONG:
	case AUTH:
		if fr.code != 0 {
			log.Printf("the token is refused: %q", fr.payload)
		}
	case GOAWAY:
		t.away = true
		if t == a.standby {
			a.end(t, &closing{code: 1001, text: "going_away"})
		}
		a.seek()
	case M_OPEN, M_RESUME, MOVE:
		if t != a.owner {
			a.end(t, broken("a frame of type %d on a tunnel that does not own", fr.typ))
		} else if fr.typ != MOVE {
			a.flowFrame(t, fr)
		} else if err := a.move(fr.payload); err != nil {
			a.end(t, err)
		}
	default:
		a.flowFrame(t, fr)
	}
}

func (a *agent) flowFrame(t *tunnel, fr frame) {
	rst := func(code uint16) { t.send(frame{typ: M_RST, code: code, cid: fr.cid}) }
	f := a.flows[fr.cid]
	switch {
	case fr.epoch != t.epoch:
		if fr.typ == M_OPEN || fr.typ == M_RESUME {
			rst(staleEpoch)
		}
	case f != nil:
		here := f.way == t
		f.frame(t, fr)
		if here && fr.typ == M_DETACH && fr.code == staleEpoch {
			a.fence(fr.seq)
		}
	case fr.typ == M_OPEN && a.remembered[fr.cid]:
		rst(linkLost)
	case fr.typ == M_OPEN:
		said, err := readOpening(fr.payload)
		if err != nil {
			a.end(t, err)
		} else if target, there := a.targets[said.connector]; !there {
			rst(noSuchConnector)
		} else {
			f := &flow{
				agent: a, id: fr.cid, secret: said.secret, way: t, credit: fr.limit, limit: window,
				out: newQueue(), more: make(chan struct{}, 1),
			}
			a.flows[fr.cid] = f
			f.dial(target)
		}
	case fr.typ == M_RESUME, fr.typ == M_OPEN_ACK, (fr.typ == M_DATA || fr.typ == M_FIN) && !a.remembered[fr.cid]:
		rst(unknownFlow)
	}
}

// forget remembers that a flow is over.
func (a *agent) forget(f *flow) {
	delete(a.flows, f.id)
	delete(a.quick, f)
	a.remembered[f.id] = true
	a.order = append(a.order, f.id)
	if len(a.order) > mostRemembered {
		delete(a.remembered, a.order[0])
		a.order = a.order[1:]
	}
}

// acknowledgeSoon lets one M_ACK speak for all that comes within ackTime.
func (a *agent) acknowledgeSoon(f *flow) {
	if len(a.quick) == 0 {
		a.after(ackTime, a.acknowledgeAll)
	}
	a.quick[f] = true
}

func (a *agent) acknowledgeAll() {
	for f := range a.quick {
		if f.conn != nil && (f.repeat || f.ack() != f.saidAck || f.taken+window-f.limit >= window/2) {
			f.acknowledge(M_ACK)
		}
	}
	clear(a.quick)
}

// goAway ends the agent: flows are not waited for.
func (a *agent) goAway(done chan struct{}) {
	for _, t := range []*tunnel{a.owner, a.standby, a.greeting} {
		if t != nil && !t.gone {
			t.gone = true
			t.ws.end(&closing{code: 1001, text: "going_away"})
		}
	}
	close(done)
}
