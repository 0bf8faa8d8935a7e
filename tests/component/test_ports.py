"""A port that nginx could not have is found before the reload, with whoever has it."""

from __future__ import annotations

import os
import pwd
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Callable

import psutil
import pytest

from component.conftest import FreePort
from component.rig import Rig, as_model, holder
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.nginx import ports
from kube_nginx_agent.nginx.ports import (
    AddressHeldError,
    OwnAddressError,
    check_free,
    check_listen,
    find_holder,
)
from support.address import Address

ME = (pwd.getpwuid(os.geteuid()).pw_name, os.getpid(), psutil.Process().name())

needs_ipv6 = pytest.mark.skipif(
    not Path("/proc/net/if_inet6").exists() or "lo" not in Path("/proc/net/if_inet6").read_text(),
    reason="this machine has no IPv6 loopback",
)


@pytest.fixture(params=["sock_diag", "proc"])
def address(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, free_port: FreePort
) -> Address:
    """An address, where its holder is told in one of two ways: some kernels have only proc(5)."""
    if request.param == "proc":

        def refused(*_: object) -> None:
            raise PermissionError("no netlink here")

        monkeypatch.setattr(ports, "diag_socket", refused)
    return Address("127.0.0.1", free_port())


def refusal(address: Address) -> AddressHeldError:
    with pytest.raises(AddressHeldError) as caught:
        check_free(as_model(address))
    return caught.value


def whom(address: Address) -> tuple[str, int | None, str] | None:
    _, found = find_holder(as_model(address))
    return (found.user, found.pid, found.name) if found else None


def test_free_address_passes(address: Address) -> None:
    check_free(as_model(address))


def test_check_leaves_the_address_free(address: Address) -> None:
    check_free(as_model(address))

    with holder(address):
        pass


def test_held_address_is_refused_with_its_holder(address: Address) -> None:
    user, pid, name = ME
    with holder(address):
        error = refusal(address)

    assert (error.where, error.what) == (
        str(address),
        f"it is held by {name} (pid {pid}, user {user})",
    )


def test_holder_of_all_addresses_holds_this_one_too(address: Address) -> None:
    with holder(Address("0.0.0.0", address.port)):
        assert whom(address) == ME


def test_all_addresses_are_held_by_the_holder_of_one(address: Address) -> None:
    with holder(address):
        error = refusal(Address("0.0.0.0", address.port))

    assert f"(pid {os.getpid()}, " in error.what


def test_nobody_is_blamed_for_a_free_address(address: Address) -> None:
    assert whom(address) is None


def test_holder_of_another_port_is_not_blamed(free_port: FreePort, address: Address) -> None:
    with holder(Address("127.0.0.1", free_port())):
        assert whom(address) is None


def test_connection_at_a_port_is_not_its_holder(address: Address) -> None:
    with holder(address) as listening:
        client = socket.create_connection(address)
        server, _ = listening.accept()
    with client, server:
        assert whom(address) is None


@needs_ipv6
def test_ipv6_address_is_refused_with_its_holder(address: Address) -> None:
    with holder(Address("::1", address.port)):
        error = refusal(Address("::1", address.port))

    assert error.where == f"[::1]:{address.port}"
    assert f"(pid {os.getpid()}, " in error.what


@needs_ipv6
def test_holder_of_ipv4_does_not_hold_ipv6(address: Address) -> None:
    with holder(Address("0.0.0.0", address.port)):
        assert whom(Address("::1", address.port)) is None


@needs_ipv6
def test_holder_of_all_ipv6_addresses_holds_ipv4_too(address: Address) -> None:
    with holder(Address("::", address.port)):
        assert whom(address) == ME


def test_address_of_another_host_is_refused() -> None:
    error = refusal(Address("192.0.2.1", 8443))

    assert error.what == "it can't be listened on: Cannot assign requested address"
    assert error.holder is None


def test_address_that_nobody_holds_is_no_reason_to_end_a_process() -> None:
    assert "end" not in refusal(Address("192.0.2.1", 8443)).hint


def test_nginx_may_keep_its_own_address(rig: Rig) -> None:
    rig.apply(rig.goal())

    check_listen([as_model(rig.listen)], rig.master())


def test_address_of_another_nginx_is_refused(rig: Rig) -> None:
    rig.apply(rig.goal())

    with pytest.raises(AddressHeldError, match=rf"nginx \(pid {rig.master().pid}, "):
        check_listen([as_model(rig.listen)], None)


@pytest.mark.parametrize(("now", "then"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_nginx_is_not_sent_from_one_address_to_all_of_its_port(
    rig: Rig, free_port: FreePort, now: str, then: str
) -> None:
    port = free_port()
    rig.apply(rig.goal(listen=Address(now, port)))

    with pytest.raises(OwnAddressError, match=f"nginx itself listens on {now}:{port}"):
        check_listen([SocketAddress(ip_address(then), port)], rig.master())


def as_nobody(question: Callable[[], str]) -> str:
    """Return the answer that a process without rights comes to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(pwd.getpwnam("nobody").pw_uid)
        os.write(writer, question().encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as answer:
        return answer.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: run as root")
def test_holder_of_another_user_is_told_by_that_user(address: Address) -> None:
    with holder(address) as listening:

        def check() -> str:
            listening.close()  # the fork's own
            try:
                check_free(as_model(address))
            except AddressHeldError as error:
                return str(error)
            return ""

        error = as_nobody(check)

    assert "it is held by a process of user root" in error
    assert f"`ss -ltnp 'sport = :{address.port}'` as root names it" in error
