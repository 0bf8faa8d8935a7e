"""What is done about nginx is a table of what was seen: no process is needed to read it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kube_nginx_agent.model import Rendered
from kube_nginx_agent.nginx.decision import (
    MAX_DRAINING,
    MUTE_FOR,
    RETIRING_FOR,
    Apply,
    Check,
    Decision,
    End,
    FinishUpgrade,
    Goal,
    Memory,
    Rest,
    Restore,
    Resume,
    Seen,
    Start,
    Upgrade,
    UpgradeState,
    Waits,
    decide,
    remember,
    served_by,
)
from kube_nginx_agent.nginx.generation import Answer, NoAnswer
from kube_nginx_agent.nginx.process import Process
from unit.making import desired_of

NOW = 1000.0
MASTER = Process(100, 7)
WORKER = Process(101, 8)


def goal(name: str, *, key: str = "", may_wait: bool = False) -> Goal:
    rendered = Rendered(f"text of {name}", name)
    return Goal(rendered, desired_of("backends: [10.0.0.1]"), key or name, may_wait)


WANTED, LIVE = goal("wanted"), goal("live")
SERVES_LIVE = Seen(
    master=MASTER,
    answer=Answer("live", 101),
    live=LIVE.rendered.text,
    last_good=LIVE.rendered,
)
SERVES_WANTED = replace(SERVES_LIVE, answer=Answer("wanted", 101), live=WANTED.rendered.text)
GONE = Seen(live=LIVE.rendered.text, last_good=LIVE.rendered)


NOTHING_WAITS, NOTHING_KNOWN = Waits(), Memory()


def decision(
    seen: Seen,
    *goals: Goal,
    waits: Waits = NOTHING_WAITS,
    memory: Memory = NOTHING_KNOWN,
    now: float = NOW,
) -> Decision:
    return decide(seen, remember(memory, seen, now), goals, waits, now)


def test_goal_that_is_served_is_left_alone() -> None:
    assert decision(SERVES_WANTED, WANTED) == Decision(Rest())


def test_goal_that_is_not_served_is_applied() -> None:
    assert decision(SERVES_LIVE, WANTED, LIVE).step == Apply(WANTED)


def test_goal_whose_time_has_not_come_gives_way_to_the_live_list_and_its_failover() -> None:
    failover = goal("live, one down")
    waits = Waits(goals={WANTED.key: NOW + 4})

    assert decision(SERVES_LIVE, WANTED, failover, waits=waits) == Decision(
        Apply(failover), NOW + 4
    )


def test_goal_whose_time_has_come_is_tried_before_the_live_list() -> None:
    waits = Waits(goals={WANTED.key: NOW})

    assert decision(SERVES_LIVE, WANTED, LIVE, waits=waits).step == Apply(WANTED)


def test_goal_whose_time_has_long_come_is_tried() -> None:
    waits = Waits(goals={WANTED.key: NOW - 60})

    assert decision(SERVES_LIVE, WANTED, LIVE, waits=waits).step == Apply(WANTED)
    assert decision(GONE, WANTED, waits=Waits(restart=NOW - 60)).step == Apply(WANTED)


def test_while_a_goal_waits_the_live_one_is_guarded() -> None:
    waits = Waits(goals={WANTED.key: NOW + 4})
    edited = replace(SERVES_LIVE, live="somebody's")

    assert decision(edited, WANTED, LIVE, waits=waits).step == Restore(LIVE.rendered)
    assert decision(SERVES_LIVE, WANTED, LIVE, waits=waits) == Decision(Rest(), NOW + 4)


def test_text_that_could_not_be_restored_is_tried_again_later() -> None:
    edited = replace(SERVES_WANTED, live=None)

    assert decision(edited, WANTED, waits=Waits(restore=NOW + 2)) == Decision(Rest(), NOW + 2)


def test_change_of_health_waits_for_room_but_an_edit_does_not() -> None:
    full = replace(SERVES_LIVE, draining=MAX_DRAINING)

    assert decision(full, replace(WANTED, may_wait=True)) == Decision(Rest(), NOW + 5.0)
    assert decision(full, WANTED).step == Apply(WANTED)


def test_room_that_is_there_is_not_waited_for() -> None:
    nearly_full = replace(SERVES_LIVE, draining=MAX_DRAINING - 1)

    assert decision(nearly_full, replace(WANTED, may_wait=True)).step == Apply(
        replace(WANTED, may_wait=True)
    )


# Failed before, served now


def test_goal_that_is_served_after_a_failure_is_checked_before_it_counts() -> None:
    waits = Waits(checks={WANTED.key: None})

    assert decision(SERVES_WANTED, WANTED, waits=waits).step == Check(WANTED)


def test_check_that_failed_is_repeated_when_its_time_comes() -> None:
    waits = Waits(goals={WANTED.key: NOW + 3}, checks={WANTED.key: NOW + 3})

    assert decision(SERVES_WANTED, WANTED, waits=waits) == Decision(Rest(), NOW + 3)


# nginx is gone


def test_ended_nginx_is_started_by_applying_the_goal() -> None:
    assert decision(GONE, WANTED).step == Apply(WANTED)


def test_nginx_that_keeps_ending_is_started_ever_more_seldom() -> None:
    assert decision(GONE, WANTED, waits=Waits(restart=NOW + 0.4)) == Decision(Rest(), NOW + 0.4)


def test_ended_nginx_is_started_with_the_last_good_config_while_the_goal_waits() -> None:
    waits = Waits(goals={WANTED.key: NOW + 9})

    assert decision(GONE, WANTED, waits=waits).step == Start()
    edited = replace(GONE, live="somebody's")
    assert decision(edited, WANTED, waits=waits).step == Restore(LIVE.rendered)


def test_nothing_is_started_where_nothing_good_is_known() -> None:
    waits = Waits(goals={WANTED.key: NOW + 9})

    assert decision(Seen(), WANTED, waits=waits) == Decision(Rest(), NOW + 9)


# nginx does not react


def test_stopped_process_goes_on_before_anything_else() -> None:
    seen = replace(SERVES_LIVE, stopped=(WORKER,), answer=NoAnswer.MUTE)

    assert decision(seen, WANTED).step == Resume((WORKER,))


def test_process_that_stays_stopped_is_told_again_after_a_second() -> None:
    seen = replace(SERVES_WANTED, stopped=(WORKER,))
    told = Memory(resumed={WORKER: NOW})

    watched = decision(seen, WANTED, memory=told, now=NOW + 0.5)
    assert watched.step == Rest()
    assert watched.wake == pytest.approx(NOW + 1.0)
    assert decision(seen, WANTED, memory=told, now=NOW + 1.0).step == Resume((WORKER,))


def _after_silence(seconds: float, turns: tuple[int, int], answer: NoAnswer) -> Decision:
    seen = replace(SERVES_LIVE, answer=answer, turns=turns[0])
    memory = remember(Memory(served=(MASTER, "live")), seen, NOW)
    later = replace(seen, turns=turns[1])
    return decision(later, LIVE, memory=memory, now=NOW + seconds)


def test_nginx_that_neither_answers_nor_turns_is_ended() -> None:
    assert _after_silence(MUTE_FOR, (5, 5), NoAnswer.MUTE).step == End(MASTER, is_hung=True)


def test_nginx_that_is_mute_for_a_while_is_only_watched() -> None:
    watched = _after_silence(MUTE_FOR - 0.05, (5, 5), NoAnswer.MUTE)

    assert watched.step == Rest()
    assert watched.wake == pytest.approx(NOW + MUTE_FOR)


def test_nginx_that_does_not_accept_but_goes_through_its_loop_is_full_and_not_hung() -> None:
    assert _after_silence(MUTE_FOR, (5, 6), NoAnswer.MUTE).step == Rest()


def test_nginx_that_ends_the_question_is_full_and_not_hung() -> None:
    assert _after_silence(60.0, (0, 0), NoAnswer.CLOSED) == Decision(Rest())


def test_full_nginx_still_serves_what_it_served() -> None:
    full = replace(SERVES_LIVE, answer=NoAnswer.CLOSED)
    memory = remember(remember(Memory(), SERVES_LIVE, NOW), full, NOW + 1)

    assert served_by(memory) == "live"


def test_another_master_serves_nothing_before_it_says_so() -> None:
    other = replace(SERVES_LIVE, master=Process(200, 9), answer=NoAnswer.CLOSED)
    memory = remember(remember(Memory(), SERVES_LIVE, NOW), other, NOW + 1)

    assert served_by(memory) is None


def test_nginx_that_was_told_to_quit_is_ended_after_a_moment_with_its_workers_alive() -> None:
    retiring = replace(SERVES_LIVE, is_retiring=True, answer=NoAnswer.ABSENT)
    memory = remember(Memory(), retiring, NOW)

    first = decision(retiring, LIVE, memory=memory, now=NOW)
    assert first.step == Rest()
    assert first.wake == pytest.approx(NOW + 0.1)
    second = decision(retiring, LIVE, memory=memory, now=NOW + RETIRING_FOR)
    assert second.step == End(MASTER, is_hung=False)


def test_nginx_that_had_no_workers_for_an_instant_is_left_alone() -> None:
    retiring = replace(SERVES_LIVE, is_retiring=True)
    memory = remember(remember(Memory(), retiring, NOW), SERVES_LIVE, NOW + 0.1)

    assert decision(SERVES_LIVE, LIVE, memory=memory, now=NOW + 9).step == Rest()


# Upgrades


def test_another_binary_is_brought_in_once_the_goal_is_served() -> None:
    newer = replace(SERVES_LIVE, upgrade=UpgradeState.WANTED)

    assert decision(newer, LIVE).step == Upgrade()
    assert decision(newer, WANTED).step == Apply(WANTED)


def test_upgrade_that_failed_is_tried_again_later() -> None:
    newer = replace(SERVES_LIVE, upgrade=UpgradeState.WANTED)

    assert decision(newer, LIVE, waits=Waits(upgrade=NOW + 8)) == Decision(Rest(), NOW + 8)


def test_upgrade_that_was_begun_is_finished_before_a_goal_is_applied() -> None:
    halfway = replace(SERVES_LIVE, upgrade=UpgradeState.UNFINISHED)

    assert decision(halfway, WANTED).step == FinishUpgrade()


def test_upgrade_that_can_not_be_finished_does_not_keep_a_goal_from_going_live() -> None:
    halfway = replace(SERVES_LIVE, upgrade=UpgradeState.UNFINISHED)

    assert decision(halfway, WANTED, waits=Waits(upgrade=NOW + 8)).step == Apply(WANTED)


@pytest.mark.parametrize("upgrade", list(UpgradeState))
@pytest.mark.parametrize("answer", [Answer("live", 101), *NoAnswer])
@pytest.mark.parametrize("master", [MASTER, None])
@pytest.mark.parametrize("ahead", [-60.0, 0.0, 0.5])
def test_whoever_is_to_be_woken_is_woken_in_the_future(
    upgrade: UpgradeState, answer: Answer | NoAnswer, master: Process | None, ahead: float
) -> None:
    seen = replace(SERVES_LIVE, upgrade=upgrade, answer=answer, master=master, live=None)
    when = NOW + ahead
    waits = Waits({WANTED.key: when, LIVE.key: when}, {LIVE.key: when}, when, when, when)

    wake = decision(seen, WANTED, LIVE, waits=waits).wake

    assert wake is None or wake > NOW
