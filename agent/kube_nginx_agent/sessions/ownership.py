"""Which sockets are our nginx's: those that its processes hold, not all of some numeric user's.

/proc/PID/fd tells it for certain. The unit's agent may read it: by ptrace(2)'s rules it takes the
same user and all capabilities of who is looked at, and nginx has none. Where it is closed (root in
a container without CAP_SYS_PTRACE, and workers of another user) the cgroup that a socket was made
in tells enough, if it is not the root: it is the container's, and our own sockets are known.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import AbstractSet, Iterable

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.net.sock_diag import DiagSocket
from kube_nginx_agent.nginx.process import identify
from kube_nginx_agent.node.files import FileError, is_there, read_proc, status_of
from kube_nginx_agent.sessions.held import sockets_of

_CGROUP_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_ROOT_CGROUP = 1
"""The id of the cgroup of who is in none: the inode of its folder."""


class Ownership:
    """Remembers whose a socket is, so that a look without a new one reads nothing."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._pids: AbstractSet[int] = frozenset()
        self._seen: dict[bytes, bool] = {}

    def ours(self, entries: Iterable[DiagSocket], pids: AbstractSet[int]) -> list[DiagSocket]:
        """Return those of ``entries`` that one of the processes ``pids`` holds.

        Raise AgentError when that can't be told.
        """
        found = [entry for entry in entries if entry.inode]
        if pids != self._pids:
            self._pids, self._seen = pids, {}
        known = self._seen
        new = [entry for entry in found if entry.identity not in known]
        answers = self._ask(new, pids) if new and pids else dict.fromkeys(_names(new), False)
        self._seen = {name: known.get(name, answers.get(name, False)) for name in _names(found)}
        return [entry for entry in found if self._seen[entry.identity]]

    def _ask(self, entries: list[DiagSocket], pids: AbstractSet[int]) -> dict[bytes, bool]:
        held = {pid: sockets_of(pid) for pid in pids}
        inodes = {inode for found in held.values() for inode in found or ()}
        # Every process of nginx has something open, unless it has ended.
        closed = [pid for pid, found in held.items() if found is None and identify(pid)]
        if not closed:
            return {entry.identity: entry.inode in inodes for entry in entries}
        cgroups = {cgroup_id(pid) for pid in closed} - {0, _ROOT_CGROUP}
        if not cgroups:
            raise AgentError(
                "which sockets are nginx's can't be told: /proc/PID/fd of its processes is closed",
                hint="run the agent as nginx's user, or with CAP_SYS_PTRACE",
            )
        not_ours = sockets_of(os.getpid()) or set()
        return {
            entry.identity: entry.inode in inodes
            or (entry.cgroup in cgroups and entry.inode not in not_ours)
            for entry in entries
        }


def cgroup_id(pid: int) -> int:
    """Return the id of the process's cgroup (v2), as sockets carry it; 0 when it can't be told."""
    for line in read_proc(f"/proc/{pid}/cgroup").splitlines():
        if line.startswith("0::"):
            return _folder_id(line[3:])
    return 0


def _folder_id(cgroup: str) -> int:
    for mount in _CGROUP_MOUNTS:
        if is_there(Path(mount, "cgroup.procs")):
            with suppress(FileError):
                status = status_of(Path(f"{mount}{cgroup}"))
                return status.st_ino if status else 0
    return 0


def _names(entries: Iterable[DiagSocket]) -> list[bytes]:
    return [entry.identity for entry in entries]
