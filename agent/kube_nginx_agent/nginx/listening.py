"""Which of the wanted listen addresses nginx can have: one that can't be bound takes none down.

An address may be held by a stranger, may live on another node at the moment (a VIP), or belong to
a family that was switched off. The others serve; it joins when it can.
"""

from __future__ import annotations

import errno
from typing import AbstractSet, Iterable, Tuple

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.nginx.orphans import find_orphans
from kube_nginx_agent.nginx.ports import AddressHeldError, check_listen, try_to_bind
from kube_nginx_agent.nginx.process import Process
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem

Addresses = Tuple[SocketAddress, ...]


class Listening:
    """Keeps what was found at the last look; finding out who holds a port is not for each pass."""

    def __init__(self, paths: Paths) -> None:
        """Take where nginx is; nothing is looked at yet."""
        self._paths = paths
        self._found: dict[SocketAddress, AgentError | None] = {}

    def look(
        self,
        wanted: AbstractSet[SocketAddress],
        live: AbstractSet[SocketAddress],
        master: Process | None,
        *,
        afresh: bool,
    ) -> None:
        """Find out what keeps nginx, which listens on ``live`` already, from the wanted addresses.

        Those that were looked at before are looked at again only ``afresh``.
        """
        known = {} if afresh else self._found
        self._found = {
            address: known[address]
            if address in known
            else self._what_keeps_off(address, live, master)
            for address in sorted(wanted, key=str)
        }

    def usable(self, wanted: Addresses) -> Addresses:
        """Return those of ``wanted`` that nginx has or can have; all of them, if that is none."""
        return tuple(address for address in wanted if not self._found.get(address)) or wanted

    def problems(self) -> Iterable[Problem]:
        """Yield what keeps nginx from an address."""
        for address, error in self._found.items():
            if error:
                fields = {"LISTEN": str(address)}
                yield Problem(f"listen {address}", kinds.LISTEN_FAILED, error, fields)

    def _what_keeps_off(
        self, address: SocketAddress, live: AbstractSet[SocketAddress], master: Process | None
    ) -> AgentError | None:
        error = try_to_bind(address)
        if error is None or (error.errno == errno.EADDRINUSE and address in live):
            return None
        # The workers of a killed master listen until a start retires them.
        socket, binary = self._paths.generation_socket, self._paths.nginx
        orphans = () if master else find_orphans(socket, binary)
        try:
            check_listen([address], master, orphans)
        except AddressHeldError as held:
            return held
        except AgentError:
            return None  # nginx itself is in its own way, which is not mended by leaving it out.
        return None
