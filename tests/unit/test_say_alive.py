"""systemd's watchdog hears of us only while our own sources are well."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from kube_nginx_agent.inbox import Inbox
from kube_nginx_agent.loop.agent import Agent
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices.problems import Problems
from kube_nginx_agent.report.reporter import Reporter

PATHS = Paths(Path("/c"), Path("/n"), Path("/s"), Path("/r"))


@pytest.mark.parametrize("alive", [True, False])
def test_nothing_is_said_for_a_dead_watch(monkeypatch: pytest.MonkeyPatch, alive: bool) -> None:
    reporter = Reporter(PATHS, Problems(lambda *_: None, time.time))
    said: list[str] = []
    manager: Any = reporter._manager
    manager.watchdog_interval = 30.0
    monkeypatch.setattr(manager, "alive", lambda: said.append("alive"))
    later = time.monotonic() + 11.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    inputs, voice = MagicMock(), MagicMock(reporter=reporter)
    inputs.watch.is_alive.return_value = alive
    agent = Agent(PATHS, Inbox(), inputs, MagicMock(), MagicMock(), MagicMock(), voice)

    agent._turn(later)

    assert said == (["alive"] if alive else [])
    due = reporter.due(later)
    assert due is not None
    assert due > later
