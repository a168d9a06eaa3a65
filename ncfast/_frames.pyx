"""Frame codec, frame memory and the dedup ring. No asyncio, no sockets, no logging.

Header, 56 bytes in network byte order (docs/protocol.md has the spec, tests/vectors the examples):

    0 type u8 | 1 flags u8 | 2 code u16 | 4 length u32 | 8 epoch u64 | 16 cid 16 bytes | 32 seq u64 | 40 ack u64 | 48
    limit u64
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint16_t nc_load16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
    static inline uint32_t nc_load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
    static inline uint64_t nc_load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
    static inline void nc_store16(uint8_t *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
    static inline void nc_store32(uint8_t *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
    static inline void nc_store64(uint8_t *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "ncfast's codec is written for little-endian machines"
    #endif
    #define NC_ROTL(x, n) ((x) << (n) | (x) >> (64 - (n)))
    #define NC_SIPROUND do { \
        v0 += v1; v1 = NC_ROTL(v1, 13) ^ v0; v0 = NC_ROTL(v0, 32); v2 += v3; v3 = NC_ROTL(v3, 16) ^ v2; \
        v0 += v3; v3 = NC_ROTL(v3, 21) ^ v0; v2 += v1; v1 = NC_ROTL(v1, 17) ^ v2; v2 = NC_ROTL(v2, 32); \
    } while (0)
    /* SipHash-1-3 (Aumasson, Bernstein 2012) of the 16 bytes that are a and b. */
    static inline uint64_t nc_siphash13(uint64_t k0, uint64_t k1, uint64_t a, uint64_t b) {
        uint64_t v0 = k0 ^ 0x736f6d6570736575u, v1 = k1 ^ 0x646f72616e646f6du;
        uint64_t v2 = k0 ^ 0x6c7967656e657261u, v3 = k1 ^ 0x7465646279746573u;
        const uint64_t end = (uint64_t)16 << 56;
        v3 ^= a; NC_SIPROUND; v0 ^= a;
        v3 ^= b; NC_SIPROUND; v0 ^= b;
        v3 ^= end; NC_SIPROUND; v0 ^= end;
        v2 ^= 0xff; NC_SIPROUND; NC_SIPROUND; NC_SIPROUND;
        return v0 ^ v1 ^ v2 ^ v3;
    }
    """
    uint64_t nc_siphash13(uint64_t k0, uint64_t k1, uint64_t a, uint64_t b) noexcept nogil
    uint16_t nc_load16(const uint8_t* p) noexcept nogil
    uint32_t nc_load32(const uint8_t* p) noexcept nogil
    uint64_t nc_load64(const uint8_t* p) noexcept nogil
    void nc_store16(uint8_t* p, uint16_t v) noexcept nogil
    void nc_store32(uint8_t* p, uint32_t v) noexcept nogil
    void nc_store64(uint8_t* p, uint64_t v) noexcept nogil

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* o)    # by pointer: as an object the call itself would hold a reference


cdef void write_header(uint8_t* p, const Header* h) noexcept nogil:
    p[0] = h.type
    p[1] = h.flags
    nc_store16(p + 2, h.code)
    nc_store32(p + 4, h.length)
    nc_store64(p + 8, h.epoch)
    memcpy(p + 16, h.cid, CID_SIZE)
    nc_store64(p + 32, h.seq)
    nc_store64(p + 40, h.ack)
    nc_store64(p + 48, h.limit)


cdef void read_header(const uint8_t* p, Header* h) noexcept nogil:
    """The caller has HEADER_SIZE bytes at p."""
    h.type = p[0]
    h.flags = p[1]
    h.code = nc_load16(p + 2)
    h.length = nc_load32(p + 4)
    h.epoch = nc_load64(p + 8)
    memcpy(h.cid, p + 16, CID_SIZE)
    h.seq = nc_load64(p + 32)
    h.ack = nc_load64(p + 40)
    h.limit = nc_load64(p + 48)


