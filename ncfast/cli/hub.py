"""Run a hub: listeners for clients, an edge for agents, an admin edge for operators.

The file is --config, or else what NC_CONFIG names. With neither, the hub runs in development mode: loopback only,
a registry in memory, a random signing key, and it prints the command that starts an agent.
SIGHUP reads the file again, SIGTERM drains.
"""

from __future__ import annotations

import argparse
import os

HELP = "run a hub (the default)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the hub's YAML file (default: $NC_CONFIG)")


def run(arguments: argparse.Namespace) -> int:
    from ncfast.config import load_hub

    path = arguments.config or os.environ.get("NC_CONFIG")
    if path:
        config = load_hub(path)
        from ncfast import serve  # after the file: a wrong one is told at once

        return serve.run_hub(config, config_path=path)

    from ncfast import serve
    from ncfast.cli.development import development

    with development() as config:
        return serve.run_hub(config)
