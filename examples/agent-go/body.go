package main

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"time"
	"unicode/utf8"
)

// Section 4: what this agent says and reads. Bodies of other frames are the hubs' own.
type hello struct {
	Version    int      `json:"version"`
	AgentID    string   `json:"agent_id"`
	Instance   string   `json:"instance"`
	Connectors []string `json:"connectors"`
	LastEpoch  uint64   `json:"last_epoch"`
	Standby    bool     `json:"standby"`
	Features   []string `json:"features"`
	Window     int      `json:"window"`
	Software   string   `json:"software"`
}

type helloAck struct {
	version   int
	replicaID string
	session   string
	epoch     uint64
	cluster   bool
	refused   []string

	// what the hub is configured to, in seconds and bytes; nil: it does not say
	grace, pingTimeout, drain *float64
	maxMessage                *int
}

type opening struct {
	connector, listener, origin string
	secret                      [secretSize]byte
	client                      [2]string // the client's IP address, and the one that it connected to
	ports                       [2]int
	agent, tenant               string // said between hubs only
}

const largestEpoch = 1 << 53

var (
	nameForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	hex16Form = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// object is a JSON object by its members. encoding/json's own way into a struct does not do: it takes "Version" for
// "version", and null for anything.
type object struct {
	members map[string]json.RawMessage
	err     error // the first thing that was wrong
}

func parse(body []byte) *object {
	o := &object{}
	if !utf8.Valid(body) {
		o.err = broken("a body that is not UTF-8")
	} else if json.Unmarshal(body, &o.members) != nil || o.members == nil {
		o.err = broken("a body that is no JSON object")
	}
	return o
}

// member reads one of a kind into where it belongs; a missing one is wrong only if it is needed.
func member[T any](o *object, name string, into *T, needed bool) {
	raw, there := o.members[name]
	if o.err != nil || !there && !needed {
		return
	}
	if !there || string(raw) == "null" || json.Unmarshal(raw, into) != nil {
		o.err = broken("%s is missing or malformed", name)
	}
}

func (o *object) text(name string, form *regexp.Regexp, needed bool) (text string) {
	if !needed && string(o.members[name]) == "null" {
		delete(o.members, name)
	}
	member(o, name, &text, needed)
	if _, there := o.members[name]; there && o.err == nil && !form.MatchString(text) {
		o.err = broken("%s is malformed", name)
	}
	return text
}

// readHelloAck reads only the version of another one: what its members mean is not known.
func readHelloAck(body []byte) (h helloAck, err error) {
	o := parse(body)
	member(o, "version", &h.version, true)
	if o.err == nil && h.version != versionHere {
		return h, &closing{code: 4007, text: "version"}
	}
	h.replicaID = o.text("replica_id", nameForm, true)
	h.session = o.text("session", hex16Form, true)
	member(o, "epoch", &h.epoch, true)
	member(o, "cluster", &h.cluster, false)
	member(o, "refused", &h.refused, false)
	for name, into := range map[string]**float64{"grace": &h.grace, "ping_timeout": &h.pingTimeout, "drain": &h.drain} {
		member(o, name, into, false)
		if s := *into; o.err == nil && s != nil && (*s < 0 || *s > 86400 || *s == 0 && name == "ping_timeout") {
			o.err = broken("%s is beyond its bounds", name)
		}
	}
	member(o, "max_message", &h.maxMessage, false)
	if o.err == nil && h.maxMessage != nil && *h.maxMessage < 1<<18 { // we stay far below
		o.err = broken("max_message is below its bound")
	}
	if o.err == nil && (h.epoch > largestEpoch || len(h.refused) > 256) {
		o.err = broken("epoch or refused is beyond its bound")
	}
	for _, name := range h.refused {
		if o.err == nil && !nameForm.MatchString(name) {
			o.err = broken("refused is malformed")
		}
	}
	return h, o.err
}

// seconds is what was said, or something else instead.
func seconds(said *float64, otherwise time.Duration) time.Duration {
	if said == nil {
		return otherwise
	}
	return time.Duration(*said * float64(time.Second))
}

func readMove(body []byte) (replicaID string, err error) {
	o := parse(body)
	return o.text("replica_id", nameForm, true), o.err
}

func readOpening(body []byte) (opening, error) {
	if len(body) > 0 && body[0] == 1 {
		return readPacked(body)
	}
	var p opening
	var client []json.RawMessage
	o := parse(body)
	p.connector = o.text("connector", nameForm, true)
	p.listener = o.text("listener", nameForm, true)
	p.origin = o.text("origin", nameForm, true)
	p.agent = o.text("agent", nameForm, false)
	p.tenant = o.text("tenant", nameForm, false)
	hex.Decode(p.secret[:], []byte(o.text("secret", hex16Form, true)))
	member(o, "client", &client, true)
	if o.err == nil && len(client) != 4 {
		o.err = broken("client is malformed")
	}
	for i := 0; o.err == nil && i < 2; i++ {
		pair := &object{members: map[string]json.RawMessage{"address": client[2*i], "port": client[2*i+1]}}
		member(pair, "address", &p.client[i], true)
		member(pair, "port", &p.ports[i], true)
		if o.err = pair.err; o.err == nil && (p.ports[i] < 0 || p.ports[i] > 65535 || !isAddress(p.client[i])) {
			o.err = broken("client is malformed")
		}
	}
	return p, o.err
}

func isAddress(text string) bool {
	return utf8.ValidString(text) && utf8.RuneCountInString(text) <= 64
}

func readPacked(body []byte) (p opening, err error) {
	malformed := broken("a packed M_OPEN is malformed")
	if len(body) < 21 {
		return p, malformed
	}
	copy(p.secret[:], body[1:17])
	p.ports = [2]int{int(binary.BigEndian.Uint16(body[17:])), int(binary.BigEndian.Uint16(body[19:]))}
	rest := body[21:]
	texts := []*string{&p.client[0], &p.client[1], &p.connector, &p.listener, &p.origin, &p.agent, &p.tenant}
	for i, text := range texts {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return p, malformed
		}
		*text, rest = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
		fits := isAddress(*text)
		if i >= 2 {
			fits = nameForm.MatchString(*text) || i >= 5 && *text == ""
		}
		if !fits {
			return p, malformed
		}
	}
	if len(rest) > 0 {
		return p, malformed
	}
	return p, nil
}
