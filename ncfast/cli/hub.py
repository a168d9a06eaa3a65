"""Run a hub: listeners for clients, an edge for agents, an admin edge for operators.

The file is --config, or else what NC_CONFIG names. With neither, the hub runs in development mode: loopback
only, a registry in memory, a random signing key, and it prints the command that starts an agent.
SIGHUP reads the file again, SIGTERM drains.
"""

from __future__ import annotations

import argparse
import os

from ncfast.cli.start import forbid_core_dumps, ignore_hangup

HELP = "run a hub (the default)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the hub's YAML file (default: $NC_CONFIG)")


def run(arguments: argparse.Namespace) -> int:
    ignore_hangup()
    forbid_core_dumps()

    from ncfast.config import load_hub, resolve_auth

    path = arguments.config or os.environ.get("NC_CONFIG")
    if not path:
        from ncfast.cli import development

        return development.run_hub()
    config = load_hub(path)
    resolve_auth(config)  # a hub that cannot check tokens is refused before anything is loaded or bound

    from ncfast import serve

    return serve.run_hub(config, config_path=path)
