"""What a turn of the loop does, in which order."""

from __future__ import annotations

from unittest.mock import MagicMock

from kube_nginx_agent.inbox import Inbox, NginxComplained, ReloadRequested, StopRequested
from kube_nginx_agent.loop.agent import Agent, Fleet, Inputs, Voice
from kube_nginx_agent.notices.problems import Problems
from unit.making import NODE, PATHS, address


class Turns:
    """An agent all of whose parts are mocks, which stops when its severer is asked often enough."""

    def __init__(self, count: int = 1) -> None:
        self.parts = MagicMock()
        self.inbox = Inbox()
        self.said: list[str] = []
        monitor, severer = self.parts.monitor, self.parts.severer
        for part in (monitor, severer, self.parts.data_plane, self.parts.intake):
            part.due.return_value = None
            part.problems.return_value = []
        for part in (self.parts.watch, self.parts.sessions, self.parts.capacity):
            part.problems.return_value = []
        self.parts.data_plane.problems.return_value = []
        self.parts.reporter.due.return_value = None
        self.parts.reporter.reloads.requested = self.parts.reporter.reloads.done = 0
        self.parts.intake.wanted = self.parts.intake.live = None
        monitor.healths = {}
        left = iter(range(count - 1))

        def sever(*_: object) -> None:
            ends = next(left, None) is None
            self.inbox.post(StopRequested("SIGTERM") if ends else ReloadRequested())

        severer.sever.side_effect = sever
        problems = Problems(lambda _kind, message, _fields: self.said.append(message), lambda: 0.0)
        self.agent = Agent(
            PATHS,
            self.inbox,
            Inputs(self.parts.intake, self.parts.watch, self.parts.run_folder, lambda: NODE),
            Fleet(monitor, severer, self.parts.sessions),
            self.parts.data_plane,
            self.parts.capacity,
            Voice(self.parts.sink, problems, self.parts.reporter),
        )


def test_sessions_are_ended_only_after_nginx_gives_the_backend_no_new_ones() -> None:
    """A client that is cut reconnects at once; it must not come to the same backend."""
    turns = Turns()

    turns.agent.run()

    calls = [name for name, _, _ in turns.parts.mock_calls]
    assert calls.index("data_plane.reconcile") < calls.index("severer.sever")
    assert calls.index("monitor.tick") < calls.index("data_plane.reconcile")


def test_event_that_can_not_be_taken_does_not_end_the_loop() -> None:
    turns = Turns(count=2)
    turns.parts.monitor.take.side_effect = ZeroDivisionError("a mistake")
    turns.inbox.post(NginxComplained(address("10.0.0.1:6443")))

    assert turns.agent.run() == 0

    assert any("events: internal error: ZeroDivisionError" in line for line in turns.said)
    assert turns.parts.severer.sever.call_count == 2


def test_part_that_fails_in_each_turn_is_said_once_and_over_when_it_works() -> None:
    turns = Turns(count=4)
    faults = [ZeroDivisionError("a mistake") for _ in range(2)]
    turns.parts.monitor.tick.side_effect = [*faults, None, None]

    turns.agent.run()

    begun, over = turns.said
    assert begun.startswith("health: internal error: ZeroDivisionError: a mistake")
    assert over.startswith("over after ")
