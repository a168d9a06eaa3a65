"""The bytes that a process may hold, and who may hold how many of them."""


cdef class Budget:
    """What all shares of a process are of."""
    cdef readonly Py_ssize_t size        # bytes in all
    cdef readonly Py_ssize_t lendable    # what is nobody's own
    cdef readonly Py_ssize_t lent        # what shares hold beyond their own
    cdef list shares                     # weak: one lives as long as its listener, or a flow of it

    cdef list alive(self)
    cdef int divide(self) except -1


cdef class Share:
    """Of a listener, of a connector, or of what is relayed for other hubs."""
    cdef object __weakref__
    cdef Budget budget
    cdef readonly int weight
    cdef readonly Py_ssize_t own         # bytes that nobody else can take
    cdef readonly Py_ssize_t held        # bytes of memory: for replay, for slow sockets, for links
    cdef Py_ssize_t windows              # sum of the windows of its flows that live

    cdef void charge(self, Py_ssize_t size) noexcept
    cdef bint is_pressed(self) noexcept
    cdef bint is_spent(self) noexcept
    cdef Py_ssize_t left(self) noexcept
