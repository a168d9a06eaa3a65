"""Every route by its name. Each carries TCP from an address of this machine to one service."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.peers import PEERS, peer
from bench.rig import Address, Route, direct, haproxy, ncfast
from bench.turns import tried

Maker = Callable[[str, Address, Path], AbstractContextManager[Route]]

REFERENCE = "haproxy"
TLS = "-tls"
ROUTES: dict[str, Maker] = {
    "direct": direct,
    REFERENCE: haproxy,
    REFERENCE + TLS: partial(haproxy, tls=True),
    "ncfast": ncfast,
    "ncfast" + TLS: partial(ncfast, tls=True),
}
for name, made in PEERS.items():
    ROUTES[name] = partial(peer, made=made)
    if made.tls:
        ROUTES[name + TLS] = partial(peer, made=made, tls=True)


def at_hand() -> list[str]:
    """Those without TLS whose programs are on the PATH."""
    return ["direct", REFERENCE, "ncfast", *(name for name, made in PEERS.items() if made.here)]


def missing(names: Sequence[str]) -> list[str]:
    """Programs of ``names`` that are not on the PATH."""
    peers = [PEERS[name.removesuffix(TLS)] for name in names if name.removesuffix(TLS) in PEERS]
    return [" ".join(made.programs) for made in peers if not made.here]


def add_before(tree: Path, names: Sequence[str]) -> list[str]:
    """Makes routes of the earlier state in ``tree``; ``names``, with each in front of what it is compared with."""
    built = tree.resolve()
    if not list(built.glob("ncfast/_frames.*.so")):
        raise SystemExit(f"{tree} is no built tree: there, run make build, or setup.py build_ext --inplace")
    ROUTES["before"] = partial(ncfast, tree=built)
    ROUTES["before" + TLS] = partial(ncfast, tree=built, tls=True)
    compared = {"ncfast": "before", "ncfast" + TLS: "before" + TLS}
    return [each for name in names for each in ([compared[name], name] if name in compared else [name])]


def comma_separated(known: Collection[str]) -> Callable[[str], list[str]]:
    """Of an option's text, names that are all known; argparse shows the error otherwise."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise ArgumentTypeError(f"unknown name {name!r}: one or more of {','.join(known)}")
        return names

    return parse


@contextmanager
def routes(names: Sequence[str], service: Address, folder: Path) -> Iterator[list[Route]]:
    """All routes of ``names`` to one service, standing at the same time, but for peers that do not start; their files
    are in ``folder``."""
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        ways = [tried(name, partial(_standing, stack, name, service, folder)) for name in names]
        yield [way for way in ways if way]


def _standing(stack: ExitStack, name: str, service: Address, folder: Path) -> Route:
    return stack.enter_context(ROUTES[name](name, service, folder))
