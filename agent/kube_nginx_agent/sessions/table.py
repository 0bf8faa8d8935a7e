"""nginx's connections to the backends, as the kernel sees them (sock_diag(7)): no /proc, no rights.

A dump costs nothing on the network, and tells what no probe can: whether a session has an answer
outstanding, and when the far end was last heard of.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from typing import AbstractSet, Iterable, Iterator

from kube_nginx_agent.model import SocketAddress

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
SOCK_DESTROY = 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300  # linux/netlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_INFO = 2  # linux/inet_diag.h
_ESTABLISHED, _SYN_SENT, _FIN_WAIT1, _CLOSE_WAIT = 1, 2, 4, 8  # net/tcp_states.h
_STATES = 1 << _ESTABLISHED | 1 << _SYN_SENT | 1 << _FIN_WAIT1 | 1 << _CLOSE_WAIT

_HEADER = struct.Struct("=LHHLL")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxL48s")  # struct inet_diag_req_v2
_MESSAGE = struct.Struct("=BBBB48s5L")  # struct inet_diag_msg
_SOCKET_ID = struct.Struct("!HH16s16s4s8s")  # struct inet_diag_sockid
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_AGES = struct.Struct("=4L")  # struct tcp_info from tcpi_last_data_sent on
_AGES_OFFSET = 44
_BYTES = struct.Struct("=2Q")  # tcpi_bytes_acked, tcpi_bytes_received
_BYTES_OFFSET = 120
_INFO_SIZE = _BYTES_OFFSET + _BYTES.size
_BUFFER = 256 * 1024


@dataclass(frozen=True)
class Session:
    """One TCP connection of nginx to a backend; ages in seconds."""

    backend: SocketAddress
    inode: int
    family: int
    identity: bytes
    """The kernel's own name of the socket, with its cookie: never another's."""
    is_connecting: bool
    sent_ago: float
    data_ago: float
    """Since data came from the backend."""
    heard_ago: float
    """Since any packet came from it."""
    has_asked: bool
    """Whether the backend's kernel has acknowledged any data of the client's."""
    has_answered: bool
    """Whether any data has come back at all."""

    @property
    def is_waiting(self) -> bool:
        """Whether something was sent, and nothing has come back since."""
        return self.has_asked and (not self.has_answered or self.sent_ago < self.data_ago)


def list_sessions(
    diag: socket.socket, backends: AbstractSet[SocketAddress], uid: int
) -> list[Session]:
    """Return the connections of user ``uid`` to ``backends``. Raise OSError.

    Each dump makes the kernel walk its whole table, so there are no more than it needs.
    """
    found = []
    for version, port in {(backend.ip.version, backend.port) for backend in backends}:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        found += [
            session
            for owner, session in _dump(diag, family, port)
            if owner == uid and session.backend in backends
        ]
    return found


def has_sent(sessions: Iterable[Session], backend: SocketAddress, within: float) -> bool:
    """Tell whether data has come from the backend in the last ``within`` seconds."""
    return any(s.backend == backend and s.has_answered and s.data_ago < within for s in sessions)


def diag_socket() -> socket.socket:
    """Return a socket for questions to sock_diag."""
    diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    diag.settimeout(1.0)
    return diag


def destroy(diag: socket.socket, session: Session) -> None:
    """Have the kernel end the connection at our side; raise OSError (EPERM, ENOENT, EOPNOTSUPP)."""
    request = _REQUEST.pack(session.family, socket.IPPROTO_TCP, 0, 0, session.identity)
    diag.send(_message(SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, request))
    answer = diag.recv(_BUFFER)
    code: int = struct.unpack_from("=i", answer, _HEADER.size)[0]
    if code:
        raise OSError(-code, os.strerror(-code))


def destroy_all(diag: socket.socket, sessions: Iterable[Session]) -> int:
    """End the sessions that are still there and return how many. Raise OSError."""
    count = 0
    for session in sessions:
        try:
            destroy(diag, session)
        except FileNotFoundError:
            continue
        count += 1
    return count


def _dump(diag: socket.socket, family: int, port: int) -> Iterator[tuple[int, Session]]:
    """Yield (uid, session) for each TCP socket with that remote port."""
    identity = _SOCKET_ID.pack(0, port, b"", b"", b"", b"\xff" * 8)
    extension = 1 << (_INET_DIAG_INFO - 1)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, extension, _STATES, identity)
    diag.send(_message(SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, request))
    while True:
        data = diag.recv(_BUFFER)
        for kind, payload in _split(data):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                raise OSError(code, os.strerror(code))
            yield _read(payload)


def _message(kind: int, flags: int, payload: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, 1, 0) + payload


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def _read(payload: bytes) -> tuple[int, Session]:
    fields = _MESSAGE.unpack_from(payload)
    family, state, identity, uid, inode = fields[0], fields[1], fields[4], fields[8], fields[9]
    _, port, _, address, *_ = _SOCKET_ID.unpack(identity)
    raw = address if family == socket.AF_INET6 else address[:4]
    info = _tcp_info(payload)
    acked, received = _BYTES.unpack_from(info, _BYTES_OFFSET)
    sent, _, data, heard = _AGES.unpack_from(info, _AGES_OFFSET)
    session = Session(
        backend=SocketAddress(ipaddress.ip_address(raw), port),
        inode=inode,
        family=family,
        identity=identity,
        is_connecting=state == _SYN_SENT,
        sent_ago=sent / 1000,
        data_ago=data / 1000,
        heard_ago=heard / 1000,
        has_asked=acked > 1,  # the SYN counts for one
        has_answered=received > 0,
    )
    return uid, session


def _tcp_info(payload: bytes) -> bytes:
    """Return the socket's struct tcp_info (linux/tcp.h); zeros where the kernel left it out."""
    offset = _MESSAGE.size
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        start = offset + _ATTRIBUTE.size
        if kind == _INET_DIAG_INFO and length >= _ATTRIBUTE.size + _INFO_SIZE:
            return payload[start : start + _INFO_SIZE]
        offset += max(_aligned(length), _ATTRIBUTE.size)
    return bytes(_INFO_SIZE)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
