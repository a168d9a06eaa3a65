"""Who may be a peer, as pure logic: names, headers, addresses, proofs, bundles."""

from __future__ import annotations

import base64
import ipaddress
import urllib.parse

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from websockets.datastructures import Headers

from mesh.authority import Authority, uri
from ncfast.core.errors import Reason, RemoteError
from ncfast.mesh.certificates import Certificates, read_bundle
from ncfast.mesh.handshake import Auth, Hello, HelloAck, proof, proves
from ncfast.mesh.trust import (
    Credential,
    Refused,
    claims_certificate,
    forwarded,
    forwarded_thumbprint,
    is_among,
    names_in,
    names_in_der,
    names_replica,
)


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        ({"URI:ncfast://ncfast/replica/hub-b"}, True),
        ({"DNS:hub-b"}, True),
        ({"DNS:other", "URI:ncfast://ncfast/replica/hub-b"}, True),
        (set(), False),
        ({"DNS:hub-a"}, False),
        ({"DNS:HUB-B"}, False),
        ({"DNS:hub-b.example.net"}, False),
        ({"DNS:*"}, False),
        ({"DNS:hub-*"}, False),
        ({"URI:ncfast://ncfast/replica/*"}, False),
        ({"URI:ncfast://ncfast/replica/hub-b/"}, False),
        ({"URI:ncfast://ncfast/replica/hub-b?x"}, False),
        ({"URI:NCFAST://ncfast/replica/hub-b"}, False),
        ({"URI:ncfast://other/replica/hub-b"}, False),
        ({"URI:ncfast://ncfast/replica/hub%2Db"}, False),
        ({"URI:hub-b"}, False),
        ({"DNS:ncfast://ncfast/replica/hub-b"}, False),
        ({"DNS:hub-b\0.evil"}, False),
    ],
)
def test_a_name_is_exact_or_none(names, ours):
    assert names_replica(frozenset(names), "ncfast", "hub-b") is ours
    assert Credential("certificate", frozenset(names)).admits("ncfast", "hub-b") is ours


def test_without_a_certificate_nothing_is_known_of_the_name():
    assert Credential("local").admits("ncfast", "any")


def test_names_of_certificates(tmp_path):
    authority = Authority(tmp_path)
    one = x509.load_pem_x509_certificate(authority.issue(uri("hub-b"), "DNS:hub-b", common_name="hub-c").read_bytes())
    assert names_in(one) == {uri("hub-b"), "DNS:hub-b"}
    assert names_in(x509.load_pem_x509_certificate(authority.issue(common_name="hub-b").read_bytes())) == frozenset()
    many = x509.load_pem_x509_certificate(authority.issue(*(f"DNS:n{number}" for number in range(65))).read_bytes())
    for refused in (
        lambda: names_in(many),
        lambda: names_in_der(b""),
        lambda: names_in_der(None),
        lambda: names_in_der(b"\x30\x03abc"),
    ):
        with pytest.raises(Refused) as caught:
            refused()
        assert caught.value.reason == "certificate"


# addresses


def test_networks():
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    assert is_among("10.1.2.3", networks) and is_among("fd00::7%eth0", networks)
    assert (
        not is_among("11.0.0.1", networks)
        and not is_among(None, networks)
        and not is_among("", networks)
        and not is_among("ten", networks)
    )


# headers


ENVOY = (
    f'By=spiffe://in/gress;Hash=0a1b;Subject="CN=hub-c,O=\\"A, B; C\\"";{uri("hub-b").replace(":", "=", 1)};DNS=hub-b'
)


def headers(*pairs):
    made = Headers()
    for name, value in pairs:
        made[name] = value
    return made


HTTPS = ("X-Forwarded-Proto", "https")


def test_envoys_header():
    assert forwarded(headers(HTTPS, ("X-Forwarded-Client-Cert", ENVOY))) == {uri("hub-b"), "DNS:hub-b"}
    assert forwarded(headers(HTTPS, ("x-forwarded-client-cert", 'Hash=1;Subject="CN=hub-b"'))) == frozenset()
    assert forwarded(headers(HTTPS, ("X-Forwarded-Client-Cert", 'uri="ncfast://a/replica/b";dns="x"'))) == {
        "URI:ncfast://a/replica/b",
        "DNS:x",
    }


