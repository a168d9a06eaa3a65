"""The bytes that a process may hold, divided: a part for each listener or connector, and a part that all may borrow.

Half of the budget is divided by weight; each share's part of it is its own, whatever others do. The other half is
lent. A share may borrow up to `LENDING` times what is not lent yet: dynamic thresholds (Choudhury and Hahne, IEEE/ACM
Transactions on Networking, 1998), as switches divide a buffer among their ports. So the heaviest meets its bound first,
a share alone has nine tenths of the whole, and nothing of this needs more than a few integers for each charge.

Beyond its bound a share is pressed: its flows read nothing new, give little credit, and no more of them come. What was
promised before may still arrive, and goes into the tenth that is left. When that is gone, too, the budget is spent,
and the heaviest pays with a flow (`FlowContext.relieve`).
"""

from weakref import ref

cdef enum:
    LENDING = 4


cdef class Share:

    def __cinit__(self, Budget budget not None, int weight):
        self.budget = budget
        self.weight = weight

    def weigh(self, int weight):
        """Its part is in proportion to `weight` from now on; 0 for a share of which nothing new comes."""
        if weight != self.weight:
            self.weight = weight
            self.budget.divide()

    cdef void charge(self, Py_ssize_t size) noexcept:
        """So many bytes more, or less."""
        cdef Py_ssize_t before = self.held - self.own
        cdef Py_ssize_t after = before + size
        self.held += size
        self.budget.lent += (after if after > 0 else 0) - (before if before > 0 else 0)

    cdef bint is_pressed(self) noexcept:
        cdef Py_ssize_t borrowed = self.held - self.own
        return borrowed >= 0 and borrowed > LENDING * (self.budget.lendable - self.budget.lent)

    cdef bint is_spent(self) noexcept:
        """It holds more than there is."""
        return self.held > self.own and self.budget.lent > self.budget.lendable

    cdef Py_ssize_t left(self) noexcept:
        """How many bytes it can take before the budget is spent."""
        cdef Py_ssize_t own = self.own - self.held
        return (own if own > 0 else 0) + self.budget.lendable - self.budget.lent

    @property
    def pressed(self):
        return self.is_pressed()


cdef class Budget:

    def __cinit__(self, Py_ssize_t size):
        self.shares = []
        self.resize(size)

    def share(self, int weight=1):
        """A new share."""
        cdef Share share = Share(self, weight)
        self.shares.append(ref(share))
        self.divide()
        return share

    def resize(self, Py_ssize_t size):
        """Another number of bytes; what is held stays."""
        self.size = size
        self.divide()

    cdef list alive(self):
        return [share for share in [weak() for weak in self.shares] if share is not None]

    cdef int divide(self) except -1:
        cdef Share share
        cdef Py_ssize_t weights = 0, divided = self.size // 2
        cdef list alive = self.alive()
        self.shares = [ref(share) for share in alive]
        for share in alive:
            weights += share.weight
        self.lendable = self.size
        self.lent = 0
        for share in alive:
            share.own = divided * share.weight // weights if weights else 0
            self.lendable -= share.own
            self.lent += max(<Py_ssize_t>0, share.held - share.own)
        return 0

    def heaviest(self):
        """The share that has borrowed most for its weight."""
        cdef Share share, heaviest = None
        for share in self.alive():
            if share.held > share.own and (heaviest is None or (share.held - share.own) * max(1, heaviest.weight)
                                           > (heaviest.held - heaviest.own) * max(1, share.weight)):
                heaviest = share
        return heaviest
