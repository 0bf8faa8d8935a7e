"""What the kernel's struct tcp_info says of a session."""

from __future__ import annotations

import socket
import struct

import pytest

from kube_nginx_agent.net.sock_diag import DiagSocket
from kube_nginx_agent.sessions.table import session_of

_AGES, _BYTES, _SIZE = 44, 120, 232


def entry(
    ages: tuple[int, int, int, int] = (0, 0, 0, 0), *, acked: int = 0, received: int = 0
) -> DiagSocket:
    """Return a socket with ages (ms) of data sent, ack sent, data received, ack received."""
    info = bytearray(_SIZE)
    struct.pack_into("=4L", info, _AGES, *ages)
    struct.pack_into("=2Q2L", info, _BYTES, acked, received, 0, 7)
    attribute = struct.pack("=HH", 4 + _SIZE, 2) + bytes(info)
    return DiagSocket(socket.AF_INET, 1, bytes(48), 0, 1, 3, 5, 2, attribute)


@pytest.mark.parametrize(
    ("ages", "heard_ago"),
    [((0, 0, 200, 9000), 0.2), ((0, 0, 9000, 300), 0.3)],
    ids=["data", "acknowledgement"],
)
def test_data_and_acknowledgements_are_both_heard(
    ages: tuple[int, int, int, int], heard_ago: float
) -> None:
    assert session_of(entry(ages)).heard_ago == heard_ago


def test_counts_are_taken_as_they_are() -> None:
    session = session_of(entry((1500, 0, 0, 0)))

    assert (session.sent_ago, session.packets) == (1.5, 7)
    assert (session.unacknowledged, session.retransmits) == (5, 2)


@pytest.mark.parametrize(
    ("ages", "acked", "received", "is_waiting"),
    [
        ((500, 0, 900, 900), 100, 50, True),
        ((900, 0, 500, 500), 100, 50, False),
        ((500, 0, 400, 400), 100, 0, True),
        ((500, 0, 900, 900), 1, 0, False),
    ],
    ids=["asked since", "answered since", "never answered", "only its SYN was acknowledged"],
)
def test_session_waits_for_what_it_has_asked(
    ages: tuple[int, int, int, int], acked: int, received: int, is_waiting: bool
) -> None:
    assert session_of(entry(ages, acked=acked, received=received)).is_waiting is is_waiting


def test_what_the_kernel_leaves_out_is_held_against_nobody() -> None:
    found = session_of(DiagSocket(socket.AF_INET, 1, bytes(48), 0, 1, 0, 0, 0, b""))

    assert not found.is_waiting
    assert found.heard_ago == 0.0
