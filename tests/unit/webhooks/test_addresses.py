"""Which addresses may be reached, in every way that one can be written or hidden."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.webhooks.addresses import is_public

PRIVATE = [
    "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1",
    "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "2002:7f00:1::", "2002:a00:1::1",
    "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::1",
    "::ffff:0:169.254.169.254", "::ffff:0:1.1.1.1", "4000::1", "1fff::1", "64:ff9b:2::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_inside_is_not_public(address: str) -> None:
    """Private, loopback, link-local, multicast, unspecified, reserved, and any of these inside an IPv6 address."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1"]
)
def test_what_is_outside_is_public(address: str) -> None:
    """Also if a gateway translates it."""
    assert is_public(address)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "2130706433", "0x7f000001", "1.1.1.1/32", "\uff11.1.1.1"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    """Whatever a system would make of it."""
    assert not is_public(text)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_one_is_judged_as_by_itself(address: object) -> None:
    """However it is written."""
    assert is_public(f"::ffff:{address}") is is_public(str(address))
    assert is_public(f"64:ff9b::{address}") is is_public(str(address))