def test_the_thumbprint_of_a_forwarded_certificate(tmp_path):
    path = Authority(tmp_path).issue(uri("hub-b"))
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    der, digest = certificate.public_bytes(Encoding.DER), certificate.fingerprint(SHA256())
    for pair in [(XFCC, f"Hash={digest.hex()};DNS=x"), (CERT, base64.b64encode(der).decode())]:
        assert forwarded_thumbprint(headers(HTTPS, pair)) == digest
    for pair in [(XFCC, "DNS=x"), (XFCC, f"Hash={'0' * 64};Hash={'1' * 64}"), (SAN, "DNS:x"), (CERT, "")]:
        assert forwarded_thumbprint(headers(HTTPS, pair)) is None
    with pytest.raises(Refused):
        forwarded_thumbprint(headers(HTTPS, (XFCC, f"Hash={digest.hex()[1:]}")))


def test_nginx_and_haproxy_headers(tmp_path):
    path = Authority(tmp_path).issue(uri("hub-b"))
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    pem = path.read_bytes().decode().partition("-----BEGIN PRIVATE")[0]
    der = certificate.public_bytes(Encoding.DER)
    for verify, shown in [
        ("SUCCESS", urllib.parse.quote(pem, safe="")),
        ("SUCCESS", urllib.parse.quote(pem, safe=" +/=")),
        ("0", base64.b64encode(der).decode()),
    ]:
        assert forwarded(headers(HTTPS, ("X-SSL-Client-Verify", verify), ("X-SSL-Client-Cert", shown))) == {
            uri("hub-b")
        }
    assert forwarded(
        headers(HTTPS, ("X-SSL-Client-Verify", "SUCCESS"), ("X-SSL-Client-SAN", f"DNS:x, {uri('hub-b')}"))
    ) == {"DNS:x", uri("hub-b")}


XFCC, VERIFY, CERT, SAN, PROTO = (
    "X-Forwarded-Client-Cert",
    "X-SSL-Client-Verify",
    "X-SSL-Client-Cert",
    "X-SSL-Client-SAN",
    "X-Forwarded-Proto",
)
GOOD = "URI=ncfast://ncfast/replica/hub-b"
OK = (VERIFY, "SUCCESS")


@pytest.mark.parametrize(
    ("pairs", "reason", "status"),
    [
        ([(XFCC, GOOD)], "forwarded_proto", 403),  # no X-Forwarded-Proto
        ([(PROTO, "http"), (XFCC, GOOD)], "forwarded_proto", 403),
        ([(PROTO, "https,http"), (XFCC, GOOD)], "forwarded_proto", 403),
        ([HTTPS, HTTPS, (XFCC, GOOD)], "header_duplicate", 400),
        ([(PROTO, "http"), HTTPS, (XFCC, GOOD)], "header_duplicate", 400),
        ([HTTPS], "no_client_certificate", 403),
        ([HTTPS, (XFCC, GOOD), (XFCC, "URI=x")], "header_duplicate", 400),
        ([HTTPS, (XFCC, GOOD), (XFCC, GOOD)], "header_duplicate", 400),
        (
            [HTTPS, (XFCC, f"{GOOD},URI=ncfast://ncfast/replica/real")],
            "header_duplicate",
            400,
        ),  # the client's first, then the ingress's
        ([HTTPS, (XFCC, f"{GOOD},")], "header_duplicate", 400),
        ([HTTPS, (XFCC, GOOD), OK, (SAN, "DNS:hub-b")], "header_duplicate", 400),
        ([HTTPS, (XFCC, GOOD), (CERT, "x")], "header_duplicate", 400),
        ([HTTPS, (XFCC, 'URI="unended')], "forwarded_certificate", 400),
        ([HTTPS, (XFCC, 'URI="x\\"')], "forwarded_certificate", 400),
        ([HTTPS, (XFCC, 'URI="x"y')], "forwarded_certificate", 400),
        ([HTTPS, (XFCC, 'URI=x"y"')], "forwarded_certificate", 400),
        ([HTTPS, (XFCC, "nothing")], "forwarded_certificate", 400),
        ([HTTPS, (XFCC, "=x")], "forwarded_certificate", 400),
        ([HTTPS, (SAN, "DNS:hub-b")], "no_client_certificate", 403),
        ([HTTPS, (VERIFY, "NONE"), (SAN, "DNS:hub-b")], "no_client_certificate", 403),
        ([HTTPS, (VERIFY, "FAILED:certificate has expired"), (SAN, "DNS:hub-b")], "no_client_certificate", 403),
        ([HTTPS, (VERIFY, "success"), (SAN, "DNS:hub-b")], "no_client_certificate", 403),
        ([HTTPS, (VERIFY, "FAILED"), OK, (SAN, "DNS:hub-b")], "header_duplicate", 400),
        ([HTTPS, OK], "no_client_certificate", 403),
        ([HTTPS, OK, (SAN, "DNS:hub-b"), (CERT, "x")], "no_client_certificate", 403),
        ([HTTPS, OK, (SAN, "hub-b")], "forwarded_certificate", 400),
        ([HTTPS, OK, (SAN, "")], "forwarded_certificate", 400),
        ([HTTPS, OK, (SAN, "DNS:hub-b"), (SAN, "DNS:hub-a")], "header_duplicate", 400),
        ([HTTPS, OK, (CERT, "not base64!")], "forwarded_certificate", 400),
        ([HTTPS, OK, (CERT, "AAAA")], "forwarded_certificate", 400),
        ([HTTPS, OK, (CERT, "")], "forwarded_certificate", 400),
        ([HTTPS, OK, (CERT, "-----BEGIN%20CERTIFICATE-----%0Ax")], "forwarded_certificate", 400),
        ([HTTPS, OK, (CERT, "-----BEGIN%20CERTIFICATE-----%ff")], "forwarded_certificate", 400),
    ],
)
def test_headers_that_count_for_nothing(pairs, reason, status):
    with pytest.raises(Refused) as caught:
        forwarded(headers(*pairs))
    assert (caught.value.reason, caught.value.status) == (reason, status)


