"""The agent's process: the real loop with all its parts, which may be stopped and killed."""

from __future__ import annotations

import random
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Callable, cast

from kube_nginx_agent.health.monitor import SHARED_SPREAD, Monitor
from kube_nginx_agent.health.prober import Prober
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.inbox import Event, FileTouched, Inbox, Probed, Touch
from kube_nginx_agent.intake.file_watch import FileWatch
from kube_nginx_agent.intake.intake import Intake
from kube_nginx_agent.loop.agent import Agent, Fleet, Inputs, Voice
from kube_nginx_agent.model import Node
from kube_nginx_agent.nginx.apply import Applier
from kube_nginx_agent.nginx.binary import Nginx
from kube_nginx_agent.nginx.capacity import Capacity
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.log import LogReader
from kube_nginx_agent.nginx.supervise import Attached
from kube_nginx_agent.nginx.upgrade import Upgrader
from kube_nginx_agent.node.facts import spread
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.run_folder import RunFolder
from kube_nginx_agent.notices.journal import Fields
from kube_nginx_agent.notices.kinds import Kind
from kube_nginx_agent.notices.problems import Problems
from kube_nginx_agent.report.reporter import Reporter
from kube_nginx_agent.sessions.session_watch import SessionWatch
from simulation.clock import Clock
from simulation.hooks import Binary, Hooks, Log, NoUpgrades
from simulation.sessions import NODE, Sessions
from support.virtual_prober import VirtualProber

_TURN = 0.001
"""Seconds that a turn of the loop takes."""
_MOST_TURNS = 500
"""Turns of the loop in a second; more of them are a loop that spins."""


class AgentKilledError(BaseException):
    """The process has got SIGKILL; nothing of it runs on."""


class SpinsError(AssertionError):
    """The loop turns without waiting."""


class SimInbox(Inbox):
    """The queue into the loop; to wait for it is what lets time pass."""

    def __init__(self, process: SimProcess) -> None:
        super().__init__()
        self._process = process
        self._left: list[Event] = []
        self._is_woken = False

    def post(self, event: Event) -> None:
        self._left.append(event)
        self._is_woken = self._is_woken or not (isinstance(event, Probed) and event.can_wait)

    def wait(self, timeout: float) -> list[Event]:
        self._process.note_turn()
        self._process.pass_time(_TURN)
        self._process.pass_time(max(timeout - _TURN, 0.0), lambda: self._is_woken)
        events, self._left, self._is_woken = self._left, [], False
        return events


class SimProcess:
    """One life of the agent, and what stops it."""

    def __init__(
        self,
        clock: Clock,
        hooks: Hooks,
        sessions: Sessions,
        paths: Paths,
        say: Callable[[float, str], None],
        seed: int,
    ) -> None:
        self.stopped_until = 0.0
        self.is_alive = True
        self.is_inotify_lost = False
        self._clock = clock
        self._hooks = hooks
        self._sessions = sessions
        self._paths = paths
        self._say = say
        self._dice = random.Random(f"{seed} process {clock.now}")
        self._turns: list[float] = []
        self.inbox = SimInbox(self)
        self.agent = self._assemble(seed)
        self._watch_sessions()

    @property
    def now(self) -> float:
        return self._clock.now

    def at(self, time: float, do: Callable[[], None]) -> None:
        """Have one of its threads do something then, or as soon as it may run."""

        def run() -> None:
            if not self.is_alive:
                return
            if self._clock.now < self.stopped_until:
                # All that was due meanwhile is done at once, in any order.
                late = self.stopped_until + 0.002 * self._dice.random()
                self._clock.at(late, run)
                return
            do()

        self._clock.at(time, run)

    def pass_time(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let time pass for the loop, which may be stopped meanwhile."""
        self._clock.pass_until(self._clock.now + seconds, is_over)
        while self._clock.now < self.stopped_until:
            self._clock.pass_until(self.stopped_until)

    def kill(self) -> None:
        self.is_alive = False
        raise AgentKilledError

    def touch(self, file: Path) -> None:
        """Have inotify tell of a change."""
        if not self.is_inotify_lost:
            event = FileTouched(file, Touch.DONE)
            self.at(self._clock.now, lambda: self.inbox.post(event))

    def note_turn(self) -> None:
        now = self._clock.now
        self._turns = [at for at in self._turns if now - at < 1.0]
        self._turns.append(now)
        if len(self._turns) > _MOST_TURNS:
            raise SpinsError(f"the loop has turned {len(self._turns)} times in a second")

    def _watch_sessions(self) -> None:
        waiting = self._sessions.waiting()
        if waiting:
            self.inbox.post(waiting)
        self.at(self._clock.now + (0.25 if waiting else 1.0), self._watch_sessions)

    def _sink(self, kind: Kind, message: str, fields: Fields) -> None:
        self._say(self._clock.now, f"{kind.name}: {message}")

    def _assemble(self, seed: int) -> Agent:
        paths, inbox = self._paths, self.inbox
        node = Node(f"{seed:012x}", True, frozenset({NODE, ip_address("127.0.0.1")}))
        problems = Problems(self._sink, lambda: self._clock.wall)
        reporter = Reporter(paths, problems)
        supervisor = Attached(paths)
        binary = cast(Nginx, Binary(self._hooks, paths.nginx))
        log = cast(LogReader, Log(self._hooks.nginx.messages))
        applier = Applier(paths, binary, supervisor, log)
        upgrader = cast(Upgrader, NoUpgrades())
        data_plane = DataPlane(applier, supervisor, upgrader, self._sink, reporter.say_alive)
        prober = VirtualProber(self, self._hooks.backends, f"node {seed}", inbox.post)
        shared = spread(node, "shared cause", 0.0, SHARED_SPREAD)
        monitor = Monitor(cast(Prober, prober), self._sessions, self._sink, shared)
        grace = spread(node, "removal grace", 10.0, 30.0)
        severer = Severer(
            self._sessions,
            self._sessions,
            self._sink,
            removal_grace=grace,
            is_own=lambda ip: ip == NODE,
        )
        quiet = cast(Any, Quiet())
        return Agent(
            paths,
            inbox,
            Inputs(
                Intake(paths, self._sink, inbox.post),
                cast(FileWatch, quiet),
                cast(RunFolder, quiet),
                lambda: node,
            ),
            Fleet(monitor, severer, cast(SessionWatch, self._sessions)),
            data_plane,
            cast(Capacity, quiet),
            Voice(self._sink, problems, reporter),
            is_strict=True,
        )


class Quiet:
    """Parts of which no trouble is simulated: the watch of files, the run folder, capacity."""

    def refresh(self) -> None:
        pass

    def problems(self) -> tuple[()]:
        return ()

    def is_alive(self) -> bool:
        return True

    def repair(self) -> list[str]:
        return []

    def look(self, *_: object) -> None:
        pass
