"""nginx: as the ingress in front of the hubs' edges, which ends the peers' mutual TLS and says whose certificate it
saw, or with servers of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from support.peer import Address
from support.process import Program, require
from support.services import accepts
from support.until import wait_until

HTTP = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
{servers}
}}
"""

INGRESS = """
    server {{
        listen {listen} ssl;
        ssl_certificate {pem};
        ssl_certificate_key {pem};
        ssl_client_certificate {ca};
        ssl_verify_client on;
        location /mesh {{
            proxy_pass http://{edge};
            proxy_bind 127.0.0.1;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Client-Cert "";
            proxy_set_header X-SSL-Client-SAN "";
            proxy_set_header X-SSL-Client-Verify $ssl_client_verify;
            proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
            proxy_read_timeout 1h;
            proxy_buffering off;
        }}
    }}
"""


def nginx(directory: Path, servers: str) -> Program:
    """Start nginx with these servers; its files are in ``directory``."""
    (program,) = require("nginx")
    config = directory / "nginx.conf"
    config.write_text(HTTP.format(directory=directory, servers=servers))
    return Program("nginx", [program, "-e", "stderr", "-c", str(config), "-p", str(directory)], directory)


class Ingress:
    """One server for each edge: ``servers`` maps where it listens to the edge behind."""

    def __init__(self, directory: Path, servers: Mapping[Address, Address], *, pem: Path, ca: Path) -> None:
        texts = [
            INGRESS.format(listen="%s:%d" % listen, edge="%s:%d" % edge, pem=pem, ca=ca)
            for listen, edge in servers.items()
        ]
        self.program = nginx(directory, "".join(texts))
        for listen in servers:
            wait_until(
                lambda listen=listen: self.program.exit_code() is not None or accepts(listen), f"nginx at {listen}"
            )
        assert self.program.exit_code() is None, self.program.tail()

    def stop(self) -> None:
        self.program.stop()