def test_two_certificates_in_one_header_are_refused(tmp_path):
    pem = Authority(tmp_path).issue(uri("hub-b")).read_bytes().decode().partition("-----BEGIN PRIVATE")[0]
    with pytest.raises(Refused):
        forwarded(headers(HTTPS, OK, (CERT, urllib.parse.quote(pem + pem, safe=""))))


def test_every_header_of_a_certificate_is_noticed():
    for name in (XFCC, VERIFY, CERT, SAN):
        assert claims_certificate(headers((name.lower(), "x")))
    assert not claims_certificate(headers(HTTPS))


# handshake


def hello(kind=Hello, name="hub-a", instance="aa" * 8, nonce="11" * 32, cluster="ncfast", **more):
    return kind(version=1, cluster=cluster, replica_id=name, instance=instance, nonce=nonce, **more)


def test_a_proof_is_for_one_role_one_pair_one_link():
    secret = b"s" * 32
    one, two = hello(), hello(name="hub-b", instance="bb" * 8, nonce="22" * 32)
    shown = proof(secret, "dialler", one, two)
    assert proves(secret, "dialler", one, two, shown) and len(shown) == 64
    assert not proves(secret, "dialler", one, two, None) and not proves(secret, "dialler", one, two, "")
    assert not proves(b"t" * 32, "dialler", one, two, shown)
    assert not proves(secret, "listener", one, two, shown)  # reflected
    assert not proves(secret, "dialler", two, one, shown)
    for other in (hello(name="hub-c"), hello(instance="cc" * 8), hello(nonce="33" * 32), hello(cluster="x")):
        assert not proves(secret, "dialler", other, two, shown)  # replayed, or somebody else's
    for other in (hello(url="tcp://x:1"), hello(place="192.0.2.9:1"), hello(channel="cc")):
        assert not proves(secret, "dialler", other, two, shown)  # another connection's
    for other in (
        hello(name="hub-c", instance="bb" * 8, nonce="22" * 32),
        hello(name="hub-b", instance="cc" * 8, nonce="22" * 32),
        hello(name="hub-b", instance="bb" * 8, nonce="33" * 32),
    ):
        assert not proves(secret, "dialler", one, other, shown)


def test_proofs_on_the_wire_stay_what_they_are():
    one = hello(url="tls://hub-b:9500", place="192.0.2.2:9500", channel="cd" * 32)
    two = hello(HelloAck, name="hub-b", instance="bb" * 8, nonce="22" * 32)
    assert proof(b"s" * 32, "dialler", one, two) == "05faa486fea6c306071150066d90ad12602320c5008e1ed4a3d1b46b2a6f34f9"
    assert proof(b"s" * 32, "listener", one, two) == "dfa49e023e07114c20acb1169a552f5b74c77736eeddcf4ce8da676d0100cc4d"


