"""A set from which a few can be drawn without looking at the others.

Compiled because each flow that is opened looks into one.
"""


cdef class Crowd:
    """In no order. A list, and where each stands in it."""

    def __init__(self):
        self.all = []
        self._place = {}

    def __len__(self):
        return len(self.all)

    def __iter__(self):
        return iter(self.all)

    def add(self, one):
        if one not in self._place:
            self._place[one] = len(self.all)
            self.all.append(one)

    def remove(self, one):
        """The last takes its place. Raises KeyError if it is not there."""
        place, last = self._place.pop(one), self.all.pop()
        if last is not one:
            self.all[place] = last
            self._place[last] = place

    def draw(self, Py_ssize_t most, rng):
        """All of them, or `most` by lot."""
        return list(self.all) if len(self.all) <= most else rng.sample(self.all, most)
