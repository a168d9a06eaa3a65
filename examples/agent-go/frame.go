package main

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Section 5: frame types.
const (
	HELLO byte = 1 + iota
	HELLO_ACK
	M_OPEN
	M_OPEN_ACK
	M_DATA
	M_ACK
	M_FIN
	M_RST
	M_RESUME
	M_RESUME_ACK
	PING
	PONG
	GOAWAY
	AUTH
	ANNOUNCE
	M_DETACH
	M_GAP
	MOVE
)

// Section 12: those reasons that this agent says or looks at.
const (
	targetReset       uint16 = 3
	targetRefused     uint16 = 4
	targetUnreachable uint16 = 5
	targetTimeout     uint16 = 6
	noSuchConnector   uint16 = 7
	linkLost          uint16 = 10
	unknownFlow       uint16 = 12
	flowControl       uint16 = 13
	draining          uint16 = 18
	staleEpoch        uint16 = 24
)

const (
	headerSize  = 56
	mostData    = 65536 // bytes of an M_DATA's payload
	mostOther   = 16384 // of any other's
	largest     = 1 << 62
	ignorable   = 1
	secretSize  = 16
	versionHere = 1
)

type cid [16]byte

type frame struct {
	typ, flags             byte
	code                   uint16
	epoch, seq, ack, limit uint64
	cid                    cid
	payload                []byte
}

// closing ends a tunnel: with this close code, if err is ours; it is what the hub has said, if `theirs`.
type closing struct {
	code   uint16
	text   string
	theirs bool
}

func (c *closing) Error() string { return fmt.Sprintf("close code %d (%s)", c.code, c.text) }

func broken(format string, args ...any) error {
	return &closing{code: 1002, text: fmt.Sprintf(format, args...)}
}

// append puts the frame's bytes behind b.
func (f *frame) append(b []byte) []byte {
	b = append(b, f.typ, f.flags)
	b = binary.BigEndian.AppendUint16(b, f.code)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.payload)))
	b = binary.BigEndian.AppendUint64(b, f.epoch)
	b = append(b, f.cid[:]...)
	b = binary.BigEndian.AppendUint64(b, f.seq)
	b = binary.BigEndian.AppendUint64(b, f.ack)
	b = binary.BigEndian.AppendUint64(b, f.limit)
	return append(b, f.payload...)
}

// header reads and judges 56 bytes, before anything is allocated for the payload (section 3).
func header(h []byte) (f frame, length int, err error) {
	f = frame{
		typ: h[0], flags: h[1], code: binary.BigEndian.Uint16(h[2:]), epoch: binary.BigEndian.Uint64(h[8:]),
		cid: cid(h[16:32]), seq: binary.BigEndian.Uint64(h[32:]), ack: binary.BigEndian.Uint64(h[40:]),
		limit: binary.BigEndian.Uint64(h[48:]),
	}
	size := binary.BigEndian.Uint32(h[4:])
	known := f.typ >= HELLO && f.typ <= MOVE
	most := uint32(mostOther)
	if f.typ == M_DATA {
		most = mostData
	}
	switch {
	case f.flags&^ignorable != 0:
		err = broken("unknown flags %#x", f.flags)
	case size > most:
		err = broken("a frame of type %d with %d bytes", f.typ, size)
	case !known && f.flags == 0:
		err = broken("a frame of unknown type %d", f.typ)
	case !known:
	case f.seq >= largest || f.ack >= largest || f.limit >= largest:
		err = broken("a number of 2^62 or more")
	case f.typ == M_DATA && (size == 0 || f.seq+uint64(size) > largest):
		err = broken("M_DATA is empty, or goes beyond 2^62")
	case f.typ == M_RESUME && size < secretSize:
		err = broken("M_RESUME without a secret")
	case size > 0 && !carries(f.typ):
		err = broken("a frame of type %d with payload", f.typ)
	case f.code != 0 && f.typ != M_RST && f.typ != GOAWAY && f.typ != AUTH && f.typ != M_DETACH:
		err = broken("a frame of type %d with a code", f.typ)
	}
	return f, int(size), err
}

// carries tells whether frames of the type may have a payload.
func carries(typ byte) bool {
	switch typ {
	case M_OPEN_ACK, M_ACK, M_FIN, M_RST, M_RESUME_ACK, PING, PONG, GOAWAY, M_DETACH, M_GAP:
		return false
	}
	return true
}

// readFrame reads the next frame of a known type; others, if they may be ignored, are skipped.
func readFrame(r io.Reader) (frame, error) {
	var head [headerSize]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return frame{}, err
		}
		f, length, err := header(head[:])
		if err != nil {
			return frame{}, err
		}
		f.payload = make([]byte, length)
		if _, err := io.ReadFull(r, f.payload); err != nil {
			return frame{}, err
		}
		if f.typ >= HELLO && f.typ <= MOVE {
			return f, nil
		}
	}
}
