"""The one loop that owns all state: events in, reconcile, report.

Level-triggered: an event only wakes it. Every pass works out from scratch what should be and does
what is missing, so a lost event costs time (at most ``POLL``), never correctness.
"""

from __future__ import annotations

import os
import time

from kube_nginx_agent import __version__
from kube_nginx_agent.desired import NoServerError, desire
from kube_nginx_agent.inbox import (
    Event,
    FileTouched,
    Inbox,
    NameAnswered,
    ReloadRequested,
    StopRequested,
    Touch,
)
from kube_nginx_agent.intake import Intake
from kube_nginx_agent.model import Desired, Node, Rendered
from kube_nginx_agent.nginx.apply import Proof
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.master_watch import MasterWatch
from kube_nginx_agent.nginx.render import render
from kube_nginx_agent.paths import Paths
from kube_nginx_agent.report import events
from kube_nginx_agent.report.journal import Sink
from kube_nginx_agent.report.problems import Problems
from kube_nginx_agent.report.status import BackendStatus, Status, write_status
from kube_nginx_agent.report.systemd import ServiceManager
from kube_nginx_agent.watch import Watch

POLL = 10.0
"""Seconds after which everything is looked at again, event or not."""

_READY_AT_LAST = 20.0
"""Seconds after which systemd hears READY although nothing is proven: what waits for us at boot
(kubelet) is better off starting, and the status line says what is wrong."""


