"""Who is a successor, and who is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from support.process import child_env

from ncfast.net.peercred import pid_of
from ncfast.serve.heir import HANDOVER, NotOurs, summoned

CHILD = "import os; from ncfast.serve.heir import summoned; print(summoned(), 'NCFAST_HANDOVER' in os.environ)"


def asked(descriptor: int, **more: object) -> subprocess.CompletedProcess[str]:
    env = {**child_env(), HANDOVER: str(descriptor)}
    return subprocess.run(
        [sys.executable, "-c", CHILD],
        pass_fds=[descriptor],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def test_a_child_with_an_end_of_our_pair_is_one_and_hides_it():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert asked(theirs.fileno()).stdout == f"{theirs.fileno()} False\n"


def test_a_grandchild_is_none():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        env = {**child_env(), HANDOVER: str(theirs.fileno())}
        between = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}], close_fds=False)"
        done = subprocess.run(
            [sys.executable, "-c", between],
            pass_fds=[theirs.fileno()],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "" and "NotOurs" in done.stderr


@pytest.mark.parametrize("kind", ["tcp", "datagram", "pipe", "closed", "words"])
def test_other_descriptors_are_none(kind, tmp_path):
    held = []
    if kind == "tcp":
        server = socket.create_server(("127.0.0.1", 0))
        held = [server, socket.create_connection(server.getsockname())]
        number = held[1].fileno()
    elif kind == "datagram":
        held = list(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
        number = held[0].fileno()
    elif kind == "pipe":
        held = [open(one, "rb", closefd=True) for one in os.pipe()[:1]]
        number = held[0].fileno()
    else:
        number = "4711" if kind == "closed" else "a word"
    environment = {HANDOVER: str(number)}
    with pytest.raises(NotOurs):
        summoned(environment)
    assert environment == {}
    for one in held:
        one.close()


def test_whoever_was_not_summoned_is_told_so():
    assert summoned({}) is None


def test_a_named_socket_is_no_pair(tmp_path):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "door"))
        server.listen()
        client.connect(str(tmp_path / "door"))
        assert pid_of(client.fileno()) is None
