"""A connection of our own through the listen address: does the data path lead anywhere?

nginx proves that it serves a config; the canary proves that the config serves clients. It can only
blame nginx where an apiserver answers when asked directly, so it asks directly before it does.
"""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Iterable

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.net.tcp import connect
from kube_nginx_agent.net.tls import begin_tls, trust_anybody
from kube_nginx_agent.nginx import limits

_TIMEOUT = 1.0  # seconds for one connection and TLS handshake
_TRIES = 3
_EARLY_ENDS = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # which one depends on OpenSSL's version


class Reach(Enum):
    """How far a connection came."""

    REFUSED = "nobody accepts connections"
    CLOSED = "the connection is accepted and closed"
    SILENT = "the connection is accepted, but nothing answers"
    ANSWERED = "an apiserver answers"


def reach(
    address: SocketAddress, timeout: float = _TIMEOUT, server_name: str | None = None
) -> Reach:
    """Connect and begin TLS; any byte from the far end is an answer, trusted or not."""
    deadline = time.monotonic() + timeout
    try:
        plain = connect(address, timeout)
    except OSError:
        return Reach.REFUSED
    with begin_tls(plain, trust_anybody(), server_name) as connection:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            connection.do_handshake()
        except socket.timeout:
            return Reach.SILENT
        except ssl.SSLError as error:
            # An early end is reported as an SSL error too; any other means that bytes came.
            return Reach.CLOSED if isinstance(error, _EARLY_ENDS) else Reach.ANSWERED
        except OSError:
            return Reach.CLOSED
    return Reach.ANSWERED


def find_fault(
    listen: Iterable[SocketAddress],
    servers: Iterable[SocketAddress],
    server_name: str | None = None,
) -> str:
    """Return what is wrong with nginx's data path, or "" when nothing is, or nothing is provable.

    ``servers`` are those that take new connections and may answer; without one it is enough that
    nginx accepts. Nothing is provable when no server answers directly either; and when nginx's
    connection stays silent while one server does so too, for nginx may have picked just that one.
    What can't be looked at within ``limits.CANARY`` seconds is taken as well.
    """
    servers = tuple(servers)
    # An address that is begun takes two times at most, and the servers one, all at once.
    deadline = time.monotonic() + limits.CANARY - 3 * _TIMEOUT
    for address in listen:
        if time.monotonic() > deadline:
            return ""
        if not servers:
            if not _accepts(address):
                return f"{address}: {Reach.REFUSED.value}"
            continue
        outcome = _best_of_tries(address, server_name)
        if outcome is Reach.ANSWERED:
            continue
        if outcome is Reach.REFUSED:
            return f"{address}: {outcome.value}"
        direct = _reach_all(servers, server_name)
        provable = all if outcome is Reach.SILENT else any
        if provable(found is Reach.ANSWERED for found in direct):
            return f"{address}: {outcome.value}, while apiservers answer directly"
    return ""


def _accepts(address: SocketAddress) -> bool:
    try:
        connect(address, _TIMEOUT).close()
    except OSError:
        return False
    return True


def _best_of_tries(address: SocketAddress, server_name: str | None) -> Reach:
    """Try again what failed at once; what was silent has taken its time already."""
    outcome = Reach.REFUSED
    began = time.monotonic()
    for _ in range(_TRIES):
        outcome = reach(address, server_name=server_name)
        if outcome in (Reach.ANSWERED, Reach.SILENT) or time.monotonic() > began + _TIMEOUT:
            break
    return outcome


def _reach_all(servers: tuple[SocketAddress, ...], server_name: str | None) -> list[Reach]:
    with ThreadPoolExecutor(max_workers=len(servers)) as pool:
        return list(pool.map(lambda server: reach(server, server_name=server_name), servers))
