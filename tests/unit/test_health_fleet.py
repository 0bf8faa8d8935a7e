"""All backends together: never nobody."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.desired import connect_timeout_for
from kube_nginx_agent.health import fleet
from kube_nginx_agent.health.evidence import out_of_use
from kube_nginx_agent.health.machine import Health, State
from kube_nginx_agent.health.nginx_errors import trouble
from kube_nginx_agent.health.streak import Streak
from kube_nginx_agent.inbox import NginxComplained
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.observation import Result
from support.virtual import Fault, VirtualNode, World

A, B, C = (parse_address(f"10.0.0.{number}:6443") for number in (1, 2, 3))


def with_state(state: State, cause: Result | None = None) -> Health:
    failed = Streak(last=cause, fails=2, full=2, has_failed=True) if cause else Streak()
    return Health(state=state, tcp=failed, fault_began=10.0, answered_began=11.0)


UP = with_state(State.UP)
REFUSED = with_state(State.DOWN, Result.REFUSED)
SILENT = with_state(State.DOWN, Result.TIMEOUT)
FROZEN = replace(
    with_state(State.DOWN),
    readyz=Streak(last=Result.SILENT, fails=2, full=2, has_failed=True, first_began=10.0),
)
CUT_OFF_IN_A_LOOK = replace(FROZEN, reached_at=9.5)
ACCEPTING = replace(FROZEN, reached_at=10.5)
RED = with_state(State.DRAINING, Result.NOT_READY)


def test_failing_backend_is_out_while_another_passes() -> None:
    assert out_of_use({A: UP, B: REFUSED, C: UP}) == {B}


@pytest.mark.parametrize(
    ("healths", "out"),
    [
        ({A: UP, B: RED, C: REFUSED}, {B, C}),
        ({A: RED, B: REFUSED, C: SILENT}, {B, C}),
        ({A: REFUSED, B: SILENT, C: SILENT}, {B, C}),
        ({A: SILENT, B: SILENT, C: SILENT}, set()),
        ({A: REFUSED, B: Health(), C: SILENT}, {C}),
    ],
)
def test_best_grade_that_is_not_empty_takes_connections(
    healths: dict[SocketAddress, Health], out: set[SocketAddress]
) -> None:
    assert out_of_use(healths) == out


def test_nobody_is_left_out_before_another_has_answered_since() -> None:
    earlier = replace(UP, answered_began=9.0)

    assert out_of_use({A: earlier, B: SILENT}) == frozenset()


def test_new_one_waits_for_its_first_look_though_nobody_has_answered_lately() -> None:
    assert out_of_use({A: replace(UP, answered_began=-math.inf), B: Health()}) == {B}


def test_empty_list_is_no_outage() -> None:
    assert fleet.outlook({}) is fleet.Outlook.SOME


@pytest.mark.parametrize(
    ("healths", "is_own"),
    [
        ({A: SILENT, B: SILENT}, True),
        ({A: SILENT, B: REFUSED}, False),
        ({A: SILENT, B: UP}, False),
        ({A: SILENT}, False),
        ({A: SILENT, B: CUT_OFF_IN_A_LOOK}, True),
        ({A: SILENT, B: ACCEPTING}, False),
    ],
)
def test_own_network_is_told_from_dead_apiservers(
    healths: dict[SocketAddress, Health], is_own: bool
) -> None:
    assert fleet.is_own_network(healths) is is_own


@given(st.lists(st.sampled_from(State), min_size=1, max_size=9))
def test_somebody_always_takes_connections(states: list[State]) -> None:
    healths = {parse_address(f"10.0.0.{n}:6443"): with_state(s) for n, s in enumerate(states)}

    assert out_of_use(healths) < healths.keys()


def ms(duration: int) -> timedelta:
    return timedelta(milliseconds=duration)


@pytest.mark.parametrize(
    ("rtt", "before", "expected"),
    [
        (None, ms(250), ms(250)),
        (0.0005, ms(250), ms(250)),
        (0.150, ms(250), ms(500)),
        (0.300, ms(250), ms(1000)),
        (0.500, ms(250), ms(2000)),
        (5.0, ms(250), ms(3000)),
        (0.095, ms(500), ms(500)),
        (0.050, ms(500), ms(250)),
        (0.190, ms(1000), ms(1000)),
        (0.150, ms(1000), ms(500)),
    ],
)
def test_connect_timeout_follows_the_slowest_round_trip_in_steps(
    rtt: float | None, before: timedelta, expected: timedelta
) -> None:
    assert connect_timeout_for(rtt, before) == expected


def test_slowest_backend_counts() -> None:
    healths = {A: replace(UP, rtt=0.001), B: replace(UP, rtt=0.2), C: UP}

    assert fleet.slowest_connect(healths) == 0.2


TAIL = (
    ', client: 127.0.0.1, server: 127.0.0.1:8443, upstream: "10.0.0.2:6443", '
    "bytes from/to client:0/0, bytes from/to upstream:0/0"
)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("*1 connect() failed (111: Connection refused) while connecting to upstream" + TAIL,
         NginxComplained(B)),
        ("*1 upstream timed out (110: Operation timed out) while connecting to upstream" + TAIL,
         NginxComplained(B, timed_out=True)),
        ("*1 connect() to 10.0.0.2:6443 failed (101: Network is unreachable) while connecting to "
         "upstream" + TAIL, NginxComplained(B)),
        ("*1 recv() failed (104: Connection reset by peer) while proxying connection" + TAIL, None),
        ("*1 no live upstreams while connecting to upstream" + TAIL.replace("10.0.0.2:6443", "x"),
         None),
        ("signal 1 (SIGHUP) received, reconfiguring", None),
    ],
)  # fmt: skip
def test_nginx_names_the_backend_that_it_could_not_connect_to(
    message: str, complaint: NginxComplained | None
) -> None:
    assert trouble(message) == complaint


@pytest.mark.parametrize(
    ("kind", "advice"), [("silent", "this node's own network"), ("frozen", "the apiservers")]
)
@pytest.mark.parametrize("offset", [n * 0.17 for n in range(20)])
def test_outage_of_all_says_where_to_look_whenever_it_begins(
    kind: str, advice: str, offset: float
) -> None:
    begins = 20.0 + offset  # some looks are on their way then, at other backends each time
    world = World({backend: [Fault(kind, begins)] for backend in (A, B, C)})
    played = VirtualNode(world).run(begins + 8.0)

    hints = [problem.error.hint for problem in played.monitor.problems()]
    assert hints.count(f"look at {advice}" + (" first" if kind == "silent" else "")) == 1
