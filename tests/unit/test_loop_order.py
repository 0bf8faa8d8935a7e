"""What a turn of the loop does, in which order."""

from __future__ import annotations

from unittest.mock import MagicMock

from kube_nginx_agent.inbox import Inbox, StopRequested
from kube_nginx_agent.loop.agent import Agent, Fleet, Inputs, Voice
from kube_nginx_agent.model import Node
from unit.making import NODE, PATHS


def test_sessions_are_ended_only_after_nginx_gives_the_backend_no_new_ones() -> None:
    """A client that is cut reconnects at once; it must not come to the same backend."""
    order = MagicMock()
    inbox = Inbox()
    monitor, severer, data_plane = order.monitor, order.severer, order.data_plane
    for part in (monitor, severer, data_plane):
        part.due.return_value = None
    order.intake.due.return_value = None
    order.reporter.due.return_value = None
    order.reporter.reloads.requested = order.reporter.reloads.done = 0
    order.intake.wanted = order.intake.live = None
    monitor.healths = {}
    monitor.problems.return_value = []
    severer.sever.side_effect = lambda *_: inbox.post(StopRequested("SIGTERM"))

    def look() -> Node:
        return NODE

    inputs = Inputs(order.intake, order.watch, order.run_folder, look)
    agent = Agent(
        PATHS,
        inbox,
        inputs,
        Fleet(monitor, severer, order.sessions),
        data_plane,
        order.capacity,
        Voice(order.sink, order.problems, order.reporter),
    )

    agent.run()

    calls = [name for name, _, _ in order.mock_calls]
    assert calls.index("data_plane.reconcile") < calls.index("severer.sever")
    assert calls.index("monitor.tick") < calls.index("data_plane.reconcile")
