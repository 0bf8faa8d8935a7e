"""What the agent itself keeps in the run folder, put back when somebody has emptied it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.lock import take_lock
from kube_nginx_agent.node.paths import Paths


class Opens(Protocol):
    """What makes a socket in the folder, and makes it again when its name is gone."""

    def open(self, writer_uid: int) -> None:
        """Make it, for the user ``writer_uid`` to write to. Raise OSError."""


class RunFolder:
    """The lock, and the socket that nginx's errors come to; nginx's own things are nginx's."""

    def __init__(self, paths: Paths, log: Opens, writer_uid: int) -> None:
        """Take where it is, and who writes to the log socket."""
        self._paths = paths
        self._log = log
        self._writer_uid = writer_uid
        self._lock: int | None = None

    def open(self) -> None:
        """Make both; raise AgentError when another agent is there, or the folder is not ours."""
        self._lock = take_lock(self._paths.lock)
        self._log.open(self._writer_uid)

    def repair(self) -> list[str]:
        """Put back what is missing, and return the names of what was."""
        repaired = []
        with suppress(OSError, AgentError):  # the folder itself is gone: not ours to make
            if not self._has_lock():
                self._lock = take_lock(self._paths.lock)
                repaired.append(self._paths.lock.name)
            if not self._paths.log_socket.exists():
                self._log.open(self._writer_uid)
                repaired.append(self._paths.log_socket.name)
        return repaired

    def clean(self) -> None:
        """Remove what would tell of an agent that has ended."""
        for left in (self._paths.status, self._paths.log_socket):
            left.unlink(missing_ok=True)

    def _has_lock(self) -> bool:
        if self._lock is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._lock), self._paths.lock.stat())
        except FileNotFoundError:
            return False
