"""Addresses as text and back."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.config.addresses import is_one_host, parse_address, parse_target, unmapped
from kube_nginx_agent.model import HostName, SocketAddress, Target
from unit.making import address

PORTS = st.integers(1, 65535)
HOSTS = st.ip_addresses().map(unmapped).filter(is_one_host)
LABELS = st.from_regex("[a-z]([a-z0-9-]{0,10}[a-z])?", fullmatch=True)


@given(HOSTS, PORTS)
def test_printed_address_is_read_as_itself(ip: IPv4Address | IPv6Address, port: int) -> None:
    target = SocketAddress(ip, port)

    assert parse_target(str(target)) == target
    assert parse_address(str(target)) == target


@given(st.lists(LABELS, min_size=1, max_size=5).map(".".join), PORTS)
def test_printed_name_is_read_as_itself(name: str, port: int) -> None:
    target = HostName(name, port)

    assert parse_target(str(target)) == target


@pytest.mark.parametrize("parse", [parse_target, parse_address])
@given(text=st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(parse: Callable[[str], Target], text: str) -> None:
    with suppress(ValueError):
        assert 1 <= parse(text).port <= 65535


def test_wildcard_can_be_listened_on() -> None:
    assert parse_address("[::]:8443") == address("[::]:8443")


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1"])
def test_address_of_no_certain_host_is_told_apart(text: str) -> None:
    assert not is_one_host(ip_address(text))


@pytest.mark.parametrize("text", ["10.0.0.1", "169.254.1.1", "127.0.0.1", "::1", "2001:db8::1"])
def test_address_of_one_host_is_known(text: str) -> None:
    assert is_one_host(ip_address(text))


def test_ipv4_mapped_address_is_unmapped() -> None:
    assert unmapped(ip_address("::ffff:10.0.0.1")) == ip_address("10.0.0.1")
