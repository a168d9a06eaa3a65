"""Ways to a Redis: users and passwords, TLS, Unix sockets, Sentinels, Redis Cluster; and what of them no log may
show."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py
import trustme
from redis.crc import key_slot
from support.places import Loopback
from support.until import until, wait_until

from ncfast.observe import log
from ncfast.registry import make_registry
from ncfast.registry.redis.connection import Location
from ncfast.registry.redis.scripts import KeySpace
from registry.hubs import Hub, cluster, run
from registry.servers import Server, servers
from registry.test_outages import all_healthy, outside, sockets

SECRET = "canary-p4ssw0rd%2Fx"  # as in a URL; the slash makes it one that has to be decoded
PLAIN = "canary-p4ssw0rd/x"

# What docs/high-availability.md tells operators to write.
ACL = (
    f"user ncfast on >{PLAIN} resetkeys ~ncfast:{{ncfast}}:* resetchannels &ncfast:{{ncfast}}:* -@all "
    "+ping +evalsha +eval +subscribe"
    " +publish +time +get +set +hget +hset +hsetnx +hdel +hincrby +hgetall +zadd +zrem +zscore +zrangebyscore"
)


@pytest.fixture
def running() -> Iterator[list[Server]]:
    with servers() as started:
        yield started


@pytest.fixture
def places() -> Loopback:
    return Loopback()


def serves(url: str, **config):
    """Two hubs that come together and see each other's agents."""

    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b", **config) as (a, b):
            epoch = await a.claim("/site")
            await until(lambda: b.routes() == [("/site", "hub-a", epoch)], "seen")
            await a.registry.release("/site", epoch)
            await until(lambda: not b.routes(), "released")
            a.registry.send(a.registry._sweeper.round())
            await a.claim("/site")
            assert a.registry.snapshot()["errors"] == b.registry.snapshot()["errors"] == 0
            assert a.stats.claims == {"redis": 2}

    run(main)


def test_a_user_who_may_do_no_more_than_needed(tmp_path, places, running):
    server = Server(tmp_path, places, "acl", f"user default off\n{ACL}", username="ncfast", password=PLAIN)
    running.append(server)
    serves(f"redis://ncfast:{SECRET}@{server.place[0]}:{server.place[1]}/0")


def test_a_password_and_another_database(tmp_path, places, running):
    server = Server(tmp_path, places, "pass", f"requirepass {PLAIN}", password=PLAIN)
    running.append(server)
    serves(f"redis://:{SECRET}@{server.place[0]}:{server.place[1]}/3")
    with redis_py.Redis(host=server.place[0], port=server.place[1], password=PLAIN, db=3) as client:
        assert client.exists(KeySpace("ncfast").keys[3])
    names = {one["name"] for one in server.client().client_list()}
    assert not names & {"ncfast-hub-a"}  # gone, and nothing is left open


def test_unix_socket(tmp_path, places, running):
    path = tmp_path / "r.sock"
    server = Server(tmp_path, places, "unix", f"port 0\nunixsocket {path}", unix_socket_path=str(path))
    running.append(server)
    serves(f"unix://{path}")
    serves(f"unix://{path}?db=2")


@pytest.fixture
def named(monkeypatch):
    """Has a name mean these addresses, in this order."""
    look_up = socket.getaddrinfo

    def name(host, *addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda asked, *rest, **more: found if asked == host else look_up(asked, *rest, **more),
        )

    return name


def test_a_name_whose_first_address_is_silent(tmp_path, places, running, named):
    server = Server(tmp_path, places, "named", "")
    running.append(server)
    dead = places.host("dead")
    with contextlib.ExitStack() as full:
        full.enter_context(socket.create_server((dead, server.place[1]), backlog=0))
        for _ in range(4):  # a queue that is full answers no further client
            sock = full.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((dead, server.place[1]))
        named("redis.test", dead, server.place[0])
        serves(f"redis://redis.test:{server.place[1]}/0")


