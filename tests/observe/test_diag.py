"""What a process tells of itself: all of it, bounded, and nothing secret."""

from __future__ import annotations

import asyncio
import io
import threading

import orjson
import pytest
from support.fake_hub import whole

from ncfast.config.agent import AgentConfig
from ncfast.config.hub import HubConfig
from ncfast.config.shown import HIDDEN, shown
from ncfast.observe import diag, log
from ncfast.observe.log.recent import Recent
from ncfast.observe.slices import spread

CANARY = "canary-of-diag"


def hub(**ha) -> HubConfig:
    return HubConfig.model_validate(
        {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "connector": "ldap"}],
            "auth": {"jwt": {"jwks_url": f"https://keys.example/jwks?key={CANARY}", "algorithms": ["RS256"]}},
            "ha": ha,
        }
    )


@pytest.mark.parametrize(
    "url", [f"redis://:{CANARY}@redis:6379/0", f"redis+sentinel://{CANARY}:{CANARY}@s1:26379,s2:26379/main"]
)
def test_a_configuration_is_shown_without_what_its_urls_carry(url):
    config = hub(enabled=True, replica_id="hub-a", redis_url=url, mesh={"secret_file": "/etc/s", "require_mtls": False})
    text = str(shown(config))
    assert CANARY not in text
    assert "s1:26379" in text or "redis:6379" in text
    assert shown(config)["ha"]["mesh"]["secret_file"] == "/etc/s"  # where secrets are is none


def test_the_proxy_of_an_agent_too():
    config = AgentConfig.model_validate(
        {
            "hubs": ["wss://hub.example/tunnel"],
            "agent_id": "site",
            "token_file": "/etc/token",
            "connectors": [{"name": "ldap", "target": "127.0.0.1:389"}],
            "http_proxy": f"http://user:{CANARY}@proxy:3128",
        }
    )
    document = shown(config)
    assert CANARY not in str(document) and document["token_file"] == "/etc/token"
    assert HIDDEN in document["http_proxy"] and "proxy:3128" in document["http_proxy"]


def test_the_newest_lines_within_both_bounds():
    recent = Recent(lines=3, size=10)
    for line in (b"a\n", b"b\n", b"c\n", b"d\n"):
        recent.put(line)
    assert recent.lines() == [b"b\n", b"c\n", b"d\n"]
    recent.put(b"12345678\n")
    assert recent.lines() == [b"12345678\n"]
    recent.put(b"more than is kept of all\n")
    assert recent.lines() == []
    recent.put(b"e\n")
    assert recent.lines() == [b"e\n"]


def test_lines_are_kept_as_they_were_written_also_those_that_nobody_takes():
    stream = io.StringIO()
    try:
        log.setup("info", "json", "truncate", stream)
        log.get("test").info("kept", client="192.0.2.1:4000", password=CANARY)
        log.get("test").debug("not_written")
        assert log.flush()
        (line,) = [one for one in log.recent() if b'"kept"' in one]
    finally:
        log.setup()
    assert line.decode() in stream.getvalue()
    assert b"192.0.2.1" not in line and CANARY.encode() not in line
    assert not any(b"not_written" in one for one in log.recent())


def test_stacks_name_every_thread_and_task_and_no_value():
    release = threading.Event()

    def stands_in_a_thread(secret: str) -> None:
        release.wait()

    async def innermost(secret: str) -> None:
        await asyncio.Event().wait()

    async def stands(secret: str) -> None:
        await innermost(secret)

    async def main() -> dict:
        thread = threading.Thread(target=stands_in_a_thread, args=(CANARY,), name="a-thread")
        thread.start()
        tasks = [asyncio.create_task(stands(CANARY), name="a-task") for _ in range(3 * diag.TASKS)]
        await asyncio.sleep(0)
        try:
            return await spread(diag.stacks())
        finally:
            release.set()
            thread.join()
            for task in tasks:
                task.cancel()

    document = asyncio.run(main())
    assert CANARY not in str(document)
    (thread,) = [one for one in document["threads"] if one["thread"] == "a-thread"]
    assert any(place.endswith(" stands_in_a_thread") for place in thread["stack"])
    (tasks,) = [one for one in document["tasks"] if one["task"] == "a-task"]
    assert tasks["count"] == 3 * diag.TASKS
    assert [place.rpartition(" ")[2] for place in tasks["stack"]][:2] == ["stands", "innermost"]


def test_every_part_is_made(monkeypatch):
    monkeypatch.setenv("NC_CANARY", CANARY)
    for name, kind in diag.PARTS.items():

        async def made(name=name):
            return await spread(diag.part(name, hub))

        body = asyncio.run(made())
        text = b"".join(body) if isinstance(body, list) else body
        assert CANARY.encode() not in text
        if kind == "application/json":
            orjson.loads(text)
    process = diag.process()
    assert "Max open files" in process["proc"]["/proc/self/limits"]
    assert process["libraries"]["orjson"] != "?"


def test_the_log_is_given_line_by_line():
    assert whole(diag.part("log", hub)) == log.recent()
