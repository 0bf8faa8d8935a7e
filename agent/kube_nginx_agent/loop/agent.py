"""The one loop that owns all state: events in, reconcile, report.

Level-triggered: an event only wakes it. Every pass works out from scratch what should be and does
what is missing, so a lost event costs time (at most ``POLL``), never correctness. Nothing that
happens in a pass ends the loop: what was not foreseen is a problem like any other, and is tried
again.
"""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Iterable, Sequence, TypeVar

from kube_nginx_agent import __version__
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.health.monitor import Monitor
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.inbox import (
    AddressesChanged,
    Event,
    FileTouched,
    Inbox,
    NameAnswered,
    NginxComplained,
    Probed,
    ReloadRequested,
    SessionsWait,
    StopRequested,
    Touch,
)
from kube_nginx_agent.intake.file_watch import FileWatch
from kube_nginx_agent.intake.intake import Intake
from kube_nginx_agent.loop.alarms import earliest
from kube_nginx_agent.loop.pursuit import Pursuit
from kube_nginx_agent.model import Node
from kube_nginx_agent.nginx.capacity import Capacity
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.master_watch import MasterWatch
from kube_nginx_agent.nginx.process import serving as accepting
from kube_nginx_agent.node.files import FileError
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.reaping import reap_orphans
from kube_nginx_agent.node.run_folder import FolderLostError, RunFolder
from kube_nginx_agent.node.waiting import StoppedWaitingError
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem, Problems
from kube_nginx_agent.report.reporter import Outcome, Reporter
from kube_nginx_agent.sessions.session_watch import SessionWatch

Result = TypeVar("Result")

POLL = 10.0
"""Seconds after which everything is looked at again, event or not."""
_RETRY = 1.0
"""Seconds after a pass that met something unforeseen."""


@dataclass(frozen=True)
class Inputs:
    """Where the wishes of the administrator and the facts of the node come from."""

    intake: Intake
    watch: FileWatch
    run_folder: RunFolder
    look_at_node: Callable[[], Node]


@dataclass(frozen=True)
class Fleet:
    """The apiservers: who is well, and whose sessions end."""

    monitor: Monitor
    severer: Severer
    sessions: SessionWatch


@dataclass(frozen=True)
class Voice:
    """How the world hears of us."""

    sink: Sink
    problems: Problems
    reporter: Reporter


