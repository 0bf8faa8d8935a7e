"""Which looks need not wake anybody."""

from __future__ import annotations

import pytest

from kube_nginx_agent.health.pace import Wish, limits
from kube_nginx_agent.health.repeats import Repeats
from kube_nginx_agent.inbox import Timing
from kube_nginx_agent.model import HealthCheck
from kube_nginx_agent.observation import Layer, Observation, Result

CALM = Wish(*limits(HealthCheck(), None, None))
SETTLED = Wish(CALM.connect, CALM.answer, is_settled=True)
IN_TIME, EARLY, OVERDUE = Timing.IN_TIME, Timing.EARLY, Timing.OVERDUE


def connect(took: float | None, result: Result = Result.OK, detail: str = "") -> Observation:
    return Observation(Layer.TCP, result, detail, took)


def answer(took: float) -> Observation:
    return Observation(Layer.READYZ, Result.OK, "", took)


SILENCE = connect(None, Result.TIMEOUT)
Told = list[tuple[Observation, Timing]]


def notes(*looks: Told, wish: Wish = SETTLED) -> list[bool]:
    """Return for each thing that is told of the looks whether it can wait."""
    repeats, found = Repeats(), []
    for look in looks:
        said: list[Observation] = []
        found += [repeats.note(wish, said, seen, timing) for seen, timing in look]
    return found


def can_wait(before: Observation, seen: Observation, wish: Wish = SETTLED) -> bool:
    return notes([(before, IN_TIME)], [(seen, IN_TIME)], wish=wish)[-1]


@pytest.mark.parametrize(
    ("before", "seen"),
    [
        (connect(0.001), connect(0.001)),
        # 8 times as much is the limit of 0.25 s, after which a connect is late.
        (connect(0.001), connect(0.031)),
        (connect(0.2), connect(0.24)),
        (answer(0.1), answer(0.12)),
        (answer(0.8), answer(0.9)),
        (SILENCE, SILENCE),
        (connect(None, Result.REFUSED), connect(None, Result.REFUSED)),
    ],
)
def test_look_that_ends_as_the_one_before_is_no_news_when_all_is_settled(
    before: Observation, seen: Observation
) -> None:
    assert can_wait(before, seen)
    assert not can_wait(before, seen, CALM)


@pytest.mark.parametrize(
    ("before", "seen"),
    [
        (connect(0.001), SILENCE),
        (SILENCE, connect(0.001)),
        (SILENCE, connect(None, Result.REFUSED)),
        (connect(0.001), connect(0.033)),
        (connect(0.2), connect(0.26)),
        (answer(0.1), answer(0.2)),
        (answer(0.8), answer(1.1)),
        (connect(0.001), connect(0.001, detail="HTTP 403")),
    ],
)
def test_another_end_and_a_longer_way_are_news(before: Observation, seen: Observation) -> None:
    assert not can_wait(before, seen)


def test_first_look_is_news() -> None:
    assert notes([(connect(0.001), IN_TIME)]) == [False]


def test_end_of_a_late_look_is_compared_with_an_end_and_its_lateness_with_a_lateness() -> None:
    silent: Told = [(SILENCE, EARLY), (SILENCE, IN_TIME)]
    late: Told = [(SILENCE, EARLY), (connect(0.5), IN_TIME)]
    well: Told = [(connect(0.001), IN_TIME)]

    assert notes(silent, silent)[2:] == [True, True]
    assert notes(well, silent)[1:] == [False, False]
    assert notes(silent, late)[2:] == [True, False]
    assert notes(late, well)[2:] == [False]
    assert notes(silent, well)[2:] == [False]


def test_answer_after_the_end_leaves_the_next_end_news() -> None:
    thaws: Told = [(SILENCE, IN_TIME), (connect(1.5), OVERDUE)]

    assert notes([(SILENCE, IN_TIME)], thaws, [(connect(0.001), IN_TIME)]) == [
        False,
        True,
        False,
        False,
    ]
