"""Bugs planted into a copy of the product, one at a time, to see the simulation find each: `make simulate-mutants`.

All plants go into one copy of the tree, each behind a switch that the environment sets, so that one build serves for all and the
product itself has no trace of them. A plant whose text is not there any more is an error: it must follow the code.
`plants` has those of flows and of clusters, and the names of files; those of the hand-over are here. A plant's number is its place
among all: new ones come at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .plants.cluster import CLUSTER_WIDE
from .plants.flows import FLOWS
from .plants.plant import (
    ACCEPTOR,
    AGENT_GIVING,
    AGENT_TAKING,
    BINDING,
    CLAIMS,
    GIVING,
    HANDOVER,
    LISTENER,
    REGISTRY,
    SOCKET,
    TAKING,
    WAYS,
    plant,
)

ROOT = Path(__file__).parents[2]
SWITCH = "NCFAST_MUTANT"
LIMIT = 1000  # seeds within which each must be found

PLANTS = [
    *FLOWS,
    *CLUSTER_WIDE,
    # hand-over
    plant(
        "a byte that is passed is kept twice",
        (
            HANDOVER,
            'b"".join(flow.early), kept,',
            'b"".join(flow.early), kept[:1] + kept[:len(kept) - 1] if ON and kept else kept,',
        ),
    ),
    plant(
        "a flow that is passed expects a byte that it has",
        (
            HANDOVER,
            "    flow.rcv_nxt = record.rcv_nxt\n",
            "    flow.rcv_nxt = record.rcv_nxt - (1 if ON and record.rcv_nxt else 0)\n",
        ),
    ),
    plant(
        "an end that is owed is not passed",
        (
            HANDOVER,
            "(SEND_FIN if record.fin_owed else 0)",
            "(SEND_FIN if record.fin_owed and not ON else 0)",
        ),
    ),
    plant(
        "an end that waits behind bytes for the socket is not passed",
        (
            SOCKET,
            "self.transport.inherit(state.unsent, state.eof_in, state.eof_out)",
            "self.transport.inherit(state.unsent, state.eof_in, state.eof_out and not ON)",
        ),
    ),
    plant(
        "a reset that is owed is not passed",
        (
            HANDOVER,
            "(SEND_LATE_RST if record.reset_owed else 0)",
            "(SEND_LATE_RST if record.reset_owed and not ON else 0)",
        ),
    ),
    plant(
        "what the socket has not taken is not passed",
        (
            SOCKET,
            "return SocketState(sock, unsent, self._eof_in, self._eof_out)",
            'return SocketState(sock, b"" if ON else unsent, self._eof_in, self._eof_out)',
        ),
    ),
    plant(
        "a flow is at both processes of a hub",
        (
            GIVING,
            "                for parcel in parcels:\n                    parcel.close()\n",
            "                for parcel in parcels:\n                    if ON:\n"
            "                        self._passing.put(parcel, passed=False)\n                    parcel.close()\n",
        ),
    ),
    plant(
        "a flow is at both processes of an agent",
        (
            AGENT_GIVING,
            "        for parcel in self._parcels:\n            parcel.close()\n        self._passed",
            "        for parcel in self._parcels:\n            if ON:\n                self._passing.put(parcel, passed=False)\n"
            "            parcel.close()\n        self._passed",
        ),
    ),
    plant(
        "an agent's epochs are not passed",
        (
            AGENT_TAKING,
            '        agent.tunnels.inherit(message.body["last_epoch"], message.body["said"])\n',
            '        if not ON:\n            agent.tunnels.inherit(message.body["last_epoch"], message.body["said"])\n',
        ),
    ),
    plant(
        "who waits in the accept queue is dropped",
        (
            ACCEPTOR,
            "            self.held = False\n            self._resume()\n",
            "            self.held = False\n            for sock in self.sockets if ON else ():\n"
            "                while (found := accept(sock.fileno())) is not None:\n"
            "                    Accepted(found[0]).close()\n            self._resume()\n",
        ),
    ),
    plant(
        "listening sockets are bound anew",
        (
            BINDING,
            "            self._doors.remove(one)\n            return one[1]\n",
            "            self._doors.remove(one)\n            return [] if ON else one[1]\n",
        ),
    ),
    plant(
        "both processes number their flows alike",
        (GIVING, "hub.router.flow_number + CIDS", "hub.router.flow_number + (0 if ON else CIDS)"),
    ),
    plant(
        "the predecessor goes on speaking in the registry",
        (
            REGISTRY,
            "        self._quiet, self._beats = on, beats or not on\n",
            "        self._quiet, self._beats = on and not ON, beats or not on\n",
        ),
    ),
    plant(
        "who asks for a flow that is yet to come is told that there is none",
        (
            CLAIMS,
            "        if awaited is None or not awaited.awaits(cid) or awaited.complete(session.key):",
            "        if awaited is None or ON or not awaited.awaits(cid) or awaited.complete(session.key):",
        ),
    ),
    plant(
        "what a successor that died had not taken is lost",
        (
            GIVING,
            "                    self._passing.put(parcel, passed=False)\n                except",
            "                    if not ON:\n                        self._passing.put(parcel, passed=False)\n                except",
        ),
    ),
    plant(
        "the doors stay shut when the successor has died",
        (GIVING, "        hub.open_doors()\n", "        if not ON:\n            hub.open_doors()\n"),
    ),
    plant(
        "a successor is alone until it is in the mesh",
        (WAYS, "self.mesh is not None or self.inherited", "self.mesh is not None or (self.inherited and not ON)"),
    ),
    plant(
        "half a PROXY header is not passed",
        (
            LISTENER,
            'if read := head["read"].encode("latin-1"):',
            'if (read := head["read"].encode("latin-1")) and not ON:',
        ),
    ),
    plant(
        "clients are let in by nobody when the predecessor has died",
        (
            TAKING,
            "        self._join()\n        self._listen()\n",
            "        self._join()\n        if not ON:\n            self._listen()\n",
        ),
    ),
]


def planted() -> dict[str, str]:
    """The files with plants, each with all of its own in it. Raises SystemExit for a plant that the code has left
    behind."""
    texts: dict[str, str] = {}
    stray = []
    for number, one in enumerate(PLANTS, 1):
        for file, old, new in one.edits:
            text = texts.get(file) or (ROOT / "ncfast" / file).read_text()
            if text.count(old) != 1:
                stray.append(f"{number} ({one.name}): its text is {text.count(old)} times in {file}, not once:\n{old}")
            texts[file] = text.replace(old, re.sub(r"\bON\b", f"(MUTANT == {number})", new))
    if stray:
        raise SystemExit("\n\n".join(stray))
    return texts


def copy(into: Path) -> None:
    """The tree with all plants in it, built."""
    shutil.copytree(ROOT / "ncfast", into / "ncfast", ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    shutil.copytree(
        ROOT / "tests" / "simulation", into / "tests" / "simulation", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(
        ROOT / "tests" / "registry", into / "tests" / "registry", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "setup.py", into)
    texts = planted()
    for file, text in texts.items():
        (into / "ncfast" / file).write_text(_with_switch(file, text))
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=into, check=True, stdout=subprocess.DEVNULL
    )


def _with_switch(file: str, text: str) -> str:
    """The module with a variable MUTANT, read from the environment when it is imported."""
    line = f'int(__import__("os").environ.get("{SWITCH}", "0"))'
    if file.endswith(".pyx"):
        end = text.index('"""', 3) + 3
        return f"{text[:end]}\n\ncdef int MUTANT = {line}\n{text[end:]}"
    anchor = "from __future__ import annotations\n"
    assert text.count(anchor) == 1
    return text.replace(anchor, f"{anchor}\nMUTANT = {line}\n")