class Agent:
    """Runs until it is told to stop."""

    def __init__(  # noqa: PLR0913 - the parts that it ties together, made by ``cli.run``
        self,
        paths: Paths,
        inbox: Inbox,
        inputs: Inputs,
        fleet: Fleet,
        data_plane: DataPlane,
        capacity: Capacity,
        voice: Voice,
        *,
        is_strict: bool = False,
    ) -> None:
        """Take the parts; nothing happens before ``run``. ``is_strict``: see ``alarms``."""
        self._paths = paths
        self._inbox = inbox
        self._inputs = inputs
        self._fleet = fleet
        self._data_plane = data_plane
        self._capacity = capacity
        self._voice = voice
        self._is_strict = is_strict
        self._pursuit = Pursuit(
            paths, inputs.intake, fleet.monitor, fleet.severer, data_plane, voice.sink
        )
        self._master_watch = MasterWatch(inbox.post)
        self._node: Node | None = None
        self._next_poll = 0.0
        self._stopping: str | None = None
        self._health: object = None
        self._pass_at = 0.0
        self._trouble: dict[str, Problem] = {}
        """What the loop itself has found wrong in this pass, by what it is about."""
        self._unforeseen: dict[str, Problem] = {}
        """What failed in a way that was not foreseen, by the part that has not worked since."""
        self._report_error: FileError | None = None
        self._exit_code = 0

    def run(self) -> int:
        """Loop until a StopRequested arrives, and return the exit code."""
        self._voice.sink(kinds.AGENT_STARTED, f"kube-nginx-agent {__version__} starts", {})
        wake, is_news = 0.0, True
        while self._stopping is None:
            now = time.monotonic()
            try:
                self._guard("health", partial(self._fleet.monitor.tick, now))
                has_changed = self._has_health_changed(now)
                if is_news or has_changed or now >= self._pass_at:
                    self._pass(now)
                self._turn(time.monotonic())
                # By the time that the pass went by: what came due meanwhile is still to be done.
                wake = self._due(now)
                self._unforeseen.pop("loop", None)
            except StoppedWaitingError:
                wake = now
            except Exception as error:
                self._note_unforeseen("loop", error)
                self._pass_at = wake = now + _RETRY
            is_news = self._take(self._inbox.wait(wake - time.monotonic()))
        self._voice.reporter.say_stopping()
        message = f"kube-nginx-agent stops ({self._stopping})"
        self._voice.sink(kinds.AGENT_STOPPED, message, {})
        return self._exit_code

    def _has_health_changed(self, now: float) -> bool:
        """Tell whether nginx or the status should follow what has become of the backends."""
        monitor = self._fleet.monitor
        states = tuple((backend, health.state) for backend, health in monitor.healths.items())
        told = tuple(str(problem.error) for problem in monitor.problems())
        waits = monitor.is_waiting_for_first_look(now)
        before, self._health = self._health, (monitor.view(), states, told, waits)
        return before != self._health

    def _due(self, now: float) -> float:
        """Return when there is something to do that no event will announce."""
        passes = {
            "poll": self._next_poll,
            "intake": self._inputs.intake.due(now),
            "data plane": self._data_plane.due(now),
        }
        turns = {
            "monitor": self._fleet.monitor.due(now),
            "severer": self._fleet.severer.due(now),
            "reporter": self._voice.reporter.due(now),
        }
        self._pass_at = earliest(passes, now, is_strict=self._is_strict)
        return min(self._pass_at, earliest(turns, now, is_strict=self._is_strict))

    def _take(self, happened: Sequence[Event]) -> bool:
        """Note what has happened; return whether it asks for a pass by itself."""
        now = time.monotonic()
        is_news = False
        for event in happened:
            self._guard("events", partial(self._note, event, now))
            # Of the backends it is news only if it changes something, which the loop sees itself.
            is_news = is_news or not isinstance(event, (Probed, NginxComplained, SessionsWait))
        return is_news

    def _note(self, event: Event, now: float) -> None:
        if isinstance(event, (Probed, NginxComplained, SessionsWait)):
            self._fleet.monitor.take(event, now)
            if isinstance(event, Probed):
                self._fleet.severer.note(event)
        elif isinstance(event, FileTouched):
            self._note_touch(event, now)
        elif isinstance(event, NameAnswered):
            self._inputs.intake.note_answer(event, now)
        elif isinstance(event, AddressesChanged):
            self._next_poll = now  # what is known of the node is old
        elif isinstance(event, ReloadRequested):
            self._voice.reporter.reloads.requested += 1
        elif isinstance(event, StopRequested):
            self._stopping = event.signal_name

    def _note_touch(self, event: FileTouched, now: float) -> None:
        """Note what happened to backends.yaml; for the other files it is enough to have woken."""
        if event.file != self._paths.config:
            return
        if event.touch is Touch.UNKNOWN:
            self._inputs.intake.poll(now)
        else:
            self._inputs.intake.touch(now, being_written=event.touch is Touch.WRITING)

    def _pass(self, now: float) -> None:
        reloads = self._voice.reporter.reloads
        requested = reloads.requested
        at_once = requested > reloads.done
        if at_once:
            self._voice.reporter.say_reloading()
        is_poll = now >= self._next_poll
        if is_poll:
            self._next_poll = now + POLL
            self._inputs.intake.poll(now)
        afresh = is_poll or at_once
        self._trouble = {}
        if afresh or self._node is None:
            self._guard("node", self._look_at_node)
        self._guard("watch", self._inputs.watch.refresh)
        self._guard("run folder", self._keep_run_folder)
        self._guard("children", reap_orphans)
        self._guard("intake", lambda: self._inputs.intake.look(now, at_once=at_once))
        is_decided = self._guard("nginx", lambda: self._pursue(now, afresh=afresh))
        if self._pursuit.has_failed and not afresh:
            # Perhaps the node is not as it was: an address has left, IPv6 was switched off.
            self._guard("node", self._look_at_node)
            is_decided = self._guard("nginx", lambda: self._pursue(now, afresh=True))
        self._guard("capacity", lambda: self._look_at_capacity(now))
        self._master_watch.follow(self._data_plane.master)
        self._voice.problems.update(self._problems())
        if at_once and is_decided:
            reloads.done = requested
            self._voice.reporter.say_reloaded()
        if self._inputs.intake.has_looked:
            self._guard("report", self._report)

    def _turn(self, now: float) -> None:
        """Do what every turn of the loop does, pass or not."""
        # Only now that nginx sends no new ones there: a client that is cut reconnects at once.
        self._guard("sessions", lambda: self._sever(now))
        self._voice.reporter.say_alive(is_well=self._inputs.watch.is_alive())

    def _sever(self, now: float) -> None:
        self._fleet.severer.sever(now, self._fleet.monitor.convictions(now))

    def _look_at_capacity(self, now: float) -> None:
        serving, master = self._pursuit.serving, self._data_plane.master
        if serving and master:
            pids = [process.pid for process in accepting(master)]
            self._capacity.look(pids, serving.listen, serving.worker_connections, now)

    def _guard(self, part: str, work: Callable[[], Result]) -> Result | None:
        """Do a part of the pass; what was not foreseen in it keeps no other part from its work."""
        try:
            result = work()
        except StoppedWaitingError:
            raise
        except Exception as error:
            self._note_unforeseen(part, error)
            return None
        self._unforeseen.pop(part, None)
        return result

    def _look_at_node(self) -> None:
        self._node = self._inputs.look_at_node()
        self._inputs.intake.note_own_addresses(self._node.addresses)

    def _pursue(self, now: float, *, afresh: bool) -> bool:
        return self._node is not None and self._pursuit.pursue(self._node, now, afresh=afresh)

    def _problems(self) -> Iterable[Problem]:
        yield from self._inputs.watch.problems()
        yield from self._inputs.intake.problems()
        yield from self._pursuit.problems()
        yield from self._data_plane.problems()
        yield from self._fleet.monitor.problems()
        yield from self._fleet.severer.problems()
        yield from self._fleet.sessions.problems()
        yield from self._capacity.problems()
        yield from self._trouble.values()
        yield from self._unforeseen.values()
        if self._report_error:
            yield Problem("report", kinds.REPORT_FAILED, self._report_error)

    def _report(self) -> None:
        intake, pursuit = self._inputs.intake, self._pursuit
        outcome = Outcome(
            live=pursuit.serving or (pursuit.wanted.desired if pursuit.wanted else None),
            wanted=pursuit.wanted.generation if pursuit.wanted else None,
            is_list_live=pursuit.is_wanted_live and not intake.is_refused,
            is_anybody_served=pursuit.is_anybody_served,
        )
        try:
            self._voice.reporter.report(
                outcome, self._data_plane, self._fleet.monitor, self._fleet.severer
            )
        except FileError as error:
            self._report_error = error
        else:
            self._report_error = None

    def _keep_run_folder(self) -> None:
        try:
            repaired = self._inputs.run_folder.repair()
        except AgentError as error:
            self._trouble["run folder"] = Problem("run folder", kinds.RUN_FOLDER_REPAIRED, error)
            if isinstance(error, FolderLostError) and "NOTIFY_SOCKET" in os.environ:
                self._end_for_systemd(error)
            return
        if repaired:
            message = f"{self._paths.run_dir}: {', '.join(repaired)} was gone and is put back"
            self._voice.sink(kinds.RUN_FOLDER_REPAIRED, message, {})

    def _end_for_systemd(self, error: FolderLostError) -> None:
        """End, because only systemd can make the run folder again, and does at the next start."""
        self._voice.sink(kinds.AGENT_FAILED, f"{error}; systemd makes it at the next start", {})
        self._stopping, self._exit_code = "the run folder is gone", 1

    def _note_unforeseen(self, part: str, error: Exception) -> None:
        """Say what was not foreseen, with its place: a fault of ours, but no reason to end."""
        frames = traceback.extract_tb(error.__traceback__)
        what = f"internal error: {type(error).__name__}: {error}"
        hint = f"it is tried again; please report it with its places: {_places(frames)}"
        error = AgentError(what, where=part, hint=hint)
        self._unforeseen[part] = Problem(f"internal {part}", kinds.INTERNAL, error)
        self._voice.problems.add(self._unforeseen[part])


def _places(frames: traceback.StackSummary) -> str:
    """Return the innermost ones as ``module.function:line``."""
    return " ".join(
        f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in frames[-6:]
    )
