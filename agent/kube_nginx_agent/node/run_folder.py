"""What the agent itself keeps in the run folder, put back when somebody has taken it away."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.files import FileError, is_folder, is_there, make_folder, remove
from kube_nginx_agent.node.lock import Lock
from kube_nginx_agent.node.paths import Paths


class Opens(Protocol):
    """What makes a socket in the folder, and makes it again when its name is gone."""

    def open(self, writer_uid: int) -> None:
        """Make it, for the user ``writer_uid`` to write to. Raise FileError."""

    def is_open(self) -> bool:
        """Tell whether somebody listens at it."""


class FolderLostError(AgentError):
    """The run folder is gone, and this user may not make it again."""


class RunFolder:
    """The lock, and the socket that nginx's errors come to; nginx's own things are nginx's."""

    def __init__(self, paths: Paths, log: Opens, writer_uid: int, holder: str) -> None:
        """Take where it is, who writes to the log socket, and the words for the lock."""
        self._paths = paths
        self._log = log
        self._writer_uid = writer_uid
        self._holder = holder
        self._lock = Lock(paths.lock)

    def open(self) -> None:
        """Make both; raise AgentError when another agent is there, or the folder is not ours."""
        self._lock.take(self._holder)
        self._log.open(self._writer_uid)

    def repair(self) -> list[str]:
        """Put back what is missing, and return the names of what was.

        Raise FolderLostError when that is the folder itself and it can't be made, AgentError when
        something in it can't.
        """
        repaired = []
        if not is_folder(self._paths.run_dir):
            self._make_again()
            repaired.append(str(self._paths.run_dir))
        if not self._lock.is_held():
            self._lock.take(self._holder)
            repaired.append(self._paths.lock.name)
        if not is_there(self._paths.log_socket) or not self._log.is_open():
            self._log.open(self._writer_uid)
            repaired.append(self._paths.log_socket.name)
        return repaired

    def clean(self) -> None:
        """Remove what would tell of an agent that has ended."""
        for left in (self._paths.status, self._paths.status_spare, self._paths.log_socket):
            with suppress(FileError):
                remove(left)

    def _make_again(self) -> None:
        try:
            make_folder(self._paths.run_dir)
        except FileError as error:
            raise FolderLostError(error.what, where=error.where, hint=error.hint) from error
