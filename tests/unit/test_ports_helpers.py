"""Addresses as the kernel prints them, and holders as people know them."""

from __future__ import annotations

import errno
import sys

import pytest

from kube_nginx_agent.nginx import ports
from kube_nginx_agent.nginx.ports import AddressHeldError, Holder
from unit.making import address


@pytest.mark.parametrize(
    ("digits", "text"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("8D96A8C0", "192.168.150.141"),
        ("00000000000000000000000001000000", "::1"),
        ("B80D0120000000000000000001000000", "2001:db8::1"),
    ],
)
def test_address_of_proc_is_read_on_a_little_endian_machine(
    monkeypatch: pytest.MonkeyPatch, digits: str, text: str
) -> None:
    monkeypatch.setattr(sys, "byteorder", "little")

    assert str(ports._address(digits)) == text


@pytest.mark.parametrize(
    ("digits", "text"), [("7F000001", "127.0.0.1"), ("20010DB8" + "0" * 23 + "1", "2001:db8::1")]
)
def test_address_of_proc_is_read_on_a_big_endian_machine(
    monkeypatch: pytest.MonkeyPatch, digits: str, text: str
) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")

    assert str(ports._address(digits)) == text


def test_holder_is_named_with_pid_and_user() -> None:
    error = AddressHeldError(
        address("127.0.0.1:8443"), errno.EADDRINUSE, Holder("www-data", 812, "haproxy")
    )

    assert str(error) == (
        "127.0.0.1:8443: it is held by haproxy (pid 812, user www-data); "
        "end that process or change listen"
    )


def test_holder_that_may_not_be_known_is_named_by_its_user_with_a_way_to_find_it() -> None:
    error = AddressHeldError(address("[::1]:8443"), errno.EADDRINUSE, Holder("root", None, ""))

    assert str(error) == (
        "[::1]:8443: it is held by a process of user root; "
        "`ss -ltnp 'sport = :8443'` as root names it; end it or change listen"
    )


def test_address_without_a_holder_has_the_reason() -> None:
    error = AddressHeldError(address("10.0.0.1:8443"), errno.EADDRNOTAVAIL, None)

    assert error.what == "it can't be listened on: Cannot assign requested address"
    assert "net.ipv4.ip_nonlocal_bind=1" in error.hint


def test_privileged_port_is_told_with_the_sysctl_that_frees_it() -> None:
    error = AddressHeldError(address("127.0.0.1:443"), errno.EACCES, None)

    assert "net.ipv4.ip_unprivileged_port_start to 443" in error.hint


def test_user_without_a_name_is_a_number() -> None:
    assert ports._user_name(4_000_000_000) == "4000000000"
