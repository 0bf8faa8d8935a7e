"""systemd's watchdog hears of us only while our own sources are well."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices.problems import Problems
from kube_nginx_agent.report.reporter import Reporter


class Watch:
    def __init__(self, *, alive: bool) -> None:
        self.alive = alive

    def is_alive(self) -> bool:
        return self.alive


@pytest.mark.parametrize("alive", [True, False])
def test_nothing_is_said_for_a_dead_watch(monkeypatch: pytest.MonkeyPatch, alive: bool) -> None:
    paths = Paths(Path("/c"), Path("/n"), Path("/s"), Path("/r"))
    reporter = Reporter(paths, Problems(lambda *_: None, time.time), "1")
    said: list[str] = []
    manager: Any = reporter._manager
    manager.watchdog_interval = 30.0
    monkeypatch.setattr(manager, "alive", lambda: said.append("alive"))
    watch: Any = Watch(alive=alive)
    later = time.monotonic() + 11.0
    monkeypatch.setattr(time, "monotonic", lambda: later)

    reporter.say_alive(watch)

    assert said == (["alive"] if alive else [])
    assert reporter.due is not None
    assert reporter.due > later
