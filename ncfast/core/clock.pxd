"""A clock that is read without Python's call."""


cdef class Clock:
    cdef double now(self) except? -1
