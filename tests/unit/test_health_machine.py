"""The state of one backend: what each look at it makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.machine import Health, State, forget, hint, observe, reconsider
from kube_nginx_agent.inbox import Probed, Timing
from kube_nginx_agent.model import HealthCheck
from kube_nginx_agent.observation import Layer, Observation, Result
from kube_nginx_agent.sessions.lives import Life

CHECK = HealthCheck()
TCP, READYZ = Layer.TCP, Layer.READYZ
A = parse_address("10.0.0.1:6443")


def saw(
    layer: Layer,
    result: Result,
    detail: str = "",
    *,
    timing: Timing = Timing.IN_TIME,
    fresh: bool = True,
) -> Probed:
    rtt = 0.001 if result in (Result.OK, Result.ALIVE, Result.NOT_READY) else None
    return Probed(A, Observation(layer, result, detail, rtt, fresh), 0.0, timing)


def after(*seen: Probed, start: Health | None = None, step: float = 0.2) -> Health:
    health = start or Health(is_trusted=True)
    now = max(100.0, health.since)
    for probed in seen:
        now += step
        health = observe(health, replace(probed, began=now - 0.01), CHECK, now)
    return health


def up() -> Health:
    return after(saw(TCP, Result.OK), saw(READYZ, Result.OK))


def down(cause: Result = Result.REFUSED, layer: Layer = TCP) -> Health:
    return after(saw(layer, cause), saw(layer, cause), start=up())


def test_backend_of_the_first_list_takes_connections_before_it_is_known() -> None:
    assert Health(is_trusted=True).takes_connections


def test_backend_added_later_waits_for_its_first_success() -> None:
    assert not Health().takes_connections
    assert after(saw(TCP, Result.OK), saw(READYZ, Result.OK), start=Health()).takes_connections


def test_open_port_alone_does_not_let_a_new_backend_in() -> None:
    assert after(saw(TCP, Result.OK), start=Health()).state is State.NEW


def test_one_failure_makes_suspect_and_keeps_it_in() -> None:
    health = after(saw(TCP, Result.TIMEOUT), start=up())

    assert health.state is State.SUSPECT
    assert health.takes_connections
    assert health.is_in_doubt(CHECK, 101.0)


def test_pass_after_one_failure_clears_it() -> None:
    health = after(saw(TCP, Result.TIMEOUT), saw(TCP, Result.OK), start=up())

    assert health.state is State.UP
    assert not health.is_in_doubt(CHECK, 101.0)


@pytest.mark.parametrize(
    ("layer", "result", "state"),
    [
        (TCP, Result.REFUSED, State.DOWN),
        (TCP, Result.TIMEOUT, State.DOWN),
        (TCP, Result.UNREACHABLE, State.DOWN),
        (READYZ, Result.SILENT, State.DOWN),
        (READYZ, Result.CLOSED, State.DOWN),
        (READYZ, Result.GARBAGE, State.DOWN),
        (READYZ, Result.NOT_READY, State.DRAINING),
        (READYZ, Result.CERTIFICATE, State.DRAINING),
        (READYZ, Result.ALIVE, State.UP),
    ],
)
def test_cause_decides_the_state(layer: Layer, result: Result, state: State) -> None:
    assert after(saw(layer, result), saw(layer, result), start=up()).state is state


def test_open_port_does_not_excuse_a_frozen_process() -> None:
    frozen = down(Result.SILENT, READYZ)

    assert after(*[saw(TCP, Result.OK)] * 5, start=frozen).state is State.DOWN


def test_closed_port_is_told_before_what_follows_from_it() -> None:
    health = after(saw(READYZ, Result.CLOSED), saw(READYZ, Result.CLOSED), start=down())

    assert health.cause is Result.REFUSED


def test_backend_comes_back_after_rise_passes_and_not_before() -> None:
    once = after(saw(TCP, Result.OK), start=down())
    twice = after(saw(TCP, Result.OK), start=once)

    assert (once.state, twice.state) == (State.DOWN, State.UP)
    assert once.is_in_doubt(CHECK, 101.0)


def test_frozen_backend_on_its_way_back_stays_what_it_was() -> None:
    health = after(saw(READYZ, Result.OK), start=down(Result.SILENT, READYZ))

    assert health.state is State.DOWN


# Late is not failed: patience is what was configured.

LATE = saw(TCP, Result.TIMEOUT, timing=Timing.EARLY)


def test_late_looks_alone_never_put_a_backend_out() -> None:
    assert after(*[LATE] * 9, start=up()).state is State.SUSPECT


def test_late_looks_put_it_out_once_another_has_done_better() -> None:
    late = after(LATE, LATE, start=up())

    assert reconsider(late, CHECK, 101.0, others_passed=101.0).state is State.DOWN


def test_one_late_look_is_not_enough_for_that() -> None:
    late = after(LATE, start=up())

    assert reconsider(late, CHECK, 101.0, others_passed=101.0).state is State.SUSPECT


def test_a_look_is_counted_once_though_it_is_told_of_twice() -> None:
    early = Probed(A, LATE.seen, 101.0, Timing.EARLY)
    given_up = Probed(A, LATE.seen, 101.0)
    health = observe(observe(up(), early, CHECK, 101.25), given_up, CHECK, 102.0)

    assert (health.tcp.fails, health.tcp.full) == (1, 1)


def test_failure_of_a_look_that_began_before_a_later_pass_is_old_news() -> None:
    passed = after(Probed(A, saw(TCP, Result.OK).seen, 101.0), start=up())
    old = Probed(A, LATE.seen, passed.tcp.valid_from - 0.1)

    assert observe(passed, old, CHECK, 103.0).state is State.UP


def test_overdue_answer_says_how_long_a_connect_takes_and_that_it_lives() -> None:
    overdue = Probed(A, Observation(TCP, Result.OK, rtt=1.4), 101.0, Timing.OVERDUE)

    health = observe(down(Result.TIMEOUT), overdue, CHECK, 102.4)

    assert health.rtt == 1.4
    assert health.state is State.DRAINING


# Life on a kept connection.


def test_silent_process_whose_sessions_go_on_drains() -> None:
    silent = down(Result.SILENT, READYZ)

    assert reconsider(silent, CHECK, 103.0, life=Life(103.0, 102.9)).state is State.DRAINING


def test_acknowledgements_alone_do_not_excuse_a_frozen_process() -> None:
    silent = down(Result.SILENT, READYZ)

    assert reconsider(silent, CHECK, 103.0, life=Life(103.0, 50.0)).state is State.DOWN


def test_host_that_answers_on_old_connections_and_not_on_new_ones_drains() -> None:
    silent = down(Result.TIMEOUT)

    assert reconsider(silent, CHECK, 103.0, life=Life(103.0, 50.0)).state is State.DRAINING


def test_answer_on_the_kept_connection_makes_a_silent_port_draining() -> None:
    silent = down(Result.TIMEOUT)

    health = after(saw(READYZ, Result.OK, fresh=False), start=silent, step=2.0)

    assert health.state is State.DRAINING


# A kept connection proves the past.


def test_kept_connection_does_not_refute_failed_handshakes() -> None:
    fresh, kept = saw(READYZ, Result.SILENT), saw(READYZ, Result.OK, fresh=False)

    health = after(fresh, kept, fresh, kept, start=up())

    assert health.readyz.has_failed
    assert not health.takes_connections


def test_new_connection_does() -> None:
    fresh = saw(READYZ, Result.SILENT)

    assert after(fresh, saw(READYZ, Result.OK), fresh, start=up()).state is State.SUSPECT


def test_kept_connection_tells_that_a_red_one_is_green_again() -> None:
    red, green = saw(READYZ, Result.NOT_READY), saw(READYZ, Result.OK, fresh=False)

    assert after(red, red, green, green, start=up()).state is State.UP


def test_what_was_asked_of_a_silent_host_is_not_held_against_its_process() -> None:
    silent = after(*[saw(READYZ, Result.SILENT), saw(TCP, Result.TIMEOUT)] * 2, start=up())
    old = Probed(A, saw(READYZ, Result.SILENT).seen, 100.5)

    back = after(saw(TCP, Result.OK), start=silent)

    assert back.readyz.first_began is None
    assert observe(back, old, CHECK, 104.0).readyz.full == 0


# Hints.


def test_hint_alone_never_puts_a_backend_out() -> None:
    health = up()
    for now in range(101, 200):
        health = hint(health, CHECK, float(now), now - 0.25)

    assert health.state is State.SUSPECT


def test_hint_that_nothing_confirms_is_forgotten() -> None:
    health = hint(up(), CHECK, 200.0)

    assert reconsider(health, CHECK, 201.9).is_in_doubt(CHECK, 201.9)
    assert reconsider(health, CHECK, 202.1).state is State.UP


def test_sessions_that_wait_again_and_again_are_no_hint_for_a_while() -> None:
    rested = reconsider(hint(up(), CHECK, 200.0), CHECK, 202.1)

    assert hint(rested, CHECK, 203.0).state is State.UP
    assert hint(rested, CHECK, 203.0, 202.75).state is State.SUSPECT
    assert hint(rested, CHECK, 211.0).state is State.SUSPECT


def test_connect_that_nginx_has_given_up_is_the_first_look_that_failed() -> None:
    hinted = hint(up(), CHECK, 200.0, 199.75)

    health = observe(hinted, Probed(A, LATE.seen, 200.0, Timing.EARLY), CHECK, 200.25)

    assert health.tcp.first_began == 199.75


# 403.

FORBIDDEN = saw(READYZ, Result.ALIVE, "HTTP 403")


def test_403_of_an_apiserver_that_was_ready_means_that_it_starts() -> None:
    assert after(FORBIDDEN, FORBIDDEN, start=up()).state is State.DRAINING


def test_403_that_lasts_means_that_anonymous_access_was_taken_away() -> None:
    assert after(*[FORBIDDEN] * 10, start=up(), step=4.0).state is State.UP


def test_403_of_an_apiserver_that_never_said_200_is_alive() -> None:
    assert after(saw(TCP, Result.OK), *[FORBIDDEN] * 3).state is State.UP


def test_probe_that_asks_something_else_starts_anew() -> None:
    red = down(Result.NOT_READY, READYZ)

    assert reconsider(forget(red, READYZ, 102.0), CHECK, 102.0).state is State.UP


def test_lack_of_room_on_this_node_says_nothing_of_the_backend() -> None:
    assert after(*[saw(TCP, Result.NO_ROOM)] * 9, start=up()) == up()


# Flapping.


def test_first_outage_is_not_held_against_a_backend() -> None:
    assert after(saw(TCP, Result.OK), saw(TCP, Result.OK), start=down()).state is State.UP


def test_flapping_backend_is_let_back_in_ever_more_slowly() -> None:
    health, now, holds = up(), 1000.0, []
    for _ in range(8):
        for _ in range(2):
            refused = Probed(A, saw(TCP, Result.REFUSED).seen, now)
            health, now = observe(health, refused, CHECK, now), now + 0.2
        fell = now
        while health.state is State.DOWN:
            passed = Probed(A, saw(TCP, Result.OK).seen, now)
            health, now = observe(health, passed, CHECK, now), now + 0.2
        holds.append(now - fell)

    assert holds == sorted(holds)
    assert holds[0] < 1.0
    assert 58 < holds[-1] < 62


def test_outages_of_long_ago_are_forgotten() -> None:
    flapped = replace(down(), outages=(1.0, 2.0, 3.0), held_until=0.0)
    back = after(saw(TCP, Result.OK), saw(TCP, Result.OK), start=flapped)
    refused = saw(TCP, Result.REFUSED).seen
    fell = observe(back, Probed(A, refused, 5000.0), CHECK, 5000.0)
    fell = observe(fell, Probed(A, refused, 5000.2), CHECK, 5000.2)

    assert fell.outages == (5000.2,)
    assert fell.held_until == 0.0


def test_held_backend_comes_in_when_the_hold_ends() -> None:
    held = replace(down(), held_until=500.0)
    held = after(saw(TCP, Result.OK), saw(TCP, Result.OK), start=held)

    assert held.state is State.DOWN
    assert held.due(499.0) == 500.0
    assert held.due(500.0) is None
    assert reconsider(held, CHECK, 500.0).state is State.UP


def test_longer_connect_is_learned_at_once_and_forgotten_slowly() -> None:
    def connect(health: Health, rtt: float) -> Health:
        return observe(health, Probed(A, Observation(TCP, Result.OK, rtt=rtt), 1.0), CHECK, 1.0)

    far = connect(connect(Health(), 0.010), 0.500)

    assert far.rtt == 0.500
    assert 0.4 < (connect(far, 0.010).rtt or 0.0) < 0.5


LOOKS = st.builds(
    lambda layer, result, timing, fresh: saw(layer, result, timing=timing, fresh=fresh),
    st.sampled_from(Layer),
    st.sampled_from(Result),
    st.sampled_from(Timing),
    st.booleans(),
)


@given(st.lists(LOOKS, max_size=60))
def test_one_failure_never_puts_a_backend_out(looks: list[Probed]) -> None:
    health, now = up(), 200.0
    for probed in looks:
        before, now = health, now + 1
        health = observe(health, replace(probed, began=now), CHECK, now)
        if before.takes_connections and not health.takes_connections:
            assert max(health.tcp.full, health.readyz.full) >= 2


@given(st.lists(LOOKS, max_size=60))
def test_passes_always_bring_a_backend_back_in_the_end(looks: list[Probed]) -> None:
    health, now = up(), 200.0
    for probed in looks:
        health, now = observe(health, replace(probed, began=now), CHECK, now), now + 1
    for _ in range(2):
        for layer in Layer:
            passed = replace(saw(layer, Result.OK), began=now)
            health, now = observe(health, passed, CHECK, now), now + 0.1
    health = reconsider(health, CHECK, now + 61)

    assert health.state is State.UP
