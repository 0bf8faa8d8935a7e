"""What is wrong at present: a line when it begins, a line when it is over, none in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.report import events
from kube_nginx_agent.report.journal import Fields, Sink


@dataclass(frozen=True)
class OpenProblem:
    """An error that persists, and since when (seconds since the epoch)."""

    kind: events.Kind
    error: AgentError
    since: float

    def as_dict(self) -> dict[str, object]:
        """Return it as ``status.json`` has it."""
        return {**self.error.as_dict(), "kind": self.kind.name, "since": self.since}


class Problems:
    """The open problems, each under the name of what it is about; the worst kind comes first."""

    def __init__(self, sink: Sink, wall_clock: Callable[[], float]) -> None:
        """Take where the lines go."""
        self._sink = sink
        self._wall_clock = wall_clock
        self._open: dict[str, OpenProblem] = {}

    def begins(self, about: str, kind: events.Kind, error: AgentError, fields: Fields) -> None:
        """Note that something is wrong; says it only if it was not said already."""
        known = self._open.get(about)
        if known and str(known.error) == str(error):
            return
        since = known.since if known else self._wall_clock()
        self._open[about] = OpenProblem(kind, error, since)
        self._sink(kind, str(error), {**fields, "REASON": error.what})

    def ends(self, about: str, message: str = "") -> None:
        """Note that it is no longer wrong; ``message``, if any, is the line that says so."""
        if self._open.pop(about, None) and message:
            self._sink(events.PROBLEM_SOLVED, message, {})

    def about(self, prefix: str) -> list[str]:
        """Return the names of the open problems that begin with ``prefix``."""
        return [name for name in self._open if name.startswith(prefix)]

    def all(self) -> list[OpenProblem]:
        """Return all that is wrong, the worst first, the older of two equals first."""
        return sorted(self._open.values(), key=lambda open_: (open_.kind.priority, open_.since))
