"""Tokens: which claims make which identity, what policy and key files must be, and that nothing leaks."""

from __future__ import annotations

import asyncio
import math
import traceback

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from support.tokens import (
    ABSENT,
    NOW,
    SECRET,
    claims,
    genuine,
    judge,
    jwk,
    jwks,
    pem,
    policy,
    private_key,
    shared_secret,
    signer,
    token,
    verifier,
)

from ncfast.auth import (
    REASONS,
    AuthError,
    AuthSetupError,
    ClientCertificate,
    Identity,
    StaticKeys,
    Verifier,
    mint,
    read_secret,
    thumbprint,
)
from ncfast.auth.certificate import confirmation
from ncfast.auth.keys import MAX_CANDIDATES
from ncfast.auth.publickeys import check_pyjwt

DAY = 86_400
DIGEST = thumbprint(b"a certificate")
MANY = [f"c{number}" for number in range(64)]


def identity(**changes) -> Identity:
    whole = {"agent_id": "site-1", "tenant": None, "connectors": None, "expires_at": NOW + 3540}
    return Identity(**(whole | {"issued_at": NOW - 60, "token_id": None} | changes))


# What the token says beyond the acceptable claims, and what comes of it.
CLAIMS = [
    ({}, identity()),
    # audience: one element, exactly
    ({"aud": ["other", "nowconnect"]}, identity()),
    ({"aud": ABSENT}, "missing_claim"),
    ({"aud": "nowconnect-2"}, "audience"),
    ({"aud": "nowconnec"}, "audience"),
    ({"aud": "NowConnect"}, "audience"),
    ({"aud": "other nowconnect"}, "audience"),
    ({"aud": " nowconnect"}, "audience"),
    ({"aud": ""}, "audience"),
    ({"aud": []}, "audience"),
    ({"aud": ["nowconnect-2"]}, "audience"),
    ({"aud": [["nowconnect"]]}, "claim_type"),
    ({"aud": ["nowconnect", 1]}, "claim_type"),
    ({"aud": {"nowconnect": True}}, "claim_type"),
    ({"aud": None}, "claim_type"),
    # expiry and lifetime
    ({"exp": NOW + 0.5}, identity(expires_at=NOW + 0.5)),
    ({"exp": NOW - 29}, identity(expires_at=NOW - 29)),
    ({"exp": NOW - 30}, "expired"),
    ({"exp": 0}, "expired"),
    ({"exp": -1}, "expired"),
    ({"exp": ABSENT}, "missing_claim"),
    ({"exp": None}, "claim_type"),
    ({"exp": True}, "claim_type"),
    ({"exp": str(NOW + 60)}, "claim_type"),
    ({"exp": [NOW + 60]}, "claim_type"),
    ({"exp": math.inf}, "claim_type"),
    ({"exp": math.nan}, "claim_type"),
    ({"exp": 10**400}, "claim_type"),
    ({"exp": 1e300}, "claim_type"),
    ({"exp": NOW - 60 + DAY}, identity(expires_at=NOW - 60 + DAY)),
    ({"exp": NOW - 59 + DAY}, "lifetime"),
    ({"exp": NOW - 20, "iat": NOW - 20}, "lifetime"),
    ({"exp": NOW - 20, "iat": NOW - 10}, "lifetime"),
    # issue and start
    ({"iat": NOW + 30}, identity(issued_at=NOW + 30)),
    ({"iat": NOW + 31}, "not_yet_valid"),
    ({"iat": ABSENT}, "missing_claim"),
    ({"iat": False}, "claim_type"),
    ({"iat": str(NOW)}, "claim_type"),
    ({"iat": -math.inf}, "claim_type"),
    ({"nbf": NOW + 30}, identity()),
    ({"nbf": NOW + 31}, "not_yet_valid"),
    ({"nbf": "now"}, "claim_type"),
    ({"nbf": None}, "claim_type"),
    # subject
    ({"sub": "a" * 128}, identity(agent_id="a" * 128)),
    ({"sub": "a" * 129}, "subject"),
    ({"sub": "Site_1.example-x"}, identity(agent_id="Site_1.example-x")),
    ({"sub": ABSENT}, "missing_claim"),
    ({"sub": ""}, "subject"),
    ({"sub": None}, "subject"),
    ({"sub": 7}, "subject"),
    ({"sub": ["site-1"]}, "subject"),
    ({"sub": "-site"}, "subject"),
    ({"sub": "site 1"}, "subject"),
    ({"sub": "site-1\n"}, "subject"),
    ({"sub": "../site-1"}, "subject"),
    ({"sub": "sitе-1"}, "subject"),  # a Cyrillic letter
    # connectors: absent is any, everything else is a list
    ({"connectors": ["ldap", "pg", "ldap"]}, identity(connectors=frozenset({"ldap", "pg"}))),
    ({"connectors": []}, identity(connectors=frozenset())),
    ({"connectors": MANY}, identity(connectors=frozenset(MANY))),
    ({"connectors": [*MANY, "c64"]}, "connectors"),
    ({"connectors": None}, "connectors"),
    ({"connectors": "ldap"}, "connectors"),
    ({"connectors": {"ldap": 1}}, "connectors"),
    ({"connectors": ["*", "ldap"]}, "connectors"),
    ({"connectors": [["ldap"]]}, "connectors"),
    ({"connectors": [None]}, "connectors"),
    # tenant and token id
    ({"tenant": "acme"}, identity(tenant="acme")),
    ({"tenant": None}, "tenant"),
    ({"tenant": ""}, "tenant"),
    ({"tenant": "a:b"}, "tenant"),
    ({"tenant": ["acme"]}, "tenant"),
    ({"jti": "b2/Xy+=="}, identity(token_id="b2/Xy+==")),
    ({"jti": "x" * 129}, "claim_type"),
    ({"jti": "a\nb"}, "claim_type"),
    ({"jti": 5}, "claim_type"),
    # bound to a certificate, which is shown in tests of its own
    ({"cnf": confirmation(DIGEST)}, "certificate_missing"),
    ({"cnf": {**confirmation(DIGEST), "jkt": "x"}}, "certificate_missing"),
    ({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, "confirmation"),
    ({"cnf": {}}, "confirmation"),
    ({"cnf": None}, "confirmation"),
    ({"cnf": [confirmation(DIGEST)]}, "confirmation"),
    ({"cnf": {"x5t#S256": None}}, "confirmation"),
    ({"cnf": {"x5t#S256": DIGEST.hex()}}, "confirmation"),
    ({"cnf": {"x5t#S256": confirmation(DIGEST)["x5t#S256"] + "="}}, "confirmation"),
    ({"cnf": {"x5t#S256": "A" * 42 + "B"}}, "confirmation"),  # bits left over
    # whatever else it says is not ours to judge
    ({"iss": 5, "scope": "admin", "azp": None}, identity()),
]


@pytest.mark.parametrize(("changes", "expected"), CLAIMS, ids=lambda value: str(value)[:50])
def test_claims(changes, expected):
    assert judge(verifier(shared_secret()), genuine("HS256", **changes)) == expected


SITE_1 = ClientCertificate(DIGEST, frozenset({"DNS:site-1", "URI:spiffe://x/acme/site-1", "DNS:site-1.example"}))
BOUND = {"cnf": confirmation(DIGEST)}


@pytest.mark.parametrize(
    ("claims", "name", "shown", "expected"),
    [
        (BOUND, None, SITE_1, identity(certificate=DIGEST)),
        (BOUND, None, ClientCertificate(thumbprint(b"another"), SITE_1.names), "certificate_mismatch"),
        (BOUND, None, ClientCertificate(None, SITE_1.names), "certificate_missing"),
        ({}, None, SITE_1, identity()),
        ({}, "DNS:{sub}", SITE_1, identity()),
        ({}, "DNS:{sub}", ClientCertificate(None, SITE_1.names), identity()),
        ({}, "DNS:{sub}", None, "certificate_missing"),
        ({}, "DNS:{sub}.example", SITE_1, identity()),
        ({}, "URI:{sub}", SITE_1, "certificate_name"),
        ({"sub": "site-2"}, "DNS:{sub}", SITE_1, "certificate_name"),
        ({"sub": "SITE-1"}, "DNS:{sub}", SITE_1, "certificate_name"),
        ({}, "DNS:{sub}", ClientCertificate(DIGEST, frozenset({"DNS:*"})), "certificate_name"),
        ({"tenant": "acme"}, "URI:spiffe://x/{tenant}/{sub}", SITE_1, identity(tenant="acme")),
        ({"tenant": "evil"}, "URI:spiffe://x/{tenant}/{sub}", SITE_1, "certificate_name"),
        ({}, "URI:spiffe://x/{tenant}/{sub}", ClientCertificate(None, frozenset({"URI:spiffe://x//site-1"})),
         "certificate_name"),
        (BOUND, "DNS:{sub}", ClientCertificate(DIGEST, frozenset({"DNS:site-2"})), "certificate_name"),
    ],
)  # fmt: skip
def test_who_may_show_a_token(claims, name, shown, expected):
    judging = verifier(shared_secret(), certificate_name=name)
    assert judge(judging, genuine("HS256", **claims), shown) == expected


def test_a_minted_token_is_bound_to_a_certificate():
    text = mint(SECRET, "site-1", None, now=NOW - 60, certificate=DIGEST)
    assert judge(verifier(shared_secret()), text) == "certificate_missing"
    assert judge(verifier(shared_secret()), text, SITE_1).certificate == DIGEST


def test_a_policy_that_demands_connectors():
    strict = verifier(shared_secret(), require_connectors=True)
    assert judge(strict, genuine("HS256")) == "missing_claim"
    assert judge(strict, genuine("HS256", connectors=[])) == identity(connectors=frozenset())


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        ("https://id.example", identity()),
        ("https://id.example/", "issuer"),
        ("https://id.exampl", "issuer"),
        ("", "issuer"),
        (["https://id.example"], "issuer"),
        (None, "issuer"),
        (ABSENT, "missing_claim"),
    ],
)
def test_issuer_where_the_policy_names_one(issuer, expected):
    judging = verifier(shared_secret(), issuer="https://id.example")
    assert judge(judging, genuine("HS256", iss=issuer)) == expected


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b'"site-1"',
        b"null",
        b"",
        b"{",
        b"{'sub':1}",
        b"\xff",
        b"[" * 3000,
        b'{"exp":' + b"9" * 5000 + b"}",
        b'{"sub":"site-1","sub":"site-2"}',
        b'{"a":{"b":1,"b":1}}',
    ],
    ids=lambda payload: repr(payload[:20]),
)
def test_a_signed_payload_that_is_no_object(payload):
    judging = verifier(shared_secret())
    assert judge(judging, token({"alg": "HS256"}, payload, signer("HS256"))) == "malformed"


