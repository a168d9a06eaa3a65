"""WebSocket messages as a carrier: binary messages hold the link's byte stream, their borders mean nothing.

The `websockets` library does the opening handshake, pings, pongs and the closing handshake (it gets every control frame
whole, and makes every one that we send). The payload of binary messages does not go through it: that would cost three
copies and a Python generator for each message (docs/decisions/0002-websocket-payload.md has the figures). Here it is
unmasked where the kernel put it and passed on from there.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from websockets.protocol import State

from ncfast.net.carrier cimport JOIN_BELOW, ReceiveBuffer, TransportCarrier
from ncfast.core.queues cimport Piece

from ncfast.core.errors import Reason, close_code, reason_of_close

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* out[i] = in[i] ^ key[(i + turn) % 4], eight bytes at a time; in and out may be the same. */
    static void nc_mask(uint8_t *out, const uint8_t *in, size_t n, const uint8_t *key, int turn) {
        uint8_t k8[8];
        uint64_t k, v;
        size_t i;
        for (i = 0; i < 8; i++) k8[i] = key[(i + turn) & 3];
        memcpy(&k, k8, 8);
        for (i = 0; i + 8 <= n; i += 8) { memcpy(&v, in + i, 8); v ^= k; memcpy(out + i, &v, 8); }
        for (; i < n; i++) out[i] = in[i] ^ k8[i & 7];
    }
    """
    void nc_mask(uint8_t* out, const uint8_t* data, size_t n, const uint8_t* key, int turn) noexcept nogil

cdef enum:
    OP_CONT = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_PING = 9
    OP_PONG = 10
    WEIGHTY = 16               # frames that a control message costs
    KEY_BATCH = 4096           # bytes of entropy drawn at a time for masks


