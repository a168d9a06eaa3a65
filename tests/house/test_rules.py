"""Rules of the house that no reviewer should have to look for. (What the documents promise is checked by
test_docs.py.)"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from core import reference

from ncfast import _frames
from ncfast._frames import FrameType
from ncfast.core.errors import Blame, NcfastError, Reason, blame, close_code

ROOT = Path(__file__).parents[2]
PYTHON = sorted((ROOT / "ncfast").rglob("*.py"))
CYTHON = sorted((ROOT / "ncfast").rglob("*.pyx"))

# Numbers on the wire are for ever: the lists grow at their ends, and nothing in them changes.
FRAME_TYPES = (
    "HELLO HELLO_ACK M_OPEN M_OPEN_ACK M_DATA M_ACK M_FIN M_RST M_RESUME M_RESUME_ACK PING "
    "PONG GOAWAY AUTH ANNOUNCE M_DETACH M_GAP MOVE"
)
FLOW_REASONS = """none closed client_reset target_reset target_refused target_unreachable target_timeout
no_such_connector scope_denied
    no_agent link_lost agent_restarted unknown_flow flow_control open_timeout idle_timeout half_close_timeout
    first_byte_timeout draining overloaded hold_timeout resume_denied not_owner origin_lost stale_epoch internal
    client_lost target_lost reader_paused agent_locked
    killed"""
LINK_REASONS = """protocol_error message_too_big keepalive_timeout stalled connection_lost superseded token_expired
going_away
    handshake_timeout flood unauthorized version duplicate"""
CLOSE_CODES = {
    "PROTOCOL_ERROR": 1002,
    "MESSAGE_TOO_BIG": 1009,
    "KEEPALIVE_TIMEOUT": 4001,
    "STALLED": 4002,
    "CONNECTION_LOST": 1006,
    "SUPERSEDED": 4003,
    "TOKEN_EXPIRED": 4004,
    "GOING_AWAY": 1001,
    "HANDSHAKE_TIMEOUT": 4005,
    "FLOOD": 4006,
    "UNAUTHORIZED": 1008,
    "VERSION": 4007,
    "INTERNAL": 1011,
    "DUPLICATE": 4008,
    "AGENT_LOCKED": 4009,
}


def test_frame_types_keep_their_numbers():
    assert (
        {one.name: int(one) for one in FrameType}
        == {name: k for k, name in enumerate(FRAME_TYPES.split(), 1)}
        == reference.TYPES
    )


def test_reasons_keep_their_codes():
    pinned = {name: k for k, name in enumerate(FLOW_REASONS.split())} | {
        name: k for k, name in enumerate(LINK_REASONS.split(), 64)
    }
    assert {one.label: int(one) for one in Reason} == pinned


def test_close_codes_keep_their_numbers():
    assert {name: close_code(Reason[name]) for name in CLOSE_CODES} == CLOSE_CODES


def test_sizes_on_the_wire():
    sizes = {
        "HEADER_SIZE": 56,
        "IGNORABLE": 1,
        "MAX_DATA": 65536,
        "MAX_CONTROL": 16384,
        "CID_SIZE": 16,
        "SECRET_SIZE": 16,
    }
    assert {name: getattr(_frames, name) for name in sizes} == sizes
    assert (reference.HEADER_SIZE, reference.MAX_DATA, reference.MAX_CONTROL) == (56, 65536, 16384)
    assert _frames.HEADROOM >= 56 + 14  # the longest WebSocket header in front of ours


def public(names):
    return {name for name in names if not name.startswith("_")}


def declared(body):
    """Public names that a stub's module or class declares."""
    return public(
        getattr(node, "name", "") or ast.unparse(getattr(node, "target", None) or node.targets[0])
        for node in body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AnnAssign, ast.Assign))
    )


