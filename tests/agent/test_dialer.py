"""What an agent says of a dial that came to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import socket
import ssl
import threading

import pytest
import trustme
import uvloop
from support.until import PATIENCE

from ncfast.agent.dialer import DialError, dial
from ncfast.agent.ground import Ground
from ncfast.config.loader import agent_from_flags
from ncfast.config.sections import ClientTls
from ncfast.net.seam import Net


def refusal(url, directory, tls=None):
    """Of a hub at `url`."""

    async def main():
        token = directory / "token"
        config = agent_from_flags([url], "site-1", ["c=127.0.0.1:1"], token).model_copy(update={"tls": tls})
        ground = Ground(config, Net(asyncio.get_running_loop()))
        with pytest.raises(DialError) as refused:
            await dial(ground, url, "token", None)
        return refused.value

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


@pytest.mark.parametrize(
    ("version", "shown", "alert"),
    [
        (ssl.TLSVersion.TLSv1_2, "expired", "CERTIFICATE_EXPIRED"),
        (ssl.TLSVersion.TLSv1_3, "expired", "CERTIFICATE_EXPIRED"),
        (ssl.TLSVersion.TLSv1_3, "none", "CERTIFICATE_REQUIRED"),
    ],
)
def test_a_certificate_of_ours_that_is_not_taken_is_named(tmp_path, version, shown, alert):
    """By a server that says why, as most do; TLS 1.3 says it when our side of the handshake is over."""
    authority = trustme.CA()
    issued = authority.issue_cert("site-1", not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, version

    def serve():
        secured = context.wrap_socket(listener.accept()[0], server_side=True, do_handshake_on_connect=False)
        secured.settimeout(PATIENCE)
        with pytest.raises(ssl.SSLError):
            secured.do_handshake()
        with socket.socket(fileno=secured.detach()) as bare:
            bare.settimeout(PATIENCE)
            bare.shutdown(socket.SHUT_WR)
            while bare.recv(4096):  # what is unread would make a reset of the close, which overtakes the alert
                pass

    own = {"cert_file": tmp_path / "client.pem", "key_file": tmp_path / "client.pem"} if shown == "expired" else {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"wss://127.0.0.1:{listener.getsockname()[1]}/tunnel"
        refused = refusal(url, tmp_path, ClientTls(ca_file=tmp_path / "ca.pem", **own))
        thread.join()
    assert refused.reason == "certificate" and alert in str(refused) and "tls.cert_file" in str(refused)


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        ("200 OK\r\nContent-Type: text/html\r\nContent-Length: 0", "not_a_hub", "HTTP 200"),  # a captive portal
        ("302 Found\r\nLocation: http://portal.test/", "not_a_hub", "HTTP 302"),
        ("426 Upgrade Required", "no_upgrade", "Upgrade and Connection"),
        ("505 HTTP Version Not Supported", "no_upgrade", "HTTP/1.1"),
        ('401 Unauthorized\r\nWWW-Authenticate: Bearer error="invalid_token"', "http_401", "the hub refused the token"),
        (
            '401 x\r\nWWW-Authenticate: Bearer error="invalid_token", error_description="the token has expired"',
            "http_401",
            "the hub refused the token: the token has expired (HTTP 401)",
        ),
        ('401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"', "http_401", "somebody before the hub"),
        ("401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM", "http_401", "somebody before"),
        ("503 x\r\nRetry-After: 1\r\nRetry-After: 2", "http_503", "HTTP 503"),
        ("401 Unauthorized", "http_401", "somebody before the hub"),
    ],
)
def test_answers_that_are_no_handshake(tmp_path, answer, reason, says):
    def serve():
        with listener.accept()[0] as sock:
            sock.settimeout(PATIENCE)
            while b"\r\n\r\n" not in sock.recv(8192):
                pass
            sock.sendall(f"HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        refused = refusal(f"ws://127.0.0.1:{listener.getsockname()[1]}/tunnel", tmp_path)
        thread.join()
    assert refused.reason == reason and says in str(refused)


@pytest.mark.parametrize(
    ("scheme", "greeting", "reason", "says"),
    [
        ("ws", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "not_a_hub", "an SSH server answers there"),
        ("ws", b"220 mail.example.net ESMTP\r\n", "not_a_hub", "does not speak HTTP"),
        ("ws", b"\x15\x03\x01\x00\x02\x02\x46", "not_a_hub", "wss://"),  # an alert: TLS was wanted
        ("ws", b"", "closed", "wss://"),
        ("wss", b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls", "does not speak TLS"),
        ("wss", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "tls", "does not speak TLS"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_port_of_something_else(tmp_path, scheme, greeting, reason, says, at_once):
    def serve():
        with listener.accept()[0] as sock:
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.recv(8192)
            with contextlib.suppress(ConnectionError):  # the agent has heard enough
                for part in [greeting] if at_once else [greeting[k : k + 1] for k in range(len(greeting))]:
                    sock.sendall(part)
                while greeting and sock.recv(4096):  # such a server waits for more, and the agent need not
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        refused = refusal(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/tunnel", tmp_path)
        thread.join()
    assert refused.reason == reason and says in str(refused)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError(errno.ECONNREFUSED, "Connection refused"), "refused"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no_route"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "no_route"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "timeout"),
        (OSError(errno.EPERM, "Operation not permitted"), "unreachable"),
        (OSError(errno.EMFILE, "Too many open files"), "out_of_descriptors"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name"),
    ],
)
def test_what_is_known_of_a_connection_that_failed(tmp_path, monkeypatch, failure, reason):
    async def fail(*_, **__):
        raise failure

    monkeypatch.setattr(Net, "connect", fail)
    refused = refusal("ws://127.0.0.1:8080/tunnel", tmp_path)
    assert refused.reason == reason
    if reason != "timeout":
        assert failure.strerror in str(refused)
