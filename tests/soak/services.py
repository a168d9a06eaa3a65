"""Services that only the soak has: nginx with a file, and PostgreSQL with pgbench's tables."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.nginx import nginx
from support.peer import Address
from support.process import Program
from support.services import on_free_port
from support.until import PATIENCE, wait_until

FILES = """
    server {{
        listen 127.0.0.1:{port};
        root {directory}/files;
    }}
"""


@contextmanager
def nginx_files(directory: Path) -> Iterator[Address]:
    """nginx that serves what is in ``directory``/files."""
    with on_free_port(lambda port: nginx(directory, FILES.format(directory=directory, port=port))) as address:
        yield address


def postgres_programs() -> Path | None:
    """Where PostgreSQL's own programs are, if they are here: `postgres` and `initdb` beside each other."""
    server = shutil.which("postgres")
    home = Path(os.path.realpath(server)).parent if server else None
    found = home and (home / "initdb").exists() and shutil.which("pgbench") and shutil.which("psql")
    return home if found and ordinary_user() is not None else None


def ordinary_user() -> list[str] | None:
    """Words before a command that make it run as whom PostgreSQL accepts: anybody but root."""
    if os.getuid():
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return None
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]


@contextmanager
def postgres(home: Path) -> Iterator[Address]:
    """PostgreSQL with a user ``soak`` of its database, and pgbench's tables in it; in a directory of its own, where
    whoever it runs as may go."""
    prefix = ordinary_user()
    assert prefix is not None
    with tempfile.TemporaryDirectory(prefix="soak-postgres-") as name:
        directory = Path(name)
        if prefix:
            shutil.chown(directory, "postgres")
        data = directory / "db"
        made = [*prefix, str(home / "initdb"), "-D", str(data), "-A", "trust", "-U", "soak", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, timeout=PATIENCE, cwd=directory)

        def start(port: int) -> Program:
            plain = "-c fsync=off -c max_connections=200 -c unix_socket_directories= -c authentication_timeout=10min"
            options = f"-h 127.0.0.1 -p {port} {plain}".split()
            return Program("postgres", [*prefix, str(home / "postgres"), "-D", str(data), *options], directory)

        with on_free_port(start) as address:
            host, port = address
            url = ["-h", host, "-p", str(port), "-U", "soak", "postgres"]
            wait_until(lambda: _succeeds(["psql", "-c", "SELECT 1", *url]), "PostgreSQL answering")
            subprocess.run(["pgbench", "-i", "-q", "-s", "1", *url], check=True, capture_output=True, timeout=PATIENCE)
            yield address


def _succeeds(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=PATIENCE).returncode == 0
