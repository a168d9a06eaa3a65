"""Programs that people run every day, through hub and agent."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
from pathlib import Path

import pytest
import redis
from support.peer import Address
from support.process import require
from support.script import pattern, pattern_sha256
from support.services import run
from support.topology import MakeTopology, Topology
from support.until import PATIENCE

from bench.ldap.directory import ADMIN, ENTRIES, PASSWORD, PEOPLE

pytestmark = pytest.mark.traffic
MIB = 1 << 20
INVALID_CREDENTIALS = 49  # LDAP result code, RFC 4511 appendix A


@pytest.fixture(scope="module")
def ldap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ldap_service: Address) -> Topology:
    direct = request.config.getoption("--direct")
    made = Topology(tmp_path_factory.mktemp("ldap-path"), {"ldap": ldap_service}, direct=direct)
    yield made
    made.check()
    made.close()


def ldap_client(
    topology: Topology, program: str, *arguments: str, password: str = PASSWORD, **options: object
) -> subprocess.CompletedProcess[str]:
    (path,) = require(program)
    host, port = topology.address("ldap")
    bind = ["-H", f"ldap://{host}:{port}", "-x", "-D", ADMIN, "-w", password]
    return run([path, *bind, *arguments], **options)


def test_ldap_bind_tells_who_is_bound(ldap: Topology) -> None:
    assert ADMIN in ldap_client(ldap, "ldapwhoami").stdout


def test_ldap_wrong_password_is_the_servers_refusal(ldap: Topology) -> None:
    done = ldap_client(ldap, "ldapwhoami", password="wrong", check=False)
    assert done.returncode == INVALID_CREDENTIALS, done


def test_ldap_search_of_1000_entries(ldap: Topology) -> None:
    found = ldap_client(ldap, "ldapsearch", "-LLL", "-b", PEOPLE, "(uid=user*)", "uid").stdout
    uids = {line for line in found.splitlines() if line.startswith("uid: ")}
    assert uids == {f"uid: user{n}" for n in range(ENTRIES)}


def test_ldap_modify_is_seen_by_the_next_search(ldap: Topology) -> None:
    dn = f"uid=user7,{PEOPLE}"
    change = f"dn: {dn}\nchangetype: modify\nreplace: mail\nmail: moved@example.net\n"
    ldap_client(ldap, "ldapmodify", stdin=change)
    assert "mail: moved@example.net" in ldap_client(ldap, "ldapsearch", "-LLL", "-b", dn, "mail").stdout


def test_redis_ping_set_get_and_pipeline(topology: MakeTopology, redis_service: Address) -> None:
    host, port = topology({"redis": redis_service}).address("redis")
    value = pattern(1, 0, 200_000)
    with redis.Redis(host=host, port=port) as client:
        assert client.ping()
        client.set("k", value)
        assert client.get("k") == value
        with client.pipeline(transaction=False) as pipeline:
            for n in range(5000):
                pipeline.set(f"n{n}", n)
                pipeline.get(f"n{n}")
            answers = pipeline.execute()
    assert [int(a) for a in answers[1::2]] == list(range(5000))


def test_redis_pubsub_pushes_to_a_waiting_client(topology: MakeTopology, redis_service: Address) -> None:
    host, port = topology({"redis": redis_service}).address("redis")
    with redis.Redis(host=host, port=port) as publisher, redis.Redis(host=host, port=port) as subscriber:
        with subscriber.pubsub() as channel:
            channel.subscribe("news")
            assert channel.get_message(timeout=PATIENCE)["type"] == "subscribe"
            publisher.publish("news", "hello")
            assert channel.get_message(timeout=PATIENCE)["data"] == b"hello"


def test_redis_benchmark_with_50_clients(topology: MakeTopology, redis_service: Address) -> None:
    (benchmark,) = require("redis-benchmark")
    host, port = topology({"redis": redis_service}).address("redis")
    load = "-c 50 -n 20000 -t set,get,lrange_100 --csv".split()
    lines = run([benchmark, "-h", host, "-p", str(port), *load]).stdout.splitlines()
    rates = {line.split(",")[0].strip('"'): float(line.split(",")[1].strip('"')) for line in lines[1:]}
    assert {"SET", "GET"} <= rates.keys() and all(rate > 0 for rate in rates.values()), lines


@pytest.mark.parametrize("reverse", [False, True], ids=["upload", "download"])
def test_iperf3(topology: MakeTopology, iperf3_service: Address, reverse: bool) -> None:
    (client,) = require("iperf3")
    host, port = topology({"iperf3": iperf3_service}).address("iperf3")
    argv = [client, "-c", host, "-p", str(port), "-n", "256M", "-J", *(["-R"] if reverse else [])]
    end = json.loads(run(argv).stdout)["end"]
    assert end["sum_sent"]["bytes"] >= 256 * MIB, end
    assert end["sum_received"]["bytes"] >= 128 * MIB, end  # -n ends the test when the last byte is sent


def test_iperf3_both_ways_in_four_streams(topology: MakeTopology, iperf3_service: Address) -> None:
    (client,) = require("iperf3")
    host, port = topology({"iperf3": iperf3_service}).address("iperf3")
    load = "-t 2 -P 4 --bidir -J".split()
    done = json.loads(run([client, "-c", host, "-p", str(port), *load]).stdout)
    assert "error" not in done
    assert done["end"]["sum_received"]["bytes"] > 0 and done["end"]["sum_received_bidir_reverse"]["bytes"] > 0


def test_http_download_and_upload_with_checksum(
    topology: MakeTopology, http_service: Address, http_directory: Path
) -> None:
    size = 48 * MIB
    with (http_directory / "large.bin").open("wb") as file:
        for offset in range(0, size, 1 << 18):
            file.write(pattern(5, offset, 1 << 18))
    connection = http.client.HTTPConnection(*topology({"http": http_service}).address("http"), timeout=PATIENCE)
    connection.request("GET", "/large.bin")
    response = connection.getresponse()
    digest = hashlib.sha256()
    while data := response.read(1 << 16):
        digest.update(data)
    assert digest.hexdigest() == pattern_sha256(5, size)
    with (http_directory / "large.bin").open("rb") as file:  # the same connection again, the other way
        connection.request("PUT", "/copy", body=file, headers={"Content-Length": str(size)})
        assert connection.getresponse().read().decode() == pattern_sha256(5, size)
    connection.close()
