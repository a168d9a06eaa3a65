"""The fault proxy does what its names say: a test tool that lies makes every test above it lie."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from support.until import PATIENCE

from ncfast.demo.faultproxy import FaultProxy, Way


@asynccontextmanager
async def echo_behind_a_proxy():
    async def echo(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except ConnectionError:
            ended.set()
        finally:
            writer.close()

    ended = asyncio.Event()  # the target has seen a reset
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultProxy(server.sockets[0].getsockname()) as proxy:
        yield proxy, ended


def run(scenario):
    async def bounded():
        async with asyncio.timeout(PATIENCE), echo_behind_a_proxy() as (proxy, ended):
            await scenario(proxy, ended)

    asyncio.run(bounded())


def test_forwards_both_ways_and_keeps_the_half_close():
    async def scenario(proxy, ended):
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(b"x" * 300_000)
        writer.write_eof()
        assert await reader.read() == b"x" * 300_000
        writer.close()
        assert (proxy.up.bytes, proxy.down.bytes, proxy.accepted) == (300_000, 300_000, 1)

    run(scenario)


def test_cut_resets_both_ends_and_lets_new_ones_in():
    async def scenario(proxy, ended):
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(b"a")
        await reader.readexactly(1)
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await ended.wait()
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        writer.close()

    run(scenario)


def test_stall_loses_nothing():
    async def scenario(proxy, ended):
        reader, writer = await asyncio.open_connection(*proxy.address)
        proxy.stall()
        writer.write(b"late")
        reading = asyncio.create_task(reader.readexactly(4))
        while proxy.up.bytes < 4:
            await asyncio.sleep(0)
        assert not reading.done() and proxy.connections == 1
        proxy.resume()
        assert await reading == b"late"
        writer.close()

    run(scenario)


def test_drop_is_one_way():
    async def scenario(proxy, ended):
        reader, writer = await asyncio.open_connection(*proxy.address)
        proxy.down.drop()
        writer.write(b"swallowed")
        while proxy.down.bytes < 9:
            await asyncio.sleep(0)
        proxy.resume()
        writer.write(b"heard")
        assert await reader.readexactly(5) == b"heard"
        writer.close()

    run(scenario)


def test_slice_and_trickle_keep_the_bytes():
    async def scenario(proxy, ended):
        proxy.up.slice(7)
        proxy.down.trickle(2000)
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(bytes(range(250)))
        assert await reader.readexactly(250) == bytes(range(250))
        writer.close()

    run(scenario)


def test_delay_keeps_order_and_half_close():
    async def scenario(proxy, ended):
        loop = asyncio.get_running_loop()
        proxy.up.delay(0.1)
        proxy.down.delay(0.1)
        reader, writer = await asyncio.open_connection(*proxy.address)
        sent = bytes(range(256)) * 8192
        start = loop.time()
        writer.write(sent)
        writer.write_eof()
        assert await reader.readexactly(len(sent)) == sent
        assert await reader.read() == b""
        assert loop.time() - start >= 0.2
        writer.close()

    run(scenario)


def test_delay_that_ends_lets_nothing_overtake():
    async def scenario(proxy, ended):
        reader, writer = await asyncio.open_connection(*proxy.address)
        proxy.up.delay(0.2)
        writer.write(b"early ")
        while proxy.up.bytes < 6:
            await asyncio.sleep(0)
        proxy.up.resume()
        writer.write(b"late")
        assert await reader.readexactly(10) == b"early late"
        writer.close()

    run(scenario)


def test_refuse_resets_at_once():
    async def scenario(proxy, ended):
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            reader, _ = await asyncio.open_connection(*proxy.address)
            await reader.read()
        proxy.refuse(False)
        _, writer = await asyncio.open_connection(*proxy.address)
        writer.close()

    run(scenario)


def test_a_dead_target_resets_the_dialler():
    async def scenario(proxy, ended):
        proxy.target = ("127.0.0.1", 1)
        reader, _ = await asyncio.open_connection(*proxy.address)
        with pytest.raises(ConnectionResetError):
            await reader.read()

    run(scenario)


@pytest.mark.parametrize("what", ["bytes", "end"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_comes_for_an_end_that_is_gone_is_a_failed_connection(loop, what):
    """uvloop calls it no error of the connection, and the other end would stay open for ever."""

    async def scenario():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        async with asyncio.timeout(PATIENCE), server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
            reader = asyncio.StreamReader()
            if what == "bytes":
                reader.feed_data(b"late")
            reader.feed_eof()
            with pytest.raises(ExceptionGroup) as failed:
                await Way().pump(reader, writer)
            assert failed.value.split(OSError)[1] is None

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