cdef enum:
    # stream offsets stay below 2**62, as QUIC's do (RFC 9000, section 16): sums cannot overflow
    MAX_OFFSET_SHIFT = 62


cdef int check_header(const Header* h) noexcept nogil:
    """Everything that can be said of a header before its payload is read; CODEC_* result."""
    if h.length > <uint32_t>(MAX_DATA if h.type == M_DATA else MAX_CONTROL):
        return CODEC_LENGTH
    if h.flags & ~<uint8_t>IGNORABLE:
        return CODEC_FLAGS
    if h.type < HELLO or h.type >= FRAME_TYPES:
        return CODEC_UNKNOWN_SKIP if h.flags & IGNORABLE else CODEC_UNKNOWN
    if h.seq >> MAX_OFFSET_SHIFT or h.ack >> MAX_OFFSET_SHIFT or h.limit >> MAX_OFFSET_SHIFT:
        return CODEC_FIELDS
    if h.type == M_DATA:
        if h.length == 0:
            return CODEC_LENGTH        # says nothing, costs work: a flood's favourite
        if (h.seq + h.length - 1) >> MAX_OFFSET_SHIFT:
            return CODEC_FIELDS        # a relay that cuts it would make a frame that is malformed
    elif h.type == M_RESUME:
        if h.length < SECRET_SIZE:
            return CODEC_LENGTH
    elif h.type == M_ACK or h.type == M_FIN or h.type == M_RST or h.type == M_RESUME_ACK \
            or h.type == M_OPEN_ACK or h.type == PING or h.type == PONG or h.type == GOAWAY \
            or h.type == M_DETACH or h.type == M_GAP:
        if h.length != 0:
            return CODEC_LENGTH
    if h.code and h.type != M_RST and h.type != GOAWAY and h.type != AUTH and h.type != M_DETACH:
        return CODEC_FIELDS
    return CODEC_OK


cdef str codec_error(int code):
    if code == CODEC_UNKNOWN:
        return "unknown frame type"
    if code == CODEC_FLAGS:
        return "unknown flag"
    if code == CODEC_LENGTH:
        return "length out of bounds for the frame type"
    return "field out of bounds for the frame type"


cdef bytes build_frame(const Header* h, const uint8_t* payload):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, HEADER_SIZE + h.length)
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(out)
    write_header(p, h)
    if h.length:
        memcpy(p + HEADER_SIZE, payload, h.length)
    return out


class FrameError(ValueError):
    """Malformed frame: whoever sent it is at fault, and its link ends."""


def encode(int type, *, int flags=0, int code=0, uint64_t epoch=0, bytes cid=bytes(16), uint64_t seq=0,
           uint64_t ack=0, uint64_t limit=0, bytes payload=b""):
    """One frame as bytes. Raises FrameError for what `decode` would refuse."""
    cdef Header h
    cdef int verdict
    if PyBytes_GET_SIZE(cid) != CID_SIZE:
        raise FrameError("cid must be 16 bytes")
    if not 0 <= type <= 255 or not 0 <= flags <= 255 or not 0 <= code <= 65535:
        raise FrameError("field out of bounds for the frame type")
    if PyBytes_GET_SIZE(payload) > MAX_DATA:
        raise FrameError("length out of bounds for the frame type")
    h.type = type
    h.flags = flags
    h.code = code
    h.length = PyBytes_GET_SIZE(payload)
    h.epoch = epoch
    memcpy(h.cid, PyBytes_AS_STRING(cid), CID_SIZE)
    h.seq = seq
    h.ack = ack
    h.limit = limit
    verdict = check_header(&h)
    if verdict < 0:
        raise FrameError(codec_error(verdict))
    return build_frame(&h, <const uint8_t*>PyBytes_AS_STRING(payload))


