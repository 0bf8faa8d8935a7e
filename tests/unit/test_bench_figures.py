"""The arithmetic of `make bench-faults`: what counts as harm, and what is told as missed."""

from __future__ import annotations

import socket

import pytest

from faultbed.figures import measure
from faultbed.peers import ALL, Agent
from faultbed.relay import Way
from faultbed.report import Run, can_play, missed, table
from faultbed.rows import FAULTS, Fault
from faultbed.stage import NOBODY, Course, Trouble
from support.names import reply
from support.results import Cut, Line, Request, Result

BY_NAME = {fault.name: fault for fault in FAULTS}


def course(*troubles: Trouble, absences: list[tuple[float, frozenset[str]]]) -> Course:
    return Course(victim="api1", troubles=list(troubles), absences=absences)


def result(*cuts: Cut) -> Result:
    requests = [Request(float(at), 0.01, "", "api2") for at in range(30)]
    lines = [Line(0, float(at), "api2") for at in range(30)]
    return Result(started=0.0, ended=30.0, watches=1, requests=requests, lines=lines, cuts=[*cuts])


def trouble(server: str, *, blameless: bool = False) -> Trouble:
    return Trouble(server, 10.0, serves=True, blameless=blameless, struck=10.0, ends=20.0)


@pytest.mark.parametrize(
    ("absent", "at", "count"),
    [
        ({"api1"}, 12.0, 0),  # its own fault
        ({"api1", "api2"}, 12.0, 1),
        ({"api2"}, 25.0, 1),  # later, for whatever reason
    ],
)
def test_left_out_are_those_whose_own_fault_it_was_not(
    absent: set[str], at: float, count: int
) -> None:
    seen = [(1.0, frozenset[str]()), (at, frozenset(absent)), (at + 1, frozenset[str]())]

    assert measure(result(), course(trouble("api1"), absences=seen)).left_out == count


def test_who_was_left_out_before_the_fault_does_not_count() -> None:
    seen = [(1.0, frozenset({"api2"})), (9.0, frozenset[str]())]

    assert measure(result(), course(trouble("api1"), absences=seen)).left_out == 0


def test_what_is_nobodys_fault_is_no_reason_to_leave_anybody_out() -> None:
    seen = [(12.0, frozenset({"api1"}))]
    shared = trouble("api1", blameless=True)

    assert measure(result(), course(shared, absences=seen)).left_out == 1
    assert measure(result(), course(trouble(NOBODY), absences=seen)).left_out == 1


def test_peer_that_does_not_tell_has_no_figure_of_it() -> None:
    played = Course(victim="api1", troubles=[trouble("api1")])
    figures = measure(result(), played)

    assert figures.left_out is None
    assert "n/a" in table([Run("nginx", "hung", figures)], [BY_NAME["hung"]], list(ALL))


def test_every_harm_is_told_as_missed() -> None:
    figures = measure(
        result(Cut(0, 12.0, "api1", "eof"), Cut(0, 13.0, "api2", "eof")),
        course(trouble("api1"), absences=[(12.0, frozenset({"api2"}))]),
    )

    told = missed([Run("agent", "syns-lost", figures)], FAULTS)

    assert told == [
        "syns-lost: healthy sessions cut: 1, target 0",
        "syns-lost: its own sessions cut: 1, target 0",
        "syns-lost: healthy apiservers left out: 1, target 0",
    ]
    assert missed([Run("nginx", "syns-lost", figures)], FAULTS) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_row_can_be_played_by_the_agent_and_tells_its_targets(fault: Fault) -> None:
    assert can_play(Agent, fault)
    assert fault.targets.keys() <= set(fault.figures)


def test_far_link_takes_its_time_and_stands_still_at_times() -> None:
    way = Way(round_trip=0.3, jitter=0.2, spike=3.0, every=8.0)

    assert all(0.15 <= way.due(at / 10, 0) - at / 10 <= 0.25 for at in range(40))
    assert [way.due(4.0 + late, 1) > 7.0 for late in (0.0, 1.5, 2.9)] == [True] * 3
    assert way.due(12.5, 0) > 15.0


def test_name_server_answers_with_what_it_is_told_and_only_for_ipv4() -> None:
    name = b"\3api\4test\0"
    question = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"

    answer = reply(question, ["10.0.0.1", "10.0.0.2"])

    assert answer[:2] == question[:2]
    assert answer[6:8] == b"\0\2"
    assert answer.endswith(socket.inet_aton("10.0.0.2"))
    assert reply(question.replace(b"\0\1\0\1", b"\0\x1c\0\1"), ["10.0.0.1"])[6:8] == b"\0\0"