@pytest.mark.parametrize("path", CYTHON, ids=lambda path: path.stem)
def test_stubs_say_what_the_compiled_modules_have(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    stub = ast.parse(path.with_suffix(".pyi").read_text())
    own = {
        name
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", module.__name__) == module.__name__
        and not inspect.ismodule(thing)
        and not isinstance(thing, frozenset)
    }
    assert declared(stub.body) == public(own)
    for node in stub.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert declared(node.body) == public(vars(getattr(module, node.name))), node.name


def calls(path):
    """Names of what a module calls: `name` or `object.name` by its last part."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_timeouts_are_asyncio_timeouts():
    """`wait_for` can swallow a cancellation (CPython 3.11)."""
    assert not [
        path.name for path in PYTHON if re.search(r"\basyncio\.wait_for\b|from asyncio import", path.read_text())
    ]


def test_exceptions_of_ours_have_one_base():
    """So that whoever catches NcfastError misses none."""
    modules = [path for path in PYTHON + CYTHON if path.stem not in ("__init__", "__main__")]
    ours = {
        thing
        for path in modules
        for thing in vars(importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))).values()
        if inspect.isclass(thing) and issubclass(thing, BaseException) and thing.__module__.startswith("ncfast")
    }
    assert len(ours) > 15 and {one for one in ours if not issubclass(one, NcfastError)} == {_frames.FrameError}


def test_every_reason_to_end_a_link_says_who_is_at_fault():
    assert {blame(one) for one in Reason if one >= 64 or one is Reason.INTERNAL} == set(Blame)


def test_tasks_are_spawned_where_they_are_kept():
    """A task that nobody refers to may vanish. One module outside the seam makes tasks, and keeps them in
    attributes."""
    own = {"ncfast/net/seam.py", "ncfast/auth/remote.py"}
    makers = {str(path.relative_to(ROOT)) for path in PYTHON if {"create_task", "ensure_future"} & set(calls(path))}
    assert {name for name in makers if not name.startswith(("ncfast/demo/", "ncfast/conformance/"))} <= own


def test_no_slow_path_takes_over_silently():
    assert not [path.name for path in PYTHON + CYTHON if "except ImportError" in path.read_text()]


def test_what_a_peer_sends_never_meets_an_assert():
    assert not [path.name for path in CYTHON if re.search(r"^\s*assert\b", path.read_text(), re.MULTILINE)]


def test_sockets_are_opened_by_the_seam_alone():
    """Net makes, binds and connects every socket of hub and agent, those that listen by ncfast/net/binding.py and
    acceptor.py, those of dials by connect.py; others only set options and say how to close. Commands ask hubs by
    sockets of their own, and notify.py tells systemd; demo and conformance are hubs, services and clients of their
    own."""
    made = re.compile(
        r"\bsocket\.socket\(|\.create_connection\(|\.create_server\(|\.sock_connect\(|asyncio\.open_connection\("
    )
    sources = [
        path
        for path in PYTHON
        if not {"cli", "demo", "conformance"} & set(path.parts) and path.name != "adminclient.py"
    ]
    makers = [path.name for path in sources if made.search(path.read_text())]
    assert makers == ["acceptor.py", "binding.py", "connect.py", "seam.py", "notify.py"]


def test_names_are_looked_up_in_one_place():
    """But for those of listeners, once at the start."""
    sources = [path for path in PYTHON if "getaddrinfo(" in path.read_text()]
    assert [path.name for path in sources] == ["names.py", "seam.py"]


def test_tls_contexts_are_made_in_one_place():
    """What every one of them has, the oldest version for one, is said in ncfast/net/tls.py."""
    made = re.compile(r"\bSSLContext\(|\bcreate_default_context\(")
    assert [path.name for path in PYTHON if made.search(path.read_text())] == ["tls.py"]


def test_cython_keeps_to_the_width_that_ruff_holds_elsewhere():
    width = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
    sources = [path for kind in ("*.pyx", "*.pxd") for path in (ROOT / "ncfast").rglob(kind)]
    long = [
        f"{path.name}:{number}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > width
    ]
    assert not long


# texts

HOSTS = [
    ".".join(parts)
    for parts in (
        ("py" + "pi", "org"),
        ("python" + "hosted", "org"),
        ("npm" + "js", "org"),
        ("npm" + "js", "com"),
        ("crates", "io"),
        ("docker", "io"),
        ("gh" + "cr", "io"),
        ("qu" + "ay", "io"),
        ("gcr", "io"),
        ("rubygems", "org"),
        ("anaconda", "org"),
    )
]
MACHINE = re.compile(r"(?<![\w.~>})])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me")) + ")/")


def tracked():
    names = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    )
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_texts_name_no_package_registry_and_no_path_of_somebodys_machine():
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: what belongs to the repository is unknown")
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}: {host}" for host in HOSTS if re.search(rf"(?<![\w-]){re.escape(host)}\b", text)
        ]
        found += [f"{path.relative_to(ROOT)}: {match}" for match in MACHINE.findall(text)]
    assert not found