def decode(const uint8_t[::1] data not None, Py_ssize_t offset=0):
    """One frame from `data[offset:]`: (type, flags, code, epoch, cid, seq, ack, limit, payload, end), or None if more
    is needed.

    Raises FrameError as soon as the header shows that the frame is malformed, before its payload is there.
    A frame of unknown type with the ignorable flag is returned like any other.
    """
    cdef Header h
    cdef Py_ssize_t have = data.shape[0] - offset
    cdef int verdict
    if offset < 0 or have < HEADER_SIZE:
        return None
    read_header(&data[offset], &h)
    verdict = check_header(&h)
    if verdict < 0:
        raise FrameError(codec_error(verdict))
    if have - HEADER_SIZE < <Py_ssize_t>h.length:
        return None
    payload = PyBytes_FromStringAndSize(
        <char*>&data[offset] + HEADER_SIZE, h.length) if h.length else b""
    return (h.type, h.flags, h.code, h.epoch, PyBytes_FromStringAndSize(<char*>h.cid, CID_SIZE),
            h.seq, h.ack, h.limit, payload, offset + HEADER_SIZE + <Py_ssize_t>h.length)


@cython.no_gc                            # a chain of them has an end
@cython.freelist(64)
cdef class Chunk:

    def __dealloc__(self):
        # Of a flow that is let go of with all that it holds: one behind the other. Each inside the one before would
        # take as much stack as there are chunks.
        cdef Chunk chunk = self.next, after
        self.next = None
        while chunk is not None and Py_REFCNT(<PyObject*>chunk) == 1:
            after = chunk.next
            chunk.next = None
            chunk, after = after, None

    cdef uint8_t* frame(self) except NULL:
        """Where the header goes. If a transport still holds a view of the memory, the chunk moves to a copy first:
        a header is never rewritten under an unsent write."""
        if Py_REFCNT(<PyObject*>self.buf) > 1:
            self.buf = PyBytes_FromStringAndSize(
                <char*>PyBytes_AS_STRING(self.buf) + (self.off - HEADER_SIZE), HEADER_SIZE + self.size)
            self.off = HEADER_SIZE
        return <uint8_t*>PyBytes_AS_STRING(self.buf) + self.off - HEADER_SIZE


cdef enum:
    # a smaller read moves to a buffer of its own size, so that it does not pin a whole segment
    COPY_BELOW = 16384


cdef class SegmentPool:
    """`reserve`, let the kernel write, `commit`: one read is in the air at a time, as in one event loop.

    Reads of up to 16 KiB are copied into exact buffers (about 1 us at most), larger ones take the segment itself,
    so memory is at most four times the bytes it holds. `held` counts both, in bytes of memory.
    """

    def __cinit__(self, Py_ssize_t max_free=256):
        self.segment_size = HEADROOM + MAX_DATA
        self.max_free = max_free
        self.free = []
        self.in_use = 0
        self.held = 0
        self.scratch = None

    @property
    def free_count(self):
        return len(self.free)

    cdef uint8_t* reserve(self) except NULL:
        """MAX_DATA writable bytes, valid until the next `reserve` or `commit`."""
        if self.scratch is None:
            if self.free:
                self.scratch = self.free.pop()
            else:
                self.scratch = PyBytes_FromStringAndSize(NULL, self.segment_size)
        return <uint8_t*>PyBytes_AS_STRING(self.scratch) + HEADROOM

    cdef Chunk commit(self, Py_ssize_t size):
        """The first `size` bytes of what was reserved, as a chunk."""
        cdef Chunk chunk = Chunk.__new__(Chunk)
        if size <= COPY_BELOW:
            chunk.buf = PyBytes_FromStringAndSize(NULL, HEADER_SIZE + size)
            chunk.off = HEADER_SIZE
            memcpy(PyBytes_AS_STRING(chunk.buf) + HEADER_SIZE, PyBytes_AS_STRING(self.scratch) + HEADROOM, size)
            chunk.pooled = False
        else:
            chunk.buf = self.scratch
            self.scratch = None
            chunk.off = HEADROOM
            chunk.pooled = True
            self.in_use += 1
        chunk.size = size
        self.held += PyBytes_GET_SIZE(chunk.buf)
        return chunk

    cdef Py_ssize_t cost(self, Chunk chunk) noexcept:
        """What the chunk counts in `held`."""
        return self.segment_size if chunk.pooled else HEADER_SIZE + chunk.size

    cdef int split(self, Chunk chunk, Py_ssize_t size) except -1:
        """Cuts `chunk` after `size` bytes; the rest follows it in memory of its own."""
        cdef Chunk rest = Chunk.__new__(Chunk)
        rest.size = chunk.size - size
        rest.seq = chunk.seq + size
        rest.off = HEADER_SIZE
        rest.buf = PyBytes_FromStringAndSize(NULL, HEADER_SIZE + rest.size)
        memcpy(PyBytes_AS_STRING(rest.buf) + HEADER_SIZE, PyBytes_AS_STRING(chunk.buf) + chunk.off + size, rest.size)
        rest.next = chunk.next
        chunk.next = rest
        chunk.size = size
        self.held += HEADER_SIZE + (rest.size if chunk.pooled else 0)
        return 0

    cdef void skip(self, Chunk chunk, Py_ssize_t size) noexcept:
        """`chunk` begins `size` bytes later, in the same memory: the header goes where they were."""
        chunk.off += size
        chunk.seq += size
        chunk.size -= size
        if not chunk.pooled:
            self.held -= size

    cdef void release(self, Chunk chunk):
        """The far end has it. The memory is used again unless somebody still looks at it."""
        cdef bytes buf = chunk.buf
        self.held -= self.cost(chunk)
        chunk.buf = None
        if chunk.pooled:
            chunk.pooled = False
            self.in_use -= 1
            if Py_REFCNT(<PyObject*>buf) == 1 and PyBytes_GET_SIZE(buf) == self.segment_size \
                    and len(self.free) < self.max_free:
                self.free.append(buf)


