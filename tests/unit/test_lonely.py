"""Sessions that died alone, told from all the healthy ones that look like them."""

from __future__ import annotations

import random
from typing import Callable, Mapping

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.sessions.lonely import ALONE_FOR, CALM_FOR, Lonely
from kube_nginx_agent.sessions.table import Session
from unit.made_sessions import ONE, TWO, session, stuck

ALWAYS = {ONE: 0.0, TWO: 0.0}
Frame = Callable[[float], "list[Session]"]


def found(
    frame: Frame,
    seconds: float,
    answering: Callable[[float], Mapping[SocketAddress, float]] = lambda _now: ALWAYS,
) -> dict[int, float]:
    """Look every 0.25 s at what ``frame`` says there is; return who was found alone, and when."""
    lonely = Lonely()
    first: dict[int, float] = {}
    for step in range(int(seconds * 4)):
        now = 100.0 + step / 4
        sessions = frame(now)
        lonely.note(sessions, now)
        if ONE not in answering(now):
            lonely.note_trouble(ONE, now)
        for alone in lonely.alone(sessions, answering(now), now):
            first.setdefault(alone.inode, now - 100.0)
    return first


def test_unacknowledged_data_for_ten_seconds_is_death() -> None:
    assert found(lambda _now: [stuck()], 12) == {1: ALONE_FOR}


def test_no_other_session_of_the_backend_is_meant() -> None:
    others = [session(2), session(3, heard_ago=1.0), session(4, is_connecting=True)]

    assert found(lambda _now: [stuck(), *others], 12).keys() == {1}


def test_session_that_was_idle_for_an_hour_and_has_just_sent_is_well() -> None:
    def frame(now: float) -> list[Session]:
        is_sending = now < 100.5 or 105 < now < 105.5
        return [session(unacknowledged=80 * is_sending, sent_ago=0.1, packets=10 + int(now))]

    assert found(frame, 30) == {}


def test_seconds_begin_when_data_is_first_unacknowledged() -> None:
    assert found(lambda now: [session() if now < 105 else stuck()], 30) == {1: 5 + ALONE_FOR}


def test_acknowledged_question_without_an_answer_is_none() -> None:
    assert found(lambda _now: [session(unacknowledged=0, sent_ago=60.0)], 60) == {}


def test_packet_of_any_kind_begins_the_seconds_anew() -> None:
    def frame(now: float) -> list[Session]:
        return [stuck(retransmits=1, packets=10 + int(now // 8))]

    assert found(frame, 60) == {}


def test_backend_that_answers_nobody_has_no_lonely_session() -> None:
    assert found(lambda _now: [stuck()], 60, lambda _now: {TWO: 0.0}) == {}


def test_outage_of_the_network_is_nobodys_death() -> None:
    """Away for 12 s; the tries of a session come at ever longer intervals, the next after it."""

    def frame(now: float) -> list[Session]:
        tries = [100.0 + after for after in (0, 0.2, 0.6, 1.4, 3.0, 6.2, 12.6)]
        made = [at for at in tries if at <= now]
        is_over = now >= 112.6
        if is_over:
            return [session(packets=11)]
        return [stuck(sent_ago=now - made[-1], retransmits=len(made))]

    def answering(now: float) -> Mapping[SocketAddress, float]:
        return {ONE: 112.1} if now >= 112.1 else {}

    assert found(frame, 40, answering) == {}


def test_after_an_outage_a_session_must_have_tried_again() -> None:
    """Away for 30 s: the next try is only due at 51.0, and decides."""

    def frame(now: float) -> list[Session]:
        last = 151.0 if now >= 151.0 else 125.4
        return [stuck(sent_ago=now - last)]

    first = found(frame, 70, lambda now: {ONE: 130.0} if now >= 130.0 else {})

    assert first == {1: 29.75 + CALM_FOR}


def test_session_that_has_not_tried_since_the_outage_may_go_on() -> None:
    """Away for 110 s: the next try is only due at 203.0."""
    at = found(lambda now: [stuck(sent_ago=now - 201.4)], 190, lambda _now: {ONE: 210.0})

    assert at == {}


def test_last_try_is_given_time_for_its_answer() -> None:
    assert found(lambda _now: [stuck(sent_ago=0.5)], 20) == {}


def test_session_that_goes_on_by_itself_shows_a_lossy_way() -> None:
    """Another one of the same backend is silent for 3 s, and then goes on, again and again."""

    def frame(now: float) -> list[Session]:
        phase = (now - 100.0) % 6
        other = stuck(2, retransmits=3, packets=10 + int((now - 97.0) // 6))
        return [stuck(1), other if phase < 3 else session(2, packets=other.packets)]

    assert found(frame, 60) == {}


def test_30_percent_of_packets_lost_end_nobody() -> None:
    """Ten minutes, 30 % lost each way, eight sessions that each send every 5 s; see 0007.

    A probe connects each 2 s and gives up after 1 s, so it fails in half of the cases.
    """
    dice = random.Random(4)
    ends = 0
    for _ in range(5):
        sessions = {number: _Lossy(dice, number) for number in range(8)}
        lonely, answering = Lonely(), 0.0
        for step in range(600 * 4):
            now = step / 4
            if step % 8 == 0:
                passed = dice.random() < 0.49
                answering = (answering or now) if passed else 0.0
                if not passed:
                    lonely.note_trouble(ONE, now)
            frame = [one.at(now) for one in sessions.values()]
            lonely.note(frame, now)
            ends += len(lonely.alone(frame, {ONE: answering} if answering else {}, now))
    assert ends == 0


class _Lossy:
    """A session that sends every 5 s, over a way that loses half of all tries or answers."""

    def __init__(self, dice: random.Random, number: int) -> None:
        self._dice, self._number = dice, number
        self._begun: float | None = None
        self._next = self._last = number * 0.6
        self._tries = 0
        self._packets = 0

    def at(self, now: float) -> Session:
        while self._next <= now:
            self._begun = self._next if self._begun is None else self._begun
            self._last = self._next
            if self._dice.random() < 0.49:
                self._packets += 1
                self._begun, self._tries = None, 0
                self._next = self._last + 5.0
            else:
                self._next += 0.2 * 2**self._tries
                self._tries += 1
        return session(
            self._number,
            packets=self._packets,
            unacknowledged=100 if self._begun is not None else 0,
            retransmits=self._tries,
            sent_ago=now - self._last,
        )
