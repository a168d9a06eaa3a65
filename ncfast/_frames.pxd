"""Wire format and the memory frames live in: codec, chunks, segment pool, dedup ring."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cpdef enum FrameType:
    HELLO = 1          # agent -> hub, first frame: who I am, what I serve, last epoch
    HELLO_ACK = 2      # hub -> agent: granted epoch, session, limits
    M_OPEN = 3         # start a flow
    M_OPEN_ACK = 4     # the target is connected
    M_DATA = 5         # bytes at seq
    M_ACK = 6          # ack and limit alone
    M_FIN = 7          # this direction ends at seq
    M_RST = 8          # the flow ends now, `code` says why
    M_RESUME = 9       # re-attach a flow on this link; between hubs the owner vouches in it who the agent is
    M_RESUME_ACK = 10  # re-attached; send from ack
    PING = 11          # seq is echoed
    PONG = 12
    GOAWAY = 13        # no new flows here, move
    AUTH = 14          # a refreshed token; the hub answers with an empty AUTH
    ANNOUNCE = 15      # agent -> hub: the connectors served from now on
    M_DETACH = 16      # the way beyond is lost: keep the flow, send nothing, wait for M_RESUME
    M_GAP = 17         # frames of the flow were dropped on the way: ask for them by M_RESUME
    MOVE = 18          # hub -> agent: claim at that hub; agent -> hub: we stay


cpdef enum:
    HEADER_SIZE = 56           # bytes
    IGNORABLE = 1              # flag: a receiver that does not know the type skips the frame
    MAX_DATA = 65536           # payload bytes of M_DATA
    MAX_CONTROL = 16384        # payload bytes of every other frame
    CID_SIZE = 16
    SECRET_SIZE = 16
    HEADROOM = 72              # bytes kept free in front of a payload: WebSocket header (at most 14) + frame header


cdef enum:
    FRAME_TYPES = MOVE + 1     # every known type is below it
    CODEC_OK = 0
    CODEC_UNKNOWN_SKIP = 1
    CODEC_UNKNOWN = -1
    CODEC_FLAGS = -2
    CODEC_LENGTH = -3
    CODEC_FIELDS = -4


cdef struct Header:
    uint8_t type
    uint8_t flags
    uint16_t code
    uint32_t length
    uint64_t epoch
    uint8_t cid[16]
    uint64_t seq
    uint64_t ack
    uint64_t limit


cdef void write_header(uint8_t* p, const Header* h) noexcept nogil
cdef void read_header(const uint8_t* p, Header* h) noexcept nogil
cdef int check_header(const Header* h) noexcept nogil
cdef str codec_error(int code)
cdef bytes build_frame(const Header* h, const uint8_t* payload)


cdef class Chunk:
    """Bytes of a flow, written once: buf[off-HEADER_SIZE:off] is the frame header, buf[off:off+size] the payload."""
    cdef bytes buf
    cdef Py_ssize_t off
    cdef Py_ssize_t size
    cdef uint64_t seq
    cdef Chunk next
    cdef bint pooled

    cdef uint8_t* frame(self) except NULL


cdef class SegmentPool:
    """Bounded free list of equal `bytes` objects that sockets are read into."""
    cdef list free
    cdef readonly Py_ssize_t segment_size
    cdef Py_ssize_t max_free
    cdef readonly Py_ssize_t in_use
    cdef readonly Py_ssize_t held        # bytes of chunks alive, pooled or not
    cdef bytes scratch

    cdef uint8_t* reserve(self) except NULL
    cdef Chunk commit(self, Py_ssize_t size)
    cdef Py_ssize_t cost(self, Chunk chunk) noexcept
    cdef int split(self, Chunk chunk, Py_ssize_t size) except -1
    cdef void skip(self, Chunk chunk, Py_ssize_t size) noexcept
    cdef void release(self, Chunk chunk)


cdef class DedupRing:
    """Last sequence of recently closed flows, fixed capacity, oldest forgotten first."""
    cdef uint64_t* _cids                 # two words an entry
    cdef uint64_t* _seqs
    cdef uint32_t* _hashes               # computed once an entry
    cdef uint32_t* _index                # hash -> entry + 1, linear probing
    cdef uint32_t _mask
    cdef uint64_t _seed
    cdef readonly uint32_t capacity
    cdef uint32_t _next
    cdef readonly uint32_t used
    cdef readonly uint64_t evicted

    cdef uint32_t _hash(self, uint64_t a, uint64_t b) noexcept
    cdef uint32_t _probe(self, uint32_t hashed, uint64_t a, uint64_t b) noexcept
    cdef uint32_t _slot(self, uint32_t entry) noexcept
    cdef void _forget(self, uint32_t entry) noexcept
    cpdef record(self, bytes cid, uint64_t seq)
