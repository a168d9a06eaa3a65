"""Real services on free ports of the loopback interface."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.ldap.directory import prepare, slapd_command
from bench.ports import free_port
from support.peer import Address
from support.process import Program, child_env, require
from support.until import PATIENCE, wait_until


def accepts(address: Address) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


@contextmanager
def on_free_port(start: Callable[[int], Program], ready: Callable[[Address], bool] = accepts) -> Iterator[Address]:
    """Run a program that must be told its port; another port is tried when someone was quicker."""
    for _ in range(5):
        port = free_port()
        address = ("127.0.0.1", port)
        program = start(port)
        try:
            wait_until(
                lambda a=address, p=program: p.exit_code() is not None or ready(a),
                f"{program.name} listening",
            )
            if program.exit_code() is None:
                yield address
                return
        finally:
            program.stop()
    raise AssertionError(program.tail())


@contextmanager
def slapd(directory: Path) -> Iterator[Address]:
    """OpenLDAP with what `bench.ldap.directory` has put into it."""
    server, loader = require("slapd", "slapadd")
    config = prepare(directory, loader)

    def start(port: int) -> Program:
        return Program("slapd", slapd_command(server, config, port), directory)

    with on_free_port(start) as address:
        yield address


@contextmanager
def redis_server(directory: Path, *more: str) -> Iterator[Address]:
    """Redis with persistence and its unix socket off, and ``more`` options."""
    (server,) = require("redis-server")

    def start(port: int) -> Program:
        options = f"--port {port} --bind 127.0.0.1 --appendonly no --dir . --save".split()
        return Program("redis", [server, *options, "", *more], directory)

    with on_free_port(start) as address:
        yield address


class MariaDb:
    """MariaDB's server, and questions to it as its administrator."""

    def __init__(self, address: Address, admin: list[str]) -> None:
        self.address = address
        self._admin = admin

    def ask(self, question: str) -> list[list[str]]:
        """Rows of the answer."""
        done = run([*self._admin, "--skip-column-names", "--batch", "--execute", question])
        return [line.split("\t") for line in done.stdout.splitlines()]


@contextmanager
def mariadb(directory: Path, *more: str) -> Iterator[MariaDb]:
    """MariaDB with ``more`` options, and the account ``check``, which has no password and no rights."""
    server, install, client = require("mariadbd", "mariadb-install-db", "mariadb")
    data, unix, first = directory / "data", directory / "s", directory / "first.sql"
    user = ["--user=root"] if os.geteuid() == 0 else []
    # --rpm: it is not to set owner and mode of the machine's own PAM tool
    run([install, "--no-defaults", "--rpm", *user, f"--datadir={data}", "--auth-root-authentication-method=normal"])
    first.write_text("CREATE USER IF NOT EXISTS 'check'@'%';\n")

    def start(port: int) -> Program:
        options = f"--port={port} --bind-address=127.0.0.1 --datadir={data} --socket={unix} --pid-file={directory}/pid"
        small = "--performance-schema=ON --innodb-buffer-pool-size=8M --skip-log-bin"
        argv = [server, "--no-defaults", *user, f"--init-file={first}", *options.split(), *small.split(), *more]
        return Program("mariadb", argv, directory)

    def ready(address: Address) -> bool:  # a connect would count as an aborted one
        return b"ready for connections" in (directory / "mariadb.err").read_bytes()

    with on_free_port(start, ready) as address:
        yield MariaDb(address, [client, "--no-defaults", "--user=root", f"--socket={unix}"])


@contextmanager
def postgres(directory: Path) -> Iterator[tuple[Address, Path]]:
    """PostgreSQL, and its log. It does not run as root, nor in a directory of root's."""
    places = [str(place) for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    server, init = require("postgres", "initdb", places=places)
    prefix: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ncfast-postgres-") as home:
        if os.geteuid() == 0:
            (drop,) = require("setpriv")
            prefix = [drop, "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(home, "nobody", "nogroup")
        run([*prefix, init, "--pgdata", f"{home}/data", "--username=admin", "--auth=trust", "--no-sync", "--locale=C"])

        def start(port: int) -> Program:
            options = f"-D {home}/data -k {home} -h 127.0.0.1 -p {port}"
            return Program("postgres", [*prefix, server, *options.split()], directory)

        def ready(address: Address) -> bool:
            return b"ready to accept connections" in (directory / "postgres.err").read_bytes()

        with on_free_port(start, ready) as address:
            yield address, directory / "postgres.err"


@contextmanager
def iperf3_server(directory: Path) -> Iterator[Address]:
    """A persistent iperf3 server, one test at a time."""
    (server,) = require("iperf3")

    def start(port: int) -> Program:
        argv = [server, "--server", "--bind", "127.0.0.1", "--port", str(port), "--forceflush"]
        return Program("iperf3", argv, directory)

    # a connection without a hello would count as a test, so its own word is awaited instead
    def ready(address: Address) -> bool:
        return b"Server listening" in (directory / "iperf3.out").read_bytes()

    with on_free_port(start, ready) as address:
        yield address


class _QuietFiles(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        digest = hashlib.sha256()
        left = int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, 1 << 16))
            digest.update(data)
            left -= len(data)
        body = digest.hexdigest().encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_files(directory: Path) -> Iterator[Address]:
    """An HTTP file server of ``directory``; it answers PUT with the SHA-256 of what it got."""
    handler = functools.partial(_QuietFiles, directory=directory)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[:2]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def recorder(reply: bytes = b"") -> Iterator[tuple[Address, list[bytes]]]:
    """A server that keeps what each connection sent until its FIN, and answers it with ``reply``."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        def serve(sock: socket.socket) -> None:
            with sock:
                sock.settimeout(PATIENCE)
                data = b""
                try:
                    while more := sock.recv(65536):
                        data += more
                    seen.append(data)
                    sock.sendall(reply)
                except OSError:
                    pass

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname(), seen
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def run(
    argv: list[str], *, check: bool = True, timeout: float = PATIENCE, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a client program to its end; its output is in the failure when it does not succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=child_env(), input=stdin)
    assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
