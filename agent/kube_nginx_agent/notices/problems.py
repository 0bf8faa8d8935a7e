"""What is wrong at present: a line when it begins, a line when it is over, none in between.

Every pass finds out afresh what is wrong, and only here is that compared with the pass before: so
nothing that is over can stay open, and nothing that was never open can be said to be over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Iterable, Tuple

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Fields, Sink

_OF_A_BACKEND = (kinds.BACKEND_DOWN, kinds.BACKEND_DRAINING)
"""States, whose causes may differ from probe to probe: a line for a state, none for a cause. Their
end has a line of its own: that the backend is up again."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong at present, as a part of the agent finds it in each pass.

    ``about`` is its name: two passes speak of the same problem when they use the same one.
    """

    about: str
    kind: kinds.Kind
    error: AgentError
    fields: Fields = field(default_factory=dict)
    more: Tuple[str, ...] = ()
    """Lines of their own that follow: what else is wrong with the same thing."""


@dataclass(frozen=True)
class OpenProblem:
    """A problem that persists, and since when (seconds since the epoch)."""

    problem: Problem
    since: float

    @property
    def kind(self) -> kinds.Kind:
        """Return what kind of problem it is."""
        return self.problem.kind

    @property
    def error(self) -> AgentError:
        """Return what is wrong, where, and what to do."""
        return self.problem.error

    def as_dict(self) -> dict[str, object]:
        """Return it as ``status.json`` has it."""
        return {**self.error.as_dict(), "kind": self.kind.name, "since": self.since}


class Problems:
    """The open problems; the worst kind comes first."""

    def __init__(self, sink: Sink, wall_clock: Callable[[], float]) -> None:
        """Take where the lines go."""
        self._sink = sink
        self._wall_clock = wall_clock
        self._open: dict[str, OpenProblem] = {}

    def update(self, found: Iterable[Problem]) -> None:
        """Take all that is wrong now; say what has begun, changed, or is over."""
        before, self._open = self._open, {}
        for problem in found:
            known = before.get(problem.about)
            since = known.since if known else self._wall_clock()
            self._open[problem.about] = OpenProblem(problem, since)
            if known is None or _is_news(known.problem, problem):
                self._say(problem)
        for about, known in before.items():
            if about not in self._open and known.kind not in _OF_A_BACKEND:
                lasted = max(self._wall_clock() - known.since, 0.0)
                message = f"over after {lasted:.0f} s: {_short(known.error)}"
                self._sink(kinds.PROBLEM_SOLVED, message, {})

    def add(self, problem: Problem) -> None:
        """Open one more, which is over with the next update that does not have it."""
        known = self._open.get(problem.about)
        self._open[problem.about] = OpenProblem(
            problem, known.since if known else self._wall_clock()
        )
        if known is None or _is_news(known.problem, problem):
            self._say(problem)

    def all(self) -> list[OpenProblem]:
        """Return all that is wrong, the worst first, the older of two equals first."""
        return sorted(self._open.values(), key=lambda open_: (open_.kind.priority, open_.since))

    def _say(self, problem: Problem) -> None:
        fields = {**problem.fields, "REASON": problem.error.what}
        self._sink(problem.kind, str(problem.error), fields)
        for line in problem.more:
            self._sink(problem.kind, line, {})


def _is_news(before: Problem, now: Problem) -> bool:
    if before.kind is not now.kind:
        return True
    return now.kind not in _OF_A_BACKEND and str(before.error) != str(now.error)


def _short(error: AgentError) -> str:
    return f"{error.where}: {error.what}" if error.where else error.what
