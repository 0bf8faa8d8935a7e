"""Who loses a session, and who must not; a fake table, and time as an argument."""

from __future__ import annotations

from typing import Iterable, Sequence

import pytest

from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.inbox import Probed
from kube_nginx_agent.model import IPAddress, SocketAddress
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Fields
from kube_nginx_agent.observation import Conviction, Layer, Observation, Result
from kube_nginx_agent.sessions.cutting import CutError
from kube_nginx_agent.sessions.lonely import ALONE_FOR
from kube_nginx_agent.sessions.session_watch import JUST_NOW, LONGEST_INTERVAL
from kube_nginx_agent.sessions.table import Session
from unit.made_sessions import ONE, TWO, session, stuck
from unit.making import address

NOW = 1000.0
FROZEN = Conviction(since=NOW - 5.0, needs_data=True, why="it is frozen")
SILENT = Conviction(since=NOW - 5.0, needs_data=False, why="its host is silent")


class Bench:
    """A Severer with a table that the test fills; counts each look right before a cut."""

    def __init__(self, *sessions: Session) -> None:
        self.table = list(sessions)
        self.cut_: list[int] = []
        self.lines: list[str] = []
        self.looks_at_once = 0
        self.ages: list[float] = []
        self.is_own = True
        self.refuses = False
        self.now = NOW
        self.severer = Severer(self, self, self._say, removal_grace=20.0, is_own=self._is_own)
        self.severer.want([ONE, TWO], NOW)
        self.severer.want_live([TWO])

    # What a SessionWatch and a Cutter do.

    def want(self, backends: Iterable[SocketAddress], listen: Iterable[SocketAddress] = ()) -> None:
        pass

    def look(self) -> list[Session]:
        return self.table

    def seen(self, _now: float, *, within: float = 0.1) -> tuple[float, list[Session]]:
        self.looks_at_once += within == 0.0
        self.ages.append(within)
        if within == 0.0:
            self.before_cut()
        return self.now, self.table

    def before_cut(self) -> None:
        pass

    def cut(self, sessions: Sequence[Session]) -> int:
        if self.refuses:
            raise CutError("none of the ways works")
        self.cut_ += [session.inode for session in sessions]
        self.table = [session for session in self.table if session not in sessions]
        return len(sessions)

    # What the test does.

    def sever(self, now: float = NOW, **convictions: Conviction) -> list[int]:
        self.now = now
        self.severer.sever(now, {{"one": ONE, "two": TWO}[k]: c for k, c in convictions.items()})
        return self.cut_

    def _say(self, kind: kinds.Kind, message: str, _fields: Fields) -> None:
        assert kind is kinds.SESSIONS_CUT
        self.lines.append(message)

    def _is_own(self, _ip: IPAddress) -> bool:
        return self.is_own


# A convicted backend


def test_convicted_backend_loses_all_its_sessions_and_no_other_does() -> None:
    bench = Bench(session(1), session(2, is_connecting=True), session(3, backend=TWO))

    assert bench.sever(one=SILENT) == [1, 2]
    assert bench.lines == [f"{ONE}: 2 sessions ended, because its host is silent"]
    assert bench.severer.ended == {ONE: 2}


def test_without_a_conviction_nobody_loses_anything() -> None:
    bench = Bench(session(1), stuck(2), session(3, is_connecting=True))

    assert bench.sever() == []
    assert bench.looks_at_once == 0


def test_table_is_looked_at_anew_only_for_a_conviction() -> None:
    bench = Bench(session(1, heard_ago=0.0))

    bench.sever()
    bench.sever(two=SILENT)
    assert min(bench.ages) > LONGEST_INTERVAL

    bench.sever(one=SILENT)
    assert min(bench.ages) <= JUST_NOW


@pytest.mark.parametrize(
    ("conviction", "heard_ago", "data_ago", "ends"),
    [
        pytest.param(SILENT, 4.0, 900.0, False, id="heard since"),
        pytest.param(SILENT, 6.0, 900.0, True, id="heard only before"),
        pytest.param(SILENT, 4.99, 900.0, True, id="the packet that its silence began with"),
        pytest.param(FROZEN, 4.0, 900.0, True, id="only its kernel was heard since"),
        pytest.param(FROZEN, 4.0, 4.0, False, id="data has come since"),
    ],
)
def test_life_on_one_session_protects_them_all(
    conviction: Conviction, heard_ago: float, data_ago: float, ends: bool
) -> None:
    bench = Bench(session(1), session(2, heard_ago=heard_ago, data_ago=data_ago))

    assert bench.sever(one=conviction) == ([1, 2] if ends else [])


def test_life_that_shows_in_the_last_look_saves_the_session() -> None:
    bench = Bench(session(1))

    def hear() -> None:
        bench.table = [session(1, heard_ago=0.0)]

    bench.before_cut = hear  # type: ignore[method-assign]

    assert bench.sever(one=SILENT) == []
    assert bench.looks_at_once == 1


def test_nothing_is_cut_while_nginx_still_sends_new_connections_there() -> None:
    bench = Bench(session(1))
    bench.severer.want_live([ONE, TWO])
    assert bench.sever(one=SILENT) == []

    bench.severer.want_live([TWO])
    assert bench.sever(one=SILENT) == [1]


# Sessions that died alone


def probed(result: Result, began: float, layer: Layer = Layer.TCP) -> Probed:
    return Probed(ONE, Observation(layer, result), began)


def pass_time(bench: Bench, seconds: float) -> list[int]:
    for step in range(int(seconds * 2)):
        bench.sever(NOW + step / 2)
    return bench.cut_


