"""The bytes that a process may hold, divided by weight; half of them all may borrow."""

class Share:
    """Of a listener, of a connector, or of what is relayed for other hubs."""

    weight: int
    own: int  # bytes that nobody else can take
    held: int  # bytes of memory

    def weigh(self, weight: int) -> None:
        """Its part is in proportion to `weight` from now on; 0 for a share of which nothing new comes."""

    @property
    def pressed(self) -> bool:
        """Whether it is at its bound: nothing new is taken."""

class Budget:
    """What all shares of a process are of."""

    size: int  # bytes in all
    lendable: int  # what is nobody's own
    lent: int  # what shares hold beyond their own

    def __init__(self, size: int) -> None: ...
    def share(self, weight: int = 1) -> Share:
        """A new share."""

    def resize(self, size: int) -> None:
        """Another number of bytes; what is held stays."""

    def heaviest(self) -> Share | None:
        """The share that has borrowed most for its weight."""
