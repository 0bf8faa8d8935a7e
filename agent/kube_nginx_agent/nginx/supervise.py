"""Who keeps nginx running: this agent (standalone), or systemd.

The one difference between the two ways to run is behind this small interface.
"""

from __future__ import annotations

import os
import pwd
import resource
import signal
from contextlib import suppress
from typing import Protocol

from kube_nginx_agent.nginx import limits
from kube_nginx_agent.nginx.binary import Nginx, NginxError
from kube_nginx_agent.nginx.orphans import retire_orphans
from kube_nginx_agent.nginx.process import (
    Process,
    find_lost_master,
    find_master,
    is_alive,
    signal_if_there,
    wait_until_gone,
    workers,
)
from kube_nginx_agent.node.files import FileError, is_there, remove, replace_file
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.waiting import wait_until

_STOP_TIMEOUT = 2.0
"""Seconds for nginx to end by itself; then it is killed. TimeoutStopSec is 10 s for all of it."""
_NOBODY = 65534
"""The user that nginx's ``--user=nobody`` is by convention, for an image without /etc/passwd."""


def find_running(paths: Paths) -> Process | None:
    """Return the running master; a pid file that was lost is written again."""
    master = find_master(paths.pid_file, paths.nginx)
    if master is None:
        master = find_lost_master(paths.live, paths.nginx)
        # Within an upgrade the file is not lost: nginx has moved it away for the new master's.
        is_upgrading = is_there(paths.pid_file.with_name(f"{paths.pid_file.name}.oldbin"))
        if master and not is_upgrading:
            with suppress(FileError):
                replace_file(paths.pid_file, f"{master.pid}\n")
    return master


class Supervisor(Protocol):
    """Finds the nginx master, and starts or stops one where that is the agent's job."""

    def master(self) -> Process | None:
        """Return the running master, or None."""

    def start(self) -> Process:
        """Start nginx from the live config; raise NginxError if it does not come up."""

    def stop(self) -> None:
        """End nginx, where it is to end with the agent."""

    def worker_uid(self) -> int:
        """Return the user that nginx's workers run as."""


class Standalone:
    """The agent starts nginx itself, and takes over one that an earlier agent left running."""

    def __init__(self, nginx: Nginx, paths: Paths) -> None:
        """Take the binary and the folders; nothing is started yet."""
        self._nginx = nginx
        self._paths = paths

    def master(self) -> Process | None:
        """Return the running master, or None."""
        return find_running(self._paths)

    def start(self) -> Process:
        """Start nginx from the live config; raise AgentError if it does not come up."""
        retire_orphans(self._paths.generation_socket, self._paths.nginx)
        # A killed master leaves its socket's name behind, and nginx does not bind over it.
        remove(self._paths.generation_socket)
        _raise_open_files_limit()
        self._nginx.start(self._paths.live)
        file, binary = self._paths.pid_file, self._paths.nginx
        master = wait_until(lambda: find_master(file, binary), limits.PID_FILE)
        if master is None:
            raise NginxError("nginx was started, but left no pid file", where=str(file))
        return master

    def worker_uid(self) -> int:
        """Return ``nobody`` when we are root (nginx's ``--user``), else ourselves."""
        try:
            return os.geteuid() or pwd.getpwnam("nobody").pw_uid
        except KeyError:
            return _NOBODY

    def stop(self) -> None:
        """End nginx and all its sessions, hung or not."""
        for _ in ("it", "the one before, while an upgrade drains"):
            master = self.master()
            if master:
                self._end(master)
        for left in (self._paths.generation_socket, self._paths.pid_file):
            with suppress(FileError):
                remove(left)

    def _end(self, master: Process) -> None:
        processes = [worker.process for worker in workers(master)]
        signal_if_there(master, signal.SIGTERM)
        wait_until_gone(master, _STOP_TIMEOUT)
        for process in (master, *processes):
            if is_alive(process):
                signal_if_there(process, signal.SIGKILL)
                wait_until_gone(process, limits.END)


class Attached:
    """systemd runs nginx, as the same user as the agent; the agent only finds and signals it."""

    def __init__(self, paths: Paths) -> None:
        """Take the folders."""
        self._paths = paths

    def master(self) -> Process | None:
        """Return the running master, or None."""
        return find_running(self._paths)

    def start(self) -> Process:
        """Wait for systemd to start nginx again; raise NginxError when it does not.

        An administrator who has stopped ``kube-nginx.service`` wants it stopped.
        """
        master = wait_until(self.master, limits.ADOPTION, poll=0.02)
        if master is None:
            hint = "`systemctl start kube-nginx`"
            raise NginxError("kube-nginx.service is not running", hint=hint)
        return master

    def worker_uid(self) -> int:
        """Return our own user, which the unit runs nginx as too."""
        return os.geteuid()

    def stop(self) -> None:
        """Leave nginx running."""


def _raise_open_files_limit() -> None:
    """Let nginx have as many connections as the system allows; systemd's unit does it itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