def test_bodies_are_read_strictly_and_say_nothing_of_what_was_wrong():
    body = hello(features=["x"], software="ncfast/9").pack()
    assert Hello.unpack(body).replica_id == "hub-a" and Hello.unpack(body[:-1] + b',"later":{"a":1}}').features == ["x"]
    assert HelloAck.unpack(hello(HelloAck).pack()).proof is None and Auth.unpack(b"{}").proof is None
    bad = [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        body.replace(b"hub-a", b"-hub"),
        body.replace(b"hub-a", b"a" * 200),
        body.replace(b"aa" * 8, b"AA" * 8),
        body.replace(b"aa" * 8, b"aa" * 7),
        body.replace(b"11" * 32, b"11" * 16),
        body.replace(b'"version":1', b'"version":"1"'),
        body.replace(b'["x"]', b'["A B"]'),
        body.replace(b'["x"]', b"[" + b",".join([b'"x"'] * 65) + b"]"),
    ]
    for one in bad:
        with pytest.raises(RemoteError) as caught:
            Hello.unpack(one)
        assert (
            caught.value.reason is Reason.PROTOCOL_ERROR
            and "hub" not in caught.value.detail
            and "AA" not in caught.value.detail
        )
    with pytest.raises(RemoteError):
        Auth.unpack(b'{"proof":"zz"}')


# bundles


def test_a_bundle_may_hold_several_authorities_and_words(tmp_path):
    one, two = Authority(tmp_path, "one"), Authority(tmp_path, "two")
    path = tmp_path / "bundle.pem"
    path.write_bytes(b"# the mesh\n" + one.pem + b"\r\nNext:\n=====\n" + two.pem.replace(b"\n", b"\r\n"))
    assert len(read_bundle(path)) == 2


def broken_bundles(pem: bytes, leaf: bytes) -> dict[str, bytes]:
    lines = pem.splitlines(keepends=True)
    key = leaf[leaf.index(b"-----BEGIN PRIVATE") :]
    return {
        "empty": b"",
        "words": b"no certificate here\n",
        "a byte changed": pem + pem.replace(lines[3], b"!" + lines[3][1:]),
        "a line missing": pem + b"".join(lines[:3] + lines[4:]),
        "no begin": pem + b"".join(lines[1:]),
        "no end": pem + b"".join(lines[:-1]),
        "no end in between": b"".join(lines[:-1]) + pem,
        "neither": pem + b"".join(lines[1:-1]),
        "a dash short": pem + pem.replace(b"-----END", b"----END"),
        "another word": pem + pem.replace(b"CERTIFICATE", b"CERTIFICAT"),
        "trusted": pem + pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        "a key": pem + key,
        "a leaf": pem + leaf[: leaf.index(b"-----BEGIN PRIVATE")],
        "padding": pem + pem.replace(lines[-2], lines[-2].strip() + b"=====\n"),
        "der": base64.b64decode(b"".join(lines[1:-1])),
        "behind the end": pem.rstrip() + b" x\n",
        "large": pem + b"#" * (1 << 20),
    }


def test_a_bundle_with_anything_doubtful_is_refused(tmp_path):
    authority = Authority(tmp_path)
    path = tmp_path / "bundle.pem"
    tls = authority.tls(uri("hub-a"))
    leaf = (tmp_path / "mesh-1.pem").read_bytes()
    for what, content in broken_bundles(authority.pem, leaf).items():
        path.write_bytes(content)
        try:
            read_bundle(path)
        except OSError as exc:
            assert "ha.mesh.tls" in str(exc) and "bundle.pem" in str(exc) and "\n" not in str(exc), what
        else:
            pytest.fail(f"{what}: was taken")
    path.unlink()
    with pytest.raises(OSError, match="cannot be read"):
        read_bundle(path)
    section = type("Tls", (), {name: tmp_path / value for name, value in tls.items()})
    assert Certificates(section, "ncfast", "hub-a").server.verify_mode.name == "CERT_REQUIRED"
    with pytest.raises(OSError, match="does not name this replica"):
        Certificates(section, "ncfast", "hub-b")
    section.key_file = authority.issue(uri("hub-a"))
    with pytest.raises(OSError, match="belong together"):
        Certificates(section, "ncfast", "hub-a")
    section.cert_file = tmp_path / "nowhere.pem"
    with pytest.raises(OSError, match="nowhere.pem: cannot be read"):
        Certificates(section, "ncfast", "hub-a")
