package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	opContinuation, opText, opBinary, opClose, opPing, opPong = 0x0, 0x1, 0x2, 0x8, 0x9, 0xa

	mostMessage  = 1 << 20 // bytes of a message of the hub's (1.10)
	connectTime  = 10 * time.Second
	farewellTime = time.Second
)

// websocket is the agent's end of a tunnel's connection (RFC 6455). It is read as one stream of bytes: borders of
// messages and of fragments mean nothing (1.8).
type websocket struct {
	conn   net.Conn
	in     *bufio.Reader
	left   uint64 // bytes of the frame that is being read
	within bool   // a message has begun and not ended
	size   uint64 // of that message until now
	writes sync.Mutex
}

// refused is an answer other than 101.
type refused struct {
	status int
	wait   time.Duration // Retry-After
}

func (r *refused) Error() string { return fmt.Sprintf("the hub answers %d", r.status) }

// dialWebsocket opens a tunnel's connection, within connectTime.
func dialWebsocket(address, token string) (*websocket, error) {
	at, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	port := at.Port()
	var conn net.Conn
	switch at.Scheme {
	case "ws":
		if port == "" {
			port = "80"
		}
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(at.Hostname(), port))
	case "wss":
		if port == "" {
			port = "443"
		}
		secure := tls.Dialer{Config: &tls.Config{ServerName: at.Hostname(), MinVersion: tls.VersionTLS12}}
		conn, err = secure.DialContext(ctx, "tcp", net.JoinHostPort(at.Hostname(), port))
	default:
		return nil, fmt.Errorf("%s: neither ws:// nor wss://", address)
	}
	if err != nil {
		return nil, err
	}
	w := &websocket{conn: conn, in: bufio.NewReaderSize(conn, 65536)}
	conn.SetDeadline(time.Now().Add(connectTime))
	if err := w.handshake(at, token); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return w, nil
}

func (w *websocket) handshake(at *url.URL, token string) error {
	var random [16]byte
	rand.Read(random[:])
	key := base64.StdEncoding.EncodeToString(random[:])
	_, err := fmt.Fprintf(w.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer %s\r\nUser-Agent: %s\r\n\r\n",
		at.EscapedPath(), at.Host, key, token, software)
	if err != nil {
		return err
	}
	answer, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		no := &refused{status: answer.StatusCode}
		seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
		if err == nil && answer.StatusCode >= 400 { // a date counts as none, and a redirect's
			no.wait = time.Duration(seconds) * time.Second
		}
		return no
	}
	proof := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if answer.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(proof[:]) {
		return fmt.Errorf("what answers is no WebSocket server")
	}
	return nil
}

// Read gives the payload of binary messages. Its error is a *closing if the hub has said so, or has broken a rule.
func (w *websocket) Read(p []byte) (int, error) {
	for w.left == 0 {
		if err := w.next(); err != nil {
			return 0, err
		}
	}
	n, err := w.in.Read(p[:min(uint64(len(p)), w.left)])
	w.left -= uint64(n)
	return n, err
}

// next reads the head of a frame, and all of one that is not data.
func (w *websocket) next() error {
	first, err := w.in.ReadByte()
	if err != nil {
		return err
	}
	second, err := w.in.ReadByte()
	if err != nil {
		return err
	}
	length, err := w.length(second)
	if err != nil {
		return err
	}
	final, op := first&0x80 != 0, first&0x0f
	switch {
	case first&0x70 != 0 || second&0x80 != 0:
		return broken("a WebSocket frame with reserved bits, or masked")
	case op >= opClose:
		return w.control(final, op, length)
	case op != opBinary && op != opContinuation || (op == opContinuation) != w.within:
		return broken("opcode %d at the wrong place, or of text", op)
	}
	if op == opBinary {
		w.size = 0
	}
	w.left, w.size, w.within = length, w.size+length, !final
	if length > mostMessage || w.size > mostMessage {
		return &closing{code: 1009, text: "message_too_big"}
	}
	return nil
}

// length reads what the second byte has begun; it must stand in the fewest bytes.
func (w *websocket) length(second byte) (length uint64, err error) {
	var more [8]byte
	switch n := second & 0x7f; n {
	default:
		return uint64(n), nil
	case 126:
		_, err = io.ReadFull(w.in, more[6:])
		length = binary.BigEndian.Uint64(more[:])
		if err == nil && length < 126 {
			err = broken("a length in more bytes than it needs")
		}
	case 127:
		_, err = io.ReadFull(w.in, more[:])
		length = binary.BigEndian.Uint64(more[:])
		if err == nil && length < 65536 {
			err = broken("a length in more bytes than it needs")
		}
	}
	return length, err
}

func (w *websocket) control(final bool, op byte, length uint64) error {
	if !final || length > 125 || op > opPong {
		return broken("a malformed control frame")
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(w.in, payload); err != nil {
		return err
	}
	switch op {
	case opPing:
		return w.write(opPong, payload)
	case opClose:
		said := &closing{code: 1005, theirs: true}
		if length >= 2 {
			said.code, said.text = binary.BigEndian.Uint16(payload), fmt.Sprintf("%q", payload[2:])
		}
		w.conn.SetWriteDeadline(time.Now().Add(farewellTime))
		w.write(opClose, payload)
		return said
	}
	return nil
}

// write sends one masked frame, final.
func (w *websocket) write(op byte, payload []byte) error {
	var key [1024]byte // the four bytes of the key, again and again: they are applied by blocks
	rand.Read(key[:4])
	for n := 4; n < len(key); n *= 2 {
		copy(key[n:], key[:n])
	}
	out := make([]byte, 2, 14+len(payload))
	out[0] = 0x80 | op
	switch n := len(payload); {
	case n < 126:
		out[1] = 0x80 | byte(n)
	case n < 65536:
		out[1] = 0x80 | 126
		out = binary.BigEndian.AppendUint16(out, uint16(n))
	default:
		out[1] = 0x80 | 127
		out = binary.BigEndian.AppendUint64(out, uint64(n))
	}
	out = append(out, key[:4]...)
	head := len(out)
	out = append(out, payload...)
	for masked := out[head:]; len(masked) > 0; {
		masked = masked[subtle.XORBytes(masked, masked, key[:]):]
	}
	w.writes.Lock()
	defer w.writes.Unlock()
	_, err := w.conn.Write(out)
	return err
}

// end says a close frame and ends TCP at once (1.13); after 4001 and 4002 TCP is aborted.
func (w *websocket) end(c *closing) {
	if c.code == 4001 || c.code == 4002 {
		abort(w.conn)
		return
	}
	w.conn.SetWriteDeadline(time.Now().Add(farewellTime)) // a write that hangs gives up its lock
	w.write(opClose, append(binary.BigEndian.AppendUint16(nil, c.code), c.text[:min(len(c.text), 120)]...))
	w.conn.Close()
}

func abort(conn net.Conn) {
	if secure, is := conn.(*tls.Conn); is {
		conn = secure.NetConn()
	}
	if bare, is := conn.(*net.TCPConn); is {
		bare.SetLinger(0)
	}
	conn.Close()
}
