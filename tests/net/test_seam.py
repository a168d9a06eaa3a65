"""The seam, on real sockets of loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from types import SimpleNamespace

import pytest
import uvloop
from support.until import PATIENCE, SCENARIO_SEC

from ncfast.config.values import Address
from ncfast.net import acceptor as acceptor_module
from ncfast.net import seam as net_module
from ncfast.net.seam import OWN_DESCRIPTORS, TCP_NOTSENT_LOWAT, Net, reset, tune, tune_end, tune_link
from ncfast.net.syscalls import accept

HERE = Address("127.0.0.1", 0)
LINGER_0 = struct.pack("ii", 1, 0)


def run(main):
    """`main(net)` on the product's loop."""

    async def limited():
        async with asyncio.timeout(SCENARIO_SEC):
            await main(Net(asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


class End(asyncio.Protocol):
    def __init__(self):
        self.made = asyncio.Event()
        self.got = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.made.set()

    def data_received(self, data):
        self.got.set()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def dial(address):
    host, port = address.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)))
    sock.setblocking(False)
    return sock


def test_listen_adopt_connect():
    async def main(net):
        accepted = asyncio.Queue()
        acceptor = await net.listen(HERE, lambda sock, peer: accepted.put_nowait((sock, peer)))
        host, _, port = acceptor.address.rpartition(":")
        client, served = End(), End()
        transport = await net.connect(host, int(port), client, timeout=PATIENCE)
        sock, peer = await accepted.get()
        assert peer == transport.get_extra_info("sockname") and not sock.getblocking()
        net.adopt(sock, served)
        await served.made.wait()
        acceptor.close()
        acceptor.close()  # closing twice does no harm, and open connections live on
        served.transport.write(b"hello")
        await client.got.wait()
        transport.close()
        assert await client.lost is None and await served.lost is None

    run(main)


def test_an_address_in_use_is_named():
    async def main(net):
        first = await net.listen(HERE, lambda sock, peer: None)
        taken = Address("127.0.0.1", int(first.address.rpartition(":")[2]))
        with pytest.raises(OSError, match=f"cannot listen on {first.address}"):
            await net.listen(taken, lambda sock, peer: None)
        first.close()

    run(main)


def test_refused_and_silent_targets():
    async def main(net):
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await net.connect("127.0.0.1", nobody.getsockname()[1], End(), timeout=PATIENCE)
            nobody.listen(0)
            with contextlib.ExitStack() as full:  # a queue that is full answers no further client
                for _ in range(4):
                    sock = full.enter_context(socket.socket())
                    sock.setblocking(False)
                    sock.connect_ex(nobody.getsockname())
                with pytest.raises(TimeoutError):
                    await net.connect("127.0.0.1", nobody.getsockname()[1], End(), timeout=0.1)

    run(main)


def test_accepting_pauses_when_descriptors_run_out_and_the_queue_holds_the_clients(monkeypatch):
    monkeypatch.setattr(acceptor_module, "ACCEPT_PAUSE", 0.01)

    async def main(net):
        shed, accepted = [], asyncio.Queue()
        net.fd_limit = OWN_DESCRIPTORS + 8 + 2

        def on_socket(sock, peer):
            net.opened()
            accepted.put_nowait(sock)

        acceptor = await net.listen(HERE, on_socket, reserve=8, on_shed=shed.append)
        clients = [dial(acceptor.address) for _ in range(3)]
        first = [await accepted.get(), await accepted.get()]
        while not acceptor.paused:
            await asyncio.sleep(0)
        assert "fd" in shed and accepted.empty()
        first.pop().close()
        net.gone()
        third = await accepted.get()
        acceptor.close()
        for sock in (*clients, *first, third):
            sock.close()

    run(main)


def test_out_of_descriptors_in_the_kernel_is_survived(monkeypatch):
    monkeypatch.setattr(acceptor_module, "ACCEPT_PAUSE", 0.01)

    failures = [errno.EMFILE, errno.ENFILE, errno.ENOMEM]

    def exhausted(listening):
        if failures:
            raise OSError(failures[-1], os.strerror(failures.pop()))
        return accept(listening)

    monkeypatch.setattr(acceptor_module, "accept", exhausted)

    async def main(net):
        accepted, shed = asyncio.Queue(), []
        acceptor = await net.listen(HERE, lambda sock, peer: accepted.put_nowait(sock), on_shed=shed.append)
        client = dial(acceptor.address)
        (await accepted.get()).close()
        assert shed == ["fd"] * 3
        acceptor.close()
        client.close()

    run(main)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.254.9", "127.10.0.100", "127.1.99.200"])
def test_an_ipv4_address_is_written_as_python_writes_it(host):
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        client.bind((host, 0))
        client.connect(listening.getsockname())
        found = accept(listening.fileno())
        assert found is not None
        descriptor, peer = found
        os.close(descriptor)
        assert peer == client.getsockname()


