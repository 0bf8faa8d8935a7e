"""The one loop that owns all state: events in, reconcile, report.

Level-triggered: an event only wakes it. Every pass works out from scratch what should be and does
what is missing, so a lost event costs time (at most ``POLL``), never correctness.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from kube_nginx_agent import __version__
from kube_nginx_agent.desired import ALL_WELL, HealthView, NoServerError, desire
from kube_nginx_agent.health import fleet
from kube_nginx_agent.health.monitor import Monitor
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.inbox import (
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
from kube_nginx_agent.model import Config, Desired, Node, Rendered
from kube_nginx_agent.nginx.apply import Proof
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.master_watch import MasterWatch
from kube_nginx_agent.nginx.rendering import render
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.run_folder import RunFolder
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problems
from kube_nginx_agent.report.reporter import Reloads, Reporter

POLL = 10.0
"""Seconds after which everything is looked at again, event or not."""


@dataclass(frozen=True)
class Plan:
    """What nginx should be doing, and what it would be doing if all backends were well."""

    desired: Desired
    if_all_well: Desired
    rendered: Rendered


class Agent:
    """Runs until it is told to stop."""

    def __init__(  # noqa: PLR0913 - the parts that it ties together, made by ``cli.run``
        self,
        *,
        paths: Paths,
        node: Node,
        inbox: Inbox,
        intake: Intake,
        monitor: Monitor,
        severer: Severer,
        data_plane: DataPlane,
        run_folder: RunFolder,
        reporter: Reporter,
        sink: Sink,
        problems: Problems,
    ) -> None:
        """Take the parts; nothing happens before ``run``."""
        self._paths = paths
        self._node = node
        self._inbox = inbox
        self._intake = intake
        self._monitor = monitor
        self._severer = severer
        self._data_plane = data_plane
        self._run_folder = run_folder
        self._reporter = reporter
        self._sink = sink
        self._problems = problems
        self._watch = FileWatch((paths.config, paths.live, paths.pid_file, paths.nginx), inbox.post)
        self._master_watch = MasterWatch(inbox.post)
        self._next_poll = 0.0
        self._stopping: str | None = None
        self._reloads = Reloads()
        self._plan: Plan | None = None
        self._live: Plan | None = None

    def run(self) -> None:
        """Loop until a StopRequested arrives."""
        self._sink(kinds.AGENT_STARTED, f"kube-nginx-agent {__version__} starts", {})
        is_news = True
        while self._stopping is None:
            now = time.monotonic()
            self._monitor.tick(now)
            is_news = self._monitor.has_news() or is_news
            if is_news or now >= self._pass_due():
                self._pass(now)
            # Only now that nginx sends no new ones there: a client that is cut reconnects at once.
            self._severer.sever(now)
            self._reporter.say_alive(self._watch)
            is_news = self._take(self._inbox.wait(self._due() - time.monotonic()))
        self._reporter.say_stopping()
        self._sink(kinds.AGENT_STOPPED, f"kube-nginx-agent stops ({self._stopping})", {})

    def _due(self) -> float:
        """Return when there is something to do that no event will announce."""
        dues = (self._pass_due(), self._monitor.due, self._severer.due, self._reporter.due)
        return min(due for due in dues if due is not None)

    def _pass_due(self) -> float:
        dues = (self._intake.due, self._data_plane.due, self._next_poll)
        return min(due for due in dues if due is not None)

    def _take(self, happened: list[Event]) -> bool:
        """Note what has happened; return whether it asks for a pass by itself."""
        now = time.monotonic()
        is_news = False
        for event in happened:
            if isinstance(event, (Probed, NginxComplained, SessionsWait)):
                # News only if it changes something, which the monitor tells.
                self._monitor.take(event, now)
            else:
                self._note(event, now)
                is_news = True
        return is_news

    def _note(self, event: Event, now: float) -> None:
        if isinstance(event, FileTouched):
            self._note_touch(event, now)
        elif isinstance(event, NameAnswered):
            self._intake.note_answer(event)
        elif isinstance(event, ReloadRequested):
            self._reloads.requested += 1
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
        reload = self._reloads.requested
        at_once = reload > self._reloads.done
        if at_once:
            self._reporter.say_reloading()
        if now >= self._next_poll:
            self._next_poll = now + POLL
            self._intake.poll(now)
        self._watch_files(now)
        self._keep_run_folder()
        self._intake.look(now, at_once=at_once)
        is_decided = self._decide(now)
        self._reconcile(now)
        self._master_watch.follow(self._data_plane.master)
        if at_once and is_decided:
            self._reloads.done = reload
            self._reporter.say_reloaded()
        self._report()

    def _reconcile(self, now: float) -> None:
        plan = self._plan
        if plan:
            # A list that the administrator has changed never waits for old sessions to end.
            may_wait = self._live is not None and plan.if_all_well == self._live.if_all_well
            proof = self._data_plane.reconcile(plan.rendered, plan.desired, now, may_wait=may_wait)
            if self._data_plane.served == plan.rendered.generation:
                self._live = plan
            if proof:
                self._say_live(proof, plan.desired)
        elif self._intake.has_looked:
            self._data_plane.observe(now)
            self._data_plane.start_from_disk()

    def _report(self) -> None:
        plan = self._plan
        self._reporter.report(
            plan.desired if plan else None,
            plan.rendered.generation if plan else None,
            self._data_plane,
            self._monitor,
            self._severer,
            self._reloads,
            has_looked=self._intake.has_looked,
        )

    def _keep_run_folder(self) -> None:
        repaired = self._run_folder.repair()
        if repaired:
            message = f"{self._paths.run_dir}: {', '.join(repaired)} was gone and is put back"
            self._sink(kinds.RUN_FOLDER_REPAIRED, message, {})

    def _watch_files(self, now: float) -> None:
        self._watch.refresh(now)
        found = {problem.about: problem for problem in self._watch.problems()}
        for about in self._problems.about("watch"):
            if about not in found:
                self._problems.ends(about, "changes of files are seen at once again")
        for problem in found.values():
            self._problems.begins(problem.about, problem.kind, problem.error, problem.fields)

    def _decide(self, now: float) -> bool:
        """Work out what nginx should do; return False if that has to wait for a moment.

        What can't be worked out leaves the last decision standing.
        """
        config = self._intake.config
        if config is None:
            return self._intake.has_looked
        if self._intake.is_waiting_for_names(now):
            return False
        try:
            if_all_well = desire(config, self._intake.resolved, self._node, ALL_WELL)
        except NoServerError as error:
            self._problems.begins("names", kinds.NAME_FAILED, error, {})
            return True
        self._problems.ends("names")
        backends = {server.address for server in if_all_well.servers}
        self._monitor.want(backends, config.health_check, now)
        self._severer.want(backends, now)
        if self._monitor.is_waiting_for_first_look(now):
            return False
        desired = desire(config, self._intake.resolved, self._node, self._view(config))
        self._plan = Plan(desired, if_all_well, render(desired, self._paths))
        if self._plan.rendered.generation == self._data_plane.served:
            self._intake.edited_at = None  # An edit of a comment; what comes later is not its work.
        return True

    def _view(self, config: Config) -> HealthView:
        healths = self._monitor.healths
        return HealthView(
            out=fleet.out_of_use(healths) if config.backends else frozenset(),
            none_passes=fleet.outlook(healths) is fleet.Outlook.NONE,
            connect_timeout=self._monitor.connect_timeout,
        )

    def _say_live(self, proof: Proof, desired: Desired) -> None:
        edited_at, self._intake.edited_at = self._intake.edited_at, None
        after = time.time() - edited_at if edited_at else None
        # An older edit was made while no agent ran, or the clock has jumped.
        since_edit = f", {after * 1000:.0f} ms after the edit" if after and 0 < after < 60 else ""
        where = ", ".join(map(str, desired.listen))
        self._sink(
            kinds.GENERATION_LIVE,
            f"generation {proof.generation} is live on {where}{since_edit} "
            f"(applied and proven in {proof.seconds * 1000:.0f} ms)",
            {"GENERATION": proof.generation, "NGINX_PID": str(proof.master.pid)},
        )
