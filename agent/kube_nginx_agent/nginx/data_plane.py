"""Brings nginx to what it should serve: look, decide, take one step, and look again."""

from __future__ import annotations

import difflib
import signal
import time
from dataclasses import replace
from typing import Any, Callable, Hashable, Iterable, Sequence

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import Rendered
from kube_nginx_agent.nginx import limits
from kube_nginx_agent.nginx.apply import Applier, ApplyError, Proof
from kube_nginx_agent.nginx.backoff import Backoff
from kube_nginx_agent.nginx.decision import (
    MAX_DRAINING,
    MUTE_FOR,
    Apply,
    Check,
    End,
    FinishUpgrade,
    Goal,
    Memory,
    Rest,
    Restore,
    Resume,
    Seen,
    Start,
    Step,
    Upgrade,
    UpgradeState,
    Waits,
    decide,
    remember,
    served_by,
)
from kube_nginx_agent.nginx.draining import draining_generations
from kube_nginx_agent.nginx.look import Looker
from kube_nginx_agent.nginx.process import (
    Process,
    is_alive,
    signal_if_there,
    wait_until_gone,
    workers,
)
from kube_nginx_agent.nginx.rendering import generation_of
from kube_nginx_agent.nginx.supervise import Supervisor
from kube_nginx_agent.nginx.upgrade import Upgrader
from kube_nginx_agent.node.waiting import StoppedWaitingError
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem

_FIRST_RESTART = 0.1  # seconds, as systemd's RestartSec
_LONGEST_RESTART = 30.0
_LONG_RUN = 60.0  # seconds; an nginx that ran longer is restarted at once
_MOST_STEPS = 8
"""Steps of one pass; more than the longest way from a hung nginx to a served goal has."""
_PAUSE = 1.0
"""Seconds until the next pass where they did not suffice."""
_DIFFERENCE_LINES = 20


