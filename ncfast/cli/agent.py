"""Run an agent: it dials out to its hubs and offers the private services it can reach; it listens nowhere
but, if told so, for those on the same machine who ask how it is.

Either by flags (one hub and one connector at least), or by a file, which has more settings.
SIGTERM drains.
With --dry-run nothing is run: the way to each hub, as a standby that claims nothing, and to each target is tried, and
what came of each step is printed, with exit code 1 if one fails.
"""

from __future__ import annotations

import argparse

from ncfast.cli.start import add_stay, collect_later, forbid_core_dumps, ignore_early

HELP = "run an agent"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the agent's YAML file, instead of the flags below")
    parser.add_argument("--dry-run", action="store_true", help="try the way to hubs and targets, and end")
    add_stay(parser)
    flags = parser.add_argument_group("without a file")
    flags.add_argument("--hub", action="append", metavar="URL", help="wss://host/tunnel; repeat for more hubs")
    flags.add_argument("--agent-id", metavar="ID", help="this agent's name, the token's sub")
    flags.add_argument(
        "--connector", action="append", metavar="NAME=HOST:PORT", help="a service to offer; repeat for more"
    )
    flags.add_argument("--token-file", metavar="FILE", help="the file that holds the token")
    flags.add_argument("--ca-file", metavar="FILE", help="trust this CA instead of the system's (PEM)")
    flags.add_argument("--client-cert", metavar="FILE", help="certificate to show to the hub (PEM)")
    flags.add_argument("--client-key", metavar="FILE", help="its private key (PEM)")
    flags.add_argument(
        "--allow-plaintext", action="store_true", help="show the token to hubs by ws:// beyond loopback, too"
    )
    flags.add_argument(
        "--check",
        action="append",
        metavar="NAME[=PROTOCOL]",
        help="withdraw this connector while its target does not answer: tcp (default), mysql, postgres, ldap, redis",
    )
    flags.add_argument(
        "--admin", metavar="WHERE", help="answer `ncfast status --agent` at 127.0.0.1:PORT, or at unix:/path"
    )
    flags.add_argument("--log-level", metavar="LEVEL", help="debug, info (default), warning or error")
    flags.add_argument("--mask-agents", metavar="HOW", help="agent ids in log lines: none (default), truncate or hash")
    parser.set_defaults(usage_error=parser.error)


@collect_later()
def run(arguments: argparse.Namespace) -> int:
    ignore_early()
    forbid_core_dumps()
    needed = {
        "--hub": arguments.hub,
        "--agent-id": arguments.agent_id,
        "--connector": arguments.connector,
        "--token-file": arguments.token_file,
    }
    certificates = {
        "ca_file": arguments.ca_file,
        "cert_file": arguments.client_cert,
        "key_file": arguments.client_key,
    }
    logging = {"level": arguments.log_level, "mask_agents": arguments.mask_agents}
    others = (arguments.allow_plaintext, arguments.check, arguments.admin)
    if arguments.config:
        if any((*needed.values(), *certificates.values(), *others, *logging.values())):
            arguments.usage_error("--config takes the place of the other flags, give one or the other")
    elif missing := [flag for flag, value in needed.items() if not value]:
        arguments.usage_error(f"give --config, or also {', '.join(missing)}")
    elif bool(arguments.client_cert) != bool(arguments.client_key):
        arguments.usage_error("--client-cert and --client-key belong together")

    from ncfast.config.loader import agent_from_flags, load_agent
    from ncfast.config.sections import ClientTls

    if arguments.config:
        config = load_agent(arguments.config)
    else:
        config = agent_from_flags(
            arguments.hub,
            arguments.agent_id,
            arguments.connector,
            arguments.token_file,
            allow_plaintext=arguments.allow_plaintext,
            checks=arguments.check or (),
            admin=arguments.admin,
            logging={key: value for key, value in logging.items() if value},
        )
        if any(certificates.values()):
            config = config.model_copy(update={"tls": ClientTls(**certificates)})

    if arguments.dry_run:
        from ncfast.cli.precheck import try_agent

        return try_agent(config)

    from ncfast.serve.agent import run_agent

    return run_agent(config, config_path=arguments.config, stay=arguments.stay_parent)
