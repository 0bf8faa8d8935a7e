"""nginx's connections to the backends, as the kernel sees them: no /proc, no rights.

The table tells what no probe can: whether a session has an answer outstanding, and when the far
end was last heard of.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import AbstractSet, Iterable, Tuple

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.net.sock_diag import (
    CLOSE_WAIT,
    ESTABLISHED,
    FIN_WAIT1,
    SYN_SENT,
    DiagSocket,
    destroy,
    dump,
)

_STATES = (ESTABLISHED, SYN_SENT, FIN_WAIT1, CLOSE_WAIT)

# struct tcp_info of linux/tcp.h; all of it there since Linux 4.2.
_AGES = struct.Struct("=4L")  # tcpi_last_data_sent, _ack_sent, _data_recv, _ack_recv
_AGES_OFFSET = 44
_BYTES = struct.Struct("=2Q2L")  # tcpi_bytes_acked, _bytes_received, _segs_out, _segs_in
_BYTES_OFFSET = 120
_INFO_SIZE = _BYTES_OFFSET + _BYTES.size


@dataclass(frozen=True)
class Session:
    """One TCP connection of nginx to a backend; ages in seconds."""

    backend: SocketAddress
    local: SocketAddress
    inode: int
    family: int
    identity: bytes
    """The kernel's own name of the socket, with its cookie: never another's."""
    is_connecting: bool
    unacknowledged: int
    """Bytes that the backend's kernel has not acknowledged."""
    retransmits: int
    """How often in a row the oldest of them was sent again in vain."""
    packets: int
    """How many packets have come from the backend."""
    sent_ago: float
    """Since data was sent, also for the second time."""
    data_ago: float
    """Since data came from the backend; before the first, since it was connected."""
    heard_ago: float
    """Since data or an acknowledgement came from it: the younger of two ages of the kernel's, for
    tcpi_last_ack_recv need not count data that acknowledges nothing new, which takes the fast path
    of tcp_rcv_established(). What came for the second time ``Progress`` takes out."""
    has_asked: bool
    """Whether the backend's kernel has acknowledged any data of the client's."""
    has_answered: bool
    """Whether any data has come back at all."""
    counted: Tuple[int, int] = (0, 0)
    """Bytes that the backend's kernel has acknowledged, and bytes that have come from it."""

    @property
    def is_waiting(self) -> bool:
        """Whether something was sent, and nothing has come back since."""
        return self.has_asked and (not self.has_answered or self.sent_ago < self.data_ago)


def list_to(diag: socket.socket, backends: AbstractSet[SocketAddress]) -> list[DiagSocket]:
    """Return everybody's connections to ``backends``. Raise OSError.

    Each dump makes the kernel walk its whole table, so there are no more than it needs.
    """
    found = []
    for version, port in {(backend.ip.version, backend.port) for backend in backends}:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        entries = dump(diag, family, _STATES, remote_port=port, has_info=True)
        found += [entry for entry in entries if entry.remote in backends]
    return found


def list_all(diag: socket.socket) -> list[DiagSocket]:
    """Return everybody's connections to anybody, without their ages. Raise OSError."""
    families = (socket.AF_INET, socket.AF_INET6)
    return [entry for family in families for entry in dump(diag, family, _STATES)]


def session_of(entry: DiagSocket) -> Session:
    """Return what a socket of nginx to a backend tells."""
    info = entry.tcp_info
    if len(info) < _INFO_SIZE:
        info = bytes(_INFO_SIZE)  # the kernel has left it out: nothing can be held against it
    acked, received, _, packets = _BYTES.unpack_from(info, _BYTES_OFFSET)
    sent, _, data, acknowledged = _AGES.unpack_from(info, _AGES_OFFSET)
    return Session(
        backend=entry.remote,
        local=entry.local,
        inode=entry.inode,
        family=entry.family,
        identity=entry.identity,
        is_connecting=entry.state == SYN_SENT,
        unacknowledged=entry.sent,
        retransmits=entry.retransmits,
        packets=packets,
        sent_ago=sent / 1000,
        data_ago=data / 1000,
        heard_ago=min(data, acknowledged) / 1000,
        has_asked=acked > 1,  # the SYN counts for one
        has_answered=received > 0,
        counted=(acked, received),
    )


def destroy_all(diag: socket.socket, sessions: Iterable[Session | DiagSocket]) -> int:
    """End the sessions that are still there and return how many. Raise OSError."""
    count = 0
    for session in sessions:
        try:
            destroy(diag, session.family, session.identity)
        except FileNotFoundError:
            continue
        count += 1
    return count
