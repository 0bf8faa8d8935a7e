"""One answer of DNS is an observation; who leaves is decided from many."""

from __future__ import annotations

import random
from itertools import cycle, islice
from typing import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.intake.name_history import (
    LEAST_ANSWERS,
    LEAST_SECONDS,
    MOST_ADDRESSES,
    Change,
    NameHistory,
)
from kube_nginx_agent.intake.resolver import INTERVAL
from kube_nginx_agent.model import IPAddress
from unit.making import ips

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def told(
    history: NameHistory, answers: Iterable[Iterable[str]], every: float = INTERVAL, at: float = 0.0
) -> list[Change]:
    return [history.note(ips(answer), at + n * every) for n, answer in enumerate(answers)]


def test_new_address_joins_at_once() -> None:
    history = NameHistory(ips([A]))

    change = history.note(ips([A, B]), 0.0)

    assert (change.joined, history.addresses) == (ips([B]), ips([A, B]))


def test_address_that_is_missed_in_turn_never_leaves() -> None:
    history = NameHistory(ips([A, B, C]))

    changes = told(history, islice(cycle([[A, B], [B, C], [A, C]]), 1000))

    assert not any(changes)
    assert history.addresses == ips([A, B, C])


def test_varying_answers_are_told_once() -> None:
    history = NameHistory(ips([A, B]))

    changes = told(history, islice(cycle([[A], [B]]), 20))

    assert [change.varies for change in changes] == [False, True] + [False] * 18


def test_address_leaves_after_so_many_answers_over_so_long() -> None:
    history = NameHistory(ips([A, B]))

    changes = told(history, [[A]] * 30)

    left_at = [n for n, change in enumerate(changes) if change.left]
    assert left_at == [LEAST_SECONDS / INTERVAL]
    assert (history.addresses, history.retired) == (ips([A]), (*ips([B]),))


def test_many_answers_within_seconds_prove_no_more_than_one() -> None:
    history = NameHistory(ips([A, B]))

    told(history, [[A]] * 100, every=LEAST_SECONDS / 100)

    assert history.addresses == ips([A, B])


def test_few_answers_over_hours_prove_nothing() -> None:
    history = NameHistory(ips([A, B]))

    told(history, [[A]] * (LEAST_ANSWERS - 1), every=3600.0)

    assert history.addresses == ips([A, B])


def test_one_answer_with_it_begins_the_count_anew() -> None:
    history = NameHistory(ips([A, B]))

    told(history, [[A]] * LEAST_ANSWERS + [[A, B]] + [[A]] * LEAST_ANSWERS)

    assert history.addresses == ips([A, B])


def test_failed_tries_count_for_nothing() -> None:
    history = NameHistory(ips([A, B]))
    told(history, [[A]] * (LEAST_ANSWERS - 2))

    for _ in range(50):
        history.note_failure("timed out")
    history.note(ips([A]), 10 * LEAST_SECONDS)

    assert history.addresses == ips([A, B])


def test_retired_address_that_is_back_is_retired_no_longer() -> None:
    history = NameHistory(ips([A, B]))
    told(history, [[A]] * 30)

    history.note(ips([A, B]), 1000.0)

    assert (history.addresses, history.retired) == (ips([A, B]), ())


def test_addresses_and_retired_ones_have_a_bound() -> None:
    history = NameHistory()
    for n in range(8):
        history.note(ips(f"10.0.{n}.{k}" for k in range(200)), n * 1000.0)

    assert ips(f"10.0.7.{k}" for k in range(200)) <= history.addresses
    assert len(history.addresses) == len(history.retired) == MOST_ADDRESSES


def test_failure_is_told_at_once_where_nothing_is_known() -> None:
    history = NameHistory()

    history.note_failure("timed out")

    assert history.failure == "timed out"


def test_passing_failure_of_a_known_name_is_not_told() -> None:
    history = NameHistory(ips([A]))

    history.note_failure("timed out")
    history.note_failure("timed out")
    before = history.failure
    history.note_failure("timed out")

    assert (before, history.failure) == ("", "timed out")


@pytest.mark.parametrize("known", [ips([]), ips([A])])
def test_words_that_alternate_do_not_change_what_is_told(known: frozenset[IPAddress]) -> None:
    history = NameHistory(known)
    texts = set()
    for reason in islice(cycle(["timed out", "no such name"]), 100):
        history.note_failure(reason)
        texts.add(history.failure)

    assert len(texts - {""}) == 1


def test_words_that_last_are_told() -> None:
    history = NameHistory()
    for reason in ["timed out", *["no such name"] * 3]:
        history.note_failure(reason)

    assert history.failure == "no such name"


def test_answer_ends_the_failure() -> None:
    history = NameHistory()
    history.note_failure("timed out")

    history.note(ips([A]), 0.0)

    assert history.failure == ""


def test_random_subsets_of_a_day_take_nobody_away() -> None:
    """3 of 5 at random, as Consul answers over UDP (docs/decisions/0013-names.md)."""
    everybody = [f"10.0.0.{n}" for n in range(5)]
    lost = 0
    for seed in range(20):
        chance = random.Random(seed)
        history = NameHistory(ips(everybody))
        changes = told(history, (chance.sample(everybody, 3) for _ in range(2880)))
        lost += sum(len(change.left) for change in changes)

    assert lost / 20 < 1.0


ANSWERS = st.lists(
    st.tuples(st.frozensets(st.sampled_from([A, B, C]), max_size=3), st.integers(1, 200)),
    max_size=120,
)


@given(ANSWERS)
def test_who_leaves_was_missing_in_every_answer_for_long_enough(
    answers: list[tuple[frozenset[str], int]],
) -> None:
    history = NameHistory()
    now = 0.0
    missing: dict[IPAddress, list[float]] = {}
    for answer, pause in answers:
        now += pause
        found = ips(answer)
        if not found:
            history.note_failure("none")
            continue
        before = history.addresses
        change = history.note(found, now)
        for ip in before:
            missing[ip] = [] if ip in found else [*missing.get(ip, []), now]
        assert found <= history.addresses
        assert change.joined == found - before
        assert change.left == before - history.addresses
        assert not set(history.retired) & history.addresses
        for ip in before - found:
            moments = missing[ip]
            is_due = len(moments) >= LEAST_ANSWERS and now - moments[0] >= LEAST_SECONDS
            assert (ip in change.left) is is_due
