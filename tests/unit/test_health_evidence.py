"""What may be concluded: the rules of evidence, one by one, in virtual time.

A cut here is what the monitor would have the severer end, whose own look comes on top.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health import evidence
from kube_nginx_agent.health.machine import Health, State
from kube_nginx_agent.health.streak import Streak
from kube_nginx_agent.inbox import Probed, Timing
from kube_nginx_agent.model import HealthCheck, Probe, SocketAddress
from kube_nginx_agent.observation import Layer, Observation, Result
from support.virtual import Fault, VirtualNode, World

A, B, C = BACKENDS = [parse_address(f"10.0.0.{number}:6443") for number in (1, 2, 3)]
T = 20.0
"""When the fault begins: by then all are known."""


def node(
    faults: dict[SocketAddress, list[Fault]],
    tick: float = math.inf,
    check: HealthCheck | None = None,
    begins: float = 0.0,
) -> VirtualNode:
    world = World({backend: faults.get(backend, []) for backend in BACKENDS}, tick)
    return VirtualNode(world, check, begins=begins)


def everybody(*faults: Fault) -> dict[SocketAddress, list[Fault]]:
    return {backend: list(faults) for backend in BACKENDS}


def states(played: VirtualNode) -> list[State]:
    return [played.monitor.healths[backend].state for backend in BACKENDS]


# 1. Doubt spreads, and a cut takes another's pass that began after the first failure.


def test_silent_host_is_left_soon_and_cut_after_its_time() -> None:
    played = node({A: [Fault("silent", T)]})
    played.complain(T + 0.25, A)
    played.run(T + 6)

    left = min(at for at, view in played.views if A in view.out)
    assert left - T < 1.0
    assert [backend for _, backend in played.cuts] == [A]
    assert 2.1 < played.cuts[0][0] - T < 2.8
    assert played.out_since() == {A}


def test_frozen_apiserver_is_left_and_cut() -> None:
    played = node({A: [Fault("frozen", T)]})
    played.wait_in_vain(T + 0.4, A)
    played.run(T + 6)

    left = min(at for at, view in played.views if A in view.out)
    assert left - T < 1.5
    assert [backend for _, backend in played.cuts] == [A]
    assert played.cuts[0][0] - T < 3.4


def test_doubt_of_one_has_the_others_asked_at_once() -> None:
    played = node({A: [Fault("silent", T)]})
    played.complain(T + 0.25, A)
    played.run(T + 1)

    asked = [at for at, backend, layer, fresh in played.looks
             if backend != A and layer is Layer.READYZ and fresh and at >= T]  # fmt: skip
    assert asked
    assert asked[0] < T + 0.7


def test_those_who_are_asked_because_of_another_are_asked_few_times() -> None:
    played = node({A: [Fault("silent", T)]})
    played.complain(T + 0.25, A)
    played.run(T + 6)

    (cut_at, _), *_ = played.cuts
    fresh = [at for at, backend, layer, fresh in played.looks
             if backend == B and layer is Layer.READYZ and fresh and T <= at <= cut_at]  # fmt: skip
    assert len(fresh) <= 3


def test_refused_backend_keeps_its_sessions() -> None:
    played = node({A: [Fault("refused", T)]}).run(T + 30)

    assert played.cuts == []
    assert played.out_since() == {A}


def test_last_backend_is_never_cut() -> None:
    world = World({A: [Fault("silent", T)]})

    assert VirtualNode(world).run(T + 60).cuts == []


@pytest.mark.parametrize("seconds", [1.0, 3.0, 12.0, 60.0])
@pytest.mark.parametrize("tick", [math.inf, 1.0])
def test_network_of_the_node_away_cuts_nobody_and_leaves_nobody_out(
    seconds: float, tick: float
) -> None:
    played = node(everybody(Fault("silent", T, T + seconds)), tick).run(T + seconds + 30)

    assert played.cuts == []
    assert played.out_since() == set()


def test_who_returns_last_after_an_outage_of_all_has_time_to_do_so() -> None:
    faults = everybody(Fault("silent", T, T + 10))
    faults[A] = [Fault("silent", T, T + 12)]

    assert node(faults).run(T + 60).cuts == []


def test_who_never_returns_after_an_outage_of_all_is_cut_in_the_end() -> None:
    faults = everybody(Fault("silent", T, T + 10))
    faults[A] = [Fault("silent", T)]
    played = node(faults).run(T + 60)

    assert [backend for _, backend in played.cuts] == [A]
    assert played.cuts[0][0] > T + 10 + 2.2


def test_two_that_fail_alike_within_seconds_are_not_cut() -> None:
    played = node({A: [Fault("silent", T)], B: [Fault("silent", T + 0.5)]}).run(T + 60)

    assert played.cuts == []
    assert played.out_since() == {A, B}


def test_two_that_fail_long_after_each_other_are_cut_both() -> None:
    played = node({A: [Fault("silent", T)], B: [Fault("silent", T + 30)]}).run(T + 60)

    assert {backend for _, backend in played.cuts} == {A, B}


@pytest.mark.parametrize("tick", [math.inf, 2.0])
def test_hung_etcd_cuts_nobody(tick: float) -> None:
    hung = everybody(Fault("slow", T, T + 30, by=2.0), Fault("red", T, T + 30))
    played = node(hung, tick).run(T + 60)

    assert played.cuts == []
    assert played.monitor.view().out == frozenset()


@pytest.mark.parametrize("seconds", [0.8, 1.5])
def test_slow_etcd_cuts_nobody_and_leaves_nobody_out(seconds: float) -> None:
    played = node(everybody(Fault("slow", T, T + 30, by=seconds)))
    for backend in BACKENDS:
        played.wait_in_vain(T + 1, backend)
    played.run(T + 60)

    assert played.cuts == []
    assert played.out_since() == set()


# 2. Life on any connection forbids the cut.


def test_who_is_as_slow_itself_shows_nobody_up() -> None:
    """A shared etcd is slow, and the answer to the later of two questions comes first."""
    played = node({}).run(T)
    take, late = played.monitor.take, Observation(Layer.READYZ, Result.SILENT, is_fresh=True)
    for began in (T, T + 0.1):
        take(Probed(A, late, began, Timing.EARLY), began + 0.5)
    answer = Observation(Layer.READYZ, Result.OK, rtt=0.75, is_fresh=True)
    for at, backend in ((0.01, C), (0.02, B)):  # the second one when the first was learnt from
        take(Probed(backend, answer, T + at), T + at + 0.75)
        played.monitor.tick(T + at + 0.75)

    assert played.monitor.view().out == frozenset()

    quick = Observation(Layer.READYZ, Result.OK, rtt=0.01, is_fresh=True)
    take(Probed(C, quick, T + 0.8), T + 0.81)
    played.monitor.tick(T + 0.81)

    assert played.monitor.view().out == {A}


def test_half_dead_one_drains_and_keeps_its_sessions() -> None:
    played = node({A: [Fault("handshakes", T)]}, tick=1.0).run(T + 30)

    assert played.monitor.healths[A].state is State.DRAINING
    assert played.cuts == []
    assert played.out_since() == {A}


def test_one_whose_new_connections_are_lost_drains_by_its_kept_connection() -> None:
    played = node({A: [Fault("syns", T)]}).run(T + 30)

    assert played.monitor.healths[A].state is State.DRAINING
    assert played.cuts == []


def test_one_slow_apiserver_is_not_cut() -> None:
    played = node({A: [Fault("slow", T, by=1.5)]}).run(T + 60)

    assert played.cuts == []


# 3. Patience, and distance.


@pytest.mark.parametrize("kind", ["silent", "frozen"])
@pytest.mark.parametrize("seconds", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("after", [0.0, 0.1, 0.3, 0.7, 1.1])
def test_pause_of_two_seconds_cuts_nobody(kind: str, seconds: float, after: float) -> None:
    begins = T + after
    played = node({A: [Fault(kind, begins, begins + seconds)]})
    played.complain(begins + 0.25, A)
    played.wait_in_vain(begins + 0.3, A)
    played.run(begins + 10)

    assert played.cuts == []


def test_second_pause_finds_the_budget_of_looks_used_up_and_cuts_nobody() -> None:
    pauses = [Fault("silent", T + 4 * n, T + 4 * n + 2) for n in range(8)]
    played = node({A: pauses})
    for pause in pauses:
        played.complain(pause.begins + 0.25, A)

    assert played.run(T + 40).cuts == []


def test_configured_patience_is_kept() -> None:
    readyz = Probe(timedelta(seconds=6), timedelta(seconds=5), fall=3)
    check = replace(HealthCheck(), readyz=readyz)
    short = node({A: [Fault("frozen", T, T + 14)]}, check=check).run(T + 40)
    long = node({A: [Fault("frozen", T)]}, check=check).run(T + 40)

    assert short.cuts == []
    assert [backend for _, backend in long.cuts] == [A]


def test_cut_after_says_how_long_a_silence_may_be() -> None:
    check = replace(HealthCheck(), cut_after=timedelta(seconds=8))
    played = node({A: [Fault("silent", T)]}, check=check).run(T + 20)

    assert played.cuts[0][0] - T >= 8


@pytest.mark.parametrize("by", [0.3, 0.5, 3.0])
def test_distance_leaves_nobody_out(by: float) -> None:
    played = node(everybody(Fault("far", T, by=by)))
    for backend in BACKENDS:
        played.complain(T + 1, backend)
    played.run(T + 60)

    assert played.cuts == []
    assert played.out_since() == set()
    assert played.monitor.view().connect_timeout >= timedelta(seconds=min(by * 2.5, 3.0))


@pytest.mark.parametrize(("rtt", "is_back"), [(0.4, True), (0.001, False)])
def test_late_answer_is_in_time_if_it_is_so_by_the_distance_known_now(
    rtt: float, is_back: bool
) -> None:
    played = node({}).run(T)
    take, begins = played.monitor.take, (T, T + 0.05)
    for began in begins:
        take(Probed(A, Observation(Layer.READYZ, Result.SILENT, is_fresh=True), began), T + 1.1)
    take(Probed(B, Observation(Layer.TCP, Result.OK, rtt=rtt, is_fresh=True), T + 1), T + 1.4)
    for began in begins:
        late = Observation(Layer.READYZ, Result.OK, rtt=1.6, is_fresh=True)
        take(Probed(A, late, began, Timing.OVERDUE), T + 1.7)

    assert (played.monitor.healths[A].state is State.UP) == is_back


def test_far_backends_are_up_again_once_the_distance_is_known() -> None:
    assert set(states(node(everybody(Fault("far", T, by=0.3))).run(T + 30))) == {State.UP}


def test_spikes_on_a_far_link_leave_nobody_out() -> None:
    spikes = [Fault("far", T + 7 * n, T + 7 * n + 0.5, by=3.0) for n in range(20)]
    far = Fault("far", T, by=0.4)

    played = node(everybody(*spikes, far)).run(T + 200)

    assert played.cuts == []
    assert played.out_since() == set()


@pytest.mark.parametrize("name", [f"node{number}" for number in range(40)])
def test_standstill_of_a_far_link_leaves_nobody_out(name: str) -> None:
    """Soon after the way has become long, when some are back already and some are not yet."""
    begins = T + 4 + 3 * (int(name[4:]) % 13) / 13
    faults = everybody(Fault("far", T, by=0.4), Fault("stalled", begins, begins + 3))
    played = VirtualNode(World(faults), name=name)
    for backend in BACKENDS:
        played.complain(T + 0.3, backend)
        played.complain(begins + 1, backend)
    played.run(begins + 20)

    assert played.cuts == []
    assert played.out_since() == set()


def test_lossy_host_is_not_cut() -> None:
    played = node({A: [Fault("lossy", T, by=0.3)]}, tick=1.0).run(T + 600)

    assert played.cuts == []
    assert played.out_since() <= {A}


# 4. Classes.


def test_when_all_are_red_and_one_freezes_the_red_ones_are_in() -> None:
    faults = everybody(Fault("red", T))
    faults[B] = [Fault("frozen", T + 20), Fault("red", T)]
    played = node(faults).run(T + 30)

    assert played.monitor.view().out == {B}
    assert played.monitor.view().none_passes
    assert played.cuts == []


def test_all_red_stay_in() -> None:
    assert node(everybody(Fault("red", T))).run(T + 30).out_since(T + 10) == set()


def test_silent_ones_are_out_while_a_refusing_one_could_return() -> None:
    faults = {A: [Fault("refused", T)], B: [Fault("silent", T)], C: [Fault("silent", T)]}

    assert node(faults).run(T + 30).monitor.view().out == {B, C}


# 5. A kept connection proves the past.


def test_one_that_turns_new_connections_away_is_found_by_a_fresh_look() -> None:
    played = node({A: [Fault("handshakes", T)]}).run(T + 40)

    assert played.monitor.view().out == {A}
    assert played.cuts == []


def test_it_comes_back_when_new_connections_work_again() -> None:
    played = node({A: [Fault("handshakes", T, T + 30)]}).run(T + 80)

    assert played.monitor.view().out == frozenset()


def test_when_none_passes_nginx_waits_as_long_as_it_can() -> None:
    played = node(everybody(Fault("silent", T))).run(T + 10)

    assert played.monitor.view().none_passes
    assert played.monitor.view().connect_timeout == timedelta(seconds=3)


def test_probe_that_is_turned_off_or_asks_something_else_forgets_its_streak() -> None:
    off = replace(HealthCheck(), readyz=replace(HealthCheck.readyz, enabled=False))

    for check in (off, replace(HealthCheck(), path="/livez")):
        played = node({A: [Fault("red", T)]}).run(T + 10)
        played.monitor.want(BACKENDS, check, played.now)
        assert played.monitor.view().out == frozenset()


# The case against one, by itself.


def failed(**changes: object) -> Health:
    streak = Streak(last=Result.TIMEOUT, fails=9, full=5, has_failed=True,
                    first_began=10.0, last_began=12.1, full_began=11.0)  # fmt: skip
    return Health(state=State.DOWN, fault_began=10.0, tcp=replace(streak, **changes))  # type: ignore[arg-type]


WELL = Health(state=State.UP, passed_began=12.0)


def is_convicted(victim: Health, other: Health, now: float = 12.3) -> bool:
    healths = {A: victim, B: other}
    found = evidence.cases(healths, {}, HealthCheck(), 0.0)
    return A in found and evidence.is_proven(A, found[A], healths, now, 0.25)


def test_it_takes_time_a_last_look_and_a_witness() -> None:
    assert is_convicted(failed(), WELL)
    assert not is_convicted(failed(), WELL, now=12.1)
    assert not is_convicted(failed(last_began=11.7), WELL)
    assert not is_convicted(failed(), replace(WELL, passed_began=9.9))
    assert not is_convicted(failed(), WELL, now=14.0)


def test_late_looks_alone_convict_nobody() -> None:
    assert not is_convicted(failed(full=1), WELL)


def test_it_takes_a_whole_look_that_began_after_others_came_back() -> None:
    back = replace(WELL, trouble_began=10.0, recovered_at=10.05)

    assert is_convicted(failed(full_began=10.1), back)
    assert not is_convicted(failed(full_began=10.0), back)


# The agent restarts in the middle of an outage.


@pytest.mark.parametrize("kind", ["silent", "frozen"])
def test_agent_that_starts_in_an_outage_of_all_cuts_nobody(kind: str) -> None:
    played = node(everybody(Fault(kind, 0.0, T)), begins=T - 6).run(T + 30)

    assert played.cuts == []
    assert played.monitor.view().out == frozenset()


def test_agent_that_starts_before_a_silent_host_leaves_and_cuts_it() -> None:
    played = node({A: [Fault("silent", 0.0)]}).run(20.0)

    assert played.monitor.view().out == {A}
    assert [backend for _, backend in played.cuts] == [A]


# The rules as such, over any history.

History = List[List[Tuple[str, float, float, float]]]
KINDS = ["silent", "syns", "handshakes", "frozen", "refused", "red"]


def histories(*more: str) -> st.SearchStrategy[History]:
    spans = st.tuples(
        st.sampled_from([*KINDS, *more]),
        st.floats(2.0, 25.0),
        st.one_of(st.just(math.inf), st.floats(0.1, 15.0)),
        st.sampled_from([0.2, 0.8, 1.5, 3.0]),
    )
    return st.lists(st.lists(spans, max_size=3), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(histories("slow", "far", "lossy"), st.sampled_from([math.inf, 1.0, 5.0]))
def test_no_history_leads_to_a_cut_on_thin_evidence(history: History, tick: float) -> None:
    played = Watched(world_of(history, tick))

    played.run(45.0)


@settings(max_examples=40, deadline=None)
@given(histories(), st.sampled_from([math.inf, 1.0, None]))
def test_looks_that_wake_nobody_leave_out_and_cut_whom_the_others_would(
    history: History, tick: float | None
) -> None:
    """``tick`` None: there are no sessions, so that looks at who fails need not wake either.

    Without loss, whose dice fall otherwise when the looks are made at other times, and without
    long ways: how long they were is forgotten a little with each look that is taken, so that a
    look is late some hundredths of a second earlier or later.
    """
    woken, lazy = Woken(world_of(history, tick)), VirtualNode(world_of(history, tick))

    woken.run(45.0)
    lazy.run(45.0)

    if tick is not None:
        assert [backend for _, backend in lazy.cuts] == [backend for _, backend in woken.cuts]
    assert lazy.out_since() == woken.out_since()


def world_of(history: History, tick: float | None) -> World:
    backends = [parse_address(f"10.0.0.{n}:6443") for n in range(1, len(history) + 1)]
    faults = {
        backend: [
            Fault(kind, begins, begins + lasts, min(by, 0.5) if kind == "lossy" else by)
            for kind, begins, lasts, by in spans
        ]
        for backend, spans in zip(backends, history)
    }
    return World(faults, tick or math.inf, has_sessions=tick is not None)


class Woken(VirtualNode):
    """Passes after each look."""

    def _post(self, probed: Probed) -> None:
        super()._post(probed)
        self._is_woken = True


class Watched(VirtualNode):
    """Looks at every conviction, and at every view."""

    def _pass(self) -> None:
        super()._pass()
        healths, now = self.monitor.healths, self.now
        assert self.monitor.view().out < healths.keys()
        for victim, conviction in self.monitor.convictions(now).items():
            failing_since = healths[victim].failing_since
            assert failing_since is not None
            assert now - conviction.since >= 2.2 - 1e-6
            others = [health for other, health in healths.items() if other != victim]
            assert any(failing_since < o.passed_began and o.takes_connections for o in others)
            assert any(now - o.passed_began <= evidence.WITNESS_LASTS for o in others)
            assert victim in self.monitor.view().out
            life = self.world.life(victim, now)
            heard = life.at(needs_data=conviction.needs_data)
            assert heard is None or heard <= conviction.since