cdef class WebSocketCarrier(TransportCarrier):
    """It takes over when the opening handshake is done.

    `ws` is the library's Sans-I/O connection in state OPEN, `client` says that we mask, `max_message` bounds a received
    message in bytes, `entropy(n)` gives n unpredictable bytes (RFC 6455, section 10.3).
    """

    def __init__(self, ws, transport, call_later, ReceiveBuffer buffer not None, *, bint client, uint64_t max_message,
                 entropy):
        super().__init__(transport, call_later, buffer)
        self.ws = ws
        self._client = client
        self._max_message = max_message
        self._entropy = entropy
        self._need = 2
        self._keys = b""

    # in

    cdef int _receive(self, uint8_t* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t k
        while n > 0 and not self._ended:
            if self._have < self._need:
                k = min(n, <Py_ssize_t>(self._need - self._have))
                memcpy(self._head + self._have, p, k)
                self._have += k
                p += k
                n -= k
                if self._have == self._need:
                    self._header()
                continue
            k = n if <uint64_t>n < self._left else <Py_ssize_t>self._left
            if self._control is not None:
                self._control += p[:k]
            else:
                if not self._client:
                    nc_mask(p, p, k, self._mask, self._turn)
                    self._turn = (self._turn + k) & 3
                self.link.receive(p, k)
            self._left -= k
            p += k
            n -= k
            if self._left == 0:
                if self._control is not None:
                    self._control_frame()
                self._have = 0
                self._need = 2
        return 0

    cdef int _header(self) except -1:
        """Called when `_need` bytes of the header are there: asks for more, or begins the payload."""
        cdef uint8_t* h = self._head
        cdef int opcode = h[0] & 0x0F
        cdef bint fin = h[0] & 0x80
        cdef bint control = opcode & 8
        cdef int length7 = h[1] & 0x7F
        cdef int extended = 2 if length7 == 126 else 8 if length7 == 127 else 0
        cdef int full = 2 + extended + (0 if self._client else 4)
        cdef uint64_t length
        cdef int i
        if self._need == 2:
            if h[0] & 0x70:
                return self._refuse(Reason.PROTOCOL_ERROR, "reserved bits of a WebSocket frame must be 0")
            if (h[1] >> 7) == <int>self._client:
                return self._refuse(
                    Reason.PROTOCOL_ERROR, "WebSocket frames are masked by the client, and by nobody else")
            if (control and (opcode > OP_PONG or not fin or length7 > 125)) or (not control and opcode > OP_BINARY):
                return self._refuse(Reason.PROTOCOL_ERROR, "invalid WebSocket opcode or control frame")
            if opcode == OP_TEXT:
                return self._refuse(Reason.PROTOCOL_ERROR, "text messages are not spoken here")
            if not control and (opcode == OP_CONT) != self._in_message:
                return self._refuse(Reason.PROTOCOL_ERROR, "WebSocket continuation out of order")
            if full > 2:
                self._need = full
                return 0
        length = length7
        if extended:
            length = 0
            for i in range(extended):
                length = (length << 8) | h[2 + i]
            # one spelling for each length (RFC 6455, section 5.2): what is between us and the peer reads them, too
            if length < (126 if extended == 2 else 65536):
                return self._refuse(Reason.PROTOCOL_ERROR, "WebSocket length in more bytes than it takes")
        self._left = length
        self._work += 1
        if not self._client:
            memcpy(self._mask, h + full - 4, 4)
            self._turn = 0
        if control:
            self._control = bytearray(h[:full])
            if length == 0:
                self._control_frame()
                self._have = 0
                self._need = 2
            return 0
        if not self._in_message:
            self._message = 0
        # Compared one by one: 2**63 - 1 twice must not wrap around. Fragments are as many as a library cuts (many in Go
        # at 4 KiB): nothing of them is gathered, each is a part of the carrier's turn, and an empty one is noise.
        if length > self._max_message or self._message + length > self._max_message:
            return self._refuse(Reason.MESSAGE_TOO_BIG, "WebSocket message over its bound")
        self._message += length
        self._in_message = not fin
        if length == 0:
            if self._in_message or self._message == 0:
                self.link.noise(1)       # moves nothing; only a last fragment may be empty for a reason
            self._have = 0
            self._need = 2
        return 0

    cdef int _refuse(self, reason, str detail) except -1:
        self.link.fail(reason, detail)
        return 0

    cdef int _control_frame(self) except -1:
        """A whole ping, pong or close, exactly as received, for the library to answer."""
        frame, self._control = self._control, None
        self._work += WEIGHTY            # the library reads it
        self.link.noise(1)
        if (self._head[0] & 0x0F) == OP_PING and not self.link.writable:
            return 0                     # whoever does not read gets no pongs piled up
        self.ws.receive_data(frame)
        self.ws.events_received()
        self._send_ws()
        if self.ws.parser_exc is not None and self.ws.close_rcvd is None:
            return self._refuse(Reason.PROTOCOL_ERROR, "invalid WebSocket control frame")
        if self.ws.state is not State.OPEN and not self._ended:
            self._ended = True
            code = self.ws.close_rcvd.code if self.ws.close_rcvd is not None else 1006
            self._close()
            self.link.lost(reason_of_close(code), f"closed by peer with {code}")
        return 0

    # out

    def _send_ws(self):
        for data in self.ws.data_to_send():
            if data and not self.transport.is_closing():
                self.transport.write(data)

    cdef int send(self, Piece* pieces, list bases, int count, Py_ssize_t total) except -1:
        cdef uint8_t head[14]
        cdef uint8_t key[4]
        cdef int h = 2, i
        cdef Py_ssize_t at
        cdef bytes out
        cdef uint8_t* p = NULL
        if self._ended:
            return 0
        head[0] = 0x80 | OP_BINARY
        if total < 126:
            head[1] = <uint8_t>total
        elif total < 65536:
            head[1] = 126
            head[2] = <uint8_t>(total >> 8)
            head[3] = <uint8_t>total
            h = 4
        else:
            head[1] = 127
            for i in range(8):
                head[2 + i] = <uint8_t>(<uint64_t>total >> (56 - 8 * i))
            h = 10
        if self._client:
            head[1] |= 0x80
            if self._next_key + 4 > PyBytes_GET_SIZE(self._keys):
                self._keys = self._entropy(KEY_BATCH)
                self._next_key = 0
            memcpy(key, PyBytes_AS_STRING(self._keys) + self._next_key, 4)
            self._next_key += 4
            memcpy(head + h, key, 4)
            h += 4
        if self._client or total < JOIN_BELOW:
            out = self._room(h + total, &p)
            memcpy(p, head, h)
            at = 0
            for i in range(count):
                if self._client:
                    nc_mask(p + h + at, pieces[i].p, pieces[i].n, key, at & 3)
                else:
                    memcpy(p + h + at, pieces[i].p, pieces[i].n)
                at += pieces[i].n
            return self._send(p, h + total, out)
        return self._write(head, h, pieces, bases, count)

    cdef int end(self, reason, str detail) except -1:
        """Tells the peer why and closes; a peer that does not take even that is cut."""
        if self._ended:
            return 0
        self._ended = True
        if self.ws.state is State.OPEN:
            self.ws.send_close(close_code(reason), reason.label)
            self._send_ws()
        if reason is Reason.KEEPALIVE_TIMEOUT or reason is Reason.STALLED:
            self.transport.abort()
        else:
            self._close()
        return 0
