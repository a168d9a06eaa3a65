"""A clock that is read without Python's call."""

class Clock:
    """`clock()` gives seconds."""

    def __call__(self) -> float: ...
