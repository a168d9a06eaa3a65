"""The last lines of the log, kept in memory for whoever asks the process itself: where the log goes is often not at
hand, and what its reader did not take in time is there too.

Compiled because each flow has a line. It needs no lock: what is not Python is not interrupted by another thread.
"""

from collections import deque

from cpython.bytes cimport PyBytes_GET_SIZE

MAX_LINES = 2000
MAX_BYTES = 1 << 20  # of these lines: some 300 bytes each are usual, and 64 KiB can be


cdef class Recent:
    """The newest lines, within both bounds. May be called from any thread."""

    def __init__(self, Py_ssize_t lines=MAX_LINES, Py_ssize_t size=MAX_BYTES):
        self._most = lines
        self._most_bytes = size
        self._lines = deque()
        self._append = self._lines.append
        self._oldest = self._lines.popleft

    cpdef put(self, bytes line):
        cdef bytes gone
        self._append(line)
        self._count += 1
        self._bytes += PyBytes_GET_SIZE(line)
        while self._count > self._most or self._bytes > self._most_bytes:
            gone = self._oldest()
            self._count -= 1
            self._bytes -= PyBytes_GET_SIZE(gone)

    def lines(self):
        """Oldest first, each with its newline."""
        return list(self._lines)
