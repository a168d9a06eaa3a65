"""What a client feels when the connection under its tunnel is reset: a download over each tunnel, cut once.

    python -m bench.cut

Where the bench has a figure for speed, this has a fact: the download's SHA-256 agrees, or it broke, and how. It takes
seconds and needs no quiet machine.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from bench.peers import PEERS, READY_SEC, Ground, Peer
from bench.ports import free_port
from bench.process import running
from ncfast.auth import mint
from ncfast.demo import stage
from ncfast.demo.children import Child
from ncfast.demo.clients import Address, Transfer
from ncfast.demo.faultproxy import FaultProxy
from ncfast.demo.service import Service

SIZE = 64 * 1024 * 1024
PATIENCE_SEC = 30.0  # ncfast's default flow_grace_sec: nobody is given longer


@asynccontextmanager
async def of_ncfast(service: Address, folder: Path) -> AsyncIterator[tuple[Address, FaultProxy]]:
    """Hub, proxy and agent, once a client can be served: where it connects, and the proxy."""
    key = secrets.token_hex(32)
    hub_file = stage.hub_file(folder / "hub.yaml", stage.write(folder / "jwt.key", key))
    token = stage.write(folder / "token", mint(key.encode(), stage.AGENT, [stage.CONNECTOR]))
    async with Child("hub", "--config", hub_file) as hub:
        ready = await hub.event("hub_ready")
        async with FaultProxy(stage.address(ready["edge"])) as proxy:
            file = stage.agent_file(folder / "agent.yaml", ["{}:{}".format(*proxy.address)], token, service)
            async with Child("agent", "--config", file) as agent:
                await agent.event("tunnel_up")
                yield stage.address(ready["listeners"][stage.CONNECTOR]), proxy


@asynccontextmanager
async def of_peer(peer: Peer, service: Address, folder: Path) -> AsyncIterator[tuple[Address, FaultProxy]]:
    """The same of another tunnel: its client is told the proxy's port in place of its server's."""
    ground = Ground(folder, free_port(), free_port(), service, None)
    server_argv, _ = peer.commands(ground)
    with running(server_argv, folder / "server.log"):
        await _listens(ground.tunnel)
        async with FaultProxy(("127.0.0.1", ground.tunnel)) as proxy:
            place = folder / "client"
            place.mkdir(mode=0o700)
            with running(_client(peer, ground, place, proxy), folder / "client.log"):
                await _listens(ground.public)
                yield ("127.0.0.1", ground.public), proxy


def _client(peer: Peer, ground: Ground, place: Path, proxy: FaultProxy) -> list[str]:
    """The client's command line; keys are the server's own."""
    _, argv = peer.commands(replace(ground, folder=place, tunnel=proxy.address[1]))
    for name in ("user", "user.pub"):
        if (ground.folder / name).exists():
            (place / name).write_bytes((ground.folder / name).read_bytes())
    return list(argv)


async def _listens(port: int) -> None:
    async with asyncio.timeout(READY_SEC):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def download(address: Address, proxy: FaultProxy) -> str:
    """Cuts once when a quarter has arrived; what became of it, in words."""
    transfer = Transfer("down", SIZE, seed=1)
    running_transfer = asyncio.create_task(transfer.run(address))
    while transfer.moved < SIZE // 4 and not running_transfer.done():
        await asyncio.sleep(0)
    proxy.cut()
    moved = f"{transfer.moved / 2**20:.0f} of {SIZE / 2**20:.0f} MiB"
    try:
        async with asyncio.timeout(PATIENCE_SEC):
            await running_transfer
    except TimeoutError:
        return f"stood still for {PATIENCE_SEC:.0f} s after {moved}"
    except OSError as error:
        return f"broke with {type(error).__name__} after {moved}"
    if transfer.intact:
        return "went on: every byte, SHA-256 equal at both ends"
    return f"ended early, as if that were all, after {transfer.moved / 2**20:.0f} of {SIZE / 2**20:.0f} MiB"


async def main() -> None:
    """Prints a table for docs/compare.md."""
    print("| tunnel | the download |\n| --- | --- |")
    ways = {"ncfast": None, **{name: peer for name, peer in PEERS.items() if peer.here}}
    for name, peer in ways.items():
        with tempfile.TemporaryDirectory(prefix="ncfast-cut-") as made:
            folder = Path(made)
            async with Service() as service:
                way = of_ncfast(service.address, folder) if peer is None else of_peer(peer, service.address, folder)
                async with way as (address, proxy):
                    said = await download(address, proxy)
        version = _version(peer) if peer is not None else ""
        print(f"| {name}{version} | {said} |", flush=True)


def _version(peer: Peer) -> str:
    done = subprocess.run(peer.version, capture_output=True, text=True, check=True)
    return f" {(done.stdout + done.stderr).split()[-1] if peer.tls else (done.stdout + done.stderr).split()[0]}"


if __name__ == "__main__":
    asyncio.run(main())
