"""Whether nginx is full, which is not hung: what is used up, by whom, and what to raise.

A full nginx serves all the sessions that it has. Nothing is to be ended for it, least of all nginx;
but a new client gets nothing, and that is said.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Iterable, Mapping, Sequence

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.net.sock_diag import (
    CLOSE_WAIT,
    ESTABLISHED,
    LISTEN,
    DiagSocket,
    diag_socket,
    dump,
)
from kube_nginx_agent.nginx.process import processes_holding
from kube_nginx_agent.node.files import names_in, open_files_of, read_proc
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem

HEARD_FOR = 15.0
"""Seconds for which nginx's own complaint counts: clients that get nothing come again sooner."""

_OF_A_SESSION = 2
"""Connections and descriptors that a session takes: the client's and the apiserver's."""


class Scarce(Enum):
    """What can be used up; the value is the word that people read."""

    CONNECTIONS = "worker_connections"
    FILES = "open files"
    PORTS = "source ports"
    QUEUE = "accept queue"


# nginx's src/core/ngx_connection.c, src/event/ngx_event_accept.c and ngx_event_connect.c; the
# numbers are errno(3)'s EMFILE and EADDRNOTAVAIL.
_WORDS = {
    Scarce.CONNECTIONS: re.compile(r"worker_connections are not enough"),
    Scarce.FILES: re.compile(r"\b(?:accept4?|socket)\(\) failed \(24: "),
    Scarce.PORTS: re.compile(r"\bconnect\(\) to \S+ failed \(99: "),
}

_HINTS = {
    Scarce.CONNECTIONS: "raise worker_connections in backends.yaml, or end what holds them",
    Scarce.FILES: "raise LimitNOFILE= of kube-nginx.service, or end what holds them",
    Scarce.PORTS: "raise net.ipv4.ip_local_port_range, or end what holds them",
    Scarce.QUEUE: "raise workers in backends.yaml and net.core.somaxconn",
}


@dataclass(frozen=True)
class Use:
    """What one worker that takes new clients has in use, and how many files it may open."""

    sockets: int
    files: int
    files_limit: int


@dataclass(frozen=True)
class Queue:
    """How many clients wait to be accepted on an address, and how many may."""

    waiting: int
    limit: int


@dataclass(frozen=True)
class Fullness:
    """What is used up, how much of it there is (0: it can't be told), and who holds most of it."""

    what: Scarce
    limit: int
    holder: str = ""


def used_up(message: str) -> Scarce | None:
    """Return what nginx says is used up, if a line of its error log says that."""
    return next((what for what, words in _WORDS.items() if words.search(message)), None)


def judge(  # noqa: PLR0913 - all that can be used up
    uses: Iterable[Use],
    worker_connections: int,
    queues: Iterable[Queue],
    heard_at: Mapping[Scarce, float],
    ports: int,
    now: float,
) -> Fullness | None:
    """Return what keeps a new client from being served; ``heard_at``: when nginx said so."""
    uses = list(uses)
    said = {what for what, at in heard_at.items() if now - at < HEARD_FOR}
    no_connection = any(use.sockets + _OF_A_SESSION > worker_connections for use in uses)
    if no_connection or Scarce.CONNECTIONS in said:
        return Fullness(Scarce.CONNECTIONS, worker_connections)
    no_file = any(use.files + _OF_A_SESSION > use.files_limit > 0 for use in uses)
    if no_file or Scarce.FILES in said:
        return Fullness(Scarce.FILES, min((use.files_limit for use in uses), default=0))
    if Scarce.PORTS in said:
        return Fullness(Scarce.PORTS, ports)
    full = [queue for queue in queues if queue.waiting >= queue.limit > 0]
    return Fullness(Scarce.QUEUE, full[0].limit) if full else None