def test_the_policy_sets_leeway_lifetime_and_audience():
    strict = verifier(shared_secret(), leeway_sec=0, max_lifetime_sec=3600, audience="hub")
    assert judge(strict, genuine("HS256", aud="hub")) == identity()
    assert judge(strict, genuine("HS256")) == "audience"
    assert judge(strict, genuine("HS256", aud="hub", exp=NOW)) == "expired"
    assert judge(strict, genuine("HS256", aud="hub", iat=NOW + 1)) == "not_yet_valid"
    assert judge(strict, genuine("HS256", aud="hub", exp=NOW + 3541)) == "lifetime"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithms": []}, "empty"),
        ({"algorithms": ["none"]}, "'none' is not supported"),
        ({"algorithms": ["hs256"]}, "'hs256' is not supported"),
        ({"algorithms": ["HS256", "RS256"]}, "must stand alone"),
        ({"audience": ""}, "audience"),
        ({"leeway_sec": 31}, "leeway_sec"),
        ({"leeway_sec": -1}, "leeway_sec"),
        ({"max_lifetime_sec": DAY + 1}, "max_lifetime_sec"),
        ({"max_lifetime_sec": 0}, "max_lifetime_sec"),
    ],
)
def test_an_unsafe_policy_is_refused(changes, says):
    with pytest.raises(AuthSetupError, match=says):
        verifier(shared_secret(), **changes)


