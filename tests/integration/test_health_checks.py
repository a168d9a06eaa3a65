"""Health checks of real servers: these are well, and count no check as an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from support import services
from support.peer import Address
from support.services import MariaDb
from support.until import PATIENCE, SCENARIO_SEC, wait_until

from ncfast.agent.health import WrongAnswer, probe
from ncfast.config import values
from ncfast.config.agent import Health
from ncfast.net.seam import Net

ELSEWHERE = "127.0.0.2"  # MariaDB counts no errors of 127.0.0.1, which is whoever connects to loopback
MOST_ERRORS = 5  # max_connect_errors; as small as it takes to be over it soon
CHECKS = 4 * MOST_ERRORS


def run(main: Callable[[Net], Coroutine[object, object, None]]) -> None:
    """On the product's loop."""

    async def limited() -> None:
        async with asyncio.timeout(SCENARIO_SEC):
            await main(Net(asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


def checked(address: Address, times: int = 1, **settings: object) -> None:
    """The target is well so many times. Raises what `probe` does."""

    async def main(net: Net) -> None:
        for _ in range(times):
            health = Health.model_validate({"timeout_sec": PATIENCE, **settings})
            await probe(net, values.Address(*address), health, b"")

    run(main)


def test_slapd(ldap_service: Address) -> None:
    checked(ldap_service, protocol="ldap")


def test_redis(redis_service: Address) -> None:
    checked(redis_service, protocol="redis")
    checked(redis_service, send="PING\r\n", expect="+PONG")


def test_redis_with_a_password(tmp_path: Path) -> None:
    with services.redis_server(tmp_path, "--requirepass", "correct horse") as address:
        checked(address, protocol="redis")
        with pytest.raises(WrongAnswer, match="another answer"):
            checked(address, send="PING\r\n", expect="+PONG")


def test_postgres_has_nothing_to_say(tmp_path: Path) -> None:
    with services.postgres(tmp_path) as (address, log):
        before = log.read_bytes()
        checked(address, 5, protocol="postgres")
        # one that it does log, after the others
        with pytest.raises(WrongAnswer):
            checked(address, send="\x00\x00\x00\x08\x00\x00\x00\x00", expect="never")
        wait_until(lambda: b"unsupported frontend protocol" in log.read_bytes(), "the log")
        assert log.read_bytes().removeprefix(before).count(b"\n") == 1


@pytest.mark.parametrize("protocol", ["mysql", "ldap", "postgres"])
def test_another_server_is_not_taken_for_the_right_one(redis_service: Address, protocol: str) -> None:
    with pytest.raises((WrongAnswer, TimeoutError)):  # most servers wait for the rest of what they do not understand
        checked(redis_service, protocol=protocol, timeout_sec=1)


# MariaDB


@pytest.fixture(scope="module")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    with services.mariadb(tmp_path_factory.mktemp("mariadb"), f"--max-connect-errors={MOST_ERRORS}") as server:
        yield server


@asynccontextmanager
async def from_elsewhere(target: Address) -> AsyncIterator[Address]:
    """An address that leads to the target, who sees connections from `ELSEWHERE`."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection(*target, local_addr=(ELSEWHERE, 0))
        await asyncio.gather(pump(reader, to_far), pump(far, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[:2]


def errors(maria: MariaDb) -> dict[str, int]:
    """What the server holds against `ELSEWHERE`, and against everybody."""
    columns = ["SUM_CONNECT_ERRORS", "COUNT_HANDSHAKE_ERRORS", "COUNT_AUTHENTICATION_ERRORS"]
    question = f"SELECT {', '.join(columns)} FROM performance_schema.host_cache WHERE IP = '{ELSEWHERE}'"
    (row,) = maria.ask(question)
    ((_, aborted),) = maria.ask("SHOW GLOBAL STATUS LIKE 'Aborted_connects'")
    ((_, clients),) = maria.ask("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")
    return dict(zip(columns, map(int, row), strict=True)) | {"connects": int(aborted), "clients": int(clients)}


def after_checks(maria: MariaDb, **settings: object) -> tuple[dict[str, int], dict[str, int]]:
    """`errors` before and after `CHECKS` checks, that each were well."""
    found: list[dict[str, int]] = []

    async def main(net: Net) -> None:
        async with from_elsewhere(maria.address) as near:
            health = Health.model_validate({"timeout_sec": PATIENCE, **settings})
            account = Health(timeout_sec=PATIENCE, protocol="mysql", user="check")
            await probe(net, values.Address(*near), account, b"")  # from now on the host is known, and counted for
            found.append(await asyncio.to_thread(errors, maria))
            for _ in range(CHECKS):
                await probe(net, values.Address(*near), health, b"")
            # the server counts when it has noticed the end
            await asyncio.to_thread(
                wait_until,
                lambda: maria.ask("SELECT COUNT(*) FROM information_schema.processlist") == [["1"]],
                "every connection over",
            )
            found.append(await asyncio.to_thread(errors, maria))

    maria.ask("FLUSH HOSTS")
    run(main)
    return found[0], found[1]


def test_mariadb_counts_nothing_for_a_check_with_an_account(maria: MariaDb) -> None:
    before, after = after_checks(maria, protocol="mysql", user="check")
    assert after == before


@pytest.mark.parametrize("user", [None, "nobody"])
def test_mariadb_counts_a_denied_login_only_where_it_does_not_block(maria: MariaDb, user: str | None) -> None:
    before, after = after_checks(maria, protocol="mysql", user=user)
    assert after["connects"] == before["connects"] + CHECKS
    blocking = ("SUM_CONNECT_ERRORS", "COUNT_HANDSHAKE_ERRORS", "clients")
    assert [after[name] for name in blocking] == [before[name] for name in blocking]


def test_mariadb_whose_accounts_have_another_plug_in(maria: MariaDb) -> None:
    """Who is unknown is asked as one of the accounts would be, lest it learn that it is unknown."""
    if not (Path(maria.ask("SELECT @@plugin_dir")[0][0]) / "auth_ed25519.so").exists():
        pytest.skip("MariaDB's auth_ed25519 is not installed: Debian's mariadb-server has it")
    maria.ask("INSTALL SONAME 'auth_ed25519'")
    for number in range(30):
        maria.ask(f"CREATE USER e{number}@'%' IDENTIFIED VIA ed25519 USING PASSWORD('x')")
    try:
        for user in (None, "e1", "nobody", "somebody"):
            before, after = after_checks(maria, protocol="mysql", user=user)
            assert after["SUM_CONNECT_ERRORS"] == before["SUM_CONNECT_ERRORS"]
            assert after["COUNT_HANDSHAKE_ERRORS"] == before["COUNT_HANDSHAKE_ERRORS"]
    finally:
        for number in range(30):
            maria.ask(f"DROP USER e{number}@'%'")


def test_mariadb_blocks_who_only_connects_and_a_check_says_so(maria: MariaDb) -> None:
    async def main(net: Net) -> None:
        async with from_elsewhere(maria.address) as near:
            address = values.Address(*near)
            health = Health(timeout_sec=PATIENCE, protocol="mysql", user="check")
            await probe(net, address, health, b"")
            for _ in range(CHECKS):
                await probe(net, address, Health(timeout_sec=PATIENCE), b"")
            await asyncio.to_thread(
                wait_until, lambda: errors(maria)["SUM_CONNECT_ERRORS"] >= MOST_ERRORS, "it is blocked"
            )
            with pytest.raises(WrongAnswer, match="a MySQL greeting"):
                await probe(net, address, health, b"")

    maria.ask("FLUSH HOSTS")
    try:
        run(main)
    finally:
        maria.ask("FLUSH HOSTS")
