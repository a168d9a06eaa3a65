"""Outbound HTTP proxy: the choice from the environment, the URL, the CONNECT request, the reply."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast.net.httpproxy import (
    REPLY_MAX,
    ConnectReply,
    Proxy,
    ProxyRefused,
    ProxyReplyError,
    ProxySettingError,
    choose,
    connect_request,
    parse,
    spares,
)

WS, WSS = "ws://hub.example.net/tunnel", "wss://hub.example.net:8443/tunnel"


@pytest.fixture
def environment(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            monkeypatch.delenv(name)

    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("variables", "url", "host"),
    [
        ({}, WSS, None),
        ({"https_proxy": "http://p:3128"}, WSS, "p"),
        ({"HTTPS_PROXY": "http://p:3128"}, WSS, "p"),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, WSS, "low"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://up:1"}, WSS, None),
        ({"https_proxy": "http://p:3128"}, WS, None),
        ({"http_proxy": "http://p:3128"}, WS, "p"),
        ({"http_proxy": "http://p:3128"}, WSS, None),
        ({"all_proxy": "http://p:3128"}, WSS, "p"),
        ({"all_proxy": "http://a:1", "wss_proxy": "http://wss:1", "https_proxy": "http://s:1"}, WSS, "wss"),
        ({"http_proxy": "p:3128"}, WS, "p"),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, WSS, None),
        ({"https_proxy": "http://p:1", "no_proxy": "a.test, .example.net"}, WSS, None),
        ({"https_proxy": "http://p:1", "no_proxy": "hub.example.net"}, WSS, None),
        ({"https_proxy": "http://p:1", "no_proxy": "hub.example.net:8443"}, WSS, None),
        ({"https_proxy": "http://p:1", "no_proxy": "hub.example.net:1"}, WSS, "p"),
        ({"https_proxy": "http://p:1", "no_proxy": "example.ne"}, WSS, "p"),
        ({"http_proxy": "http://p:1", "no_proxy": "::1"}, "ws://[::1]:8080/tunnel", None),
        ({"HTTP_PROXY": "http://p:1"}, WS, "p"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, WS, None),
    ],
)
def test_chooses_from_the_environment(environment, variables, url, host):
    environment(**variables)
    chosen = choose(url, "env")
    assert (chosen and chosen.host) == host


@pytest.mark.parametrize(
    ("entry", "at", "spared"),
    [  # (what stands in no_proxy, the hub's authority, whether it is dialled directly)
        ("*.example.net", "hub.example.net", True),
        ("*.example.net", "a.hub.example.net:8443", True),
        ("*.example.net", "example.net", False),
        ("*.example.net", "hubexample.net", False),
        ("*.EXAMPLE.net", "Hub.Example.NET", True),
        ("example.net", "example.net", True),
        (".example.net", "example.net", True),  # as curl has it
        ("example.net", "hub.example.net.", True),
        ("example.net.", "hub.example.net", True),
        ("hub*", "hub.example.net", False),
        ("*example.net", "hub.example.net", False),
        ("a.test b.test", "b.test", True),  # blanks part, too
        ("*.example.net:8443", "hub.example.net:8443", True),
        ("*.example.net:8443", "hub.example.net", False),
        (".", "hub.example.net", False),
        ("", "hub.example.net", False),
        ("10.0.0.0/8", "10.1.2.3:8080", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8:8080", "10.1.2.3:8080", True),
        ("10.0.0.0/8:8080", "10.1.2.3", False),
        ("10.1.2.3/8", "10.200.0.1", True),  # bits of a host are no harm
        ("10.0.0.0/33", "10.1.2.3", False),
        ("10.0.0.0/8", "ten.example.net", False),  # names are not looked up
        ("10.1.2.3", "10.1.2.3:8080", True),
        ("10.1.2.3:8080", "10.1.2.3:8080", True),
        ("10.1.2.3:8081", "10.1.2.3:8080", False),
        ("1.2.3", "10.1.2.3", False),
        ("2.3", "10.1.2.3", False),  # no domain
        ("2001:db8::/32", "[2001:db8::7]:8080", True),
        ("2001:db8::/32", "[2001:db9::7]:8080", False),
        ("2001:DB8:0::7", "[2001:db8::7]:8080", True),
        ("[2001:db8::7]", "[2001:db8::7]:8080", True),
        ("[2001:db8::7]:8080", "[2001:db8::7]:8080", True),
        ("[2001:db8::7]:1", "[2001:db8::7]:8080", False),
    ],
)
def test_no_proxy_as_curl_and_go_read_it(environment, entry, at, spared):
    environment(https_proxy="http://p:1", no_proxy=f"other.test, {entry}")
    assert (choose(f"wss://{at}/tunnel", "env") is None) == spared


def test_the_port_of_no_proxy_may_be_the_schemes_own(environment):
    environment(all_proxy="http://p:1", no_proxy="hub.example.net:443")
    assert choose("wss://hub.example.net/tunnel", "env") is None
    assert choose("ws://hub.example.net/tunnel", "env") is not None


@given(st.text(), st.sampled_from(["hub.example.net", "10.1.2.3", "[2001:db8::7]"]))
def test_no_text_in_no_proxy_is_an_error(text, host):
    assert spares(text, host.strip("[]"), 443) in (True, False)


def test_setting_overrides_the_environment(environment):
    environment(https_proxy="http://p:1", no_proxy="*")
    assert choose(WSS, "off") is None
    assert choose(WSS, "http://q:2") == Proxy("q", 2, tls=False)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy", Proxy("proxy", 80, tls=False)),
        ("https://proxy/", Proxy("proxy", 443, tls=True)),
        ("proxy:3128", Proxy("proxy", 3128, tls=False)),
        ("http://[2001:db8::1]:3128", Proxy("2001:db8::1", 3128, tls=False)),
        ("http://us%40er:p%3Aw@proxy:1", Proxy("proxy", 1, tls=False, credentials=("us@er", "p:w"))),
        ("http://user@proxy:1", Proxy("proxy", 1, tls=False, credentials=("user", ""))),
    ],
)
def test_reads_a_proxy_url(url, proxy):
    assert parse(url) == proxy


@pytest.mark.parametrize(
    "url",
    [
        "",
        "socks5://u:canary@p:1",
        "ftp://u:canary@p",
        "http://u:canary@",
        "http://u:canary@p:99999",
        "http://u:canary@p/x",
        "http://u:canary@p?q",
        "http://u:canary@p a:1",
        "http://u:canary@[p:1",
    ],
)
def test_refuses_a_proxy_url_without_showing_its_credentials(url):
    with pytest.raises(ProxySettingError) as caught:
        parse(url)
    assert "canary" not in str(caught.value)


def test_credentials_are_not_in_the_repr():
    assert "canary" not in repr(parse("http://user:canary@p"))


def test_connect_request():
    head = connect_request("hub.example.net", 443, ("user", "pässword")).decode().split("\r\n")
    assert head[:2] == ["CONNECT hub.example.net:443 HTTP/1.1", "Host: hub.example.net:443"]
    assert "Proxy-Authorization: Basic dXNlcjpww6Rzc3dvcmQ=" in head
    assert head[-2:] == ["", ""]
    assert connect_request("::1", 8080).startswith(b"CONNECT [::1]:8080 HTTP/1.1\r\nHost: [::1]:8080\r\n")
    assert b"Proxy-Authorization" not in connect_request("h", 1)


@pytest.mark.parametrize("host", ["a b", "a\r\nX: 1", "", "u@h"])
def test_connect_request_refuses_a_host_that_is_none(host):
    with pytest.raises(ValueError, match="host"):
        connect_request(host, 1)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_reply_opens_the_tunnel_however_it_is_cut(head):
    assert ConnectReply().feed(head + b"next") == b"next"
    reply = ConnectReply()
    assert {reply.feed(head[i : i + 1]) for i in range(len(head) - 1)} == {None}
    assert reply.feed(head[-1:]) == b""


@pytest.mark.parametrize("status", [100, 301, 403, 407, 502])
def test_refusal_carries_its_status(status):
    with pytest.raises(ProxyRefused) as caught:
        ConnectReply().feed(b"HTTP/1.1 %d canary\r\n\r\n" % status)
    assert caught.value.status == status
    assert str(status) in str(caught.value) and "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/1.1 2000\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 a\nb\r\n\r\n",
        b"x" * REPLY_MAX,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * REPLY_MAX + b"\r\n\r\n",
    ],
)
def test_refuses_what_is_no_reply(head):
    with pytest.raises(ProxyReplyError):
        ConnectReply().feed(head)


@given(st.lists(st.binary(max_size=64)))
def test_random_bytes_never_crash(chunks):
    reply = ConnectReply()
    try:
        for chunk in chunks:
            if reply.feed(chunk) is not None:
                break
    except (ProxyReplyError, ProxyRefused):
        pass
