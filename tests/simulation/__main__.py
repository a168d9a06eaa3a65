"""`python -m tests.simulation`: runs seeds, and shows one that failed."""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from .scenario import Result, run
from .tap import tap

REPLAY = "python -m tests.simulation --seed {seed} --trace"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="how many seeds (200)")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first of them (1)")
    parser.add_argument("--seed", type=int, metavar="N", help="one seed alone; its plan and problems are shown")
    parser.add_argument("--trace", action="store_true", help="with --seed: show everything that happens")
    parser.add_argument(
        "--frames", metavar="CID", help="with --trace: also the frames of flows whose cid ends so, in hexadecimal"
    )
    parser.add_argument(
        "--fingerprints", action="store_true", help="print what each seed came to, as a number that repeats"
    )
    parser.add_argument(
        "--jobs", type=int, default=multiprocessing.cpu_count(), metavar="N", help="processes (one a core)"
    )
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    arguments = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a trace is often looked at through `head`
    if arguments.seed is not None:
        return one(arguments.seed, arguments.trace, arguments.frames)
    return many(
        range(arguments.first, arguments.first + arguments.seeds),
        arguments.jobs,
        arguments.stop,
        arguments.fingerprints,
    )


def one(seed: int, trace: bool, frames: str | None) -> int:
    """Runs one seed and tells all about it."""
    lines: list[str] = []
    if frames is not None:
        tap(frames)
    result = run(seed, print if trace else lines.append)
    if not trace:
        print(lines[0])
    print(
        f"seed {seed}: {result.seconds:.1f} s of the clusters' time, {result.steps} steps, "
        f"fingerprint {result.fingerprint}"
    )
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(result.counts.items())))
    for problem in result.problems:
        print(f"PROBLEM {problem}")
    return 1 if result.problems else 0


def results(seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    """The results of seeds, in any order, from `jobs` processes."""
    if jobs <= 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=4)


def many(seeds: range, jobs: int, stop: bool, fingerprints: bool) -> int:
    """Runs seeds and prints those that failed, each with the command that shows it again."""
    began = time.monotonic()
    failed = done = 0
    counts: Counter[str] = Counter()
    virtual = 0.0
    for result in results(seeds, jobs):
        done += 1
        counts += result.counts
        virtual += result.seconds
        if fingerprints:
            print(result.seed, result.fingerprint)
        if result.problems:
            failed += 1
            print(f"seed {result.seed} failed: {result.problems[0]}")
            for problem in result.problems[1:3]:
                print(f"    {problem}")
            print(f"  {REPLAY.format(seed=result.seed)}", flush=True)
            if stop:
                break
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"{done} seeds, {failed} failed; {virtual:.0f} s of the clusters' time in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
