"""What the sessions say of their backends."""

from __future__ import annotations

from kube_nginx_agent.sessions.lives import Life, lives
from unit.made_sessions import ONE, TWO, session

NOW = 10000.0


def test_the_latest_packet_of_all_sessions_counts() -> None:
    sessions = [session(1, heard_ago=5.0), session(2, heard_ago=0.5), session(3, heard_ago=9.0)]

    assert lives(sessions, NOW)[ONE].packet_at == NOW - 0.5


def test_data_is_told_from_acknowledgements() -> None:
    found = lives([session(heard_ago=0.5, data_ago=30.0)], NOW)

    assert found[ONE].at(needs_data=True) == NOW - 30.0
    assert found[ONE].at(needs_data=False) == NOW - 0.5


def test_before_the_first_answer_there_is_no_data() -> None:
    found = lives([session(heard_ago=0.5, data_ago=0.5, has_answered=False)], NOW)

    assert found[ONE] == Life(packet_at=NOW - 0.5, data_at=None)


def test_connection_in_the_making_says_nothing() -> None:
    assert lives([session(is_connecting=True, heard_ago=0.0)], NOW) == {}


def test_each_backend_speaks_for_itself() -> None:
    found = lives([session(1, heard_ago=1.0), session(2, backend=TWO, heard_ago=2.0)], NOW)

    assert (found[ONE].packet_at, found[TWO].packet_at) == (NOW - 1.0, NOW - 2.0)


def test_idle_session_was_heard_long_ago_and_that_is_all() -> None:
    assert lives([session()], NOW)[ONE] == Life(NOW - 3600.0, NOW - 3600.0)
