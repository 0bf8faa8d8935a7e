"""Tells the world how it is: the status file, and systemd."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from kube_nginx_agent import __version__
from kube_nginx_agent.health.machine import Health, State
from kube_nginx_agent.health.monitor import Monitor
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.intake.file_watch import FileWatch
from kube_nginx_agent.model import Desired, Server
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.node.files import FileError
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices.problems import Problems
from kube_nginx_agent.report.status_file import BackendStatus, Status, write_status
from kube_nginx_agent.report.systemd import ServiceManager

_READY_AT_LAST = 20.0
"""Seconds after which systemd hears READY although nothing is proven: what waits for us at boot
(kubelet) is better off starting, and the status line says what is wrong."""


@dataclass
class Reloads:
    """How often somebody has asked for a reload, and how many of these are over."""

    requested: int = 0
    done: int = 0


class Reporter:
    """Writes the status file whenever it is told to, and tells systemd what has changed."""

    def __init__(self, paths: Paths, problems: Problems, nginx_version: str) -> None:
        """Take where it goes and what does not change."""
        self._paths = paths
        self._problems = problems
        self._nginx_version = nginx_version
        self._manager = ServiceManager()
        self._started_at, self._started = time.time(), time.monotonic()
        self._asked_alive = self._started

    @property
    def due(self) -> float | None:
        """When systemd wants to hear of us again."""
        interval = self._manager.watchdog_interval
        return self._asked_alive + interval / 3 if interval else None

    def say_alive(self, watch: FileWatch) -> None:
        """Keep systemd's watchdog quiet, as long as our own sources are well.

        ``refresh`` mends a watch whose threads have ended; where it can't, systemd starts us anew.
        """
        due = self.due
        if due is not None and time.monotonic() >= due:
            self._asked_alive = time.monotonic()
            if watch.is_alive():
                self._manager.alive()

    def say_reloading(self) -> None:
        """Tell systemd that a reload has begun."""
        self._manager.reloading()

    def say_reloaded(self) -> None:
        """Tell systemd that the reload is over."""
        self._manager.reloaded()

    def say_stopping(self) -> None:
        """Tell systemd that this is the end."""
        self._manager.stopping()

    def report(  # noqa: PLR0913 - all that a status is made of
        self,
        desired: Desired | None,
        wanted: str | None,
        data_plane: DataPlane,
        monitor: Monitor,
        severer: Severer,
        reloads: Reloads,
        *,
        has_looked: bool,
    ) -> None:
        """Say how it is now; ``wanted`` is the generation that nginx should serve."""
        served, master = data_plane.served, data_plane.master
        status = Status(
            pid=os.getpid(),
            version=__version__,
            config_file=str(self._paths.config),
            started_at=self._started_at,
            updated_at=time.time(),
            listen=tuple(map(str, desired.listen)) if desired else (),
            backends=_backends(desired, monitor, severer) if desired else (),
            nginx_pid=master.pid if master else None,
            nginx_version=self._nginx_version,
            generation=served,
            wanted_generation=wanted,
            live_since=data_plane.served_since,
            draining_generations=data_plane.draining,
            problems=tuple(problem.as_dict() for problem in self._problems.all()),
            reloads_requested=reloads.requested,
            reloads_done=reloads.done,
        )
        try:
            write_status(status, self._paths.status)
        except FileError as error:
            # The run folder may be full or gone; the next pass tries again.
            self._manager.status(f"{error}; {status.summary}")
        else:
            self._manager.status(status.summary)
        is_proven = served is not None and wanted in (None, served)
        overdue = time.monotonic() - self._started > _READY_AT_LAST
        if has_looked and (is_proven or overdue):
            self._manager.ready()


def _backends(desired: Desired, monitor: Monitor, severer: Severer) -> tuple[BackendStatus, ...]:
    sessions = severer.counts()
    steady_to_wall = time.time() - time.monotonic()
    found = []
    for server in sorted(desired.servers, key=lambda server: server.address.ip.packed):
        health = monitor.healths.get(server.address, Health())
        found.append(
            BackendStatus(
                address=str(server.address),
                name=str(server.backend),
                state=_state(server, health),
                since=health.since + steady_to_wall,
                cause=_cause(server, health),
                takes_connections=not server.down,
                rtt_ms=None if health.rtt is None else round(health.rtt * 1000, 3),
                sessions=sessions.get(server.address, 0),
                sessions_cut=severer.ended.get(server.address, 0),
                weight=server.weight,
                backup=server.backup,
            )
        )
    return tuple(found)


def _state(server: Server, health: Health) -> str:
    is_drained = server.drain and health.state in (State.UP, State.SUSPECT)
    return State.DRAINING.value if is_drained else health.state.value


def _cause(server: Server, health: Health) -> str:
    if health.cause and health.state is not State.UP:
        return f"{health.cause.value}: {health.detail}" if health.detail else health.cause.value
    return "drain: true in the list" if server.drain else ""
