"""Run a hub: listeners for clients, an edge for agents, an admin edge for operators.

The file is --config, or else what NC_CONFIG names. With neither, the hub runs in development mode: loopback
only, a registry in memory, a random signing key, and it prints the command that starts an agent.
SIGHUP reads the file again, SIGTERM drains, SIGUSR2 upgrades.
"""

from __future__ import annotations

import argparse
import os

from ncfast.cli.start import add_stay, collect_later, forbid_core_dumps, ignore_early

HELP = "run a hub (the default)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the hub's YAML file (default: $NC_CONFIG)")
    add_stay(parser)


@collect_later()
def run(arguments: argparse.Namespace) -> int:
    ignore_early()
    forbid_core_dumps()

    from ncfast.config.auth import resolve_auth
    from ncfast.config.loader import load_hub

    path = arguments.config or os.environ.get("NC_CONFIG")
    if not path:
        from ncfast.cli import development

        return development.run_hub()
    config = load_hub(path)
    resolve_auth(config)  # a hub that cannot check tokens is refused before anything is loaded or bound

    from ncfast.serve.hub import run_hub

    return run_hub(config, config_path=path, stay=arguments.stay_parent)
