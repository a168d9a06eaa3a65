"""What waits in order: a ring that grows. A deque whose length C reads without a call, and that takes 56 bytes until
something waits; one call by name costs more than all that a message does here."""

cimport cython

cdef enum:
    FIRST = 4                  # references that the ring holds when it is made
    KEPT = 256                 # a ring of more is given back when nothing waits any more


@cython.final
cdef class Fifo:
    """`peek` and `pop` only while `size` is not 0."""

    cpdef int push(self, object item) except -1:
        if self._ring is None or self.size == len(self._ring):
            self._grow()
        self._ring[(self._first + self.size) & (len(self._ring) - 1)] = item
        self.size += 1
        return 0

    cpdef object peek(self):
        return self._ring[self._first]

    cpdef object pop(self):
        item = self._ring[self._first]
        self._ring[self._first] = None
        self._first = (self._first + 1) & (len(self._ring) - 1)
        self.size -= 1
        if self.size == 0 and len(self._ring) > KEPT:
            self._ring = None
        return item

    cdef int _grow(self) except -1:
        cdef list ring = self._ring
        if ring is None:
            self._ring = [None] * FIRST
            self._first = 0
            return 0
        self._ring = ring[self._first:] + ring[:self._first] + [None] * len(ring)
        self._first = 0
        return 0

    cpdef bint remove(self, object item) except -1:
        """Takes `item` out, wherever it waits; whether it did. Looks at all that wait."""
        cdef Py_ssize_t i
        cdef bint found = False
        for i in range(self.size):
            waiting = self.pop()
            if waiting is item and not found:
                found = True
            else:
                self.push(waiting)
        return found

    cpdef int clear(self) except -1:
        self._ring = None
        self.size = 0
        return 0