def test_who_comes_together_after_many_who_came_alone_is_accepted(monkeypatch):
    async def main(net):
        asked = []
        monkeypatch.setattr(acceptor_module, "accept", lambda fd: asked.append(fd) or accept(fd))
        accepted = asyncio.Queue()
        acceptor = await net.listen(HERE, lambda sock, peer: accepted.put_nowait(sock))
        for _ in range(2 * acceptor_module.PROBE):
            with dial(acceptor.address), await accepted.get():
                pass
        alone = len(asked)
        assert alone < 3 * acceptor_module.PROBE  # of each of whom a second is asked for: 4
        together = [dial(acceptor.address) for _ in range(3)]  # before the next turn
        for sock in together:
            with sock, await accepted.get():
                pass
        acceptor.close()

    run(main)


def test_a_listener_knows_the_one_address_to_which_all_come():
    async def main(net):
        for host, known in (("127.0.0.1", True), ("0.0.0.0", False)):
            acceptor = await net.listen(Address(host, 0), lambda sock, peer: None)
            assert (acceptor.own is not None) == known
            if known:
                assert acceptor.own == acceptor.sockets[0].getsockname()
            acceptor.close()

    run(main)


def test_reset_is_seen_as_a_reset():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        served, _ = server.accept()
        reset(served)
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_client_or_target_may_pause_as_long_as_its_machine_answers():
    """No TCP_USER_TIMEOUT: Linux counts it while a window is closed, although every probe is answered."""
    with socket.socket() as sock:
        tune(sock)
        tcp = socket.IPPROTO_TCP
        assert sock.getsockopt(tcp, socket.TCP_NODELAY) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 0


def options(sock):
    """What `tune_end` sets."""
    tcp, level = socket.IPPROTO_TCP, socket.SOL_SOCKET
    return {
        "no delay": sock.getsockopt(tcp, socket.TCP_NODELAY),
        "keepalive": sock.getsockopt(level, socket.SO_KEEPALIVE),
        "idle": sock.getsockopt(tcp, socket.TCP_KEEPIDLE),
        "interval": sock.getsockopt(tcp, socket.TCP_KEEPINTVL),
        "count": sock.getsockopt(tcp, socket.TCP_KEEPCNT),
        "unsent": sock.getsockopt(tcp, TCP_NOTSENT_LOWAT),
        "linger": struct.unpack("ii", sock.getsockopt(level, socket.SO_LINGER, 8)),
    }


def test_an_accepted_socket_has_the_options_of_the_one_that_listens():
    async def main(net):
        accepted = asyncio.Queue()

        def on_socket(sock, peer):
            accepted.put_nowait((options(sock), sock.getblocking(), os.get_inheritable(sock.fileno()), peer))
            sock.close()

        acceptor = await net.listen(HERE, on_socket, tune=lambda sock: tune_end(sock, 40_000))
        with dial(acceptor.address) as client:
            found, blocks, inherited, peer = await accepted.get()
            assert not blocks and not inherited and peer == client.getsockname()
            with pytest.raises(ConnectionResetError):
                await net.loop.sock_recv(client, 1)
        acceptor.close()
        assert found == {
            "no delay": 1,
            "keepalive": 1,
            "idle": 60,
            "interval": 10,
            "count": 6,
            "unsent": 40_000,
            "linger": (1, 0),
        }

    run(main)


def test_a_bare_connection_is_a_descriptor():
    async def main(net):
        accepted = asyncio.Queue()
        acceptor = await net.listen(
            HERE, lambda sock, peer: accepted.put_nowait(sock), tune=lambda sock: tune_end(sock, 40_000), bare=True
        )
        served = End()
        with dial(acceptor.address) as client, dial(acceptor.address) as refused, dial(acceptor.address) as dropped:
            net.adopt_end(await accepted.get(), served)
            served.transport.write(b"hello")
            assert await net.loop.sock_recv(client, 5) == b"hello"
            reset(await accepted.get())
            with pytest.raises(ConnectionResetError):
                await net.loop.sock_recv(refused, 1)
            await accepted.get()  # and nobody has it any more
            with pytest.raises(ConnectionResetError):
                await net.loop.sock_recv(dropped, 1)
        acceptor.close()
        await served.lost

    run(main)


def test_what_a_client_says_with_its_connect_is_told_in_the_turn_in_which_it_is_accepted():
    class Told(End):
        def data_received(self, data):
            turns.append("told")
            super().data_received(data)

    turns = []

    async def main(net):
        served = Told()

        def on_socket(sock, peer):
            net.loop.call_soon(turns.append, "next turn")
            net.adopt_end(sock, served)

        acceptor = await net.listen(HERE, on_socket, tune=lambda sock: tune_end(sock, 40_000), bare=True)
        with dial(acceptor.address) as client:
            client.send(b"hello")  # it is in the kernel of this machine before the loop looks at the listening socket
            await served.got.wait()
            assert turns == ["told", "next turn"]
        acceptor.close()
        await served.lost

    run(main)