class DataPlane:
    """The one owner of nginx's state within the loop."""

    def __init__(
        self,
        applier: Applier,
        supervisor: Supervisor,
        upgrader: Upgrader,
        sink: Sink,
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the tools; ``before_step`` is called before each thing that may take its time."""
        self._applier = applier
        self._upgrader = upgrader
        self._looker = Looker(applier, supervisor, upgrader)
        self._sink = sink
        self._before_step = before_step
        self._memory = Memory()
        self._seen = Seen()
        self._family: frozenset[Process] = frozenset()
        self._goals: Sequence[Goal] = ()
        self._proof: Proof | None = None
        self._failed: dict[Hashable, tuple[Backoff, ApplyError]] = {}
        self._restarts = Backoff(_FIRST_RESTART, _LONGEST_RESTART)
        self._ended_at: float | None = None
        self._upgrades = Backoff()
        self._upgrade_error: AgentError | None = None
        self._restores = Backoff()
        self._restore_error: AgentError | None = None
        self._start_error: AgentError | None = None
        self._wake: float | None = None
        self.served_since: float | None = None
        """Since when the generation is served, in seconds since the epoch."""

    @property
    def master(self) -> Process | None:
        """The master that was seen last."""
        return self._seen.master

    @property
    def served(self) -> str | None:
        """The generation that nginx says it serves."""
        return served_by(self._memory)

    @property
    def draining(self) -> int:
        """How many earlier generations still serve sessions."""
        return self._seen.draining

    def pids(self) -> frozenset[int]:
        """Return the pids of all of nginx that lives; may be called from any thread."""
        return frozenset(process.pid for process in self._family)

    def due(self, now: float) -> float | None:
        """Return when to reconcile again though nothing happens."""
        return self._wake if self._wake is not None and self._wake > now else None

    def is_live(self, goal: Goal) -> bool:
        """Tell whether nginx serves the goal, and clients by it."""
        return self.served == goal.generation and goal.key not in self._failed

    def has_failed(self, goal: Goal) -> bool:
        """Tell whether the last try at the goal was a failure."""
        return goal.key in self._failed

    def reconcile(self, goals: Sequence[Goal], now: float) -> Proof | None:
        """Make nginx serve the first of the ``goals`` that can be had, the most wanted one first.

        Return the proof if one went live just now.
        """
        self._goals = goals
        keys = {goal.key for goal in goals}
        self._failed = {key: kept for key, kept in self._failed.items() if key in keys}
        self._proof = None
        for _ in range(_MOST_STEPS):
            self.observe(now)
            decision = decide(self._seen, self._memory, goals, self._waits(now), now)
            self._wake = decision.wake
            if isinstance(decision.step, Rest):
                return self._proof
            self._before_step()
            self._take(decision.step, now)
            now = time.monotonic()
        self._wake = now + _PAUSE
        return self._proof

    def observe(self, now: float) -> None:
        """Look at nginx, and note what has changed since the last look."""
        before, self._seen = self._seen.master, self._looker.look()
        # Workers outlive a master that was killed, and serve their sessions to the end.
        self._family = frozenset(filter(is_alive, self._family | self._seen.family))
        if before and before != self._seen.master and not is_alive(before):
            self._note_end(before, now)
        served = self.served
        self._memory = remember(self._memory, self._seen, now)
        if self._restore_error and self.served and self._is_live_as_served():
            self._note_restored()
        if self.served != served:
            self.served_since = time.time() if self.served else None

    def start_from_disk(self) -> None:
        """Start nginx from the live config as it is, where nothing better is known."""
        if self.master is None:
            self._start(Start(), time.monotonic())

    def problems(self) -> Iterable[Problem]:
        """Yield what keeps nginx from being as it should."""
        for number, goal in enumerate(self._goals):
            if goal.key in self._failed:
                failure = self._failed[goal.key][1]
                fields = {"GENERATION": goal.generation, "STEP": failure.step}
                yield Problem(f"apply {number}", kinds.APPLY_FAILED, failure, fields)
        if self._start_error and self.master is None:
            yield Problem("start", kinds.APPLY_FAILED, self._start_error)
        if self._upgrade_error and self._seen.upgrade is not UpgradeState.NONE:
            yield Problem("binary", kinds.UPGRADE_FAILED, self._upgrade_error)
        if self._restore_error:
            yield Problem("live config", kinds.LIVE_RESTORED, self._restore_error)
        for process in self._seen.stopped:
            error = AgentError(f"nginx process {process.pid} is stopped; it is told to go on")
            yield Problem(f"stopped {process.pid}", kinds.NGINX_HUNG, error)

    def _waits(self, now: float) -> Waits:
        retries = {key: backoff.retry_at(now) for key, (backoff, _) in self._failed.items()}
        return Waits(
            goals={key: retry for key, retry in retries.items() if retry is not None},
            # What failed before nginx served it is another matter now that it does.
            checks={
                key: retries[key] if error.step == "canary" else None
                for key, (_, error) in self._failed.items()
            },
            restart=self._restarts.retry_at(now),
            upgrade=self._upgrades.retry_at(now),
            restore=self._restores.retry_at(now),
        )

    def _take(self, step: Step, now: float) -> None:
        actions: dict[type, Callable[[Any, float], None]] = {
            Resume: self._resume,
            End: self._end,
            FinishUpgrade: self._finish_upgrade,
            Apply: self._apply,
            Restore: self._restore,
            Check: self._check,
            Start: self._start,
            Upgrade: self._upgrade,
        }
        actions[type(step)](step, now)

    def _apply(self, step: Apply, _now: float) -> None:
        self._make_room()
        try:
            self._proof = self._applier.apply(step.goal.rendered, step.goal.desired)
        except ApplyError as error:
            self._note_failed(step.goal, error)
        else:
            self._failed.pop(step.goal.key, None)

    def _check(self, step: Check, _now: float) -> None:
        """See whether a goal that nginx serves, against our will, serves clients by now."""
        try:
            self._applier.check_data_path(step.goal.desired)
        except StoppedWaitingError:
            raise
        except AgentError as cause:
            self._note_failed(step.goal, ApplyError("canary", cause, last_good_serves=False))
        else:
            self._failed.pop(step.goal.key, None)

    def _note_failed(self, goal: Goal, error: ApplyError) -> None:
        now = time.monotonic()  # a step that fails may have taken its time
        backoff, _ = self._failed.get(goal.key, (Backoff(), error))
        backoff.failed(now)
        self._failed[goal.key] = (backoff, error)
        if error.step == "start":
            self._restarts.failed(now)

    def _restore(self, step: Restore, _now: float) -> None:
        """Undo what somebody did to the live config; nginx has not read it, so without a reload."""
        try:
            self._applier.restore(step.rendered)
        except AgentError as error:
            self._restores.failed(time.monotonic())
            self._restore_error = error
            return
        self._note_restored()
        message = _difference(self._seen.live, step.rendered)
        if message:
            self._sink(kinds.LIVE_RESTORED, message, {})

    def _is_live_as_served(self) -> bool:
        """Tell whether the live config is what nginx serves, whoever has seen to it."""
        return generation_of(self._seen.live) == self.served

    def _note_restored(self) -> None:
        self._restores.succeeded()
        self._restore_error = None

    def _resume(self, step: Resume, now: float) -> None:
        for process in step.processes:
            signal_if_there(process, signal.SIGCONT)
            if process not in self._memory.resumed:
                message = f"nginx process {process.pid} is stopped; it is told to go on"
                self._sink(kinds.NGINX_HUNG, message, {"NGINX_PID": str(process.pid)})
        resumed = {**self._memory.resumed, **dict.fromkeys(step.processes, now)}
        self._memory = replace(self._memory, resumed=resumed)

    def _end(self, step: End, _now: float) -> None:
        """Kill an nginx that serves no new clients, so that it is started again.

        The workers of one that retires serve their sessions to the end, if they are let; those of
        one that is hung serve nobody, and would keep its successor from starting.
        """
        master = step.master
        hung = f"is hung: for {MUTE_FOR:g} s it has neither answered nor gone through its loop"
        how = hung if step.is_hung else "was told to quit and takes no new connections"
        message = f"nginx (master {master.pid}) {how}: it is killed and started again"
        self._sink(kinds.NGINX_HUNG, message, {"NGINX_PID": str(master.pid)})
        family = [worker.process for worker in workers(master)] if step.is_hung else []
        for process in (master, *family):
            signal_if_there(process, signal.SIGKILL)
        wait_until_gone(master, limits.END)

    def _start(self, _step: Start, _now: float) -> None:
        try:
            self._applier.start_from_disk()
        except StoppedWaitingError:
            raise
        except AgentError as error:
            self._restarts.failed(time.monotonic())
            self._start_error = error
        else:
            self._start_error = None

    def _upgrade(self, _step: Upgrade, _now: float) -> None:
        """Bring nginx to the installed binary, when that is another one."""
        old = self._seen.master
        if old:
            self._note_upgrade(lambda: (old, self._upgrader.upgrade(old)))

    def _finish_upgrade(self, _step: FinishUpgrade, _now: float) -> None:
        new = self._seen.master
        if new:
            self._note_upgrade(lambda: (self._upgrader.finish(new), new))

    def _note_upgrade(self, upgrade: Callable[[], tuple[Process, Process]]) -> None:
        """Carry it out, and say how it went: the old master and the new one, or why not."""
        try:
            old, new = upgrade()
        except StoppedWaitingError:
            raise
        except AgentError as error:
            self._upgrades.failed(time.monotonic())
            self._upgrade_error = error
            return
        self._upgrades.succeeded()
        self._upgrade_error = None
        message = (
            f"nginx was upgraded to {self._upgrader.version()}: master {new.pid} has taken over, "
            f"{old.pid} serves its last sessions"
        )
        self._sink(kinds.NGINX_UPGRADED, message, {"NGINX_PID": str(new.pid)})

    def _note_end(self, master: Process, now: float) -> None:
        """Restart at once what has run for a while, and ever more seldom what keeps ending."""
        if self._ended_at is not None and now - self._ended_at > _LONG_RUN:
            self._restarts.succeeded()
        self._restarts.failed(now)
        self._ended_at = now
        message = f"nginx (master {master.pid}) has ended"
        self._sink(kinds.NGINX_ENDED, message, {"NGINX_PID": str(master.pid)})

    def _make_room(self) -> None:
        """End the oldest draining generations, so that a new one fits (docs/decisions/0005)."""
        master = self._seen.master
        draining = draining_generations(workers(master)) if master else []
        for generation in draining[: -(MAX_DRAINING - 1)]:
            for worker in generation:
                signal_if_there(worker.process, signal.SIGTERM)
            pids = ", ".join(str(worker.process.pid) for worker in generation)
            message = (
                f"{MAX_DRAINING} earlier generations still serve sessions: the oldest "
                f"(worker {pids}) is ended, its clients reconnect"
            )
            self._sink(kinds.GENERATION_CUT, message, {})


def _difference(found: str | None, wanted: Rendered) -> str:
    """Return what the journal says of a live config that was changed; "" if we did it ourselves."""
    if found is None:
        return "the live config was gone or unreadable: it is restored"
    if generation_of(found):
        return ""  # A text of ours, which a way back that found no room has left.
    lines = list(
        difflib.unified_diff(
            wanted.text.splitlines(), found.splitlines(), "written", "found", lineterm="", n=0
        )
    )
    shown = lines[:_DIFFERENCE_LINES]
    if len(lines) > len(shown):
        shown.append(f"... and {len(lines) - len(shown)} more lines")
    return "\n".join(["the live config was changed by another hand: it is restored", *shown])
