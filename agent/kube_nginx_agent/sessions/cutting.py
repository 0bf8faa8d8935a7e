"""End stuck sessions under nginx, which then closes the client's side (docs/decisions/0007).

Three ways, of which the one that worked is tried first from then on: SOCK_DESTROY by ourselves
where we may (standalone as root); by the helper, a socket-activated process that has CAP_NET_ADMIN
and does nothing else; or pidfd_getfd(2) and shutdown(2), which need no capability but are refused
where Yama's ptrace_scope is 1 or more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time
from pathlib import Path
from typing import Callable, Iterator, Sequence

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.net.sock_diag import diag_socket
from kube_nginx_agent.nginx import limits
from kube_nginx_agent.nginx.process import processes_holding
from kube_nginx_agent.node.files import open_files_of
from kube_nginx_agent.sessions.table import Session, destroy_all

_PIDFD_GETFD = 438  # the same on every architecture: asm-generic/unistd.h

_INODES_AT_ONCE = 4000
"""Of at most 10 digits and a space each: a message of the helper's has 64 KiB."""

Way = Callable[[Sequence[Session]], int]


class CutError(AgentError):
    """Sessions can't be ended, in none of the ways."""


class Cutter:
    """Ends sessions in the way that works on this machine."""

    def __init__(self, helper: Path) -> None:
        """Take where the helper listens, if there is one."""
        self._helper = helper
        self._works: str | None = None

    def cut(self, sessions: Sequence[Session]) -> int:
        """End the sessions; return how many. Raise CutError when no way works."""
        if not sessions:
            return 0
        refusals = []
        for name, way in self._ways():
            try:
                count = way(sessions)
            except OSError as error:
                refusals.append(f"{name}: {error.strerror or error}")
            else:
                self._works = name
                return count
        raise CutError(
            f"stuck sessions can't be ended ({'; '.join(refusals)})",
            hint="`systemctl restart kube-nginx-cut.socket`; clients notice within 45 s",
        )

    def _ways(self) -> list[tuple[str, Way]]:
        """Return all ways, first the one that worked last."""
        ways: list[tuple[str, Way]] = [
            ("SOCK_DESTROY", _destroy),
            ("the helper", self._ask_helper),
            ("pidfd_getfd", shut_down_all),
        ]
        return sorted(ways, key=lambda way: way[0] != self._works)

    def _ask_helper(self, sessions: Sequence[Session]) -> int:
        deadline = time.monotonic() + limits.HELPER
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as helper:
            helper.settimeout(limits.HELPER)
            helper.connect(str(self._helper))
            return sum(_ask(helper, message, deadline) for message in _messages(sessions))


def _messages(sessions: Sequence[Session]) -> Iterator[str]:
    """Yield what to say to the helper: ``ADDRESS INODE...``."""
    for backend in {session.backend for session in sessions}:
        inodes = [str(session.inode) for session in sessions if session.backend == backend]
        for start in range(0, len(inodes), _INODES_AT_ONCE):
            yield f"{backend} {' '.join(inodes[start : start + _INODES_AT_ONCE])}"


def _ask(helper: socket.socket, message: str, deadline: float) -> int:
    """Return how many sessions it has ended; all messages together take until ``deadline``."""
    helper.settimeout(max(deadline - time.monotonic(), 0.001))
    helper.send(message.encode("ascii"))
    answer = helper.recv(64).decode("ascii", "replace")
    if not answer.isdigit():
        raise OSError(errno.EPROTO, answer or "the helper hung up")
    return int(answer)


def _destroy(sessions: Sequence[Session]) -> int:
    with diag_socket() as diag:
        return destroy_all(diag, sessions)


def shut_down_all(sessions: Sequence[Session]) -> int:
    """End the sessions through copies of nginx's descriptors; raise OSError (EPERM under Yama)."""
    inodes = {session.inode for session in sessions}
    return sum(_shut_down_in(pid, inodes) for pid in processes_holding(inodes))


def _shut_down_in(pid: int, inodes: set[int]) -> int:
    links = {f"socket:[{inode}]" for inode in inodes}
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0  # It has ended meanwhile, and its sessions with it.
    try:
        found = [descriptor for descriptor, link in open_files_of(pid) if link in links]
        return sum(_shut_down(pidfd, descriptor, inodes) for descriptor in found)
    finally:
        os.close(pidfd)


def _shut_down(pidfd: int, descriptor: int, inodes: set[int]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    copy = libc.syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
    if copy < 0:
        code = ctypes.get_errno()
        if code in (errno.EBADF, errno.ESRCH):
            return 0  # The session, or the process, has ended meanwhile.
        raise OSError(code, os.strerror(code))
    if os.fstat(copy).st_ino not in inodes:
        os.close(copy)  # nginx has closed the session, and the number is another's by now.
        return 0
    with socket.socket(fileno=copy) as session:
        try:
            session.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
    return 1