def test_a_dialled_target_has_the_same_options():
    class Noted(End):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.found = options(transport.get_extra_info("socket"))

    async def main(net):
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as other:
            target = Noted()
            where = server.getsockname()
            dialled = await net.dial(*where, "target", PATIENCE)
            tune_end(dialled, 40_000)
            net.adopt_end(dialled, target)
            tune_end(other, 40_000)
            assert target.found == options(other)
            assert target.transport.get_extra_info("peername") == where
            target.transport.abort()
            await target.lost

    run(main)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_who_has_connected_is_named_as_python_names_it(family, tmp_path):
    where = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0), socket.AF_UNIX: str(tmp_path / "s")}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(family))
        try:
            server.bind(where[family])
        except OSError:
            pytest.skip("this machine has no such addresses")
        server.listen()
        server.setblocking(False)
        assert accept(server.fileno()) is None
        client = stack.enter_context(socket.socket(family))
        client.connect(server.getsockname())
        descriptor, peer = accept(server.fileno())
        served = stack.enter_context(socket.socket(fileno=descriptor))
        assert peer == client.getsockname() == served.getpeername()
        assert not os.get_blocking(descriptor) and not os.get_inheritable(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        accept(server.fileno())


def test_a_link_is_always_read_at_its_far_end():
    with socket.socket() as sock:
        tune_link(sock, user_timeout_sec=12.5, notsent_lowat=131072)
        tcp = socket.IPPROTO_TCP
        assert sock.getsockopt(tcp, socket.TCP_NODELAY) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 12_500
        assert sock.getsockopt(tcp, TCP_NOTSENT_LOWAT) == 131072


def test_a_reset_is_noticed_even_while_nobody_reads():
    async def main(net):
        accepted = asyncio.Queue()
        acceptor = await net.listen(HERE, lambda sock, peer: accepted.put_nowait(sock))
        client = dial(acceptor.address)
        served, noticed = End(), asyncio.Event()
        net.adopt(await accepted.get(), served)
        await served.made.wait()
        served.transport.pause_reading()
        number = net.watch(served.transport, noticed.set)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        client.close()
        await noticed.wait()
        net.unwatch(number)
        served.transport.abort()
        await served.lost
        acceptor.close()

    run(main)


def test_spawned_tasks_are_kept_logged_and_cancelled(monkeypatch):
    logged = []
    monkeypatch.setattr(
        net_module, "_log", SimpleNamespace(error=lambda event, **fields: logged.append((event, fields["error"])))
    )

    async def main(net):
        async def fails():
            raise RuntimeError("a defect")

        failing = net.spawn(fails(), "fails")
        with pytest.raises(RuntimeError):
            await failing
        waiting = net.spawn(asyncio.Event().wait(), "waits")
        await net.cancel_all()
        assert waiting.cancelled() and not net._tasks

    run(main)
    assert logged == [("task_failed", "RuntimeError")]


# a kernel without IPv6

EVERYWHERE = Address("", 0)


def without(monkeypatch, *, at, errors=errno.EAFNOSUPPORT):
    """`socket` (no such family) or `bind` (the family, and no address of it) fails for IPv6."""

    class Socket(socket.socket):
        def __init__(self, family=socket.AF_INET, *more, **named):
            if at == "socket" and family == socket.AF_INET6:
                raise OSError(errors, "no IPv6")
            super().__init__(family, *more, **named)

        def bind(self, address):
            if at == "bind" and self.family == socket.AF_INET6:
                raise OSError(errors, "no IPv6")
            super().bind(address)

    monkeypatch.setattr(net_module.socket, "socket", Socket)


@pytest.mark.parametrize(("at", "errors"), [("socket", errno.EAFNOSUPPORT), ("bind", errno.EADDRNOTAVAIL)])
def test_a_family_that_the_kernel_lacks_is_skipped_while_another_is_left(monkeypatch, at, errors):
    without(monkeypatch, at=at, errors=errors)

    async def main(net):
        taken = asyncio.Queue()
        acceptor = await net.listen(EVERYWHERE, lambda sock, peer: taken.put_nowait(sock))
        edge = await net.listen(EVERYWHERE, lambda sock, peer: net.adopt(sock, End()))
        for one in (acceptor, edge):
            assert one.address.startswith("0.0.0.0:")
            dial(one.address.replace("0.0.0.0", "127.0.0.1")).close()
        (await taken.get()).close()
        acceptor.close()
        edge.close()
        with pytest.raises(OSError, match="cannot listen on"):  # nothing is left
            await net.listen(Address("::1", 0), lambda sock, peer: None)

    run(main)


def test_another_error_of_a_family_is_none_to_skip(monkeypatch):
    without(monkeypatch, at="bind", errors=errno.EADDRINUSE)

    async def main(net):
        with pytest.raises(OSError, match="cannot listen on :0: Address already in use"):
            await net.listen(EVERYWHERE, lambda sock, peer: None)

    run(main)