def test_an_unsafe_library_is_refused():
    for version in ("2.15.0", "2.9.9", "1.7.1", "2.15"):
        with pytest.raises(AuthSetupError, match="2.15.1 or newer"):
            check_pyjwt(version)
    for version in ("2.15.1", "2.16.0", "3.0.0rc1", jwt.__version__):
        check_pyjwt(version)


# -- identity


def test_an_identity_allows_what_its_token_lists():
    assert identity(connectors=frozenset({"ldap"})).allows("ldap")
    assert not identity(connectors=frozenset({"ldap"})).allows("lda")
    assert not identity(connectors=frozenset()).allows("ldap")
    assert identity(connectors=None).allows("anything")


# -- nothing of the token comes out with the error


def test_an_error_tells_nothing_that_came_with_the_token():
    canary = "canary4711"
    judging = verifier(shared_secret())
    offered = [
        canary,
        f"{canary}.{canary}.{canary}",
        genuine("HS256", sub=f"{canary} "),
        genuine("HS256", aud=canary),
        genuine("HS256", exp=canary),
        genuine("HS256", connectors=[f"{canary}/"]),
        token({"alg": canary}, claims(), signer("HS256")),
        token({"alg": "HS256", "kid": canary}, claims(), signer("HS256", canary.encode())),
        token({"alg": "HS256", "crit": [canary]}, claims(), signer("HS256")),
        token(f'{{"{canary}'.encode(), claims(), signer("HS256")),
        token({"alg": "HS256"}, f'{{"{canary}'.encode(), signer("HS256")),
    ]
    for text in offered:
        with pytest.raises(AuthError) as caught:
            asyncio.run(judging.verify(text))
        assert str(caught.value) == REASONS[caught.value.reason]
        assert canary not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_a_key_hides_its_secret():
    [key] = asyncio.run(shared_secret().find(None, "HS256"))
    assert "secret" not in repr(key)


