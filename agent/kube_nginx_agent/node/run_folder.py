"""What the agent itself keeps below /run, put back when somebody has taken it away.

Three folders: the run folder, which nginx writes too and nobody else enters; the agent's own, which
anybody may read; in that the private one, where the lock is.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.files import (
    FileError,
    is_folder,
    is_there,
    make_folder,
    remove,
    set_mode,
)
from kube_nginx_agent.node.lock import Lock
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.starting import NoThreadError

_OURS, _TO_PASS, _FOR_ALL = 0o700, 0o711, 0o755


class Opens(Protocol):
    """What makes a socket in the folder, and makes it again when its name is gone."""

    def open(self, writer_uid: int) -> None:
        """Make it, for the user ``writer_uid`` to write to. Raise FileError."""

    def is_open(self) -> bool:
        """Tell whether somebody listens at it."""


class FolderLostError(AgentError):
    """A run folder is gone, and this user may not make it again."""


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
        """Make it all; raise AgentError when another agent is there, or a folder is not ours."""
        try:
            self._make_missing()
        except FileError as error:
            hint = "run as the user that owns it, or choose another: --run-dir"
            raise FolderLostError(error.what, where=error.where, hint=hint) from error
        self._close_to_strangers()
        self._lock.take(self._holder)
        self._open_log()
        for left in self._paths.former:
            with suppress(FileError):
                remove(left)

    def _open_log(self) -> None:
        """Listen to nginx, if that can be had now: ``repair`` says why not, and tries again."""
        try:
            self._log.open(self._writer_uid)
        except FileError as error:
            if not error.errno:  # no system has refused it: the path is too long for a socket
                raise
        except NoThreadError:
            pass

    def repair(self) -> list[str]:
        """Put back what is missing, and return the names of what was.

        Raise FolderLostError when that is a folder and it can't be made, or was made again where
        we can't write it; AgentError when something in it can't be had.
        """
        try:
            repaired = [str(folder) for folder in self._make_missing()]
        except FileError as error:
            raise _lost(error) from error
        if repaired:
            self._close_to_strangers()
        try:
            return repaired + self._refill()
        except FileError as error:
            # The unit's own mounts: that of the folder has ended with it, and what is there now
            # lies in a /run that is read-only to us.
            raise _lost(error) if error.errno == errno.EROFS else error from error

    def _refill(self) -> list[str]:
        repaired = []
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

    def _make_missing(self) -> list[Path]:
        """Make the folders that are not there, and return these. Raise FileError."""
        made = []
        for folder, mode in self._folders().items():
            if not is_folder(folder):
                make_folder(folder, mode)
                made.append(folder)
        return made

    def _close_to_strangers(self) -> None:
        """Give the folders their modes: systemd, or an older agent, may have made them.

        Raise FileError where the private one can't be closed. The others may be somebody else's,
        as a volume of a container.
        """
        for folder, mode in self._folders().items():
            with suppress(FileError):
                set_mode(folder, mode)
        set_mode(self._paths.private_dir, _OURS)

    def _folders(self) -> dict[Path, int]:
        """Return the folders, outer ones first, with their modes."""
        # Workers of another user (standalone as root) have to pass to the log socket.
        run_mode = _OURS if self._writer_uid == os.geteuid() else _TO_PASS
        return {
            self._paths.run_dir: run_mode,
            self._paths.agent_dir: _FOR_ALL,
            self._paths.private_dir: _OURS,
        }


def _lost(error: FileError) -> FolderLostError:
    return FolderLostError(error.what, where=error.where, hint=error.hint)
