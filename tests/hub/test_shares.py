"""The plan by which agents are levelled: shares add up, nobody crosses its share, and nothing ever moves back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast.hub.shares import MARGIN, row, shares, too_many

HUBS = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, 300), min_size=count, max_size=count),
        st.lists(st.integers(0, 200), min_size=count, max_size=count),
    )
)


def named(numbers):
    return {f"hub-{letter}": number for letter, number in zip("abcdefgh", numbers, strict=False)}


@pytest.mark.parametrize(
    ("agents", "weights", "wanted"),
    [
        ([750, 750, 0], [100, 100, 100], [500, 500, 500]),
        ([1500, 0], [100, 50], [1000, 500]),
        ([9, 0, 1], [100, 100, 100], [4, 3, 3]),
        ([4, 4], [100, 0], [8, 0]),
        ([1, 0, 0], [100, 100, 100], [1, 0, 0]),
        ([0, 0], [100, 100], [0, 0]),
    ],
)
def test_shares_follow_the_weights(agents, weights, wanted):
    assert shares(named(agents), named(weights)) == named(wanted)


def test_without_any_weight_nobody_has_a_share():
    assert shares(named([3, 4]), named([0, 0])) == {}


@given(HUBS)
def test_shares_add_up_and_are_as_near_as_whole_numbers_come(drawn):
    agents, weights = map(named, drawn)
    share = shares(agents, weights)
    if sum(weights.values()):
        assert sum(share.values()) == sum(agents.values())
        for name, part in share.items():
            assert abs(part - sum(agents.values()) * weights[name] / sum(weights.values())) < 1


@given(HUBS)
def test_the_rows_together_level_the_cluster(drawn):
    agents, weights = map(named, drawn)
    share = shares(agents, weights) or agents
    after = dict(agents)
    for hub in agents:
        for other, count in row(hub, agents, share).items():
            assert count > 0 and other != hub
            after[hub] -= count
            after[other] += count
    assert after == dict(share)


def test_a_hub_begins_above_its_margin_and_ends_at_its_share():
    assert too_many(11, 10, begun=False) == 0 and too_many(11, 10, begun=True) == 1
    assert too_many(12, 10, begun=False) == 2
    edge = round(1000 * (1 + MARGIN))
    assert too_many(edge, 1000, begun=False) == 0 and too_many(edge + 1, 1000, begun=False) == edge + 1 - 1000
    assert too_many(1000, 1000, begun=True) == too_many(990, 1000, begun=True) == 0


class Played:
    """Hubs that decide on views of the past. A move is one event of the registry: an agent has one owner in any view.

    Each hub knows what it has given itself and not yet seen, as `ncfast.hub.level` does.
    """

    def __init__(self, agents, weights):
        self.weights = weights
        self.begun = dict.fromkeys(agents, False)
        self.past = [dict(agents)]  # after each move
        self.moves = []  # from, to
        self.under_way = []  # from, to: asked, and not there

    @property
    def agents(self):
        return self.past[-1]

    def look(self, hub, age, most):
        """`hub` looks at the cluster as it was `age` moves ago, and asks `most` agents at most to move."""
        at = max(0, len(self.past) - 1 - age)
        agents = self.past[at]
        share = shares(agents, self.weights)
        if not share:
            return
        self.begun[hub] = too_many(agents[hub], share[hub], self.begun[hub]) > 0
        if not self.begun[hub]:
            return
        unseen = self.moves[at:] + self.under_way
        for other, count in row(hub, agents, share).items():
            for _ in range(min(most, count - unseen.count((hub, other)))):
                self.under_way.append((hub, other))

    def arrive(self, which):
        """One of those under way is there."""
        hub, other = self.under_way.pop(which % len(self.under_way))
        self.moves.append((hub, other))
        self.past.append(self.agents | {hub: self.agents[hub] - 1, other: self.agents[other] + 1})


@given(
    HUBS, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(1, 9), st.integers(0, 9)), max_size=150)
)
def test_whoever_decides_when_and_on_whatever_view_nobody_crosses_its_share(drawn, looks):
    agents, weights = map(named, drawn)
    played = Played(agents, weights)
    names, share = sorted(agents), shares(agents, weights)
    for who, age, most, arrivals in looks:
        played.look(names[who % len(names)], age, most)
        for which in range(min(arrivals, len(played.under_way))):
            played.arrive(which * 7)
        for name, part in share.items():
            low, high = sorted((agents[name], part))
            assert low <= played.agents[name] <= high
    # left alone, with views that are right, it settles, and stays as it is
    for _ in range(sum(agents.values()) + 1):
        while played.under_way:
            played.arrive(0)
        for name in names:
            played.look(name, 0, 5)
        if not played.under_way:
            break
    assert not played.under_way
    for name, part in share.items():
        assert played.agents[name] - part <= max(1.0, part * MARGIN)
    givers, takers = {hub for hub, _ in played.moves}, {other for _, other in played.moves}
    assert not givers & takers  # so nothing has moved back
    assert len(played.moves) <= sum(max(0, agents[name] - part) for name, part in share.items())
