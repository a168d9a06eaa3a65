"""A clock that is read without Python's call: a flow looks at it some ten times in its life.

What time it tells is the business of who brings one (`ncfast.net.syscalls.Monotonic`). Any other callable is a clock,
too.
"""


cdef class Clock:
    """`clock()` gives seconds."""

    def __call__(self):
        return self.now()

    cdef double now(self) except? -1:
        raise NotImplementedError
