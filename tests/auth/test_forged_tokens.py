"""The forgers' corpus: no token that the issuer did not sign, or signed for another use, is accepted."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.tokens import (
    SECRET,
    as_json,
    b64,
    claims,
    genuine,
    judge,
    jwk,
    jwks,
    pem,
    private_key,
    shared_secret,
    signer,
    token,
    verifier,
)

from ncfast.auth import StaticKeys

PUBLIC = ("RS256", "ES256", "EdDSA")
HASHES = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}


def hmac_with(key: bytes, algorithm: str = "HS256"):
    return lambda message: hmac.digest(key, message, HASHES[algorithm])


def public_forms(algorithm: str) -> dict[str, bytes]:
    """Every form in which an attacker may hold the public key, and a careless verifier use it as a secret."""
    public = private_key(algorithm).public_key()
    forms = {
        "PEM": pem(algorithm),
        "PEM stripped": pem(algorithm).strip(),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "SSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "JWK": json.dumps(jwk(algorithm)).encode(),
        "JWK compact": json.dumps(jwk(algorithm), separators=(",", ":"), sort_keys=True).encode(),
        "JWKS": jwks(jwk(algorithm)),
    }
    if algorithm == "RS256":
        forms["PKCS#1 PEM"] = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    else:
        forms["raw x"] = as_json(jwk(algorithm)["x"])
    return forms


def unsigned(algorithm: str):
    for name in ("none", "None", "NONE", "nOnE", "", " none", "NoNe\x00"):
        yield f"alg {name!r}, empty signature", token({"alg": name}, claims(), lambda _: b"")
        yield f"alg {name!r}, some signature", token({"alg": name}, claims(), lambda _: b"x" * 64)
    for name, header in {
        "null": {"alg": None},
        "list": {"alg": [algorithm]},
        "absent": {"typ": "JWT"},
        "number": {"alg": 0},
        "true": {"alg": True},
        "object": {"alg": {}},
    }.items():
        yield f"alg {name}", token(header, claims(), signer(algorithm))
    yield "alg in lower case", token({"alg": algorithm.lower()}, claims(), signer(algorithm))
    yield "right alg, empty signature", token({"alg": algorithm}, claims(), lambda _: b"")


def confused(algorithm: str):
    for form, key in public_forms(algorithm).items():
        for name in HASHES:
            yield f"{name} over the {form}", token({"alg": name}, claims(), hmac_with(key, name))
        yield f"HMAC over the {form} called {algorithm}", token({"alg": algorithm}, claims(), hmac_with(key))
    for other in PUBLIC:
        if other != algorithm:
            yield f"{other} key called {algorithm}", token({"alg": algorithm}, claims(), signer(other))
            yield f"{algorithm} key called {other}", token({"alg": other}, claims(), signer(algorithm))
            yield f"{other} throughout", genuine(other)
    for other in ("RS384", "RS512", "PS256", "ES384"):
        yield f"{other} throughout", genuine(other)
        yield f"{other} called {algorithm}", token({"alg": algorithm}, claims(), signer(other))


def wrong_key(algorithm: str):
    forge = signer(algorithm, private_key(algorithm, "forger"))
    mine = jwk(algorithm, "forger", kid="k1")
    yield "forger's key", token({"alg": algorithm}, claims(), forge)
    yield "forger's key under the issuer's kid", token({"alg": algorithm, "kid": "k1"}, claims(), forge)
    for name, header in {
        "jwk": {"jwk": mine},
        "jku": {"jku": "https://forger.example/jwks"},
        "x5u": {"x5u": "https://forger.example/cert"},
        "x5c": {"x5c": ["MIIB"]},
        "jwk and kid": {"jwk": mine, "kid": "k1"},
    }.items():
        yield f"forger's key in {name}", token({"alg": algorithm, **header}, claims(), forge)
    for kid in ("../../../dev/null", "' OR 1=1 --", "\x00", "k1\n", "k" * 257, "", 1, ["k1"], None, {}):
        yield f"kid {str(kid)[:20]!r}", token({"alg": algorithm, "kid": kid}, claims(), forge)


def broken_signature(algorithm: str):
    good = genuine(algorithm)
    message, _, signature = good.rpartition(".")
    raw = signer(algorithm)(message.encode())
    for name, changed in {
        "truncated": raw[:-1],
        "first byte only": raw[:1],
        "extended": raw + b"\0",
        "flipped": bytes([raw[0] ^ 1]) + raw[1:],
        "zero": bytes(len(raw)),
        "ones": b"\xff" * len(raw),
        "twice": raw * 2,
    }.items():
        yield f"signature {name}", f"{message}.{b64(changed)}"
    if algorithm == "ES256":
        der = private_key(algorithm).sign(message.encode(), ECDSA(SHA256()))
        yield "signature in DER", f"{message}.{b64(der)}"
    header, payload, _ = good.split(".")
    yield "another payload", f"{header}.{b64(as_json(claims(sub='site-2')))}.{signature}"
    yield "another header", f"{b64(as_json({'alg': algorithm}))}.{payload}.{signature}"


def refused_header(algorithm: str):
    """Signed by the issuer, yet asking for something the verifier must not do."""
    for name, extra in {
        "crit": {"crit": ["exp"], "exp": 1},
        "crit of alg": {"crit": ["alg"]},
        "crit empty": {"crit": []},
        "crit null": {"crit": None},
        "crit b64": {"crit": ["b64"], "b64": True},
        "b64 false": {"b64": False},
        "b64 true": {"b64": True},
        "jwk": {"jwk": {}},
        "jku": {"jku": ""},
        "x5u": {"x5u": None},
        "x5c": {"x5c": []},
    }.items():
        yield f"header with {name}", token({"alg": algorithm, **extra}, claims(), signer(algorithm))
    alg = json.dumps(algorithm)
    for name, raw in {
        "list": b"[]",
        "string": alg.encode(),
        "empty": b"{",
        "text": b"alg",
        "not UTF-8": b'{"alg":"\xff"}',
        "deep": b"[" * 3000,
        "digits": b'{"alg":' + b"9" * 5000 + b"}",
        "alg twice": f'{{"alg":{alg},"alg":{alg}}}'.encode(),
        "alg none then right": f'{{"alg":"none","alg":{alg}}}'.encode(),
        "UTF-16": f'{{"alg":{alg}}}'.encode("utf-16"),
        "BOM": b"\xef\xbb\xbf" + f'{{"alg":{alg}}}'.encode(),
    }.items():
        yield f"header is {name}", token(raw, claims(), signer(algorithm))


def misshapen(algorithm: str):
    good = genuine(algorithm)
    header, payload, signature = good.split(".")
    shapes = {
        "nothing": "",
        "dots": "..",
        "a dot": ".",
        "one part": header,
        "two parts": f"{header}.{payload}",
        "no signature": f"{header}.{payload}.",
        "no header": f".{payload}.{signature}",
        "no payload": f"{header}..{signature}",
        "four parts": f"{good}.{signature}",
        "five parts": f"{header}.{payload}.{payload}.{payload}.{signature}",
        "JSON form": json.dumps({"payload": payload, "protected": header, "signature": signature}),
        "padded": f"{good}=",
        "all padded": f"{header}=.{payload}=.{signature}=",
        "leading space": f" {good}",
        "newline after": f"{good}\n",
        "newline inside": f"{header}.{payload}.{signature[:8]}\n{signature[8:]}",
        "standard alphabet": f"{header}.{payload}.{signature[:-2]}+/",
        "scheme left on": f"Bearer {good}",
        "NUL": f"{good}\0",
        "not ASCII": f"{good}é",
        "full-width dot": good.replace(".", "．"),
        "lone surrogate": f"{good}\ud800",
        "percent": f"{header}.{payload}.%41{signature[3:]}",
        "length 1 mod 4": f"{header}.{payload}.{signature[: len(signature) // 4 * 4]}A",
        "huge": token({"alg": algorithm}, claims(padding="x" * 8192), signer(algorithm)),
        "a megabyte": "A" * (1 << 20),
        "a megabyte of dots": "." * (1 << 20),
    }
    yield from shapes.items()
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    if len(signature) % 4:  # bits of the last character that carry nothing
        yield "another spelling", good[:-1] + alphabet[alphabet.index(last) ^ 1]


def corpus(algorithm: str):
    yield from unsigned(algorithm)
    yield from confused(algorithm)
    yield from wrong_key(algorithm)
    yield from broken_signature(algorithm)
    yield from refused_header(algorithm)
    yield from misshapen(algorithm)


def secret_corpus():
    """Against a hub with a shared secret."""
    guesses = {
        "no secret": b"",
        "a zero byte": b"\0",
        "a word": b"secret",
        "newline kept": SECRET + b"\n",
        "shortened": SECRET[:-1],
        "its hash": hashlib.sha256(SECRET).digest(),
        "in hex": SECRET.hex().encode(),
    }
    for name, key in guesses.items():
        yield name, token({"alg": "HS256"}, claims(), hmac_with(key))
    for name in ("HS384", "HS512"):
        yield f"right secret, {name}", token({"alg": name}, claims(), hmac_with(SECRET, name))
        yield f"right secret, {name} called HS256", token({"alg": "HS256"}, claims(), hmac_with(SECRET, name))
    for algorithm in PUBLIC:
        yield f"{algorithm} throughout", genuine(algorithm)
        yield f"{algorithm} called HS256", token({"alg": "HS256"}, claims(), signer(algorithm))
    yield from unsigned("HS256")
    yield from refused_header("HS256")
    yield from misshapen("HS256")


@pytest.fixture(params=["pem", "jwks"])
def source(request, tmp_path):
    """A key file of either kind, by algorithm."""

    def make(algorithm: str) -> StaticKeys:
        path = tmp_path / algorithm
        path.write_bytes(pem(algorithm) if request.param == "pem" else jwks(jwk(algorithm, kid="k1")))
        return StaticKeys.from_file(path, [algorithm])

    return make


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_no_forgery_passes(source, algorithm):
    judging = verifier(source(algorithm), algorithms=[algorithm])
    assert judge(judging, genuine(algorithm)).agent_id == "site-1"
    assert judge(judging, genuine(algorithm, kid="k1")).agent_id == "site-1"
    rows = list(corpus(algorithm))
    verdicts = {name: judge(judging, text) for name, text in rows}
    assert len(verdicts) == len(rows) >= 60
    assert {name: verdict for name, verdict in verdicts.items() if not isinstance(verdict, str)} == {}


def test_no_forgery_passes_a_shared_secret():
    judging = verifier(shared_secret())
    assert judge(judging, genuine("HS256")).agent_id == "site-1"
    rows = list(secret_corpus())
    verdicts = {name: judge(judging, text) for name, text in rows}
    assert len(verdicts) == len(rows) >= 60
    assert {name: verdict for name, verdict in verdicts.items() if not isinstance(verdict, str)} == {}


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_a_public_key_is_no_secret_even_where_the_policy_asks_for_one(source, algorithm):
    judging = verifier(source(algorithm), algorithms=["HS256"])
    for form, key in public_forms(algorithm).items():
        assert judge(judging, token({"alg": "HS256"}, claims(), hmac_with(key))) == "unknown_key", form


def test_the_reason_names_the_check_that_refused():
    judging = verifier(shared_secret())
    verdicts = {name: judge(judging, text) for name, text in secret_corpus()}
    assert verdicts["alg 'none', some signature"] == "algorithm"
    assert verdicts["right alg, empty signature"] == "signature"
    assert verdicts["a word"] == "signature"
    assert verdicts["header with crit"] == "header"
    assert verdicts["header is alg none then right"] == "malformed"
    assert verdicts["huge"] == verdicts["a megabyte of dots"] == "too_large"
    for name in ("padded", "newline after", "four parts", "another spelling"):
        assert verdicts[name] == "malformed", name
    for kid in ("", "k" * 257, None, 1):
        assert judge(judging, token({"alg": "HS256", "kid": kid}, claims(), signer("HS256"))) == "header", kid
