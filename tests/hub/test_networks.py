"""Access lists, against Python's own idea of networks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast.hub.networks import Networks

near = st.integers(0, 2**10 - 1)  # few enough bits that addresses fall into networks
v4 = st.one_of(st.ip_addresses(v=4), near.map(lambda low: IPv4Address(0xC0000200 + low)))
v6 = st.one_of(st.ip_addresses(v=6), near.map(lambda low: IPv6Address((0x20010DB8 << 96) + low)))
network = st.one_of(
    st.tuples(v4, st.sampled_from([0, 8, 24, 28, 31, 32])), st.tuples(v6, st.sampled_from([0, 32, 64, 119, 127, 128]))
).map(lambda drawn: ip_network(drawn, strict=False))


@given(st.lists(network, max_size=8), v4 | v6)
def test_an_address_is_in_one_of_them_or_in_none(networks, address):
    counted = getattr(address, "ipv4_mapped", None) or address
    assert (str(address) in Networks(networks)) == any(counted in one for one in networks)


def test_ipv4_in_ipv6_clothes_and_zones():
    networks = Networks([ip_network("192.0.2.0/24"), ip_network("fe80::/10")])
    assert "192.0.2.7" in networks and "::ffff:192.0.2.7" in networks and "fe80::1%eth0" in networks
    assert "::ffff:192.0.3.7" not in networks
    assert "::ffff:192.0.2.7" not in Networks([IPv6Network("::ffff:0:0/96")])


@pytest.mark.parametrize("host", ["", "ldap.example", "192.0.2", "fe80::1::2"])
def test_what_is_no_address_is_an_error(host):
    with pytest.raises(OSError):
        assert host in Networks([])