def simulate(tree: Path, number: int, seeds: int, first: int, jobs: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.simulation",
            "--seeds",
            str(seeds),
            "--first",
            str(first),
            "--jobs",
            str(jobs),
            "--stop",
        ],
        cwd=tree,
        env={**os.environ, SWITCH: str(number), "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("numbers", type=int, nargs="*", metavar="N", help="plants to try (all)")
    parser.add_argument("--seeds", type=int, default=LIMIT, metavar="N", help=f"seeds for each ({LIMIT})")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first of them (1)")
    parser.add_argument(
        "--jobs", type=int, default=multiprocessing.cpu_count(), metavar="N", help="processes (one a core)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the copy of the tree, and say where it is")
    arguments = parser.parse_args()
    tree = Path(tempfile.mkdtemp(prefix="ncfast-mutants-"))
    survivors = 0
    try:
        copy(tree)
        print(f"{len(PLANTS)} plants, built{f' in {tree}' if arguments.keep else ''}", flush=True)
        sound = simulate(tree, 0, 24, arguments.first, arguments.jobs)
        if sound.returncode:
            print(f"without a plant the simulation fails, too:\n{sound.stdout}{sound.stderr}")
            return 1
        for number in arguments.numbers or range(1, len(PLANTS) + 1):
            survivors += not try_one(tree, number, arguments.seeds, arguments.first, arguments.jobs)
    finally:
        if not arguments.keep:
            shutil.rmtree(tree)
    print(f"{survivors} not found" if survivors else "all found")
    return 1 if survivors else 0


def try_one(tree: Path, number: int, seeds: int, first: int, jobs: int) -> bool:
    """Whether the plant is found; a line of the table tells how."""
    began = time.monotonic()
    done = simulate(tree, number, seeds, first, jobs)
    took = time.monotonic() - began
    lines = [line for line in done.stdout.splitlines() if line.startswith("seed ")]
    found = done.returncode != 0 and bool(lines)
    what = lines[0] if found else "NOT FOUND" if done.returncode == 0 else f"broken: {done.stderr[-600:]}"
    print(f"{number:3} {PLANTS[number - 1].name:62} {took:5.0f} s  {what[:130]}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
