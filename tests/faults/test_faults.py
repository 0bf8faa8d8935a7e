"""What clients may and may not notice when apiservers fail; times are bounds for a busy machine."""

from __future__ import annotations

from typing import Callable

import pytest

from faultbed import harm, scenarios
from faultbed.stage import Stage
from faults.conftest import Play

SOON = 5.0  # seconds; where there is time it takes one or two, of which a watch's tick is one


def test_killed_apiserver_costs_no_request_and_returns(play: Play) -> None:
    def killed_until_it_serves_again(stage: Stage) -> None:
        scenarios.killed(stage, hold=3.0, after=0.0)
        stage.wait_until_served_by(stage.victim, 4 * SOON)

    seen = play(killed_until_it_serves_again)

    assert seen.figures.failed == 0
    assert seen.figures.healthy_cut == 0


def test_silent_host_is_left_soon_and_its_watches_move(play: Play) -> None:
    seen = play(scenarios.silent, hold=7.0, after=0.0)

    assert seen.course.left_out == {seen.address}
    assert seen.figures.failed <= 1
    assert seen.figures.steady is not None
    assert seen.figures.steady < SOON
    assert seen.figures.stall < SOON
    assert seen.figures.healthy_cut == 0


def test_frozen_apiserver_is_left_soon_and_its_watches_move(play: Play) -> None:
    seen = play(scenarios.frozen, hold=7.0, after=0.0)

    assert seen.course.left_out == {seen.address}
    assert seen.figures.steady is not None
    assert seen.figures.steady < SOON
    assert seen.figures.stall < SOON
    assert seen.figures.healthy_cut == 0


def test_unplugged_host_is_left_soon_and_its_watches_move(play: Play) -> None:
    seen = play(scenarios.unplugged, hold=6.0, after=0.0)

    assert seen.course.left_out == {seen.address}
    assert seen.figures.failed <= 1
    assert seen.figures.stall < SOON
    assert seen.figures.healthy_cut == 0


def test_firewalled_host_is_left_soon_and_its_watches_move(play: Play) -> None:
    """Its own packets still come, again and again, for it gets no acknowledgement: no life."""
    seen = play(scenarios.rejected, hold=6.0, after=0.0)

    assert seen.course.left_out == {seen.address}
    assert seen.figures.failed <= 1
    assert seen.figures.stall < SOON
    assert seen.figures.healthy_cut == 0


def test_unready_apiserver_gets_no_requests_and_keeps_its_watches(play: Play) -> None:
    seen = play(scenarios.unready, hold=8.0, after=0.0)

    assert seen.course.left_out == {seen.address}
    assert seen.figures.failed == 0
    assert seen.figures.unready == 0
    assert seen.figures.working_cut == 0
    assert seen.figures.healthy_cut == 0


def test_all_unready_stay_in(play: Play) -> None:
    seen = play(scenarios.all_unready, hold=7.0, after=0.0)

    assert seen.figures.failed == 0
    assert seen.figures.working_cut == 0
    assert seen.course.left_out == set()


def test_all_slow_stay_in(play: Play) -> None:
    seen = play(scenarios.slow, hold=6.0, after=0.0)

    assert seen.figures.failed == 0
    assert seen.figures.working_cut == 0
    assert seen.course.left_out == set()


def test_packet_loss_to_one_host_fails_nothing_and_cuts_no_healthy_watch(play: Play) -> None:
    seen = play(scenarios.lossy, hold=7.0, after=0.0)

    assert seen.figures.failed <= 1
    assert seen.figures.healthy_cut == 0


def test_flapping_apiserver_costs_no_request(play: Play) -> None:
    seen = play(scenarios.flapping, times=3, pause=1.5, after=0.5)

    assert seen.figures.failed == 0
    assert seen.figures.healthy_cut == 0


def test_rolling_restart_costs_no_request(play: Play) -> None:
    seen = play(scenarios.rolling_restart, down=1.0, between=2.0)

    assert seen.figures.failed == 0
    assert seen.figures.healthy_cut == 0


def test_all_down_work_as_soon_as_they_return(play: Play) -> None:
    seen = play(scenarios.all_down, hold=4.0, after=4.0)

    assert seen.figures.late == 0
    assert seen.figures.watches_back is not None


def test_node_without_network_says_so_and_works_as_soon_as_it_returns(play: Play) -> None:
    seen = play(scenarios.all_silent, hold=4.0, after=5.0)

    assert "no apiserver passes its checks: all stay in" in seen.log
    assert "this node's own network" in seen.log
    assert seen.course.left_out == set()
    assert seen.figures.watches_back is not None


# First, do no harm: what is shared, or soon over, is nobody's fault.


@pytest.mark.parametrize(
    ("scenario", "hold"),
    [
        (harm.hung, 9.0),
        (harm.slow_checks, 7.0),
        (harm.network_away, 3.0),
        (harm.network_away, 8.0),
        (harm.all_syns_lost, 6.0),
    ],
)
def test_what_all_share_cuts_nobody_and_leaves_nobody_out(
    play: Play, scenario: Callable[..., None], hold: float
) -> None:
    seen = play(scenario, hold=hold, after=4.0)

    assert seen.figures.working_cut == 0
    assert seen.figures.healthy_cut == 0
    assert seen.course.left_out == set()


@pytest.mark.parametrize("scenario", [harm.paused, harm.blinked])
def test_pause_of_two_seconds_cuts_nobody(play: Play, scenario: Callable[..., None]) -> None:
    seen = play(scenario, hold=2.0, after=5.0)

    assert seen.figures.working_cut == 0
    assert seen.figures.healthy_cut == 0


@pytest.mark.parametrize("scenario", [harm.half_dead, harm.syns_lost, harm.mtu_hole])
def test_one_that_turns_new_clients_away_is_left_and_keeps_its_watches(
    play: Play, scenario: Callable[..., None]
) -> None:
    seen = play(scenario, hold=8.0, after=0.0)

    assert seen.course.left_out == {seen.address}
    assert seen.figures.unready == 0
    assert seen.figures.working_cut == 0
    assert seen.figures.healthy_cut == 0


def test_edited_list_costs_no_request(play: Play) -> None:
    seen = play(scenarios.edited, between=3.0, after=3.0)

    assert seen.figures.failed == 0
    assert seen.figures.healthy_cut == 0
    assert seen.figures.added is not None
    assert seen.figures.added < SOON
    assert seen.figures.removed is not None
    assert seen.figures.removed < SOON
