"""`python -m tests.simulation.mutants`: proves that the simulation can fail. Bugs are planted one at a time, and each must be found.

A plant replaces text of the product, or of what stands in Redis's place, in a copy of the tree. All are built in at once, each
behind a switch that the environment sets, so that one build serves for all and the product's own source has no trace of them.
A plant whose text is not found exactly once fails loudly: then the product has changed, and the plant must follow.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SWITCH = "NCFAST_MUTANT"
FLOW, LINK, RELAY, STREAM = (f"ncfast/{name}.pyx" for name in ("_flow", "_link", "_relay", "_stream"))
ROUTING, RELAYS, HOLD = "ncfast/routing.py", "ncfast/relays.py", "ncfast/hold.py"
AGENTS, STANDBY, MODEL = "ncfast/agents.py", "ncfast/standby.py", "tests/registry/model.py"


class Edit(NamedTuple):
    """In `new`, PLANTED is true while the plant is switched on."""

    path: str
    old: str
    new: str


class Plant(NamedTuple):
    name: str
    edits: tuple[Edit, ...]


def plant(name: str, path: str, old: str, new: str, *more: tuple[str, str, str]) -> Plant:
    return Plant(name, (Edit(path, old, new), *(Edit(*one) for one in more)))


PLANTS = (
    # bytes
    plant("the sequence check is dropped", FLOW, "        if seq != self.rcv_nxt:\n", "        if seq != self.rcv_nxt and not PLANTED:\n"),
    plant("a segment is used again although a part of it is not acknowledged", FLOW,
          "while self.head is not None and self.head.seq + self.head.size <= ack:",
          "while self.head is not None and (self.head.seq + self.head.size <= ack or (PLANTED and self.head.seq < ack)):"),
    plant("what was not acknowledged is not sent again", FLOW, "        self.unsent = self.head\n        chunk = self.head\n",
          "        if PLANTED:\n            return\n        self.unsent = self.head\n        chunk = self.head\n"),
    plant("bytes are acknowledged one ahead", FLOW, "        return self.rcv_nxt + (1 if self.fin_received else 0)\n",
          "        return self.rcv_nxt + (1 if self.fin_received or (PLANTED and self.rcv_nxt > 4000) else 0)\n"),
    # ends
    plant("the end overtakes data", LINK, "        if flow.unsent is None and flow.resumed and count[0]",
          "        if (flow.unsent is None or PLANTED) and flow.resumed and count[0]",
          (FLOW, "        h.seq = self.snd_nxt if type == M_FIN else 0\n",
           "        h.seq = (self.unsent.seq if PLANTED and self.unsent is not None else self.snd_nxt) if type == M_FIN else 0\n")),
    plant("the end is not sent again", FLOW, "        if self.fin_sent:\n            self.pending |= SEND_FIN     #",
          "        if self.fin_sent and not PLANTED:\n            self.pending |= SEND_FIN     #"),
    plant("the end of one direction closes the other", FLOW, "        self.move(REMOTE_FIN)\n        self.sink.finish()\n",
          "        if PLANTED:\n            self.finish()\n        self.move(REMOTE_FIN)\n        self.sink.finish()\n"),
    plant("a reset looks like an end", FLOW, "            self.sink.release(not complete)\n            self.sink = None\n        return self.finish_end(code)\n",
          "            self.sink.release(not complete and not PLANTED)\n            self.sink = None\n        return self.finish_end(code)\n"),
    # credit and what is given back
    plant("credit leaks when a flow ends", FLOW, "            self.path.inflight -= self.inflight\n            self.inflight = 0\n            self.path.forget(self)\n",
          "            if not PLANTED:\n                self.path.inflight -= self.inflight\n            self.inflight = 0\n            self.path.forget(self)\n"),
    plant("credit leaks when a flow leaves its path", FLOW, "            self.path.inflight -= self.inflight\n            self.path.freed()\n        self.inflight = 0\n",
          "            if not PLANTED:\n                self.path.inflight -= self.inflight\n            self.path.freed()\n        self.inflight = 0\n"),
    plant("the sender does not look at its credit", FLOW, "        if chunk is None or not self.resumed or chunk.seq >= self.snd_limit:\n            return None\n        if chunk.seq + chunk.size > self.snd_limit:",
          "        if chunk is None or not self.resumed or (chunk.seq >= self.snd_limit and not PLANTED):\n            return None\n        if chunk.seq + chunk.size > self.snd_limit and not PLANTED:",
          (FLOW, "self.snd_limit <= self.snd_nxt:\n            return 0\n", "(self.snd_limit <= self.snd_nxt and not PLANTED):\n            return 0\n"),
          (FLOW, "        if self.snd_limit - self.snd_nxt < <uint64_t>size:\n", "        if not PLANTED and self.snd_limit - self.snd_nxt < <uint64_t>size:\n")),
    plant("new credit is not told", FLOW, "        if limit > self.rcv_limit:\n            self.rcv_limit = limit\n",
          "        if limit > self.rcv_limit and not PLANTED:\n            self.rcv_limit = limit\n"),
    plant("the window of a closed flow is kept", FLOW, "        self.ctx.windows -= self.window\n        self.ctx.live -= 1\n",
          "        if not PLANTED:\n            self.ctx.windows -= self.window\n        self.ctx.live -= 1\n"),
    # time
    plant("the grace never ends", FLOW, "        if self.detached_at >= 0 and now - self.detached_at >= timeouts.grace:",
          "        if not PLANTED and self.detached_at >= 0 and now - self.detached_at >= timeouts.grace:"),
    plant("a client is held for ever", HOLD, "while queue and (queue[0][0].closed or queue[0][1] <= now):",
          "while queue and (queue[0][0].closed or (queue[0][1] <= now and not PLANTED)):"),
    # relays
    plant("nobody is told of frames that a relay dropped", LINK, "            lane.lossy = True\n", "            lane.lossy = not PLANTED\n"),
    plant("the word that frames were dropped is not heard", LINK, "                flow.gap(True)\n", "                if not PLANTED:\n                    flow.gap(True)\n"),
    plant("a relay puts frames into the wrong lane", RELAY, "        tunnel.lanes[cid] = self.up\n", "        tunnel.lanes[cid] = self.down if PLANTED else self.up\n"),
    plant("a relay that is over is kept", RELAYS, "        if self.by_cid.get(relay.cid) is relay:\n", "        if self.by_cid.get(relay.cid) is relay and not PLANTED:\n"),
    plant("frames of a relayed flow overtake those that wait", LINK, "        if self._writable and not lane.queue:\n            if self._through_count and",
          "        if self._writable and (not lane.queue or PLANTED):\n            if self._through_count and"),
    # epochs and owners
    plant("the registry grants what it has stored, whatever the agent remembers", MODEL, "        if int(at_least) > floor:\n",
          "        if int(at_least) > floor and not PLANTED:\n",
          (MODEL, "        floor = self.epochs.get(key, int(self._clock() * 1000))\n", "        floor = self.epochs.get(key, 0 if PLANTED else int(self._clock() * 1000))\n")),
    plant("a claim is granted the same epoch again", MODEL, "        epoch = self.epochs[key] = floor + 1\n", "        epoch = self.epochs[key] = floor + (0 if PLANTED and key in self.epochs else 1)\n"),
    plant("an owner opens whatever epoch is named", RELAYS, "        if epoch < session.epoch:\n            hub.epochs_refused += 1\n            return Reason.STALE_EPOCH\n",
          "        if epoch < session.epoch and not PLANTED:\n            hub.epochs_refused += 1\n            return Reason.STALE_EPOCH\n"),
    plant("an agent does not say what it remembers", STANDBY, "        self._said = min(max(self.last_epoch, self._said + 1), LAST_CLAIM)\n        return self._said\n",
          "        self._said = min(max(self.last_epoch, self._said + 1), LAST_CLAIM)\n        return 0 if PLANTED else self._said\n"),
    plant("the old tunnel of an agent is kept beside the new", AGENTS, "            old.link.fail(Reason.SUPERSEDED, \"a newer session of the same agent\")\n        session.granted",
          "            if not PLANTED:\n                old.link.fail(Reason.SUPERSEDED, \"a newer session of the same agent\")\n        session.granted"),
    plant("both of two links stay", "ncfast/mesh/manager.py", "        if former is not None:\n            self._replace(former, peer)\n",
          "        if former is not None and not PLANTED:\n            self._replace(former, peer)\n"),
    # resumes
    plant("any secret resumes a flow", ROUTING, " and hmac.compare_digest(secret, flow.secret)", " and (PLANTED or hmac.compare_digest(secret, flow.secret))"),
    plant("an opening flow is not opened again where its agent is", ROUTING, "            elif flow.opening and session.epoch > info.epoch:\n",
          "            elif flow.opening and session.epoch > info.epoch and not PLANTED:\n"),
    plant("a flow of a process that is gone is kept for the next", ROUTING, "            if info.instance != session.instance:\n                flow.reset(Reason.AGENT_RESTARTED)\n",
          "            if info.instance != session.instance and not PLANTED:\n                flow.reset(Reason.AGENT_RESTARTED)\n"),
)


def sow(tree: Path) -> None:
    """Puts all plants into a copy of the tree. Raises ValueError for one whose text is not there once."""
    texts: dict[Path, str] = {}
    for number, one in enumerate(PLANTS, 1):
        for edit in one.edits:
            path = tree / edit.path
            text = texts.setdefault(path, path.read_text())
            if text.count(edit.old) != 1:
                raise ValueError(f"plant {number} ({one.name}): {text.count(edit.old)} places in {edit.path} have its text:\n{edit.old}")
            texts[path] = text.replace(edit.old, re.sub(r"\bPLANTED\b", f"(MUTANT == {number})", edit.new))
    for path, text in texts.items():
        kind = "cdef int MUTANT = " if path.suffix == ".pyx" else "MUTANT = "
        switch = f"{kind}int(__import__('os').environ.get('{SWITCH}', '0'))\n"
        at = re.search(r"^(?:cdef (?:enum|class|int|double|object|extern)|class |def |@|[A-Z_a-z]+ = )", text, re.MULTILINE)
        assert at is not None, path
        path.write_text(text[:at.start()] + switch + "\n" + text[at.start():])


def copy(tree: Path) -> None:
    for name in ("ncfast", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    shutil.copy(ROOT / "setup.py", tree)
    sow(tree)
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, check=True, stdout=subprocess.DEVNULL)


def simulate(tree: Path, number: int, seeds: int, *more: str) -> tuple[bool, str]:
    """Whether a seed failed, and what it says."""
    done = subprocess.run([sys.executable, "-m", "tests.simulation", "--seeds", str(seeds), "--stop", *more], cwd=tree, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "PYTHONPATH": str(tree), SWITCH: str(number)})
    failed = re.search(r"^seed (\d+) failed: (.*)$", done.stdout, re.MULTILINE)
    if done.returncode and not failed:                 # not even that: the plant broke the simulation itself
        return True, done.stdout.strip().splitlines()[-1]
    return failed is not None, f"seed {failed[1]}: {failed[2]}" if failed else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="within how many seeds each must be found (1000)")
    parser.add_argument("--only", type=int, nargs="*", metavar="K", help="these plants alone, by number")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        tree = Path(name)
        copy(tree)
        found, what = simulate(tree, 0, 20)
        if found:
            print(f"without a plant it fails already: {what}")
            return 1
        survivors = 0
        chosen = arguments.only or range(1, len(PLANTS) + 1)
        for number in chosen:
            found, what = simulate(tree, number, arguments.seeds)
            survivors += not found
            print(f"{number:3}  {'found' if found else 'NOT FOUND'}  {PLANTS[number - 1].name}\n       {what[:160]}", flush=True)
    print(f"{len(chosen) - survivors} passed, {survivors} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
