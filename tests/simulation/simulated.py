"""One run of a plan: the world is made, the agent lives in it, and its violations are returned."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kube_nginx_agent.desired import desire
from kube_nginx_agent.inbox import NginxEnded
from kube_nginx_agent.model import Config, Node
from kube_nginx_agent.nginx.rendering import render
from kube_nginx_agent.node.paths import Paths
from simulation.administrator import Administrator
from simulation.backends import Backends
from simulation.checker import Checker, Violation
from simulation.clients import Clients
from simulation.clock import Clock, TimeModule
from simulation.edges import replaced
from simulation.hooks import Hooks
from simulation.nginx import Master, SimNginx
from simulation.plan import Plan
from simulation.process import AgentKilledError, SimProcess
from simulation.sessions import Sessions
from simulation.troubles import Troubles

HEALS_WITHIN = 400.0
"""Seconds after the last trouble in which all is to be well again: a try that has failed is
repeated after 5 minutes at the latest."""
_LOOKS = 1.0
_PATHS = Paths()


@dataclass
class Outcome:
    """What a run came to."""

    plan: Plan
    violations: list[Violation]
    seconds: float
    """Of simulated time."""
    healed_after: float | None
    """Seconds after the end of the last trouble until all was well."""
    attempts: int
    cuts: int
    reloads: int
    said: list[str] = field(default_factory=list)


class _OverError(BaseException):
    """The run is at its end."""


class Simulation:
    """A node with all that is on it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.said: list[str] = []
        dice = random.Random(f"{plan.seed} world")
        self.clock = Clock()
        self.begins = self.clock.now
        self.hooks = Hooks(self.clock)
        self.backends = Backends(plan, self.begins, random.Random(f"{plan.seed} packets"))
        self.sessions = Sessions(self.clock, self.backends)
        self.nginx = SimNginx(self.clock, self.hooks, _PATHS.live, self.sessions, dice)
        self.clients = Clients(
            self.clock, self.backends, self.sessions, self.nginx, dice, plan.asks, plan.tick
        )
        self.checker = Checker(plan, self.begins, self.backends, self.sessions, self.nginx)
        self.process: SimProcess | None = None
        self.paths = _PATHS
        self.dice = dice
        self.restart_after = 0.1
        self._healed_at: float | None = None
        self.administrator = Administrator(
            self.clock, self.hooks, _PATHS.config, self.checker, self.backends.all, self._touch
        )
        self._troubles = Troubles(self)
        self._connect_all()

    def run(self) -> Outcome:
        """Play the plan to its end."""
        with replaced(self.hooks, TimeModule(self.clock)):
            self._begin()
            try:
                while True:
                    self._live_once()
            except _OverError:
                pass
            except AssertionError as error:
                self.checker.add(self.clock.now, "the loop spins", str(error))
        ended = self.clock.now - self.begins
        healed = None if self._healed_at is None else self._healed_at - self._ends
        return Outcome(
            self.plan,
            self.checker.violations,
            ended,
            healed,
            self.clients.attempts,
            self.sessions.cuts,
            len(self.nginx.reloads),
            self.said,
        )

    @property
    def _ends(self) -> float:
        return self.begins + self.plan.ends

    def _live_once(self) -> None:
        """Let the agent live until it is killed."""
        process = SimProcess(
            self.clock, self.hooks, self.sessions, _PATHS, self._say, self.plan.seed
        )
        self.process = self.hooks.process = process
        try:
            process.agent.run()
        except AgentKilledError:
            self.process = None
            self.clock.pass_until(self.clock.now + self.restart_after)

    def _connect_all(self) -> None:
        checker, clock = self.checker, self.clock
        self.hooks.nginx, self.hooks.backends, self.hooks.dice = (
            self.nginx,
            self.backends,
            self.dice,
        )
        self.sessions.on_cut = lambda session: checker.on_cut(session, clock.now)
        self.clients.on_attempt = checker.on_attempt
        self.clients.complain = self._post
        self.hooks.on_signal = lambda p, signum: checker.on_agent_signal(p, signum, clock.now)
        self.nginx.on_kill = self._on_master_end
        self.nginx.on_quit = lambda: self._touch(_PATHS.generation_socket)

    def _post(self, event: Any) -> None:
        process = self.process
        if process:
            process.at(self.clock.now, lambda: process.inbox.post(event))

    def _on_master_end(self, master: Master) -> None:
        self._post(NginxEnded())

    def _say(self, at: float, line: str) -> None:
        self.said.append(f"{at - self.begins:8.2f}  {line}")
        if line.startswith("INTERNAL"):
            self.checker.add(at, "an internal error", line)

    def _touch(self, file: Path) -> None:
        if self.process:
            self.process.touch(file)

    # The node as it is at first, and what happens then.

    def _begin(self) -> None:
        node = Node("0", has_ipv6_loopback=True)
        first = render(desire(Config(backends=()), {}, node), _PATHS)
        self.hooks.put(_PATHS.live, first.text.encode())
        self.administrator.begin()
        self.nginx.start_soon()
        self.clients.start()
        for trouble in self.plan.troubles:
            self.clock.at(self.begins + trouble.at, partial(self._troubles.begin, trouble))
        self.clock.after(_LOOKS, self._look)

    def _look(self) -> None:
        now = self.clock.now
        status = self._status()
        self.checker.look(now, status)
        if now > self._ends and self._healed_at is None and self._is_well(status):
            self._healed_at = now
        elif self._healed_at is not None and not self._is_well(status):
            self._healed_at = None
        if self._healed_at is not None and now - self._healed_at > 30.0:
            raise _OverError
        if now > self._ends + HEALS_WITHIN and self._healed_at is None:
            why = str(status["summary"]) if status else "there is no status"
            self.checker.add(now, "it has not healed", why)
            raise _OverError
        self.clock.after(_LOOKS, self._look)

    def _status(self) -> dict[str, Any] | None:
        text = self.hooks.data(_PATHS.status)
        found: dict[str, Any] | None = json.loads(text) if text else None
        return found

    def _is_well(self, status: dict[str, Any] | None) -> bool:
        """Tell whether all is as the list has it, and said to be so."""
        conf, wanted = self.nginx.conf, self.checker.wanted
        if conf is None or status is None or status["verdict"] != "ok":
            return False
        served = {peer.address for peer in conf.peers}
        down = {peer.address for peer in conf.peers if peer.is_down}
        is_written = (self.hooks.read_text(_PATHS.live) or "").find(conf.generation) >= 0
        return served == wanted.backends and down == wanted.drained and is_written


def simulate(plan: Plan) -> Outcome:
    """Return what becomes of a plan."""
    os.environ.pop("NOTIFY_SOCKET", None)
    return Simulation(plan).run()
