"""Which URL is dialled next."""

from __future__ import annotations

import random

from ncfast.agent.choice import Choice


def test_a_hub_that_goes_away_when_we_claim_is_tried_once_more():
    choice = Choice(["ws://a", "ws://b"], random.Random(1))
    choice.refused("ws://a", goes_away=True)
    assert choice.for_owner() == "ws://a", "another process of it may grant the claim"
    choice.refused("ws://a", goes_away=True)
    assert choice.for_owner() == "ws://b", "it is going"
    choice.refused("ws://b", goes_away=False)
    assert choice.for_owner() == "ws://a"
    choice.owns("ws://a")
    choice.refused("ws://a", goes_away=True)
    assert choice.for_owner() == "ws://a", "as long as it has owned us meanwhile"


def test_an_owner_is_sought_where_the_process_before_us_was_owned():
    choice = Choice(["ws://a", "ws://b"], random.Random(1))
    choice.begin_at("ws://b")
    assert choice.for_owner() == "ws://b"
    choice.begin_at("ws://not-in-our-file")
    assert choice.for_owner() == "ws://b"
