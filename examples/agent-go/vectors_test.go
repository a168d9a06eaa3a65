package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

// The vectors that go with docs/protocol.md.
func load(t *testing.T, name string, into any) {
	text, err := os.ReadFile("../../tests/vectors/" + name)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func raw(t *testing.T, text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// code is the close code of an error, or 0.
func code(err error) uint16 {
	var c *closing
	if errors.As(err, &c) {
		return c.code
	}
	return 0
}

func TestFrames(t *testing.T) {
	var vectors struct {
		Frames []struct {
			Name              string
			Type, Flags       byte
			Code              uint16
			Epoch             uint64
			Seq, Ack, Limit   uint64
			Cid, Payload, Hex string
		}
		Malformed []struct{ Name, Hex string }
	}
	load(t, "frames.json", &vectors)
	for _, v := range vectors.Frames {
		want := frame{
			typ: v.Type, flags: v.Flags, code: v.Code, epoch: v.Epoch, seq: v.Seq, ack: v.Ack, limit: v.Limit,
			cid: cid(raw(t, v.Cid)), payload: raw(t, v.Payload),
		}
		if got := hex.EncodeToString(want.append(nil)); got != v.Hex {
			t.Errorf("%s: written as %s", v.Name, got)
		}
		ping := frame{typ: PING, seq: 1, payload: []byte{}} // stands behind it
		if strings.Contains(v.Name, "skipped") {
			want = ping
		}
		got, err := readFrame(bytes.NewReader(ping.append(raw(t, v.Hex))))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read as %+v, %v", v.Name, got, err)
		}
	}
	for _, v := range vectors.Malformed {
		if _, err := readFrame(bytes.NewReader(raw(t, v.Hex))); code(err) != 1002 {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

func TestBodies(t *testing.T) {
	type vector struct {
		Name, Frame, From, Hex, Text string
		Means                        map[string]any
		Error                        string
	}
	var vectors struct{ Valid, Invalid []vector }
	load(t, "bodies.json", &vectors)
	codes := map[string]uint16{"protocol_error": 1002, "version": 4007}
	for _, v := range append(vectors.Valid, vectors.Invalid...) {
		if v.From != "hub" { // not an agent's to read
			continue
		}
		body := append(raw(t, v.Hex), v.Text...)
		var means map[string]any
		var err error
		switch v.Frame {
		case "HELLO_ACK":
			var h helloAck
			h, err = readHelloAck(body)
			refused := []any{}
			for _, name := range h.refused {
				refused = append(refused, name)
			}
			means = map[string]any{
				"version": float64(h.version), "replica_id": h.replicaID, "session": h.session,
				"epoch": float64(h.epoch), "cluster": h.cluster, "refused": refused,
				"grace": "", "ping_timeout": "", "drain": "", "max_message": "",
			}
			for name, said := range map[string]*float64{"grace": h.grace, "ping_timeout": h.pingTimeout, "drain": h.drain} {
				if said != nil {
					means[name] = *said
				}
			}
			if h.maxMessage != nil {
				means["max_message"] = float64(*h.maxMessage)
			}
		case "M_OPEN":
			var o opening
			o, err = readOpening(body)
			means = map[string]any{
				"connector": o.connector, "listener": o.listener, "secret": hex.EncodeToString(o.secret[:]),
				"origin": o.origin, "agent": o.agent, "tenant": o.tenant,
				"client": []any{o.client[0], float64(o.ports[0]), o.client[1], float64(o.ports[1])},
			}
		case "MOVE":
			var replica string
			replica, err = readMove(body)
			means = map[string]any{"replica_id": replica}
		default:
			t.Fatalf("%s is not read here", v.Frame)
		}
		if code(err) != codes[v.Error] || (v.Error == "") != (err == nil) {
			t.Errorf("%s: %s: %v", v.Frame, v.Name, err)
		}
		if v.Error == "" && !reflect.DeepEqual(means, v.Means) {
			t.Errorf("%s: %s: read as %v", v.Frame, v.Name, means)
		}
	}
}

func TestHeadsOfWebSocketFrames(t *testing.T) {
	var vectors []struct {
		Name, Head string
		Length     uint64
		Close      uint16
	}
	load(t, "websocket.json", &vectors)
	for _, v := range vectors {
		w := &websocket{in: bufio.NewReader(bytes.NewReader(raw(t, v.Head)))}
		if err := w.next(); code(err) != v.Close || err == nil && w.left != v.Length {
			t.Errorf("%s: %d bytes, %v", v.Name, w.left, err)
		}
	}
}
