"""What clients and targets do: each workload gives the two scripts, drawn anew."""

from __future__ import annotations

import random
from typing import Any

from .programs import Script, Step

KIB = 1024
BULK = 400 * KIB  # median of a bulk direction, bytes
PAUSE = 150.0  # seconds that a reader pauses at the longest; beyond it no trip would be over in time

PROBE = Script((Step(100),), end_after=100), Script((Step(100, 100),), end="follow")  # a trip that must succeed


def _size(rng: random.Random, median: float) -> int:
    return max(1, int(median * rng.lognormvariate(0.0, 0.9)))


def _bulk(rng: random.Random, size: int, after: int = 0) -> tuple[Step, ...]:
    """Many bytes: at once, or a piece now and then, so that there is time for something to go wrong."""
    pieces = rng.choice((1, 1, 4, 20))
    pause = rng.choice((0.01, 0.1, 0.4))
    return tuple(
        Step(max(1, size // pieces), after, pause * 2 * rng.random() if number else 0.0) for number in range(pieces)
    )


def _total(steps: tuple[Step, ...]) -> int:
    return sum(step.size for step in steps)


def ask(rng: random.Random) -> tuple[Script, Script]:
    """Requests and responses, as LDAP has them; now and then a response of some size."""
    asks, answers, up, down = [], [], 0, 0
    for number in range(rng.randint(1, 8)):
        request = rng.randint(1, 400)
        response = _size(rng, 60 * KIB) if rng.random() < 0.08 else rng.randint(1, 3000)
        asks.append(
            Step(request, down, rng.choice((0.0, 0.0, 0.001, rng.random(), 4 * rng.random())) if number else 0.0)
        )
        up += request
        answers.append(Step(response, up, rng.choice((0.0, 0.002, 0.3 * rng.random()))))
        down += response
    return Script(tuple(asks), end_after=down), Script(tuple(answers), end="follow")


def _down(rng: random.Random) -> tuple[Script, Script]:
    """A short request, a long answer with the end right behind it."""
    return Script((Step(rng.randint(1, 200)),), end="follow"), Script(_bulk(rng, _size(rng, BULK), 1), end="fin")


def _up(rng: random.Random) -> tuple[Script, Script]:
    steps = _bulk(rng, _size(rng, BULK))
    return Script(steps, end="fin"), Script((Step(rng.randint(1, 200), _total(steps)),), end="follow")


def _both(rng: random.Random) -> tuple[Script, Script]:
    return Script(_bulk(rng, _size(rng, BULK))), Script(_bulk(rng, _size(rng, BULK)))


def _half_client(rng: random.Random) -> tuple[Script, Script]:
    """The client ends first and goes on reading."""
    up, down = _size(rng, 20 * KIB), _size(rng, BULK / 2)
    pieces = [Step(max(1, down // 5), up, 0.0), *(Step(max(1, down // 5), up, rng.random()) for _ in range(4))]
    return Script((Step(up),)), Script(tuple(pieces))


def _half_target(rng: random.Random) -> tuple[Script, Script]:
    """The target ends first and goes on reading."""
    up, down = _size(rng, BULK / 2), _size(rng, 20 * KIB)
    pieces = [Step(max(1, up // 5), 0, 0.0), *(Step(max(1, up // 5), down, rng.random()) for _ in range(4))]
    return Script(tuple(pieces)), Script((Step(down),))


def _client_reset(rng: random.Random) -> tuple[Script, Script]:
    up, down = _bulk(rng, _size(rng, 100 * KIB)), _bulk(rng, _size(rng, 100 * KIB))
    return (
        Script(up, end="reset", end_after=rng.randrange(_total(down)), end_delay=rng.choice((0.0, 2 * rng.random()))),
        Script(down, end="follow"),
    )


def _target_reset(rng: random.Random) -> tuple[Script, Script]:
    up, down = _bulk(rng, _size(rng, 100 * KIB)), _bulk(rng, _size(rng, 100 * KIB))
    return (
        Script(up, end="follow"),
        Script(down, end="reset", end_after=rng.randrange(_total(up)), end_delay=rng.choice((0.0, 2 * rng.random()))),
    )


def _client_close(rng: random.Random) -> tuple[Script, Script]:
    """Closes its socket with whatever is unread, as impatient programs do."""
    up, down = _size(rng, 20 * KIB), _size(rng, 100 * KIB)
    return Script((Step(up),), end="close", end_delay=rng.choice((0.0, rng.random()))), Script(
        (Step(down),), end="follow"
    )


def _target_close(rng: random.Random) -> tuple[Script, Script]:
    up, down = _size(rng, 100 * KIB), _size(rng, 20 * KIB)
    return Script((Step(up),), end="follow"), Script(
        (Step(down),), end="close", end_delay=rng.choice((0.0, rng.random()))
    )


def _slow_client(rng: random.Random) -> tuple[Script, Script]:
    down = _size(rng, BULK)
    return (Script((Step(rng.randint(1, 200)),), end="follow", **_slowly(rng, down)), Script((Step(down, 1),)))


def _slow_target(rng: random.Random) -> tuple[Script, Script]:
    up = _size(rng, BULK)
    return Script((Step(up),)), Script((Step(rng.randint(1, 200), up),), end="follow", **_slowly(rng, up))


def _slowly(rng: random.Random, size: int) -> dict[str, Any]:
    if rng.random() < 0.5:
        longest = PAUSE if rng.random() < 0.3 else 6.0
        return {"stall_at": rng.randrange(size), "stall": rng.uniform(0.5, longest)}
    return {"read_size": max(512, size // 60), "read_pause": rng.uniform(0.01, 0.2)}


def _idle(rng: random.Random) -> tuple[Script, Script]:
    """Says something, is silent for long, and says something again."""
    asks, answers = [Step(rng.randint(1, 300))], [Step(rng.randint(1, 300), 1)]
    up, down = asks[0].size, answers[0].size
    for _ in range(rng.randint(1, 3)):
        asks.append(Step(rng.randint(1, 300), down, rng.uniform(2.0, 9.0)))
        up += asks[-1].size
        answers.append(Step(rng.randint(1, 300), up))
        down += answers[-1].size
    return Script(tuple(asks), end_after=down), Script(tuple(answers), end="follow")


def _slam(rng: random.Random) -> tuple[Script, Script]:
    """The target accepts and resets at once, as one behind a full proxy does."""
    return Script((Step(rng.randint(1, 300)),), end="follow"), Script(end="reset")


def _empty(rng: random.Random) -> tuple[Script, Script]:
    """Connects and ends without a byte, as port checks do."""
    return Script(end=rng.choice(("fin", "close", "reset")), end_delay=rng.choice((0.0, 0.1))), Script(end="follow")


def _banner(rng: random.Random) -> tuple[Script, Script]:
    """The target speaks first."""
    down, up = rng.randint(1, 500), rng.randint(1, 2000)
    return (
        Script((Step(up, down),), end_after=down + 100),
        Script((Step(down), Step(100, up)), end=rng.choice(("fin", "follow"))),
    )


def _chatter(rng: random.Random) -> tuple[Script, Script]:
    """Small messages both ways, not in step."""

    def words() -> tuple[Step, ...]:
        return tuple(
            Step(rng.randint(1, 60), 0, rng.choice((0.0, 0.002, 0.02, 0.3 * rng.random())))
            for _ in range(rng.randint(5, 60))
        )

    return Script(words()), Script(words())


WORKLOADS = {
    "ask": (ask, 8),
    "down": (_down, 4),
    "up": (_up, 3),
    "both": (_both, 3),
    "half_client": (_half_client, 2),
    "half_target": (_half_target, 2),
    "client_reset": (_client_reset, 2),
    "target_reset": (_target_reset, 2),
    "client_close": (_client_close, 2),
    "target_close": (_target_close, 2),
    "slow_client": (_slow_client, 2),
    "slow_target": (_slow_target, 2),
    "slam": (_slam, 1),
    "idle": (_idle, 3),
    "empty": (_empty, 1),
    "banner": (_banner, 2),
    "chatter": (_chatter, 2),
}
