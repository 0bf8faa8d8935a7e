"""One agent on one run folder: a lock that the kernel drops however its holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.files import FileError, read_proc, read_text
from kube_nginx_agent.node.waiting import wait_until

_PATIENCE = 1.0
"""Seconds for a predecessor that is about to end."""
_OWN = 0o600
"""The mode: whoever may open the file could lock it, and so keep every agent from starting."""


class Lock:
    """Holds the lock until the process ends; tells who holds it."""

    def __init__(self, file: Path) -> None:
        """Take the path; nothing is locked yet."""
        self._file = file
        self._descriptor: int | None = None

    def take(self, words: str) -> None:
        """Take the lock, and write ``words`` into the file: who holds it.

        Raise AgentError when another agent has it, FileError when the file can't be had.
        """
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWN)
            os.fchmod(descriptor, _OWN)
        except OSError as error:
            hint = "run as the user that owns the folder, or choose another --run-dir"
            raise FileError(self._file, "it can't be written", error, hint) from error
        if not wait_until(lambda: _try_to_lock(descriptor), _PATIENCE, poll=0.02):
            holder = os.read(descriptor, 20).decode("ascii", "replace").partition(" ")[0].strip()
            os.close(descriptor)
            raise AgentError(
                f"another agent (pid {holder}) works on this folder",
                where=str(self._file.parent),
                hint="stop it first, or choose another --run-dir and --state-dir",
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{words}\n".encode("ascii"))
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = descriptor

    def is_held(self) -> bool:
        """Tell whether the file that is there now is the one that we have locked."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._file.stat())
        except OSError:
            return False


def words_of_holder(file: Path) -> list[str]:
    """Return what the holder has written into the lock file; [] when nobody seems to hold it.

    What stands there counts only if the process named first does hold a lock for writing, as the
    kernel says (proc_locks(5)): files outlive their writers.
    """
    words = (read_text(file) or "").split()
    locks = (line.split() for line in read_proc("/proc/locks").splitlines())
    holders = {
        "".join(lock[4:5]) for lock in locks if lock[1:2] == ["FLOCK"] and lock[3:4] == ["WRITE"]
    }
    return words if words and words[0] in holders else []


def _try_to_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