# -- whatever comes, an identity or an AuthError


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HEADERS = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "x"]), JSON | st.just("HS256"))
PAYLOADS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["sub", "aud", "iat", "exp", "nbf", "iss", "jti", "tenant", "connectors"],
        JSON | st.sampled_from(["nowconnect", NOW, NOW + 60, ["ldap"]]),
    ),
)
JUDGE = verifier(shared_secret())


def decided(text: str) -> bool:
    verdict = judge(JUDGE, text)
    return isinstance(verdict, Identity) or verdict in REASONS


@given(st.text() | st.from_regex(r"[\w.=-]*\.[\w.=-]*\.[\w.=-]*"))
def test_random_text_is_refused(text):
    assert judge(JUDGE, text) in REASONS


@given(HEADERS, PAYLOADS)
def test_any_signed_header_and_payload_get_a_verdict(header, payload):
    assert decided(token(header, payload, signer("HS256")))
    assert decided(token({"alg": "HS256"}, claims(**payload), signer("HS256")))


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_signed_bytes_get_a_verdict(header, payload):
    assert decided(token(header, payload, signer("HS256")))
    assert decided(token({"alg": "HS256"}, payload, signer("HS256")))


@given(st.integers(0, 10**6), st.characters())
def test_a_changed_character_is_refused(where, character):
    good = genuine("HS256")
    where %= len(good)
    bad = good[:where] + character + good[where + 1 :]
    assert bad == good or judge(JUDGE, bad) in REASONS


# -- key files


def private_pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def small_rsa():
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)


def block(label: str) -> bytes:
    return f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n".encode()


def public_bytes(algorithm, encoding, form):
    return private_key(algorithm).public_key().public_bytes(encoding, form)


