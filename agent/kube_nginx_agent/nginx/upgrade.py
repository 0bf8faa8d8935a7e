"""Replace the running nginx by a newer binary without closing a socket (nginx's USR2 and QUIT).

https://nginx.org/en/docs/control.html#upgrade: on USR2 the old master starts the new binary, which
inherits the listening sockets and takes over the pid file; on QUIT the old one retires and keeps
its sessions to their end. Each step looks at what is, so that an agent that was killed between two
of them goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import re
import signal
from functools import lru_cache
from pathlib import Path

from kube_nginx_agent.nginx import generation, limits
from kube_nginx_agent.nginx.binary import Nginx, NginxError
from kube_nginx_agent.nginx.orphans import retire_orphans
from kube_nginx_agent.nginx.process import (
    Process,
    ProcessGoneError,
    find_master,
    identify,
    is_alive,
    is_master,
    parent_of,
    send_signal,
    signal_if_there,
    wait_until_gone,
    workers,
)
from kube_nginx_agent.node.files import FileError, read_bytes, status_of
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.waiting import wait_until

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
        return version_in(self._paths.nginx)

    def is_needed(self, master: Process) -> bool:
        """Tell whether ``master`` runs other bytes than the installed binary has."""
        try:
            return _digest(Path(f"/proc/{master.pid}/exe")) != _digest(self._paths.nginx)
        except FileError:
            return is_alive(master)  # The installed one is missing, and wants to be reported.

    def is_possible(self, master: Process) -> bool:
        """Tell whether nginx takes USR2: not while the upgrade before still drains."""
        return self.previous(master) is None

    def is_unfinished(self, master: Process) -> bool:
        """Tell whether ``master`` has taken over, and the one before still accepts beside it."""
        old = self.previous(master)
        return old is not None and _accepts(old)

    def upgrade(self, master: Process) -> Process:
        """Have the installed binary take over from ``master``, and return the new master.

        Raise NginxError when it does not; the old one then goes on as if nothing had been.
        """
        self._nginx.test(self._paths.live)
        before = _last_renamed(self._paths.pid_file)
        try:
            send_signal(master, signal.SIGUSR2)
        except ProcessGoneError as error:
            raise NginxError("nginx ended before it could be upgraded") from error
        return self._hand_over(master, before)

    def finish(self, master: Process) -> Process:
        """Do the rest of an upgrade to ``master`` that is_unfinished; return the old master.

        Raise NginxError when ``master`` does not serve; it is then ended, and the old one goes on.
        """
        old = self.previous(master)
        if old is None:
            raise NginxError("the old nginx ended while it was upgraded")
        self._hand_over(old, _last_renamed(self._paths.pid_file))
        return old

    def _hand_over(self, old: Process, before: int | None) -> Process:
        """Have ``old`` retire as soon as its successor serves, and return that.

        ``before`` is when the pid file was last renamed, before the successor was started.
        """
        try:
            new = self._await_answer(old, before)
        except NginxError:
            retire_orphans(self._paths.generation_socket, self._paths.nginx)
            raise
        self._retire(old)
        return new

    def _retire(self, old: Process) -> None:
        signal_if_there(old, signal.SIGQUIT)
        has_retired = wait_until(
            lambda: not (is_alive(old) and _accepts(old)), limits.TAKEOVER, _POLL
        )
        if not has_retired:
            raise NginxError(f"the old nginx (pid {old.pid}) does not retire")

    def previous(self, master: Process) -> Process | None:
        """Return the master that started this one; nginx's new master is a child of the old."""
        parent = parent_of(master.pid)
        return identify(parent) if parent and is_master(parent, self._paths.nginx) else None

    def _await_answer(self, old: Process, before: int | None) -> Process:
        """Return the new master once it serves; end one that does not."""
        new: Process | None = None

        def successor() -> Process | None:
            nonlocal new
            renamed = _last_renamed(self._paths.pid_file)  # looked at first: what is read is later
            found = find_master(self._paths.pid_file, self._paths.nginx)
            if found and found != old:
                new = found
                if self._answers(new):
                    return new
            elif found == old and renamed not in (None, before):
                # nginx has moved its pid file away for the new one, and back when that had ended.
                raise self._refusal("ended at once")
            if not is_alive(old):
                raise NginxError("nginx ended while it was upgraded")
            return None

        taken_over = wait_until(successor, limits.TAKEOVER, _POLL)
        if taken_over:
            return taken_over
        if new:
            self._end(new)
        raise self._refusal(f"did not take over within {limits.TAKEOVER:g} s")

    def _refusal(self, what: str) -> NginxError:
        return NginxError(
            f"the installed nginx {what}; the old one goes on",
            where=str(self._paths.nginx),
            hint="the journal of kube-nginx has its words",
        )

    def _end(self, new: Process) -> None:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            signal_if_there(new, signum)
            if wait_until_gone(new, limits.END):
                return

    def _answers(self, new: Process) -> bool:
        answer = generation.ask(self._paths.generation_socket, _ASK_TIMEOUT)
        if not isinstance(answer, generation.Answer):
            return False
        return answer.worker_pid in {worker.process.pid for worker in workers(new)}


def _accepts(master: Process) -> bool:
    return any(not worker.retiring for worker in workers(master))


def version_in(binary: Path) -> str:
    """Return ``nginx/1.26.3`` as it stands in the file's bytes; "" where it does not.

    Unlike ``nginx -v`` it runs nothing, so it can be asked at any time of any file.
    """
    try:
        status = status_of(binary)
        if status is None:
            return ""
        return _version_of(binary, status.st_dev, status.st_ino, status.st_mtime_ns)
    except FileError:
        return ""


def _last_renamed(file: Path) -> int | None:
    """Return the time of the last change of its inode, which a rename is too."""
    try:
        status = status_of(file)
    except FileError:
        return None
    return status.st_ctime_ns if status else None


def _digest(binary: Path) -> str:
    """Return a hash of the file's bytes. Raise FileError."""
    status = status_of(binary)
    if status is None:
        return ""
    return _digest_of(binary, status.st_dev, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _version_of(binary: Path, _device: int, _inode: int, _mtime: int) -> str:
    found = re.search(rb"nginx/[0-9][0-9.]{2,15}", read_bytes(binary))
    return found[0].decode("ascii") if found else ""


@lru_cache(maxsize=8)
def _digest_of(binary: Path, _device: int, _inode: int, _mtime: int) -> str:
    return hashlib.sha256(read_bytes(binary)).hexdigest()
