"""Mint a development token (HS256, from the secret that the hub reads) and print it alone on standard output.

In production the tokens come from your identity provider, signed with RS256, ES256 or EdDSA.
"""

from __future__ import annotations

import argparse

HELP = "mint a development token"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key-file", required=True, metavar="FILE", help="the hub's auth.jwt.key_file")
    parser.add_argument("--agent-id", required=True, metavar="ID", help="the agent's name (sub)")
    parser.add_argument(
        "--connector",
        action="append",
        metavar="NAME",
        help="a connector the agent may announce; repeat for more (default: any)",
    )
    parser.add_argument("--tenant", metavar="NAME", help="the agent's tenant (default: none)")
    parser.add_argument("--ttl", type=int, default=3600, metavar="SECONDS", help="lifetime (default: 3600)")
    parser.add_argument(
        "--audience",
        default="nowconnect",
        metavar="NAME",
        help="the hub's auth.jwt.audience (default: nowconnect)",
    )
    parser.add_argument(
        "--certificate",
        metavar="FILE",
        help="bind the token to this client certificate (PEM, cnf x5t#S256): the hub takes it with no other",
    )
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    from ncfast.auth import mint, read_secret

    key = read_secret(arguments.key_file)
    bound = _thumbprint(arguments.certificate) if arguments.certificate is not None else None
    try:
        token = mint(
            key,
            arguments.agent_id,
            arguments.connector,
            tenant=arguments.tenant,
            ttl=arguments.ttl,
            audience=arguments.audience,
            certificate=bound,
        )
    except ValueError as error:
        arguments.usage_error(str(error))
    print(token)
    return 0


def _thumbprint(path: str) -> bytes:
    """Of the first certificate in the file, which is the agent's own where it has a chain. Raises OSError, or
    AuthSetupError for what is no certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    from ncfast.auth import AuthSetupError

    with open(path, "rb") as file:
        content = file.read()
    try:
        return x509.load_pem_x509_certificates(content)[0].fingerprint(SHA256())
    except ValueError:
        raise AuthSetupError(f"{path}: no certificate in PEM") from None