class Agent:
    """Runs until it is told to stop."""

    def __init__(  # noqa: PLR0913 - the parts that it ties together, made by ``cli.run``
        self,
        *,
        paths: Paths,
        node: Node,
        inbox: Inbox,
        intake: Intake,
        data_plane: DataPlane,
        sink: Sink,
        problems: Problems,
        nginx_version: str,
    ) -> None:
        """Take the parts; nothing happens before ``run``."""
        self._paths = paths
        self._node = node
        self._inbox = inbox
        self._intake = intake
        self._data_plane = data_plane
        self._sink = sink
        self._problems = problems
        self._nginx_version = nginx_version
        self._watch = Watch((paths.config, paths.live, paths.pid_file), inbox.post)
        self._master_watch = MasterWatch(inbox.post)
        self._manager = ServiceManager()
        self._started_at, self._started = time.time(), time.monotonic()
        self._next_poll = self._started
        self._stopping: str | None = None
        self._reloads_requested = self._reloads_done = 0
        self._wanted: Rendered | None = None
        self._desired: Desired | None = None

    def run(self) -> None:
        """Loop until a StopRequested arrives."""
        self._sink(events.AGENT_STARTED, f"kube-nginx-agent {__version__} starts", {})
        while self._stopping is None:
            self._pass(time.monotonic())
            self._take(self._inbox.wait(self._pause(time.monotonic())))
        self._manager.stopping()
        self._sink(events.AGENT_STOPPED, f"kube-nginx-agent stops ({self._stopping})", {})

    def _pause(self, now: float) -> float:
        watchdog = self._manager.watchdog_interval
        dues = [self._intake.due, self._data_plane.due, self._next_poll]
        dues.append(now + watchdog / 3 if watchdog else None)
        return min(due for due in dues if due is not None) - now

    def _take(self, happened: list[Event]) -> None:
        now = time.monotonic()
        for event in happened:
            if isinstance(event, FileTouched):
                self._note_touch(event, now)
            elif isinstance(event, NameAnswered):
                self._intake.note_answer(event)
            elif isinstance(event, ReloadRequested):
                self._reloads_requested += 1
            elif isinstance(event, StopRequested):
                self._stopping = event.signal_name

    def _note_touch(self, event: FileTouched, now: float) -> None:
        """Note what happened to backends.yaml; for the other files it is enough to have woken."""
        if event.file != self._paths.config:
            return
        if event.touch is Touch.UNKNOWN:
            self._intake.poll(now)
        else:
            self._intake.touch(now, being_written=event.touch is Touch.WRITING)

    def _pass(self, now: float) -> None:
        reloading = self._reloads_requested
        at_once = reloading > self._reloads_done
        if at_once:
            self._manager.reloading()
        if now >= self._next_poll:
            self._next_poll = now + POLL
            self._intake.poll(now)
        self._watch_files()
        self._intake.look(now, at_once=at_once)
        self._decide(now)
        if self._desired and self._wanted:
            proof = self._data_plane.reconcile(self._wanted, self._desired, now)
            if proof:
                self._say_live(proof, self._desired)
        elif self._intake.has_looked:
            self._data_plane.observe(now)
            self._data_plane.start_from_disk()
        self._master_watch.follow(self._data_plane.master)
        if at_once and not self._intake.is_waiting_for_names(now):
            self._reloads_done = reloading
            self._manager.reloaded()
        self._report()

    def _watch_files(self) -> None:
        self._watch.refresh()
        if self._watch.is_working:
            self._problems.ends("watch", "changes of files are seen at once again")
        else:
            self._problems.begins("watch", events.WATCH_LOST, self._watch.explain(POLL), {})

    def _decide(self, now: float) -> None:
        """Work out what nginx should do; what can't be worked out leaves the last decision."""
        config = self._intake.config
        if config is None or self._intake.is_waiting_for_names(now):
            return
        try:
            self._desired = desire(config, self._intake.resolved, self._node)
        except NoServerError as error:
            self._problems.begins("names", events.NAME_FAILED, error, {})
            return
        self._problems.ends("names")
        self._wanted = render(self._desired, self._paths)

    def _report(self) -> None:
        status = self._status()
        try:
            write_status(status, self._paths.status)
        except OSError as error:
            # The run folder may be full or gone; the next pass tries again.
            self._manager.status(f"{self._paths.status}: {error.strerror}; {status.summary}")
        else:
            self._manager.status(status.summary)
        overdue = time.monotonic() - self._started > _READY_AT_LAST
        if self._intake.has_looked and (self._is_proven() or overdue):
            self._manager.ready()
        if self._watch.is_alive():
            self._manager.alive()

    def _say_live(self, proof: Proof, desired: Desired) -> None:
        edited_at, self._intake.edited_at = self._intake.edited_at, None
        after = time.time() - edited_at if edited_at else None
        # An older edit was made while no agent ran, or the clock has jumped.
        since_edit = f", {after * 1000:.0f} ms after the edit" if after and 0 < after < 60 else ""
        where = ", ".join(map(str, desired.listen))
        self._sink(
            events.GENERATION_LIVE,
            f"generation {proof.generation} is live on {where}{since_edit} "
            f"(applied and proven in {proof.seconds * 1000:.0f} ms)",
            {"GENERATION": proof.generation, "NGINX_PID": str(proof.master.pid)},
        )

    def _is_proven(self) -> bool:
        served = self._data_plane.served
        return served is not None and (self._wanted is None or served == self._wanted.generation)

    def _status(self) -> Status:
        served = self._data_plane.served
        desired = self._desired
        master = self._data_plane.master
        return Status(
            pid=os.getpid(),
            version=__version__,
            config_file=str(self._paths.config),
            started_at=self._started_at,
            updated_at=time.time(),
            listen=tuple(map(str, desired.listen)) if desired else (),
            backends=_backends(desired) if desired else (),
            nginx_pid=master.pid if master else None,
            nginx_version=self._nginx_version,
            generation=served,
            wanted_generation=self._wanted.generation if self._wanted else None,
            live_since=self._data_plane.served_since,
            draining_generations=self._data_plane.draining,
            problems=tuple(problem.as_dict() for problem in self._problems.all()),
            reloads_requested=self._reloads_requested,
            reloads_done=self._reloads_done,
        )


def _backends(desired: Desired) -> tuple[BackendStatus, ...]:
    return tuple(
        BackendStatus(
            address=str(server.address),
            name=str(server.backend),
            state="draining" if server.down else "up",
            weight=server.weight,
            backup=server.backup,
        )
        for server in sorted(desired.servers, key=lambda server: server.address.ip.packed)
    )
