"""A set from which a few can be drawn."""


cdef class Crowd:
    cdef list all
    cdef dict _place
