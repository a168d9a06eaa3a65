"""See it work on this machine: a hub, an agent, a small service, its clients, and a tunnel that is cut.

Data flows both ways while the tunnel is cut again and again; SHA-256 shows that nothing was lost. With --cluster there
are three hubs and a Redis, and the hub that owns the agent is killed, frozen and drained instead; with --upgrade hub
and agent are upgraded, five times each. It ends by itself.
"""

from __future__ import annotations

import argparse

from ncfast.cli.exitcode import ExitCode

HELP = "see flows survive a tunnel that is cut, or a hub that is killed, under them"
_SIZE, _SIZE_CLUSTER, _SIZE_UPGRADE, _CUTS = 256, 64, 64, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster", action="store_true", help="three hubs; kill, freeze and drain the one that owns the agent"
    )
    parser.add_argument("--upgrade", action="store_true", help="upgrade the hub and the agent, five times each")
    parser.add_argument(
        "--size",
        type=_positive,
        metavar="MIB",
        help=f"to move each way (default: {_SIZE}; with --cluster {_SIZE_CLUSTER}, three times; with --upgrade"
        f" {_SIZE_UPGRADE}, again and again)",
    )
    parser.add_argument(
        "--cuts", type=_positive, metavar="N", help=f"cuts of the tunnel, not with --cluster (default: {_CUTS})"
    )
    parser.add_argument("--stay", action="store_true", help="keep everything up afterwards, to play with")
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    import asyncio
    import sys

    if arguments.cluster and arguments.upgrade:
        arguments.usage_error("--cluster and --upgrade are two demos")
    if arguments.cluster:
        from ncfast.demo import cluster

        if arguments.cuts is not None:
            arguments.usage_error("--cuts is for the demo of one hub, not for --cluster")
        if problem := cluster.missing():
            print(f"ncfast: {problem}", file=sys.stderr)
            return ExitCode.UNAVAILABLE
        playing = cluster.run(sys.stdout, megabytes=arguments.size or _SIZE_CLUSTER, stay=arguments.stay)
    elif arguments.upgrade:
        from ncfast.demo import upgrade

        if arguments.cuts is not None:
            arguments.usage_error("--cuts is for the demo of one hub, not for --upgrade")
        playing = upgrade.run(sys.stdout, megabytes=arguments.size or _SIZE_UPGRADE, stay=arguments.stay)
    else:
        from ncfast.demo import scenario

        playing = scenario.run(
            sys.stdout, megabytes=arguments.size or _SIZE, cuts=arguments.cuts or _CUTS, stay=arguments.stay
        )
    try:
        return ExitCode.OK if asyncio.run(playing) else ExitCode.FAILURE
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return int(text)