@pytest.fixture
def tls(tmp_path, places, running):
    authority = trustme.CA()
    cert = authority.issue_cert(places.host("tls"), "redis.test")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    cert.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    cert.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    server = Server(
        tmp_path,
        places,
        "tls",
        "port 0\ntls-port {port}\n" + f"tls-cert-file {tmp_path}/cert.pem\ntls-key-file {tmp_path}/key.pem\n"
        f"tls-ca-cert-file {tmp_path}/ca.pem\ntls-auth-clients no",
        ssl=True,
        ssl_ca_certs=str(tmp_path / "ca.pem"),
    )
    running.append(server)
    return server


def test_tls(tmp_path, tls):
    serves(f"rediss://{tls.place[0]}:{tls.place[1]}/0", redis_ca_file=tmp_path / "ca.pem", redis_timeout_sec=1)


def test_a_password_in_a_file_and_its_successor(tmp_path, places, running):
    server = Server(tmp_path, places, "pass", f"requirepass {PLAIN}", password=PLAIN)
    running.append(server)
    file = tmp_path / "password"
    file.write_text(PLAIN + "\n")

    async def main(net):
        url = f"redis://{server.place[0]}:{server.place[1]}/0"
        async with cluster(net, url, "hub-a", redis_password_file=file) as (hub,):
            await hub.claim("/site")
            with server.client() as client:

                def ours() -> set[str]:
                    return {one["id"] for one in client.client_list() if one["name"] == "ncfast-hub-a"}

                await until(ours, "connected")
                for content, password in (("two\nlines", PLAIN), ("another-p4ssw0rd", "another-p4ssw0rd")):
                    file.write_text(content)  # the first is of no use: the former password stays
                    client.config_set("requirepass", password)
                    before = ours()
                    for one in before:
                        client.client_kill_filter(_id=one)
                    await until(lambda before=before: ours() - before and hub.healthy, "back by a new connection")
            assert not hub.stats.registry_errors["unauthorized"]

    run(main)


def test_tls_with_a_certificate_of_ours(tmp_path, tls):
    with tls.client() as client:
        client.config_set("tls-auth-clients", "yes")
    url = f"rediss://{tls.place[0]}:{tls.place[1]}/0"
    files = {"redis_ca_file": tmp_path / "ca.pem", "redis_timeout_sec": 1}

    async def without(net):
        hub = Hub(net, url, "hub-a", **files)
        await hub.registry.start()
        assert not hub.healthy
        await hub.registry.aclose()

    run(without)
    serves(url, redis_cert_file=tmp_path / "cert.pem", redis_key_file=tmp_path / "key.pem", **files)


def test_tls_by_name(tmp_path, tls, named):
    named("redis.test", tls.place[0])
    serves(f"rediss://redis.test:{tls.place[1]}/0", redis_ca_file=tmp_path / "ca.pem", redis_timeout_sec=1)


def test_tls_by_a_name_that_the_certificate_has_not(tmp_path, tls, named):
    named("other.test", tls.place[0])

    async def main(net):
        hub = Hub(
            net,
            f"rediss://other.test:{tls.place[1]}/0",
            "hub-a",
            redis_ca_file=tmp_path / "ca.pem",
            redis_timeout_sec=1,
        )
        await hub.registry.start()
        assert not hub.healthy and hub.stats.registry_errors["unreachable"]
        await hub.registry.aclose()

    run(main)


