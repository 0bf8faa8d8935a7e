"""The base probe: does the port accept a connection?"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import Callable

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.observation import Layer, Observation, Result

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s (socket(7)): the close is a RST, which leaves no TIME_WAIT behind."""

_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_NO_ROOM = {errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def probe_tcp(address: SocketAddress, timeout: float) -> Observation:
    """Connect and let go; ``timeout`` is in seconds."""
    began = time.monotonic()
    try:
        with connect(address, timeout):
            rtt = time.monotonic() - began
    except OSError as error:
        return Observation(Layer.TCP, result_of(error), words_of(error))
    return Observation(Layer.TCP, Result.OK, rtt=rtt)


def connect(
    address: SocketAddress,
    timeout: float,
    hold: Callable[[socket.socket], None] = lambda _: None,
) -> socket.socket:
    """Return a connection whose close is a RST; raise OSError: ``result_of`` tells its class.

    ``hold`` gets the socket before it connects: who shuts that down ends the wait.
    """
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(timeout)
        hold(connection)
        connection.connect((str(address.ip), address.port))
    except BaseException:
        connection.close()
        raise
    return connection


def result_of(error: OSError) -> Result:
    """Return the class of what kept a connection from being made."""
    if isinstance(error, ConnectionRefusedError):
        return Result.REFUSED
    if isinstance(error, (socket.timeout, TimeoutError)):
        return Result.TIMEOUT
    if error.errno in _UNREACHABLE:
        return Result.UNREACHABLE
    return Result.NO_ROOM if error.errno in _NO_ROOM else Result.CLOSED


def words_of(error: OSError) -> str:
    """Return the system's words."""
    return os.strerror(error.errno) if error.errno else str(error)
