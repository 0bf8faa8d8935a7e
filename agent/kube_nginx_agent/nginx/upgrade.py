"""Replace the running nginx by a newer binary without closing a socket (nginx's USR2 and QUIT).

https://nginx.org/en/docs/control.html#upgrade: on USR2 the old master starts the new binary, which
inherits the listening sockets and takes over the pid file; on QUIT the old one retires and keeps
its sessions to their end. Each step looks at what is, so that an agent that was killed between two
of them goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import signal
import time
from functools import lru_cache
from pathlib import Path

from kube_nginx_agent.nginx import generation
from kube_nginx_agent.nginx.binary import Nginx, NginxError
from kube_nginx_agent.nginx.process import (
    Process,
    ProcessGoneError,
    find_master,
    identify,
    is_alive,
    parent_of,
    runs,
    send_signal,
    workers,
)
from kube_nginx_agent.paths import Paths

_TIMEOUT = 10.0  # seconds; a new binary answers after 30 ms
_ASK_TIMEOUT = 0.5
_POLL = 0.01


class Upgrader:
    """Brings the master that runs to the binary that is installed."""

    def __init__(self, nginx: Nginx, paths: Paths) -> None:
        """Take the tools; nothing is touched yet."""
        self._nginx = nginx
        self._paths = paths

    def version(self) -> str:
        """Return what the installed binary calls itself."""
        return self._nginx.version()

    def check_usable(self) -> None:
        """Raise NginxError unless the installed binary may be run."""
        self._nginx.check_usable()

    def is_needed(self, master: Process) -> bool:
        """Tell whether ``master`` runs other bytes than the installed binary has."""
        try:
            return _digest(Path(f"/proc/{master.pid}/exe")) != _digest(self._paths.nginx)
        except OSError:
            return is_alive(master)  # The installed one is missing, and wants to be reported.

    def is_possible(self, master: Process) -> bool:
        """Tell whether nginx takes USR2: not while the upgrade before still drains."""
        return self._previous(master) is None

    def upgrade(self, master: Process) -> Process:
        """Have the installed binary take over from ``master``, and return the new master.

        Raise NginxError when it does not; the old one then goes on as if nothing had been.
        """
        self._nginx.test(self._paths.live)
        try:
            send_signal(master, signal.SIGUSR2)
        except ProcessGoneError as error:
            raise NginxError("nginx ended before it could be upgraded") from error
        new = self._await_answer(master)
        self.retire_previous(new)
        return new

    def retire_previous(self, master: Process) -> Process | None:
        """Have the master that ``master`` took over from retire, if it still accepts; return it."""
        old = self._previous(master)
        if old is None or not _accepting(old):
            return None
        deadline = time.monotonic() + _TIMEOUT
        send_signal(old, signal.SIGQUIT)
        while is_alive(old) and _accepting(old):
            if time.monotonic() > deadline:
                raise NginxError(f"the old nginx (pid {old.pid}) does not retire")
            time.sleep(_POLL)
        return old

    def _previous(self, master: Process) -> Process | None:
        """Return the master that started this one; nginx's new master is a child of the old."""
        parent = parent_of(master.pid)
        return identify(parent) if parent and runs(parent, self._paths.nginx) else None

    def _await_answer(self, old: Process) -> Process:
        deadline = time.monotonic() + _TIMEOUT
        new: Process | None = None
        while time.monotonic() < deadline:
            new = find_master(self._paths.pid_file, self._paths.nginx)
            if new and new != old and self._answers(new):
                return new
            if not is_alive(old):
                raise NginxError("nginx ended while it was upgraded")
            time.sleep(_POLL)
        if new and new != old:
            send_signal(new, signal.SIGTERM)
        raise NginxError(
            f"the installed nginx did not take over within {_TIMEOUT:g} s; the old one goes on",
            where=str(self._paths.nginx),
            hint="the journal of kube-nginx has its words",
        )

    def _answers(self, new: Process) -> bool:
        answer = generation.ask(self._paths.generation_socket, _ASK_TIMEOUT)
        if not isinstance(answer, generation.Answer):
            return False
        return answer.worker_pid in {worker.process.pid for worker in workers(new)}


def _accepting(master: Process) -> bool:
    return any(not worker.retiring for worker in workers(master))


def _digest(binary: Path) -> str:
    status = binary.stat()
    return _digest_of(binary, status.st_dev, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest_of(binary: Path, _device: int, _inode: int, _mtime: int) -> str:
    return hashlib.sha256(binary.read_bytes()).hexdigest()
