"""PROXY protocol: a result, an error of ours, or patience; the same whole, byte by byte, and built again."""

import sys

import atheris

with atheris.instrument_imports():
    from ncfast.net.proxyproto import V1_MAX, V2_MAX, V2_SIGNATURE, Parser, ProxyProtocolError, build

STARTS = [b"", b"PROXY ", b"PROXY TCP4 192.0.2.1 ", V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11"]


def outcome(pieces):
    parser, fed = Parser("any"), 0
    try:
        for piece in pieces:
            fed += len(piece)
            if (result := parser.feed(piece)) is not None:
                return result.source, result.destination, fed - len(result.rest)
    except ProxyProtocolError:
        return "refused"
    assert fed < max(V1_MAX, V2_MAX), "waits for ever"
    return "more"


def one_input(data: bytes) -> None:
    source = atheris.FuzzedDataProvider(data)
    stream = source.PickValueInList(STARTS) + source.ConsumeBytes(sys.maxsize)
    whole = outcome([stream])
    assert outcome(stream[at : at + 1] for at in range(len(stream))) == whole
    if whole not in ("refused", "more") and whole[0] is not None:
        for version in ("v1", "v2"):
            assert outcome([build(version, whole[0], whole[1])])[:2] == whole[:2]


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
