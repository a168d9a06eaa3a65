"""How agents get to the edges of hubs: plainly, by TLS, or through nginx, which ends the TLS."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import trustme
from support.nginx import nginx
from support.peer import Address
from support.process import Program
from support.services import accepts
from support.until import wait_until

from bench.ports import free_port

Kind = Literal["plain", "TLS", "nginx"]
LOOPBACK = "127.0.0.1"

# As docs/operations.md has it, and TLS.
SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {pem};
        ssl_certificate_key {pem};
        location /tunnel {{
            proxy_pass http://{edge};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "Upgrade";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_read_timeout 60s;
            proxy_buffering off;
        }}
    }}
"""


class Tunnels:
    """`hub` and `agent` are what their configurations need for it."""

    def __init__(self, kind: Kind, directory: Path, hosts: Iterable[str] = (LOOPBACK,)) -> None:
        """`hosts` are those of edges."""
        self._kind, self._directory = kind, directory
        self._pem, trusted = directory / "edge.pem", directory / "edge-ca.pem"
        self._ports: dict[Address, int] = {}
        self._nginx: Program | None = None
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(trusted))
        authority.issue_cert(*{LOOPBACK, *hosts}).private_key_and_cert_chain_pem.write_to_path(str(self._pem))
        self.hub: dict[str, Any] = {
            "plain": {},
            "TLS": {"edge": {"tls": {"cert_file": str(self._pem), "key_file": str(self._pem)}}},
            "nginx": {"edge": {"trusted_proxies": ["127.0.0.1/32"]}},
        }[kind]
        self.agent: dict[str, Any] = {} if kind == "plain" else {"tls": {"ca_file": str(trusted)}}

    def open(self, edges: Iterable[Address]) -> None:
        """Before an agent dials."""
        if self._kind != "nginx":
            return
        self._ports = {edge: free_port() for edge in edges}
        servers = [SERVER.format(port=port, pem=self._pem, edge="%s:%d" % edge) for edge, port in self._ports.items()]
        started = self._nginx = nginx(self._directory, "".join(servers))
        for port in self._ports.values():
            wait_until(
                lambda port=port: started.exit_code() is not None or accepts((LOOPBACK, port)), f"nginx at {port}"
            )
        assert started.exit_code() is None, started.tail()

    def url(self, edge: Address) -> str:
        """What an agent dials to get to an edge."""
        host, port = (LOOPBACK, self._ports[edge]) if self._kind == "nginx" else edge
        return f"{'ws' if self._kind == 'plain' else 'wss'}://{host}:{port}/tunnel"

    def close(self) -> None:
        if self._nginx is not None:
            self._nginx.stop()