def test_tls_with_a_stranger(tmp_path, tls):
    """A certificate of a CA that is not ours is no Redis of ours."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))

    async def main(net):
        for ca_file in (tmp_path / "other.pem", None):
            hub = Hub(
                net, f"rediss://{tls.place[0]}:{tls.place[1]}/0", "hub-a", redis_ca_file=ca_file, redis_timeout_sec=1
            )
            await hub.registry.start()
            assert not hub.healthy
            assert hub.stats.registry_errors["unreachable"]
            await hub.registry.aclose()

    run(main)


def test_a_frozen_server_with_tls_keeps_no_sockets(tmp_path, tls):
    """Closing TLS in order waits for the other side."""

    async def main(net):
        async with cluster(
            net, f"rediss://{tls.place[0]}:{tls.place[1]}/0", "hub-a", redis_ca_file=tmp_path / "ca.pem"
        ) as (a,):
            before = sockets()
            tls.program.signal(19)  # SIGSTOP
            try:
                await until(lambda: not a.healthy, "unhealthy")
                await until(lambda: sum(a.stats.registry_errors.values()) > 6, "tried again and again")
                await until(lambda: sockets() <= before + 1, "no more than the one that is tried")
            finally:
                tls.program.signal(18)
            await until(lambda: a.healthy, "healthy")
            await until(lambda: sockets() == before, "as before")

    run(main)


def test_a_ca_file_that_is_none(tmp_path, url):
    (tmp_path / "bad.pem").write_text("no certificate")

    async def main(net):
        for name, why in (("bad.pem", "no certificates"), ("missing.pem", "No such file")):
            with pytest.raises(OSError, match=f"redis_ca_file .*{name}: {why}"):
                Hub(net, url.replace("redis://", "rediss://"), "hub-a", redis_ca_file=tmp_path / name)

    run(main)


# Redis Cluster


def join(nodes: list[Server]) -> None:
    """Slots in equal parts, and everybody knows everybody."""
    share = 16384 // len(nodes) + 1
    for number, node in enumerate(nodes):
        with node.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, min(16383, (number + 1) * share - 1))
            client.execute_command("CLUSTER", "MEET", *map(str, nodes[0].place))
    for node in nodes:
        with node.client() as client:
            wait_until(
                lambda client=client: (
                    "cluster_state:ok" in client.execute_command("CLUSTER", "INFO")
                    and f"cluster_known_nodes:{len(nodes)}" in client.execute_command("CLUSTER", "INFO")
                ),
                "the cluster is whole",
            )


@pytest.mark.parametrize("count", [1, 3])
def test_redis_cluster(tmp_path, places, running, count):
    """The keys lie in one slot; a hub that is told the wrong node is sent to the right one."""
    nodes = []
    for number in range(count):
        config = f"cluster-enabled yes\ncluster-config-file nodes-{number}.conf\ncluster-announce-ip {{host}}"
        nodes.append(Server(tmp_path, places, f"node-{number}", config))
        running.append(nodes[-1])
    join(nodes)
    owner = key_slot(KeySpace("ncfast").keys[0].encode()) // (16384 // count + 1)
    wrong = nodes[(owner + 1) % count]

    async def main(net):
        async with cluster(net, f"redis://{wrong.place[0]}:{wrong.place[1]}", "hub-a", "hub-b") as (a, b):
            epoch = await a.claim("/site")
            await until(lambda: b.routes() == [("/site", "hub-a", epoch)], "seen")
            moved = a.stats.registry_errors["moved"]
            assert moved == (count > 1)
            for number in range(100):
                await b.claim(f"/site-{number}")
            assert a.stats.registry_errors["moved"] == moved, "asked the right one at once"

    run(main)


# Sentinels


class Watched:
    """A master, a replica, and three Sentinels."""

    def __init__(self, directory: Path, places: Loopback, running: list[Server], auth: str = "") -> None:
        client = {"password": PLAIN} if auth else {}
        secured = "replica-announce-ip {host}\n" + (f"requirepass {PLAIN}\nmasterauth {PLAIN}\n" if auth else "")
        self.nodes = [Server(directory, places, "one", secured + "repl-diskless-sync-delay 0", **client)]
        master = self.nodes[0].place
        self.nodes.append(
            Server(
                directory,
                places,
                "two",
                f"{secured}repl-diskless-sync-delay 0\nreplicaof {master[0]} {master[1]}",
                **client,
            )
        )
        running += self.nodes
        with self.nodes[0].client() as one:
            wait_until(
                lambda: one.info("replication").get("slave0", {}).get("state") == "online", "the replica follows"
            )
        watch = (
            f"{f'requirepass {PLAIN}' if auth == 'all' else ''}\nsentinel announce-ip "
            f"{{host}}\nsentinel monitor main {master[0]} {master[1]} 2\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
            + (f"sentinel auth-pass main {PLAIN}\n" if auth else "")
            + (f"sentinel sentinel-pass {PLAIN}\n" if auth == "all" else "")
        )
        self.sentinels = [
            Server(directory, places, f"sentinel-{i}", watch, sentinel=True, **(client if auth == "all" else {}))
            for i in range(3)
        ]
        running += self.sentinels
        for one in self.sentinels:
            with one.client() as client_:
                wait_until(
                    lambda client_=client_: (
                        (state := client_.sentinel_master("main"))["num-other-sentinels"] == 2
                        and state["num-slaves"] == 1
                    ),
                    "sentinels know each other",
                )
        user = f":{SECRET}@" if auth else ""
        self.url = (
            f"redis+sentinel://{user}"
            + ",".join(f"{host}:{port}" for host, port in (one.place for one in self.sentinels))
            + "/main"
        )

    def master(self) -> Server:
        with self.sentinels[1].client() as client:
            state = client.sentinel_master("main")
        return next(node for node in self.nodes if node.place == (state["ip"], state["port"]))


def test_a_master_that_dies(tmp_path, places, running):
    watched = Watched(tmp_path, places, running)

    async def main(net):
        async with cluster(net, watched.url) as hubs:
            a, b, _ = hubs
            first = await a.claim("/site")
            await until(lambda: b.routes(), "claimed")
            old = watched.master()
            with old.client() as client:
                await outside(lambda: wait_until(lambda: client.execute_command("WAIT", 1, 1000) == 1, "replicated"))
            old.program.kill()
            watched.sentinels[0].program.kill()  # and the Sentinel that is asked first
            await until(lambda: not a.healthy, "unhealthy")
            second = await b.claim("/site", 0)
            assert second > first
            await outside(lambda: wait_until(lambda: watched.master() is not old, "promoted"))
            await until(all_healthy(hubs), "healthy with the new master")
            await until(lambda: all(hub.routes() == [("/site", "hub-b", second)] for hub in hubs), "asserted there")
            third = await a.claim("/site", 0)
            assert third > second and a.stats.claims["redis"] == 2

    run(main)


def test_a_master_that_is_demoted(tmp_path, places, running):
    """The old master lives on, read-only: hubs leave it, again and again."""
    watched = Watched(tmp_path, places, running)

    async def main(net):
        async with cluster(net, watched.url) as hubs:
            a, b, _ = hubs
            last = await a.claim("/site")
            before = sockets()
            for _ in range(2):
                old = watched.master()
                with watched.sentinels[0].client() as client:
                    await outside(lambda client=client: wait_until(lambda: failover(client), "a failover begins"))
                new = next(node for node in watched.nodes if node is not old)
                await outside(lambda new=new: wait_until(lambda: role(new) == "master", "promoted"))
                while True:
                    writes = a.stats.claims["redis"]
                    epoch = await a.claim("/site", 0)
                    assert epoch > last
                    last = epoch
                    if (
                        a.stats.claims["redis"] > writes
                        and all_healthy(hubs)()
                        and new.client().hget(KeySpace("ncfast").keys[1], "/site") == str(last)
                    ):
                        break
                    await asyncio.sleep(0.02)
                await until(
                    lambda: b.view.agent("/site") is not None and b.view.agent("/site").epoch == last, "seen by all"
                )
                await outside(
                    lambda old=old: wait_until(lambda: role(old) == "slave" and following(old), "the old one follows")
                )
            await until(lambda: sockets() == before, "sockets are constant")

    run(main)


def failover(client: redis_py.Redis) -> bool:
    try:
        client.execute_command("SENTINEL", "FAILOVER", "main")
    except redis_py.ResponseError:  # the last one is not over, as the Sentinels see it
        return False
    return True


def role(node: Server) -> str:
    with node.client() as client:
        return client.info("replication")["role"]


def following(node: Server) -> bool:
    with node.client() as client:
        return client.info("replication")["master_link_status"] == "up"


@pytest.mark.parametrize("auth", ["redis", "all"])
def test_sentinels_with_passwords(tmp_path, places, running, auth):
    watched = Watched(tmp_path, places, running, auth)
    serves(watched.url)


# what may be seen


def test_urls():
    one = Location("rediss+sentinel://me:p%40ss@h1,h2:7000,[::1]:9/main/4")
    assert (one.sentinel, one.tls, one.username, one.password, one.service, one.database) == (
        True,
        True,
        "me",
        "p@ss",
        "main",
        4,
    )
    assert one.places == [("h1", 26379), ("h2", 7000), ("::1", 9)]
    one = Location("unix://me:p@/run/redis/r.sock?db=2")
    assert (one.unix, one.places, one.username, one.password, one.database) == (
        True,
        [("/run/redis/r.sock", 0)],
        "me",
        "p",
        2,
    )
    one = Location("redis://h/7")
    assert (one.places, one.database, one.username, one.password, one.tls) == ([("h", 6379)], 7, None, None, False)
    for bad in (f"http://u:{SECRET}@h", f"redis://u:{SECRET}@h/x"):
        with pytest.raises(ValueError) as caught:
            Location(bad)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("trouble", ["wrong password", "no server", "dies", "sentinel without master", "not allowed"])
def test_no_password_in_any_log(tmp_path, places, running, trouble):
    stream = io.StringIO()
    log.setup("debug", "json", "none", stream)
    config = {"not allowed": f"user default on >{PLAIN} -@all +ping ~*", "wrong password": "requirepass other"}.get(
        trouble, f"requirepass {PLAIN}"
    )
    server = Server(tmp_path, places, "secret", config, password="other" if trouble == "wrong password" else PLAIN)
    running.append(server)
    url = f"redis://:{SECRET}@{server.place[0]}:{server.place[1]}/0"
    if trouble == "sentinel without master":
        url = f"redis+sentinel://:{SECRET}@{server.place[0]}:{server.place[1]}/main"
    if trouble == "no server":
        server.stop()

    async def main(net):
        hub = Hub(net, url, "hub-a")
        await hub.registry.start()
        await hub.claim("/site")
        if trouble == "dies":
            server.program.kill()
        await until(lambda: log.flush() and "registry_lost" in stream.getvalue(), "the loss is told")
        assert not hub.healthy
        await hub.registry.aclose()
        for text in (
            repr(hub.registry._backend),
            repr(hub.registry),
            repr(hub.registry.snapshot()),
            repr(hub.stats),
            str(vars(hub.config)["cluster"]),
        ):
            assert "canary" not in text

    try:
        run(main)
        assert log.flush()
    finally:
        log.setup()
    text = stream.getvalue()
    assert "canary" not in text and PLAIN not in text and SECRET not in text


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ("+evalsha", "command_denied"),
        ("+hset", "command_denied"),  # told by the script that needs it
        ("~ncfast:{ncfast}:*", "key_denied"),
        ("&ncfast:{ncfast}:*", "channel_denied"),
    ],
)
def test_a_permission_that_is_lacking_is_named(tmp_path, places, running, lacking, reason):
    kept = " ".join(word for word in ACL.split() if word != lacking)
    server = Server(tmp_path, places, "acl", f"user default off\n{kept}", username="ncfast", password=PLAIN)
    running.append(server)

    async def main(net):
        hub = Hub(net, f"redis://ncfast:{SECRET}@{server.place[0]}:{server.place[1]}/0", "hub-a")
        await hub.registry.start()
        await hub.claim("/site")
        await until(lambda: hub.stats.registry_errors[reason], "the reason is counted")
        await hub.registry.aclose()

    run(main)


def test_make_registry_without_redis(url):
    from ncfast.config.ha import Ha
    from ncfast.registry.memory import MemoryRegistry
    from registry.hubs import replica

    async def main(net):
        from ncfast.observe.stats import Stats

        one = make_registry(Ha(), replica("hub-a"), net, Stats())
        assert isinstance(one, MemoryRegistry)

    run(main)
