"""Brings nginx to the desired state: when to apply, when to wait, what to heal."""

from __future__ import annotations

import difflib
import signal
import time

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import Desired, Rendered
from kube_nginx_agent.nginx.apply import Applier, ApplyError, Proof
from kube_nginx_agent.nginx.backoff import Backoff
from kube_nginx_agent.nginx.draining import draining_generations
from kube_nginx_agent.nginx.generation import Answer, NoAnswer
from kube_nginx_agent.nginx.healing import Healer, signal_if_there
from kube_nginx_agent.nginx.process import (
    Process,
    Worker,
    is_alive,
    workers,
)
from kube_nginx_agent.nginx.supervise import Supervisor
from kube_nginx_agent.nginx.upgrade import Upgrader
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problems

MAX_DRAINING = 8
"""Generations of old workers that may serve their last sessions side by side."""

_ROOM_AGAIN = 5.0  # seconds until it is looked whether an old generation has ended
_RESTART = "restart"
_UPGRADE = "upgrade"
_FIRST_RESTART = 0.1  # seconds, as systemd's RestartSec
_LONGEST_RESTART = 30.0
_LONG_RUN = 60.0  # seconds; an nginx that ran longer is restarted at once
_DIFFERENCE_LINES = 20


class DataPlane:
    """The one owner of nginx's state within the loop."""

    def __init__(
        self,
        applier: Applier,
        supervisor: Supervisor,
        upgrader: Upgrader,
        sink: Sink,
        problems: Problems,
    ) -> None:
        """Take the tools; nothing is touched yet."""
        self._applier = applier
        self._supervisor = supervisor
        self._upgrader = upgrader
        self._sink = sink
        self._problems = problems
        self._healer = Healer(sink, problems)
        self._backoff = Backoff()
        self._restarts = Backoff(_FIRST_RESTART, _LONGEST_RESTART)
        self._backoff_upgrade = Backoff()
        self._ended_at: float | None = None
        self.master: Process | None = None
        self.served: str | None = None
        """The generation that nginx says it serves."""
        self.served_since: float | None = None
        """Since when, in seconds since the epoch."""
        self.draining = 0
        """How many earlier generations still serve sessions."""
        self.due: float | None = None
        """When to reconcile again, whatever happens."""

    def reconcile(
        self, wanted: Rendered, desired: Desired, now: float, *, may_wait: bool = False
    ) -> Proof | None:
        """Make nginx serve ``wanted``, unless it does, or the last failure was too short ago.

        Return the proof if it went live just now. What ``may_wait`` is not worth ending old
        sessions for.
        """
        self.observe(now)
        if self._healer.is_unfit:
            return None
        self._finish_upgrade(now)
        if self.served == wanted.generation:
            self._restore(wanted)
            if self._serves_clients(wanted, desired):
                self._note_live(wanted)
                self._upgrade(now)
        else:
            retry = self._backoff.due(wanted.generation)
            restart = self._restarts.due(_RESTART) if self.master is None else None
            wait = max(retry or now, restart or now)
            if may_wait and self.draining >= MAX_DRAINING:
                self._wake(now + _ROOM_AGAIN)
            elif wait <= now:
                return self._apply(wanted, desired)
            else:
                self._wake(wait)
                self._keep_last_good(now)
        return None

    def observe(self, now: float) -> None:
        """Look at nginx and ask it what it serves; heal it where it serves no new clients."""
        self.due = None
        before, self.master = self.master, self._supervisor.master()
        if before and before != self.master and not is_alive(before):
            self._note_end(before, now)
        answer = self._applier.ask() if self.master else NoAnswer.ABSENT
        self._note_served(answer.generation if isinstance(answer, Answer) else None)
        self.draining = len(self._draining())
        due = self._healer.heal(self.master, now, is_mute=answer is NoAnswer.MUTE)
        if due is not None:
            self._wake(due)

    def start_from_disk(self) -> None:
        """Start nginx from the live config as it is, where nothing better is known."""
        if self.master is None:
            try:
                self._applier.start_from_disk()
            except AgentError as error:
                self._problems.begins("apply", kinds.APPLY_FAILED, error, {})

    def _apply(self, wanted: Rendered, desired: Desired) -> Proof | None:
        self._make_room()
        fields = {"GENERATION": wanted.generation}
        try:
            proof = self._applier.apply(wanted, desired)
        except ApplyError as error:
            now = time.monotonic()
            self.observe(now)
            self._wake(now + self._backoff.failed(wanted.generation, now))
            fields["STEP"] = error.step
            self._problems.begins("apply", kinds.APPLY_FAILED, error, fields)
            return None
        self.master = proof.master
        self._note_served(proof.generation)
        self.draining = len(self._draining())
        self._note_live(wanted)
        return proof

    def _note_served(self, generation: str | None) -> None:
        if generation != self.served:
            self.served = generation
            self.served_since = time.time() if generation else None

    def _wake(self, when: float) -> None:
        self.due = when if self.due is None else min(self.due, when)

    def _note_live(self, rendered: Rendered) -> None:
        self._backoff.succeeded()
        self._problems.ends("apply", f"generation {rendered.generation} is live after all")

    def _note_end(self, master: Process, now: float) -> None:
        """Restart at once what has run for a while, and ever more seldom what keeps ending."""
        if self._ended_at is not None and now - self._ended_at > _LONG_RUN:
            self._restarts.succeeded()
        self._restarts.failed(_RESTART, now)
        self._ended_at = now
        message = f"nginx (master {master.pid}) has ended"
        self._sink(kinds.NGINX_ENDED, message, {"NGINX_PID": str(master.pid)})

    def _restore(self, wanted: Rendered) -> None:
        """Undo what somebody did to the live config; nginx has not read it, so without a reload."""
        found = self._applier.live_text()
        if found != wanted.text:
            try:
                self._applier.restore(wanted)
            except AgentError as error:
                self._problems.begins("live config", kinds.LIVE_RESTORED, error, {})
                return
            self._sink(kinds.LIVE_RESTORED, _difference(found, wanted), {})
        self._problems.ends("live config", "the live config can be written again")

    def _finish_upgrade(self, now: float) -> None:
        """Go on where an agent has ended within an upgrade, and two masters accept side by side."""
        new = self.master
        if new is None or not self._upgrader.is_unfinished(new) or self._upgrade_waits(now):
            return
        try:
            old = self._upgrader.finish(new)
        except AgentError as error:
            self.observe(time.monotonic())
            self._note_upgrade_failed(error)
        else:
            self._note_upgraded(old, new)

    def _upgrade(self, now: float) -> None:
        """Bring nginx to the installed binary, when that is another one."""
        old = self.master
        if old is None or not self._upgrader.is_needed(old):
            self._problems.ends("binary", "nginx is the installed one")
            return
        if self._upgrade_waits(now):
            return
        try:
            self._upgrader.check_usable()
            if not self._upgrader.is_possible(old):
                return
            self.master = self._upgrader.upgrade(old)
        except AgentError as error:
            self._note_upgrade_failed(error)
        else:
            self._note_upgraded(old, self.master)

    def _upgrade_waits(self, now: float) -> bool:
        wait = self._backoff_upgrade.due(_UPGRADE)
        if wait is None or wait <= now:
            return False
        self._wake(wait)
        return True

    def _note_upgrade_failed(self, error: AgentError) -> None:
        now = time.monotonic()
        self._wake(now + self._backoff_upgrade.failed(_UPGRADE, now))
        self._problems.begins("binary", kinds.UPGRADE_FAILED, error, {})

    def _note_upgraded(self, old: Process, new: Process) -> None:
        self._backoff_upgrade.succeeded()
        self._problems.ends("binary")
        message = (
            f"nginx was upgraded to {self._upgrader.version()}: master {new.pid} has taken over, "
            f"{old.pid} serves its last sessions"
        )
        self._sink(kinds.NGINX_UPGRADED, message, {"NGINX_PID": str(new.pid)})

    def _serves_clients(self, wanted: Rendered, desired: Desired) -> bool:
        """Tell whether the job is done; after a failure nginx's word for it is not enough."""
        if self._backoff.due(wanted.generation) is None:
            return True
        try:
            self._applier.check_data_path(desired)
        except AgentError as error:
            fields = {"GENERATION": wanted.generation, "STEP": "canary"}
            self._problems.begins("apply", kinds.APPLY_FAILED, error, fields)
            return False
        return True

    def _keep_last_good(self, now: float) -> None:
        """While the wanted config waits for its next try: guard the one that goes on instead."""
        good = self._applier.last_good()
        if good and self.served in (None, good.generation):
            self._restore(good)
            restart = self._restarts.due(_RESTART)
            if self.master is None and (restart is None or restart <= now):
                self._start_again(now)

    def _start_again(self, now: float) -> None:
        try:
            self._applier.start_from_disk()
        except AgentError:  # the open problem is why the wanted one is not served instead
            self._restarts.failed(_RESTART, now)
        self.observe(now)

    def _make_room(self) -> None:
        """End the oldest draining generations, so that a new one fits (docs/decisions/0005)."""
        for generation in self._draining()[: -(MAX_DRAINING - 1)]:
            for worker in generation:
                signal_if_there(worker.process, signal.SIGTERM)
            pids = ", ".join(str(worker.process.pid) for worker in generation)
            message = (
                f"{MAX_DRAINING} earlier generations still serve sessions: the oldest "
                f"(worker {pids}) is ended, its clients reconnect"
            )
            self._sink(kinds.GENERATION_CUT, message, {})

    def _draining(self) -> list[list[Worker]]:
        return draining_generations(workers(self.master)) if self.master else []


def _difference(found: str | None, wanted: Rendered) -> str:
    """Return what the journal says of a live config that was changed by another hand."""
    if found is None:
        return "the live config was gone or unreadable: it is restored"
    lines = list(
        difflib.unified_diff(
            wanted.text.splitlines(), found.splitlines(), "written", "found", lineterm="", n=0
        )
    )
    shown = lines[:_DIFFERENCE_LINES]
    if len(lines) > len(shown):
        shown.append(f"... and {len(lines) - len(shown)} more lines")
    return "\n".join(["the live config was changed by another hand: it is restored", *shown])
