"""Which tokens count, before and after a reload."""

from __future__ import annotations

import pytest
from support.tokens import SECRET, genuine

from hub.doors import key, run
from hub.rooms import NOW
from hub.seam import VirtualNet
from ncfast.auth import AuthError, AuthSetupError
from ncfast.auth.mint import mint
from ncfast.config.hub import Jwt
from ncfast.hub.tokens import Tokens

OTHER = b"another secret of more than 32 bytes"


def tokens(jwt: Jwt) -> Tokens:
    return Tokens(jwt, VirtualNet(), lambda: NOW)


def token(secret: bytes = SECRET, **fields) -> str:
    return mint(secret, "site", None, now=NOW - 60, **fields)


async def refused(judge: Tokens, text: str) -> str:
    with pytest.raises(AuthError) as caught:
        await judge.verify(text)
    return caught.value.reason


def test_a_token_of_the_key_in_the_file_says_who_the_bearer_is(tmp_path):
    async def main():
        judge = tokens(key(tmp_path))
        who = await judge.verify(genuine("HS256", sub="site", tenant="acme"))
        assert (who.key, who.expires_at) == ("acme/site", NOW + 3540) and judge.healthy
        assert await refused(judge, token(OTHER)) == "signature"
        await judge.aclose()

    run(main)


def test_a_file_without_a_usable_key_is_told_at_once(tmp_path):
    with pytest.raises(AuthSetupError):
        tokens(key(tmp_path, b"short"))
    with pytest.raises(AuthSetupError):
        tokens(Jwt.model_validate({"key_file": str(tmp_path / "none")}))


def test_after_a_reload_the_new_key_counts_and_the_old_one_does_not(tmp_path):
    async def main():
        judge = tokens(key(tmp_path))
        new = key(tmp_path, OTHER)  # the same file, written anew
        keys = judge.prepare(new)
        assert await judge.verify(token())  # until they are used
        await judge.use(new, keys)
        assert (await judge.verify(token(OTHER))).agent_id == "site"
        assert await refused(judge, token()) == "signature"
        await judge.aclose()

    run(main)


def test_keys_that_cannot_be_used_leave_the_old_ones_in_force(tmp_path):
    async def main():
        judge = tokens(key(tmp_path))
        with pytest.raises(AuthSetupError):
            judge.prepare(key(tmp_path, b"short", "broken"))
        assert await judge.verify(token())
        await judge.aclose()

    run(main)


def test_policy_and_grace_are_taken_over_too(tmp_path):
    async def main():
        judge = tokens(key(tmp_path))
        stricter = Jwt.model_validate(key(tmp_path).model_dump() | {"issuer": "somebody", "expiry_grace_sec": 7})
        await judge.use(stricter, judge.prepare(stricter))
        assert judge.expiry_grace == 7 and await refused(judge, token()) == "issuer"
        assert await judge.verify(token(issuer="somebody"))
        await judge.aclose()

    run(main)


def test_keys_from_the_same_url_are_asked_for_anew_and_others_replace_them(tmp_path):
    async def main():
        remote = Jwt.model_validate({"jwks_url": "https://keys.example/jwks", "algorithms": ["RS256"]})
        judge = tokens(remote)
        assert judge.prepare(remote.model_copy(update={"issuer": "somebody"})) is None
        assert judge.prepare(remote.model_copy(update={"algorithms": ["ES256"]})) is not None
        local = key(tmp_path)
        await judge.use(local, judge.prepare(local))
        assert await judge.verify(token())
        await judge.aclose()

    run(main)
