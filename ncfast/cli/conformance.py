"""Show whether an agent or a hub, of whatever make, keeps the rules of docs/protocol.md, and name each that it breaks.

For every scenario COMMAND is started on this machine: an agent between a scripted hub and a service; with --hub a hub
between a scripted agent and clients; with --mesh a hub of a cluster, beside a scripted one. In its words {name} is
replaced; the environment has the same as CONFORMANCE_NAME. For an agent: {hub} and {other_hub} (URLs), {agent_id},
{connector}, {token_file}, {target} (host:port), {target_host}, {target_port}, {ca_file} (by which hubs of wss:// URLs
are trusted; SSL_CERT_FILE names it too), {proxy} (its URL, as in https_proxy; empty for none). For a hub: {edge}
(host:port where agents will dial), {edge_port}, {listener} (host:port where clients will come), {listener_port},
{connector} that the listener is for, {key_file} (the secret of tokens, HS256), {audience} of tokens, {directory} for
files of its own; with --tls {tls_cert_file}, {tls_key_file} and {client_ca_file}, too. For a hub of a cluster these,
and {mesh} (host:port where hubs will dial), {mesh_port}, {cluster}, {replica_id}, {secret_file}.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ncfast.cli.exitcode import ExitCode

if TYPE_CHECKING:
    from ncfast.conformance.player import Player

HELP = "show whether an agent or hub of any make keeps the protocol's rules"
_PATIENCE, _JOBS = 30.0, 4
_FEATURES = ("resume", "standby", "moves", "moves_again", "drain", "tls", "proxy", "client_certificates")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="what starts the agent or hub, behind --")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--hub", action="store_true", help="COMMAND starts a hub")
    kind.add_argument("--mesh", action="store_true", help="COMMAND starts a hub of a cluster")
    parser.add_argument("--tls", action="store_true", help="with --hub: the hub's edge speaks TLS")
    parser.add_argument("--websocket", action="store_true", help="with --mesh: links are dialled at the edge, by /mesh")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=_FEATURES,
        help="leave out scenarios of a feature that the program does not have; repeat for more",
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="play this scenario; repeat for more")
    parser.add_argument("--scenarios", type=Path, metavar="FILE", help="others than those that come with ncfast")
    parser.add_argument(
        "--patience",
        type=float,
        default=_PATIENCE,
        metavar="SECONDS",
        help=f"that a step may take, dials and starts included (default: {_PATIENCE:g})",
    )
    parser.add_argument("--jobs", type=int, default=_JOBS, metavar="N", help=f"at once (default: {_JOBS})")
    parser.add_argument("--list", action="store_true", help="list the scenarios and their rules, and play none")
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    import asyncio

    from ncfast.conformance.run import Verdict, launch, play_all

    players = _players(arguments)
    without = {*arguments.without, *(() if arguments.tls or not (arguments.hub or arguments.mesh) else ("tls",))}
    every = players.scenarios(arguments.scenarios)
    scenarios = [one for one in every if not one.needs & without]
    if arguments.only:
        known = {one.name for one in scenarios}
        if unknown := [name for name in arguments.only if name not in known]:
            arguments.usage_error(f"there is no scenario {unknown[0]!r}; --list lists them")
        scenarios = [one for one in scenarios if one.name in arguments.only]
    if arguments.list:
        for one in scenarios:
            print(f"{one.name}: {', '.join(one.rules)}")
        return ExitCode.OK
    if not arguments.command:
        example = "-- ./agent {hub}, or --hub -- ./hub {edge_port} {listener_port} {key_file}"
        arguments.usage_error(f"what starts the program comes behind --, as in: ncfast conformance {example}")

    def told(verdict: Verdict) -> None:
        if verdict.broken is None:
            print(f"ok      {verdict.scenario.name}", flush=True)
            return
        print(f"BROKEN  {verdict.scenario.name}\n        rule {verdict.broken}", flush=True)
        for line in verdict.output:
            print(f"        | {line}", flush=True)

    for one in every:
        if one.needs & without and not arguments.only:
            print(f"left    {one.name}: without {', '.join(sorted(one.needs & without))}", flush=True)
    verdicts = asyncio.run(
        play_all(
            players,
            scenarios,
            launch(arguments.command),
            patience=arguments.patience,
            jobs=max(1, arguments.jobs),
            told=told,
        )
    )
    rules = sorted({one.broken.rule for one in verdicts if one.broken is not None})
    if rules:
        print(f"{sum(one.broken is not None for one in verdicts)} of {len(verdicts)} broken: rules {', '.join(rules)}")
        return ExitCode.FAILURE
    print(f"all {len(verdicts)} kept")
    return ExitCode.OK


def _players(arguments: argparse.Namespace) -> type[Player]:
    from ncfast.conformance.agents.player import ScriptedHub
    from ncfast.conformance.hubs.player import ScriptedAgent
    from ncfast.conformance.hubs.secure import SecureAgent
    from ncfast.conformance.mesh.player import ScriptedPeer, WebSocketPeer

    if arguments.tls and not arguments.hub:
        arguments.usage_error("--tls goes with --hub; to agents some scenarios speak TLS by themselves")
    if arguments.websocket and not arguments.mesh:
        arguments.usage_error("--websocket goes with --mesh")
    if arguments.hub:
        return SecureAgent if arguments.tls else ScriptedAgent
    if arguments.mesh:
        return WebSocketPeer if arguments.websocket else ScriptedPeer
    return ScriptedHub
