"""What is wrong at present: a line when it begins, a line when it is over, none in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Iterable

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Fields, Sink


@dataclass(frozen=True)
class OpenProblem:
    """An error that persists, and since when (seconds since the epoch)."""

    kind: kinds.Kind
    error: AgentError
    since: float

    def as_dict(self) -> dict[str, object]:
        """Return it as ``status.json`` has it."""
        return {**self.error.as_dict(), "kind": self.kind.name, "since": self.since}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong at present, as a part of the agent finds it in each pass.

    ``about`` is its name: two passes speak of the same problem when they use the same one.
    """

    about: str
    kind: kinds.Kind
    error: AgentError
    fields: Fields = field(default_factory=dict)


class Problems:
    """The open problems, each under the name of what it is about; the worst kind comes first."""

    def __init__(self, sink: Sink, wall_clock: Callable[[], float]) -> None:
        """Take where the lines go."""
        self._sink = sink
        self._wall_clock = wall_clock
        self._open: dict[str, OpenProblem] = {}

    def begins(self, about: str, kind: kinds.Kind, error: AgentError, fields: Fields) -> None:
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
            self._sink(kinds.PROBLEM_SOLVED, message, {})

    def update(self, found: Iterable[Problem]) -> None:
        """Compare what is wrong now with what was before; say what has begun, changed or ended."""
        now = {problem.about: problem for problem in found}
        for problem in now.values():
            self.begins(problem.about, problem.kind, problem.error, problem.fields)
        for about in self._open.keys() - now.keys():
            self._open.pop(about)

    def about(self, prefix: str) -> list[str]:
        """Return the names of the open problems that begin with ``prefix``."""
        return [name for name in self._open if name.startswith(prefix)]

    def all(self) -> list[OpenProblem]:
        """Return all that is wrong, the worst first, the older of two equals first."""
        return sorted(self._open.values(), key=lambda open_: (open_.kind.priority, open_.since))
