"""The agent's token file: what is a token, and what is said of anything else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from ncfast.agent.dialer import DialError
from ncfast.agent.token import MAX_FILE_BYTES, read_token

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzIn0.c2lnbmF0dXJl-_"


def read(path, content=None):
    if content is not None:
        path.write_bytes(content)

    async def main():
        net = SimpleNamespace(loop=asyncio.get_running_loop())
        return await read_token(SimpleNamespace(net=net, config=SimpleNamespace(token_file=path)))

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
    with pytest.raises(DialError, match=f"token_file {tmp_path / 'token'}.*{says}") as refused:
        read(tmp_path / "token", content)
    assert refused.value.reason == "token_file"
    assert TOKEN[:8] not in str(refused.value) and str(refused.value).isascii() and str(refused.value).isprintable()


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(DialError, match="No such file"):
        read(tmp_path / "token")