PEM_KEY = pem("RS256")
FILES = {
    "short secret": ("HS256", SECRET[:31], "31 bytes, at least 32"),
    "newline does not count": ("HS256", SECRET[:31] + b"\n", "31 bytes"),
    "empty": ("HS256", b"", "0 bytes"),
    "public key as a secret": ("HS256", PEM_KEY, "is no secret"),
    "DER key as a secret": (
        "HS256",
        public_bytes("RS256", Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "is no secret",
    ),
    "SSH key as a secret": ("HS256", public_bytes("ES256", Encoding.OpenSSH, PublicFormat.OpenSSH), "is no secret"),
    "JWK as a secret": ("HS256", jwks(jwk("RS256")), "is no secret"),
    "too large": ("HS256", b"x" * (256 * 1024 + 1), "larger than 262144 bytes"),
    "private key": ("RS256", private_pem(private_key("RS256")), "private key"),
    "old private key": ("RS256", block("RSA PRIVATE KEY"), "private"),
    "private key second": ("EdDSA", pem("EdDSA") + private_pem(private_key("EdDSA")), "block 2 .*private"),
    "certificate": ("RS256", block("CERTIFICATE"), "openssl x509"),
    "parameters": ("ES256", block("EC PARAMETERS"), "EC PARAMETERS"),
    "secret for a public-key algorithm": ("RS256", SECRET, "no PEM block"),
    "no file content": ("RS256", b"", "no PEM block"),
    "wrong type": ("ES256", PEM_KEY, "block 1 is a key for RS256, but .* allows ES256"),
    "wrong type among right ones": ("RS256", PEM_KEY + pem("EdDSA"), "block 2 is a key for EdDSA"),
    "small RSA": ("RS256", public_pem(small_rsa()), "1024 bits"),
    "wrong curve": ("ES256", public_pem(ec.generate_private_key(ec.SECP384R1())), "secp384r1"),
    "Ed448": ("EdDSA", public_pem(ed448.Ed448PrivateKey.generate()), "neither"),
    "broken base64": ("RS256", PEM_KEY.replace(b"M", b"!"), "block 1 does not hold"),
    "truncated": ("RS256", PEM_KEY[:-30], "broken block"),
    "one whole, one truncated": ("RS256", PEM_KEY + PEM_KEY[:-30], "broken block"),
    "no BEGIN": ("RS256", PEM_KEY[30:], "broken block"),
    "too many": ("RS256", PEM_KEY * (MAX_CANDIDATES + 1), "more than 8"),
    "JWKS no JSON": ("RS256", b"{", "not valid JSON"),
    "JWKS no keys": ("RS256", b"{}", 'no list named "keys"'),
    "JWKS empty": ("RS256", jwks(), "no usable key"),
    "JWKS other type": ("RS256", jwks(jwk("ES256")), "no usable key"),
    "JWKS secret": ("RS256", jwks({"kty": "oct", "k": "AAAA"}), "no usable key"),
    "JWKS encryption key": ("RS256", jwks(jwk("RS256", use="enc")), "no usable key"),
    "JWKS private": ("RS256", jwks(jwk("RS256", d="AA")), "private"),
    "JWKS one of two broken": ("RS256", jwks(jwk("RS256"), jwk("RS256", n="AA")), "key 2"),
    "JWKS too many": ("RS256", jwks(*[jwk("RS256", kid=str(n)) for n in range(65)]), "65 keys"),
}


@pytest.mark.parametrize(("algorithm", "content", "says"), FILES.values(), ids=FILES)
def test_an_unfit_key_file_is_refused_by_name(tmp_path, algorithm, content, says):
    path = tmp_path / "jwt.key"
    path.write_bytes(content)
    with pytest.raises(AuthSetupError, match=says) as caught:
        StaticKeys.from_file(path, [algorithm])
    assert str(path) in str(caught.value)


def test_a_missing_key_file_is_refused_by_name(tmp_path):
    for path, says in ((tmp_path / "absent", "No such file"), (tmp_path, "directory")):
        with pytest.raises(AuthSetupError, match=says):
            StaticKeys.from_file(path, ["HS256"])
        with pytest.raises(AuthSetupError, match=says):
            read_secret(path)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_secret_file_may_end_in_a_newline(tmp_path, ending):
    path = tmp_path / "jwt.key"
    path.write_bytes(SECRET + ending)
    assert read_secret(path) == SECRET
    assert judge(verifier(StaticKeys.from_file(path, ["HS256"])), genuine("HS256")) == identity()


def test_a_bundle_of_several_keys_and_algorithms(tmp_path):
    path = tmp_path / "keys.pem"
    path.write_bytes(b"# new\n" + pem("RS256", "other") + b"# old\n" + pem("RS256") + pem("ES256"))
    judging = verifier(StaticKeys.from_file(path, ["RS256", "ES256"]), algorithms=["RS256", "ES256"])
    assert judge(judging, genuine("RS256")) == judge(judging, genuine("ES256", kid="any")) == identity()
    third = signer("RS256", private_key("RS256", "third"))
    assert judge(judging, token({"alg": "RS256"}, claims(), third)) == "signature"


def test_a_jwks_file_finds_keys_by_kid(tmp_path):
    path = tmp_path / "keys.json"
    path.write_bytes(
        jwks(
            jwk("RS256", kid="a", use="sig", alg="RS256"),
            jwk("RS256", "other", kid="b"),
            jwk("ES256", kid="a"),
            {"kty": "oct", "kid": "a", "k": "AAAA"},
        )
    )
    judging = verifier(StaticKeys.from_file(path, ["RS256"]), algorithms=["RS256"])
    assert judge(judging, genuine("RS256", kid="a")) == identity()
    assert judge(judging, genuine("RS256", kid="b")) == "signature"
    assert judge(judging, genuine("RS256", kid="c")) == "unknown_key"
    assert judge(judging, genuine("RS256")) == "unknown_key"  # which of the two is not for us to guess


def test_reload_takes_the_new_key_and_refuses_a_bad_one(tmp_path):
    path = tmp_path / "jwt.pem"
    path.write_bytes(pem("EdDSA", "other"))
    keys = StaticKeys.from_file(path, ["EdDSA"])
    judging = verifier(keys, algorithms=["EdDSA"])
    assert judge(judging, genuine("EdDSA")) == "signature"
    path.write_bytes(pem("EdDSA"))
    assert judge(judging, genuine("EdDSA")) == "signature"
    keys.reload()
    assert judge(judging, genuine("EdDSA")) == identity()
    for bad in (b"", pem("RS256"), private_pem(private_key("EdDSA"))):
        path.write_bytes(bad)
        with pytest.raises(AuthSetupError):
            keys.reload()
        assert judge(judging, genuine("EdDSA")) == identity()
    path.unlink()
    with pytest.raises(AuthSetupError):
        keys.reload()
    assert judge(judging, genuine("EdDSA")) == identity()


# -- minting


def test_a_minted_token_is_accepted():
    judging = verifier(shared_secret(), issuer="ncfast-dev")
    minted = judge(judging, mint(SECRET, "site-1", ["pg", "ldap"], tenant="acme", ttl=60, now=NOW))
    assert minted == identity(
        connectors=frozenset({"ldap", "pg"}),
        tenant="acme",
        issued_at=NOW,
        expires_at=NOW + 60,
        token_id=minted.token_id,
    )
    assert len(minted.token_id) == 32
    assert judge(judging, mint(SECRET, "site-1", None, now=NOW)).connectors is None
    assert judge(judging, mint(SECRET, "site-1", [], now=NOW)).connectors == frozenset()


def test_a_minted_token_starts_now_by_default():
    judging = Verifier(policy(), shared_secret())
    assert judge(judging, mint(SECRET, "site-1", ["ldap"])).agent_id == "site-1"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"key": SECRET[:31]}, AuthSetupError),
        ({"agent_id": "site 1"}, ValueError),
        ({"connectors": ["ldap", ""]}, ValueError),
        ({"connectors": [*MANY, "c64"]}, ValueError),
        ({"tenant": ""}, ValueError),
        ({"ttl": 0}, ValueError),
        ({"ttl": DAY + 1}, ValueError),
    ],
)
def test_no_token_is_minted_that_a_hub_would_refuse(changes, error):
    with pytest.raises(error):
        mint(**({"key": SECRET, "agent_id": "site-1", "connectors": ["ldap"]} | changes))
