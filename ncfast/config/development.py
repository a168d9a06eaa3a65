"""The hub that starts without a file: loopback only, for a first look and for development."""

from __future__ import annotations

from pathlib import Path

from ncfast.config.hub import Admin, Auth, Edge, HubConfig, HubDrain, Jwt, Listener
from ncfast.config.values import Address


def development_hub(
    key_file: Path,
    *,
    listener: str = "127.0.0.1:1389",
    edge: str = "127.0.0.1:8080",
    admin: str = "127.0.0.1:9400",
) -> HubConfig:
    """One listener ``ldap``, everything on loopback; tokens are HS256 with the secret in ``key_file``.

    ``config/development.yaml`` is the same as a file. Port 0 in an address lets the kernel choose.
    """
    return HubConfig(
        listeners=[Listener(name="ldap", bind=Address.parse(listener), connector="ldap")],
        edge=Edge(bind=Address.parse(edge)),
        admin=Admin(bind=Address.parse(admin)),
        auth=Auth(jwt=Jwt(algorithms=["HS256"], key_file=key_file)),
        drain=HubDrain(delay_sec=0),  # no balancer asks
    )