def siphash13(uint64_t k0, uint64_t k1, bytes data not None):
    """SipHash-1-3 of 16 bytes under the key k0, k1, as the dedup ring's index uses it."""
    cdef uint64_t words[2]
    if PyBytes_GET_SIZE(data) != CID_SIZE:
        raise ValueError("data must be 16 bytes")
    memcpy(words, PyBytes_AS_STRING(data), CID_SIZE)
    return nc_siphash13(k0, k1, words[0], words[1])


cdef enum:
    PACKED_ENTRY = CID_SIZE + 8


cdef class DedupRing:
    """Which flows ended lately, and how far they had got: a late replay is dropped and counted, not answered.

    `capacity` entries of 28 bytes and an index of 8 to 16 bytes each; nothing is allocated after construction. `seed`,
    64 unpredictable bits, is the key of the index's hash: peers, who may choose cids, cannot choose ones that collide.
    """

    def __cinit__(self, uint32_t capacity=16384, uint64_t seed=0):
        if not 1 <= capacity <= (1 << 24):
            raise ValueError("capacity must be between 1 and 2**24")
        cdef uint32_t size = 4
        while size < 2 * capacity:
            size *= 2
        self.capacity = capacity
        self._mask = size - 1
        self._seed = seed
        self._cids = <uint64_t*>calloc(2 * capacity, sizeof(uint64_t))
        self._seqs = <uint64_t*>calloc(capacity, sizeof(uint64_t))
        self._hashes = <uint32_t*>calloc(capacity, sizeof(uint32_t))
        self._index = <uint32_t*>calloc(size, sizeof(uint32_t))
        if self._cids == NULL or self._seqs == NULL or self._hashes == NULL or self._index == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._cids)
        free(self._seqs)
        free(self._hashes)
        free(self._index)

    def __len__(self):
        return self.used

    cdef uint32_t _hash(self, uint64_t a, uint64_t b) noexcept:
        return <uint32_t>nc_siphash13(self._seed, self._seed, a, b)

    cdef uint32_t _probe(self, uint32_t hashed, uint64_t a, uint64_t b) noexcept:
        """The index slot of the entry, or the empty slot where it would go."""
        cdef uint32_t slot = hashed & self._mask
        cdef uint32_t entry
        while True:
            entry = self._index[slot]
            if entry == 0 or (self._cids[2 * (entry - 1)] == a and self._cids[2 * (entry - 1) + 1] == b):
                return slot
            slot = (slot + 1) & self._mask

    cdef uint32_t _slot(self, uint32_t entry) noexcept:
        return self._probe(self._hashes[entry], self._cids[2 * entry], self._cids[2 * entry + 1])

    cdef void _forget(self, uint32_t entry) noexcept:
        """Takes the oldest entry out of the index and closes the gap in its probe run."""
        cdef uint32_t hole = self._slot(entry)
        cdef uint32_t slot = hole, moved
        self._index[hole] = 0
        while True:
            slot = (slot + 1) & self._mask
            moved = self._index[slot]
            if moved == 0:
                return
            self._index[slot] = 0
            self._index[self._slot(moved - 1)] = moved

    cpdef record(self, bytes cid, uint64_t seq):
        """Remembers that flow `cid` ended having received up to `seq`; the oldest entry makes room."""
        cdef uint64_t a, b
        cdef uint32_t hashed, slot, entry
        if cid is None or PyBytes_GET_SIZE(cid) != CID_SIZE:
            raise ValueError("cid must be 16 bytes")
        memcpy(&a, PyBytes_AS_STRING(cid), 8)
        memcpy(&b, PyBytes_AS_STRING(cid) + 8, 8)
        hashed = self._hash(a, b)
        slot = self._probe(hashed, a, b)
        entry = self._index[slot]
        if entry:
            if seq > self._seqs[entry - 1]:
                self._seqs[entry - 1] = seq
            return
        entry = self._next
        if self.used == self.capacity:
            self._forget(entry)
            self.evicted += 1
            slot = self._probe(hashed, a, b)
        else:
            self.used += 1
        self._cids[2 * entry] = a
        self._cids[2 * entry + 1] = b
        self._seqs[entry] = seq
        self._hashes[entry] = hashed
        self._index[slot] = entry + 1
        self._next = (entry + 1) % self.capacity

    def pack(self):
        """All entries, the oldest first, for another ring: 24 bytes each, a cid and its sequence."""
        cdef uint32_t i, entry = self._next if self.used == self.capacity else 0
        cdef bytes packed = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>self.used * PACKED_ENTRY)
        cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(packed)
        for i in range(self.used):
            memcpy(at, &self._cids[2 * entry], CID_SIZE)
            nc_store64(at + CID_SIZE, self._seqs[entry])
            at += PACKED_ENTRY
            entry = (entry + 1) % self.capacity
        return packed

    def take(self, bytes packed not None):
        """Records what another ring has packed. Raises ValueError for what is no row of entries."""
        cdef Py_ssize_t at
        if PyBytes_GET_SIZE(packed) % PACKED_ENTRY:
            raise ValueError("entries of a ring are 24 bytes each")
        for at in range(0, PyBytes_GET_SIZE(packed), PACKED_ENTRY):
            self.record(packed[at:at + CID_SIZE],
                        nc_load64(<uint8_t*>PyBytes_AS_STRING(packed) + at + CID_SIZE))

    def longest_run(self):
        """The most index slots in a row that are taken: what the longest search looks at."""
        cdef uint32_t at, run = 0, longest = 0
        for at in range(self._mask + 1):
            run = run + 1 if self._index[at] else 0
            longest = max(longest, run)
        return longest

    def last(self, bytes cid not None):
        """The sequence recorded for `cid`, or None."""
        cdef uint64_t a, b
        cdef uint32_t entry
        if PyBytes_GET_SIZE(cid) != CID_SIZE:
            raise ValueError("cid must be 16 bytes")
        memcpy(&a, PyBytes_AS_STRING(cid), 8)
        memcpy(&b, PyBytes_AS_STRING(cid) + 8, 8)
        entry = self._index[self._probe(self._hash(a, b), a, b)]
        return self._seqs[entry - 1] if entry else None