class Capacity:
    """Looks whether nginx is full, and remembers what nginx said of it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._heard_at: dict[Scarce, float] = {}
        self._fullness: Fullness | None = None

    def hear(self, message: str, now: float) -> bool:
        """Take a line of nginx's error log; tell if it says what it has not said within a second.

        May be called from any thread.
        """
        what = used_up(message)
        if what is None:
            return False
        before, self._heard_at[what] = self._heard_at.get(what, now - 1.0), now
        return before <= now - 1.0

    def look(
        self,
        workers: Iterable[int],
        listen: Sequence[SocketAddress],
        worker_connections: int,
        now: float,
    ) -> Fullness | None:
        """Return what is used up; ``workers`` are the pids of those that take new clients."""
        uses = [_use(pid, worker_connections) for pid in workers]
        queues = _queues(listen)
        found = judge(uses, worker_connections, queues, dict(self._heard_at), _source_ports(), now)
        before = self._fullness
        if found is None or (before and before.what is found.what and before.holder):
            # Who holds it is looked for once, which takes a walk through all processes.
            self._fullness = found and before and Fullness(found.what, found.limit, before.holder)
        else:
            self._fullness = Fullness(found.what, found.limit, _holder(listen))
        return self._fullness

    def problems(self) -> list[Problem]:
        """Return that nginx is full, if it was at the last look."""
        return [problem(self._fullness)] if self._fullness else []


def problem(fullness: Fullness) -> Problem:
    """Return what there is to say, without figures that change while nothing else does."""
    limit = f"the limit is {fullness.limit}" if fullness.limit else "the limit is not known"
    most = f", and {fullness.holder} holds most" if fullness.holder else ""
    error = AgentError(
        f"nginx is full, and new clients get nothing: {fullness.what.value} are used up "
        f"({limit}{most}); its sessions go on",
        hint=_HINTS[fullness.what],
    )
    return Problem("capacity", kinds.NGINX_FULL, error, {"STATE": fullness.what.value})


def _use(pid: int, worker_connections: int) -> Use:
    """Count what a worker has open; which are sockets only where it matters (1,000: 4 ms)."""
    files = len(names_in(f"/proc/{pid}/fd"))
    sockets = files
    if files + _OF_A_SESSION > worker_connections:
        sockets = sum(link.startswith("socket:[") for _, link in open_files_of(pid))
    return Use(sockets, files, _files_limit(pid))


def _files_limit(pid: int) -> int:
    """Return the soft RLIMIT_NOFILE (proc(5), /proc/PID/limits); 0 when it can't be told."""
    found = re.search(
        r"^Max open files\s+([0-9]{1,20})", read_proc(f"/proc/{pid}/limits"), re.MULTILINE
    )
    return int(found[1]) if found else 0


def _source_ports() -> int:
    """Return how many sessions there can be from one address of ours to one apiserver."""
    try:
        low, high = read_proc("/proc/sys/net/ipv4/ip_local_port_range").split()
        return int(high) - int(low) + 1
    except ValueError:
        return 0


def _queues(listen: Iterable[SocketAddress]) -> list[Queue]:
    found = []
    for address in listen:
        sockets = _ask(address, (LISTEN,), local_port=address.port)
        found += [Queue(entry.received, entry.sent) for entry in sockets if entry.local == address]
    return found


def _holder(listen: Iterable[SocketAddress]) -> str:
    """Return who has most of the connections to us: a user, and the process where we may know."""
    clients = [
        entry
        for address in listen
        for entry in _ask(address, (ESTABLISHED, CLOSE_WAIT), remote_port=address.port)
        if entry.inode and (address.ip.is_unspecified or entry.remote == address)
    ]
    if not clients:
        return ""
    uid, _ = Counter(entry.uid for entry in clients).most_common(1)[0]
    inodes = {entry.inode for entry in clients if entry.uid == uid}
    held = {pid: _count(pid, inodes) for pid in processes_holding(inodes)}
    if not held:
        return f"user {uid}"
    pid = max(held, key=lambda pid: held[pid])
    name = read_proc(f"/proc/{pid}/comm").strip()
    shown = name if name.isascii() and name.isprintable() else "a process"
    return f"user {uid}, above all {shown} (pid {pid}),"


def _count(pid: int, inodes: set[int]) -> int:
    links = {f"socket:[{inode}]" for inode in inodes}
    return sum(link in links for _, link in open_files_of(pid))


def _ask(
    address: SocketAddress, states: Iterable[int], *, local_port: int = 0, remote_port: int = 0
) -> list[DiagSocket]:
    """Return the sockets with these ports; none where the kernel does not tell."""
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    try:
        with diag_socket() as diag:
            entries = dump(diag, family, states, local_port=local_port, remote_port=remote_port)
            return list(entries)
    except OSError:
        return []
