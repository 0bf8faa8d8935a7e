"""nginx's sockets to backends, told from those to clients when nobody knows the list."""

from __future__ import annotations

import socket

import pytest

from kube_nginx_agent.net.sock_diag import _SOCKET_ID, DiagSocket
from kube_nginx_agent.sessions.session_watch import is_upstream
from unit.making import address


def entry(local: str, remote: str) -> DiagSocket:
    here, there = address(local), address(remote)
    identity = _SOCKET_ID.pack(here.port, there.port, here.ip.packed, there.ip.packed, b"", b"")
    return DiagSocket(socket.AF_INET, 1, identity, 0, 1, 0, 0, 0, b"")


@pytest.mark.parametrize(
    ("local", "remote", "is_it"),
    [
        ("192.0.2.1:45000", "192.0.2.99:6443", True),
        ("127.0.0.1:8443", "127.0.0.1:50000", False),
        # A client that is served on, after `listen` was changed.
        ("127.0.0.1:9443", "127.0.0.1:50000", False),
        # And one that has chosen its own port.
        ("127.0.0.1:8443", "127.0.0.1:7000", False),
        ("127.0.0.1:9443", "127.0.0.1:7000", False),
        # On a listen address with a port that the kernel might have chosen.
        ("127.0.0.1:38443", "127.0.0.1:7000", False),
    ],
)
def test_only_connections_to_backends_are_upstream(local: str, remote: str, is_it: bool) -> None:
    found = entry(local, remote)

    assert (str(found.local), str(found.remote)) == (local, remote)
    assert is_upstream(found, {8443, 38443}, 32768) is is_it
