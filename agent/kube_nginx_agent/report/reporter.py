"""Tells the world how it is: the status file, and systemd."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from kube_nginx_agent import __version__
from kube_nginx_agent.health.machine import Health, State
from kube_nginx_agent.health.monitor import Monitor
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.model import Desired, Server
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.process import identify
from kube_nginx_agent.nginx.upgrade import version_in
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


@dataclass(frozen=True)
class Outcome:
    """What a pass of the loop has come to."""

    live: Desired | None
    """What nginx does now, as far as it is known."""
    wanted: str | None
    """The generation that nginx should serve."""
    is_list_live: bool
    is_anybody_served: bool


class Reporter:
    """Writes the status file whenever it is told to, and tells systemd what has changed."""

    def __init__(self, paths: Paths, problems: Problems) -> None:
        """Take where it goes and what does not change."""
        self._paths = paths
        self._problems = problems
        self._manager = ServiceManager()
        self._pid = os.getpid()
        self._process = identify(self._pid)
        self._started_at, self._started = time.time(), time.monotonic()
        self._said_alive = self._started
        self.reloads = Reloads()

    def due(self, now: float) -> float | None:
        """Return when systemd wants to hear of us again."""
        interval = self._manager.watchdog_interval
        return max(self._said_alive + interval / 3, now + 0.001) if interval else None

    def say_alive(self, *, is_well: bool = True) -> None:
        """Keep systemd's watchdog quiet, as long as our own sources are well."""
        now, interval = time.monotonic(), self._manager.watchdog_interval
        if interval and is_well and now >= self._said_alive + interval / 3:
            self._said_alive = now
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

    def report(
        self, outcome: Outcome, data_plane: DataPlane, monitor: Monitor, severer: Severer
    ) -> None:
        """Say how it is now. Raise FileError when the status file can't be written."""
        live, served, master = outcome.live, data_plane.served, data_plane.master
        status = Status(
            pid=self._pid,
            start_time=self._process.start_time if self._process else 0,
            version=__version__,
            config_file=str(self._paths.config),
            started_at=self._started_at,
            updated_at=time.time(),
            listen=tuple(map(str, live.listen)) if live else (),
            backends=_backends(live, monitor, severer) if live else (),
            nginx_pid=master.pid if master else None,
            nginx_version=version_in(Path(f"/proc/{master.pid}/exe")) if master else "",
            generation=served,
            wanted_generation=outcome.wanted,
            is_list_live=outcome.is_list_live,
            is_anybody_served=outcome.is_anybody_served,
            live_since=data_plane.served_since,
            draining_generations=data_plane.draining,
            problems=tuple(problem.as_dict() for problem in self._problems.all()),
            reloads_requested=self.reloads.requested,
            reloads_done=self.reloads.done,
        )
        is_proven = served is not None and outcome.wanted in (None, served)
        overdue = time.monotonic() - self._started > _READY_AT_LAST
        self._manager.status(status.summary)
        if is_proven or overdue:
            self._manager.ready()
        write_status(status, self._paths)


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
