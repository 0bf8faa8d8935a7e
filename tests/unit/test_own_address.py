"""Whether an address is the node's, as the kernel sees it."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import pytest

from kube_nginx_agent.net.own_address import is_own_address


@pytest.mark.parametrize(
    ("address", "is_own"), [("127.0.0.1", True), ("127.9.9.9", True), ("192.0.2.1", False)]
)
def test_kernel_knows_its_addresses(address: str, is_own: bool) -> None:
    assert is_own_address(ip_address(address)) is is_own


def test_what_can_not_be_told_counts_as_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", refuse)

    assert is_own_address(ip_address("192.0.2.1"))
