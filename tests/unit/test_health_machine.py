"""The state of one backend: what each look at it makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.health.machine import Health, State, hint, observe, reconsider
from kube_nginx_agent.model import HealthCheck
from kube_nginx_agent.observation import Layer, Observation, Result

CHECK = HealthCheck()
TCP, READYZ = Layer.TCP, Layer.READYZ


def saw(layer: Layer, result: Result, detail: str = "") -> Observation:
    return Observation(layer, result, detail, 0.001 if result is Result.OK else None)


def after(*seen: Observation, start: Health | None = None, step: float = 0.2) -> Health:
    health, now = start or Health(is_trusted=True), 100.0
    for observation in seen:
        now += step
        health = observe(health, observation, CHECK, now)
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
    assert health.is_in_doubt


def test_pass_after_one_failure_clears_it() -> None:
    health = after(saw(TCP, Result.TIMEOUT), saw(TCP, Result.OK), start=up())

    assert health.state is State.UP
    assert not health.is_in_doubt


@pytest.mark.parametrize(
    ("layer", "result", "state", "stuck"),
    [
        (TCP, Result.REFUSED, State.DOWN, False),
        (TCP, Result.TIMEOUT, State.DOWN, True),
        (TCP, Result.UNREACHABLE, State.DOWN, True),
        (READYZ, Result.SILENT, State.DOWN, True),
        (READYZ, Result.CLOSED, State.DOWN, False),
        (READYZ, Result.GARBAGE, State.DOWN, False),
        (READYZ, Result.NOT_READY, State.DRAINING, False),
        (READYZ, Result.CERTIFICATE, State.DRAINING, False),
        (READYZ, Result.ALIVE, State.UP, False),
    ],
)
def test_cause_decides_state_and_sessions(
    layer: Layer, result: Result, state: State, stuck: bool
) -> None:
    health = after(saw(layer, result), saw(layer, result), start=up())

    assert (health.state, health.is_stuck) == (state, stuck)


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
    assert once.is_in_doubt


def test_frozen_backend_on_its_way_back_stays_what_it_was() -> None:
    health = after(saw(READYZ, Result.OK), start=down(Result.SILENT, READYZ))

    assert health.state is State.DOWN


def test_hint_alone_never_puts_a_backend_out() -> None:
    health = up()
    for now in range(101, 200):
        health = hint(health, CHECK, float(now))

    assert health.state is State.SUSPECT


def test_hint_that_nothing_confirms_is_forgotten() -> None:
    health = hint(up(), CHECK, 200.0)

    assert reconsider(health, CHECK, 201.9).is_in_doubt
    assert reconsider(health, CHECK, 202.1).state is State.UP


def test_403_of_an_apiserver_that_was_ready_means_that_it_starts() -> None:
    forbidden = saw(READYZ, Result.ALIVE, "HTTP 403")

    assert after(forbidden, forbidden, start=up()).state is State.DRAINING


def test_403_of_an_apiserver_that_never_said_200_is_alive() -> None:
    health = after(saw(TCP, Result.OK), *[saw(READYZ, Result.ALIVE, "HTTP 403")] * 3)

    assert health.state is State.UP


def test_lack_of_room_on_this_node_says_nothing_of_the_backend() -> None:
    assert after(*[saw(TCP, Result.NO_ROOM)] * 9, start=up()) == up()


def test_first_outage_is_not_held_against_a_backend() -> None:
    assert after(saw(TCP, Result.OK), saw(TCP, Result.OK), start=down()).state is State.UP


def test_flapping_backend_is_let_back_in_ever_more_slowly() -> None:
    health, now, holds = up(), 1000.0, []
    for _ in range(8):
        for result in (Result.REFUSED, Result.REFUSED):
            health, now = observe(health, saw(TCP, result), CHECK, now), now + 0.2
        fell = now
        while health.state is State.DOWN:
            health, now = observe(health, saw(TCP, Result.OK), CHECK, now), now + 0.2
        holds.append(now - fell)

    assert holds == sorted(holds)
    assert holds[0] < 1.0
    assert 58 < holds[-1] < 62


def test_outages_of_long_ago_are_forgotten() -> None:
    flapped = replace(down(), outages=(1.0, 2.0, 3.0), held_until=0.0)
    back = after(saw(TCP, Result.OK), saw(TCP, Result.OK), start=flapped)
    fell = observe(back, saw(TCP, Result.REFUSED), CHECK, 5000.0)
    fell = observe(fell, saw(TCP, Result.REFUSED), CHECK, 5000.2)

    assert fell.outages == (5000.2,)
    assert fell.held_until == 0.0


def test_held_backend_comes_in_when_the_hold_ends() -> None:
    held = replace(down(), held_until=500.0)
    held = after(saw(TCP, Result.OK), saw(TCP, Result.OK), start=held)

    assert held.state is State.DOWN
    assert held.due == 500.0
    assert reconsider(held, CHECK, 500.0).state is State.UP


def test_round_trip_time_is_smoothed() -> None:
    first = observe(Health(), Observation(TCP, Result.OK, rtt=0.010), CHECK, 1.0)
    second = observe(first, Observation(TCP, Result.OK, rtt=0.020), CHECK, 2.0)

    assert first.rtt == 0.010
    assert second.rtt == pytest.approx(0.012)


LOOKS = st.builds(saw, st.sampled_from(Layer), st.sampled_from(Result))


@given(st.lists(LOOKS, max_size=60))
def test_only_failures_in_a_row_put_a_backend_out(looks: list[Observation]) -> None:
    health, streaks = up(), {TCP: 0, READYZ: 0}
    for number, seen in enumerate(looks):
        before = health
        health = observe(health, seen, CHECK, 200.0 + number)
        if seen.result in (Result.OK, Result.ALIVE):
            streaks[seen.layer] = 0
        elif seen.result is not Result.NO_ROOM:
            streaks[seen.layer] += 1
        if before.takes_connections and not health.takes_connections:
            assert max(streaks.values()) >= 2


@given(st.lists(LOOKS, max_size=60))
def test_passes_always_bring_a_backend_back_in_the_end(looks: list[Observation]) -> None:
    health, now = up(), 200.0
    for seen in looks:
        health, now = observe(health, seen, CHECK, now), now + 1
    for _ in range(2):
        for layer in Layer:
            health = observe(health, saw(layer, Result.OK), CHECK, now)
    health = reconsider(health, CHECK, now + 61)

    assert health.state is State.UP
