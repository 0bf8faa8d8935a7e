"""The kernel's table of TCP sockets, asked and changed over netlink (sock_diag(7)).

A dump costs nothing on the network and needs no rights. Numbers and layouts are those of
linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h and linux/tcp.h.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Iterable, Iterator

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.net.netlink import aligned, message, messages

ESTABLISHED, SYN_SENT, FIN_WAIT1, CLOSE_WAIT, LISTEN = 1, 2, 4, 8, 10  # net/tcp_states.h

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_INFO, _INET_DIAG_CGROUP_ID = 2, 21

_REQUEST = struct.Struct("=BBBxL48s")  # struct inet_diag_req_v2
_MESSAGE = struct.Struct("=BBBB48s5L")  # struct inet_diag_msg
_SOCKET_ID = struct.Struct("!HH16s16s4s8s")  # struct inet_diag_sockid
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_CGROUP = struct.Struct("=Q")
_BUFFER = 256 * 1024
_TIMEOUT = 1.0
"""Seconds; a dump of 100,000 sockets takes 0.2 s."""


@dataclass(frozen=True)
class DiagSocket:
    """One entry of the table."""

    family: int
    state: int
    identity: bytes
    """The kernel's own name of the socket, with its cookie: never another's."""
    uid: int
    inode: int
    """Which /proc/PID/fd names; 0 once no process has it open."""
    received: int
    """Bytes that wait to be read; of a listener, connections that wait to be accepted."""
    sent: int
    """Bytes not acknowledged yet; of a listener, how many connections may wait."""
    retransmits: int
    """How often in a row the kernel's timer has sent again in vain."""
    attributes: bytes

    @property
    def local(self) -> SocketAddress:
        """Return this end."""
        port, _, raw, *_ = _SOCKET_ID.unpack(self.identity)
        return _address(self.family, raw, port)

    @property
    def remote(self) -> SocketAddress:
        """Return the far end."""
        _, port, _, raw, *_ = _SOCKET_ID.unpack(self.identity)
        return _address(self.family, raw, port)

    @property
    def tcp_info(self) -> bytes:
        """Return struct tcp_info; empty where the kernel left it out."""
        return _find(self.attributes, _INET_DIAG_INFO)

    @property
    def cgroup(self) -> int:
        """Return the id of the cgroup (v2) that it was made in, 0 where that is not told."""
        value = _find(self.attributes, _INET_DIAG_CGROUP_ID)
        found: int = _CGROUP.unpack_from(value)[0] if len(value) >= _CGROUP.size else 0
        return found


def diag_socket() -> socket.socket:
    """Return a socket for questions to sock_diag. Raise OSError."""
    diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    diag.settimeout(_TIMEOUT)
    return diag


def dump(  # noqa: PLR0913 - the fields of a request
    diag: socket.socket,
    family: int,
    states: Iterable[int],
    *,
    local_port: int = 0,
    remote_port: int = 0,
    has_info: bool = False,
) -> Iterator[DiagSocket]:
    """Yield the TCP sockets in these states, with these ports (0: any). Raise OSError.

    The kernel walks its whole table for it, whatever is asked for.
    """
    identity = _SOCKET_ID.pack(local_port, remote_port, b"", b"", b"", b"\xff" * 8)
    extension = 1 << (_INET_DIAG_INFO - 1) if has_info else 0
    mask = sum(1 << state for state in states)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, extension, mask, identity)
    diag.send(message(_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, request))
    while True:
        for kind, payload in messages(diag.recv(_BUFFER)):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                _raise(payload)
            yield _read(payload)


def destroy(diag: socket.socket, family: int, identity: bytes) -> None:
    """Have the kernel end the connection at our side; raise OSError (EPERM, ENOENT, EOPNOTSUPP)."""
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, identity)
    diag.send(message(_SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, request))
    for _, payload in messages(diag.recv(_BUFFER)):
        _raise(payload)


def _raise(payload: bytes) -> None:
    """Raise the error that an NLMSG_ERROR carries; 0 is an acknowledgement."""
    code: int = struct.unpack_from("=i", payload)[0]
    if code:
        raise OSError(-code, os.strerror(-code))


def _read(payload: bytes) -> DiagSocket:
    family, state, _, retransmits, identity, _, received, sent, uid, inode = _MESSAGE.unpack_from(
        payload
    )
    attributes = payload[_MESSAGE.size :]
    return DiagSocket(family, state, identity, uid, inode, received, sent, retransmits, attributes)


def _find(attributes: bytes, wanted: int) -> bytes:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if kind == wanted:
            return attributes[offset + _ATTRIBUTE.size : offset + length]
        offset += max(aligned(length), _ATTRIBUTE.size)
    return b""


@lru_cache(maxsize=8192)  # an address object costs more than all the rest of an entry
def _address(family: int, raw: bytes, port: int) -> SocketAddress:
    ip = ipaddress.ip_address(raw if family == socket.AF_INET6 else raw[:4])
    return SocketAddress(ip, port)