def test_session_that_died_alone_is_ended_alone() -> None:
    bench = Bench(stuck(1), session(2), stuck(3, backend=TWO))
    bench.severer.note(probed(Result.OK, NOW - 1))

    assert pass_time(bench, 12) == [1]
    assert "1 session ended, because nobody has acknowledged its data for 10 s" in bench.lines[0]


def test_one_failed_connection_begins_the_seconds_anew() -> None:
    bench = Bench(stuck(1))
    bench.severer.note(probed(Result.OK, NOW - 100))
    pass_time(bench, 8)
    bench.severer.note(probed(Result.TIMEOUT, NOW + 7))
    bench.severer.note(probed(Result.OK, NOW + 8))

    assert pass_time(bench, 37) == []


def test_failed_connection_that_nothing_follows_answers_for_nobody() -> None:
    bench = Bench(stuck(1))
    bench.severer.note(probed(Result.OK, NOW - 100))
    bench.severer.note(probed(Result.TIMEOUT, NOW - 50))

    assert pass_time(bench, 30) == []


def test_readyz_on_its_kept_connection_is_no_new_connection() -> None:
    bench = Bench(stuck(1))
    bench.severer.note(probed(Result.OK, NOW - 100, Layer.READYZ))

    assert pass_time(bench, 30) == []


# An address that has left the node


def test_session_whose_address_has_left_the_node_ends_at_once() -> None:
    bench = Bench(session(1), session(2, backend=TWO))
    bench.is_own = False

    assert bench.sever(NOW) == []
    assert bench.sever(NOW + 0.6) == [1, 2]
    assert "192.0.2.1 has left this node" in bench.lines[0]


def test_address_that_is_put_back_at_once_costs_nothing() -> None:
    bench = Bench(session(1))
    bench.is_own = False
    bench.sever(NOW)
    bench.is_own = True
    bench.sever(NOW + 0.3)
    bench.is_own = False

    assert bench.sever(NOW + 0.6) == []


# Backends that were removed


def test_removed_backend_keeps_its_sessions_for_its_grace_and_no_longer() -> None:
    bench = Bench(session(1), session(2, backend=TWO))
    bench.severer.want([TWO], NOW)

    assert bench.sever(NOW + 19.9) == []
    assert bench.sever(NOW + 20.0) == [1]


def test_backend_that_comes_back_keeps_its_sessions() -> None:
    bench = Bench(session(1))
    bench.severer.want([TWO], NOW)
    bench.sever(NOW + 10)
    bench.severer.want([ONE, TWO], NOW + 15)

    assert bench.sever(NOW + 60) == []


def test_after_a_restart_the_grace_begins_when_the_session_is_first_seen() -> None:
    bench = Bench(session(1, backend=address("192.0.2.99:6443")))

    assert bench.sever(NOW + 500) == []
    assert bench.sever(NOW + 519.9) == []
    assert bench.sever(NOW + 520) == [1]


def test_backend_that_is_off_the_list_but_still_in_use_keeps_its_sessions() -> None:
    bench = Bench(session(1))
    bench.severer.want_live([ONE, TWO])
    bench.severer.want([TWO], NOW)

    assert bench.sever(NOW) + bench.sever(NOW + 60) == []


def test_before_a_list_is_live_nobody_is_removed() -> None:
    bench = Bench(session(1))
    severer = Severer(bench, bench, bench._say, removal_grace=0.0, is_own=lambda _ip: True)

    severer.sever(NOW, {})
    severer.sever(NOW + 60, {})

    assert bench.cut_ == []


# When it can't be done, and when to look again


def test_cut_that_fails_is_a_problem_until_one_succeeds() -> None:
    bench = Bench(session(1))
    bench.refuses = True
    bench.sever(NOW, one=SILENT)
    assert [problem.about for problem in bench.severer.problems()] == ["cut"]

    bench.refuses = False
    assert bench.sever(NOW + 0.1, one=SILENT) == []
    assert bench.severer.problems() != []
    assert bench.sever(NOW + 1.0, one=SILENT) == [1]
    assert bench.severer.problems() == []


def test_cut_that_fails_is_over_when_there_is_nothing_to_cut() -> None:
    bench = Bench(session(1))
    bench.refuses = True
    bench.sever(NOW, one=SILENT)
    bench.sever(NOW + 5.0)

    assert bench.severer.problems() == []


def test_it_looks_again_only_while_there_are_sessions() -> None:
    bench = Bench()
    bench.sever(NOW)
    assert bench.severer.due(NOW) is None

    bench.table = [session(1)]
    bench.sever(NOW)
    assert bench.severer.due(NOW) == NOW + 1.0


def test_it_looks_sooner_while_a_convicted_backend_has_sessions() -> None:
    bench = Bench(session(1))
    bench.severer.want_live([ONE, TWO])
    bench.sever(NOW, one=SILENT)
    assert bench.severer.due(NOW) == NOW + 0.1

    bench.sever(NOW)
    assert bench.severer.due(NOW) == NOW + 1.0


def test_loop_is_woken_when_a_session_may_have_died_alone() -> None:
    bench = Bench(stuck(1))
    bench.sever(NOW)

    assert bench.severer.due(NOW + ALONE_FOR - 0.3) == NOW + ALONE_FOR


def test_due_is_never_in_the_past() -> None:
    bench = Bench(session(1))
    bench.severer.want([TWO], NOW)
    bench.refuses = True
    bench.sever(NOW + 30, one=SILENT)

    due = bench.severer.due(NOW + 30)
    assert due is not None
    assert due > NOW + 30
