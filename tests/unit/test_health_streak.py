"""One probe's run of passes or failures."""

from __future__ import annotations

from dataclasses import replace

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.streak import Streak, extend
from kube_nginx_agent.inbox import Probed, Timing
from kube_nginx_agent.model import HealthCheck
from kube_nginx_agent.observation import Layer, Observation, Result

A = parse_address("10.0.0.1:6443")


def look(result: Result, began: float, timing: Timing = Timing.IN_TIME, detail: str = "") -> Probed:
    return Probed(A, Observation(Layer.TCP, result, detail), began, timing)


def test_one_late_answer_is_no_trouble_but_two_or_a_whole_time_out_are() -> None:
    probe = HealthCheck().tcp
    late = extend(Streak(), look(Result.TIMEOUT, 1.0, Timing.EARLY), probe)
    assert not late.is_troubled

    assert extend(late, look(Result.TIMEOUT, 2.0, Timing.EARLY), probe).is_troubled
    assert extend(Streak(), look(Result.TIMEOUT, 1.0), probe).is_troubled


def test_reason_is_that_of_the_last_look_with_all_its_time() -> None:
    probe = HealthCheck().tcp
    failed = extend(Streak(), look(Result.TIMEOUT, 1.0, detail="no answer"), probe)

    whole = extend(failed, look(Result.UNREACHABLE, 2.0, detail="no route"), probe)
    merely_late = extend(whole, look(Result.TIMEOUT, 3.0, Timing.EARLY, "late"), probe)

    assert (whole.last, whole.detail) == (Result.UNREACHABLE, "no route")
    assert (merely_late.last, merely_late.detail) == (Result.UNREACHABLE, "no route")


def test_failure_is_over_after_as_many_passes_as_rise_says() -> None:
    probe = replace(HealthCheck().tcp, rise=3)
    streak = replace(Streak(), has_failed=True, fails=2, full=2, first_began=1.0)

    for began, is_still in ((2.0, True), (3.0, True), (4.0, False), (5.0, False)):
        streak = extend(streak, look(Result.OK, began), probe)
        assert streak.has_failed is is_still


def asked(result: Result, began: float, *, fresh: bool, timing: Timing = Timing.IN_TIME) -> Probed:
    return Probed(A, Observation(Layer.READYZ, result, is_fresh=fresh), began, timing)


def test_failure_of_a_new_connection_counts_though_a_kept_one_has_answered_since() -> None:
    """In doubt the two take turns, and the kept one's answer comes before the other's time-out."""
    probe, streak = HealthCheck().readyz, Streak()
    for began in (1.0, 2.0):
        streak = extend(streak, asked(Result.OK, began + 0.5, fresh=False), probe)
        streak = extend(streak, asked(Result.SILENT, began, fresh=True), probe)

    assert streak.has_failed


def test_failure_of_a_kept_connection_is_old_news_once_it_has_answered_again() -> None:
    answered = extend(Streak(), asked(Result.OK, 2.0, fresh=False), HealthCheck().readyz)

    assert extend(answered, asked(Result.CLOSED, 1.0, fresh=False), HealthCheck().readyz).fails == 0


def test_look_that_is_merely_late_does_not_take_a_refusal_for_silence() -> None:
    """From afar each refusal is late first: the two grades would take turns, each with a reload."""
    probe = HealthCheck().tcp
    refused = extend(Streak(), look(Result.REFUSED, 1.0), probe)

    late = extend(refused, look(Result.TIMEOUT, 2.0, Timing.EARLY), probe)
    silent = extend(late, look(Result.TIMEOUT, 2.0), probe)

    assert (late.last, late.first_began) == (Result.REFUSED, 1.0)
    assert (silent.last, silent.first_began) == (Result.TIMEOUT, 2.0)
