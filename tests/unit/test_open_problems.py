"""What is said of what is wrong: a line when it begins, when it changes, and when it is over."""

from __future__ import annotations

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Fields
from kube_nginx_agent.notices.problems import Problem, Problems


class Bench:
    """Problems, what they have said, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.said: list[tuple[kinds.Kind, str, Fields]] = []
        self.problems = Problems(self._say, lambda: self.now)

    def _say(self, kind: kinds.Kind, message: str, fields: Fields) -> None:
        self.said.append((kind, message, fields))

    def lines(self) -> list[str]:
        """Return what was said since the last time."""
        said, self.said = self.said, []
        return [message for _, message, _ in said]


def problem(what: str, kind: kinds.Kind = kinds.APPLY_FAILED, about: str = "nginx") -> Problem:
    return Problem(about, kind, AgentError(what, where="here", hint="do this"), {"STEP": "test"})


def test_problem_is_said_once_with_its_fields() -> None:
    bench = Bench()

    for _ in range(3):
        bench.problems.update([problem("full")])

    ((kind, message, fields),) = bench.said
    assert kind is kinds.APPLY_FAILED
    assert message == "here: full; do this"
    assert fields == {"STEP": "test", "REASON": "full"}


def test_other_words_or_another_kind_are_news_and_since_stays() -> None:
    bench = Bench()
    bench.problems.update([problem("a")])
    bench.now += 7

    bench.problems.update([problem("b")])
    bench.problems.update([problem("a")])
    bench.problems.update([problem("a", kinds.CUT_FAILED)])

    assert [message.split(";")[0] for message in bench.lines()] == ["here: a", "here: b"] + [
        "here: a"
    ] * 2
    (open_,) = bench.problems.all()
    assert (open_.since, open_.kind) == (1000.0, kinds.CUT_FAILED)
    assert open_.as_dict() == {
        "what": "a",
        "where": "here",
        "hint": "do this",
        "kind": "sessions not cut",
        "since": 1000.0,
    }


def test_end_is_said_once_with_how_long_it_lasted() -> None:
    bench = Bench()
    bench.problems.update([problem("a")])
    bench.now += 90
    bench.lines()

    for _ in range(2):
        bench.problems.update([])

    ((kind, message, _),) = bench.said
    assert (kind, message) == (kinds.PROBLEM_SOLVED, "over after 90 s: here: a")
    assert bench.problems.all() == []


def test_clock_that_was_set_back_makes_no_problem_shorter_than_nothing() -> None:
    bench = Bench()
    bench.problems.update([problem("a")])
    bench.now -= 3600

    bench.problems.update([])

    assert bench.lines()[-1] == "over after 0 s: here: a"


def test_problem_that_comes_back_begins_anew() -> None:
    bench = Bench()
    bench.problems.update([problem("a")])
    bench.problems.update([])
    bench.now += 5
    bench.lines()

    bench.problems.update([problem("a")])

    assert bench.lines() == ["here: a; do this"]
    assert bench.problems.all()[0].since == 1005.0


def test_what_else_is_wrong_with_it_has_lines_of_its_own() -> None:
    bench = Bench()
    error = AgentError("first")

    bench.problems.update([Problem("list", kinds.CONFIG_REFUSED, error, {}, ("second", "third"))])

    assert bench.lines() == ["first", "second", "third"]


def test_added_problem_is_said_once_and_is_over_with_the_next_update() -> None:
    bench = Bench()
    bench.problems.add(problem("a"))
    bench.now += 2
    bench.problems.add(problem("a"))
    assert bench.lines() == ["here: a; do this"]
    assert bench.problems.all()[0].since == 1000.0
    bench.problems.add(problem("b"))
    assert bench.lines() == ["here: b; do this"]

    bench.problems.update([])

    assert bench.lines() == ["over after 2 s: here: b"]


def test_worst_kind_stands_first_and_the_older_of_two_equals() -> None:
    bench = Bench()
    older, newer = problem("older", about="1"), problem("newer", about="2")
    bench.problems.update([older])
    bench.now += 1
    worst = problem("worst", kinds.ALL_DOWN, about="3")

    bench.problems.update([newer, worst, older])

    assert [open_.error.what for open_ in bench.problems.all()] == ["worst", "older", "newer"]


def test_a_backend_has_a_line_for_each_state_and_none_for_each_probe_nor_for_its_end() -> None:
    bench = Bench()
    about = "backend 10.0.0.1:6443"

    for kind, what in (
        (kinds.BACKEND_DOWN, "down: timeout"),
        (kinds.BACKEND_DOWN, "down: unreachable"),
        (kinds.BACKEND_DRAINING, "draining: timeout"),
        (kinds.BACKEND_DRAINING, "draining: unreachable"),
    ):
        bench.problems.update([problem(what, kind, about)])
    bench.problems.update([])

    said = ["here: down: timeout; do this", "here: draining: timeout; do this"]
    assert bench.lines() == said
