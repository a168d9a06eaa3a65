"""The agent's token file: what is a token, what is said of anything else, and of a token that will be refused."""

from __future__ import annotations

import asyncio
import io
import json
import time
from types import SimpleNamespace

import jwt
import pytest

from ncfast.agent.claims import claims_of
from ncfast.agent.token import MAX_FILE_BYTES, OwnToken, TokenFault
from ncfast.observe import log

NOW = 1_700_000_000
SECRET = b"secret of a test, of 32 bytes and more"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzIn0.c2lnbmF0dXJl-_"


def read(path, content=None):
    if content is not None:
        path.write_bytes(content)

    async def main():
        net = SimpleNamespace(loop=asyncio.get_running_loop())
        ground = SimpleNamespace(
            net=net, config=SimpleNamespace(token_file=path, agent_id="site-1"), wall_clock=time.time
        )
        return await OwnToken(ground).read()

    return asyncio.run(main())


@pytest.mark.parametrize("form", ["{}", "{}\n", "{}\r\n", "\ufeff{}\r\n", "\n  {} \n\n"])
def test_a_token_less_what_editors_put_around_it(tmp_path, form):
    assert read(tmp_path / "token", form.format(TOKEN).encode()) == TOKEN


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (TOKEN.encode() + b"\n" + TOKEN.encode(), f"more than one line.*character {len(TOKEN) + 1}"),
        (TOKEN.encode() + b"\0", f"control character.*character {len(TOKEN) + 1}"),
        (b"\x1b[2J" + TOKEN.encode(), "control character.*character 1"),
        (b"Bearer " + TOKEN.encode(), "blank.*character 7"),
        (b"\xef\xbb\xbf\xef\xbb\xbf" + TOKEN.encode(), "not ASCII.*character 1"),
        ("é".encode("latin-1") + TOKEN.encode(), "not ASCII.*character 1"),
        (b'"' + TOKEN.encode() + b'"', "no token.*character 1"),
        (TOKEN.encode("utf-16"), "UTF-16"),
        (b"x" * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_token_is_told_without_being_shown(tmp_path, content, says):
    with pytest.raises(TokenFault, match=f"token_file {tmp_path / 'token'}.*{says}") as refused:
        read(tmp_path / "token", content)
    assert TOKEN[:8] not in str(refused.value) and str(refused.value).isascii() and str(refused.value).isprintable()


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(TokenFault, match="No such file"):
        read(tmp_path / "token")


def token(**claims):
    return jwt.encode(claims, SECRET)


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"exp": NOW - 61}, "expired 61 s ago; replace the file"),
        ({"exp": NOW - 3 * 86400}, "expired 3 days ago; replace the file"),
        ({"nbf": NOW + 7200}, "is not valid for another 2 h; is this machine's clock right?"),
        ({"iat": NOW + 90}, "is not valid for another 90 s; is this machine's clock right?"),
        ({"sub": "site-2"}, "is another agent's: its sub is site-2, and agent_id is site-1; they must agree"),
        ({"aud": "billing"}, "is for others: its aud is billing; hubs expect nowconnect"),
        ({"aud": ["billing", "mail"]}, "is for others: its aud is billing, mail"),
        ({}, ""),
        ({"iat": NOW + 30}, ""),  # within what hubs overlook
        ({"sub": 7, "aud": {}, "exp": "soon", "nbf": True, "iat": 1e300}, ""),  # a hub judges it
        ({"sub": "\x1b[2J"}, ""),
    ],
)
def test_why_a_hub_will_refuse_a_token_is_seen_in_the_token_itself(claims, says):
    usual = {"sub": "site-1", "aud": ["nowconnect", "x"], "iat": NOW - 100, "exp": NOW + 900}
    fault = claims_of(token(**(usual | claims))).fault("site-1", NOW)
    assert fault == says if not says else fault.startswith(says)


@pytest.mark.parametrize("text", ["first", "a.b", "a.b.c", "a.W10.c", "a.bnVsbA.c", "a.Ij.c"])
def test_what_is_no_jwt_has_no_claims(text):
    assert claims_of(text) is None


def test_an_end_is_warned_of_when_four_fifths_of_a_life_are_over():
    claims = claims_of(token(iat=NOW - 79, exp=NOW + 21))
    assert claims.ends_soon(NOW) is None
    assert claims.ends_soon(NOW + 1.1) == pytest.approx(19.9)
    assert claims.ends_soon(NOW + 21) is None, "it has ended, and that is another thing to say"


def test_the_log_is_told_once_of_each_fault_of_a_token(tmp_path):
    path, now = tmp_path / "token", [NOW]
    stream = io.StringIO()

    async def main():
        net = SimpleNamespace(loop=asyncio.get_running_loop())
        config = SimpleNamespace(token_file=path, agent_id="site-1")
        own = OwnToken(SimpleNamespace(net=net, config=config, wall_clock=lambda: now[0]))
        path.write_text(token(sub="site-1", aud="nowconnect", iat=NOW, exp=NOW + 100))
        for now[0] in (NOW, NOW + 90, NOW + 91, NOW + 161, NOW + 170):
            await own.read()
        path.write_text(token(sub="site-1", aud="nowconnect", iat=NOW + 170, exp=NOW + 400))
        await own.read()
        assert own.fault == ""
        now[0] = NOW + 500
        await own.read()

    log.setup("info", "json", stream=stream)
    try:
        asyncio.run(main())
        assert log.flush(60.0)
    finally:
        log.setup()
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["token_ends_soon", "token_unfit", "token_unfit"]
    assert events[0]["expires_in_sec"] == 10 and "ends in 10 s" in events[0]["detail"]
    assert events[1]["detail"] == f"the token in {path} expired 61 s ago; replace the file"
