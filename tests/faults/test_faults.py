"""What clients may and may not notice when apiservers fail; times are bounds for a busy machine."""

from __future__ import annotations

from typing import Callable

import pytest

from faultbed import harm, scenarios
from faultbed.peers import Agent, Backends
from faultbed.stage import WATCHES, Stage
from faultbed.troubles import GREEDY_USER
from faults.conftest import Play
from support.agent_process import AGENT

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
        (harm.hung, 6.0),
        (harm.hung_ticking, 6.0),
        (harm.slow_checks, 6.0),
        (harm.network_away, 3.0),
        (harm.network_away, 7.0),
        (harm.all_syns_lost, 6.0),
    ],
)
def test_what_all_share_cuts_nobody_and_leaves_nobody_out(
    play: Play, scenario: Callable[..., None], hold: float
) -> None:
    seen = play(scenario, hold=hold, after=2.0)

    assert seen.figures.working_cut == 0
    assert seen.figures.healthy_cut == 0
    assert seen.figures.left_out == 0


def test_silent_watches_outlive_an_outage_of_the_nodes_network(play: Play) -> None:
    seen = play(harm.network_away_idle, hold=5.0, after=2.0)

    assert seen.result.cuts == []
    assert seen.figures.left_out == 0
    assert seen.figures.watches_back is not None


@pytest.mark.parametrize("scenario", [harm.paused, harm.blinked])
def test_pause_of_two_seconds_cuts_nobody(play: Play, scenario: Callable[..., None]) -> None:
    seen = play(scenario, hold=2.0, after=5.0)

    assert seen.figures.working_cut == 0
    assert seen.figures.healthy_cut == 0


@pytest.mark.parametrize(
    "scenario", [harm.half_dead, harm.syns_lost, harm.mtu_hole, harm.without_files_left]
)
def test_one_that_turns_new_clients_away_is_left_and_keeps_its_watches(
    play: Play, scenario: Callable[..., None]
) -> None:
    seen = play(scenario, hold=8.0, after=0.0)

    assert seen.course.left_out == {seen.address}
    assert seen.figures.unready == 0
    assert seen.figures.working_cut == 0
    assert seen.figures.healthy_cut == 0
    assert seen.figures.failed <= 4  # three where there is time


def test_far_link_that_stands_still_at_times_cuts_nobody_and_leaves_nobody_out(play: Play) -> None:
    seen = play(harm.far, hold=9.0, after=0.0)

    assert seen.figures.stall > 2.0, "it did not stand still"
    assert seen.figures.working_cut == 0
    assert seen.figures.left_out == 0


def test_sessions_that_died_alone_are_ended_and_no_others(play: Play) -> None:
    seen = play(harm.dead_flows, hold=13.0, after=0.0)

    assert 5.0 < seen.figures.stall < 13.0
    assert {cut.server for cut in seen.result.cuts} == {seen.course.victim}
    assert seen.figures.failed == 0
    assert seen.figures.left_out == 0


def test_sessions_of_an_address_that_has_left_the_node_are_ended_at_once(play: Play) -> None:
    seen = play(harm.address_gone, hold=4.0, after=0.0)

    assert len(seen.result.cuts) >= WATCHES
    assert seen.figures.stall < SOON
    assert seen.figures.left_out == 0


def test_user_who_takes_every_connection_ends_nobodys_session_and_is_named(play: Play) -> None:
    masters = []

    def full_for_a_while(stage: Stage) -> None:
        assert isinstance(stage.peer, Agent)
        agent = stage.peer.process
        masters.append(agent.master_pid())
        harm.table_full(stage, hold=5.0, after=3.0)
        masters.append(agent.master_pid())

    seen = play(full_for_a_while, like=harm.table_full)

    assert f"user {GREEDY_USER}" in seen.log
    assert "worker_connections are used up (the limit is 100" in seen.log
    assert len(set(masters)) == 1
    assert seen.figures.failed > 0, "the table was not full"
    assert seen.result.cuts == []
    assert seen.figures.left_out == 0
    assert seen.figures.late == 0


class AsksOften(Agent):
    """The agent, which asks for names each second instead of each 30 s."""

    def start(self, backends: Backends) -> None:
        lines = "import kube_nginx_agent.intake.resolver as known\nknown.INTERVAL = 1.0\n"
        (self.folder / "sitecustomize.py").write_text(lines)
        self.process.variables = {"PYTHONPATH": f"{AGENT}:{self.folder}"}
        super().start(backends)


def test_dns_that_names_some_of_them_at_a_time_takes_nobody_away(play: Play) -> None:
    seen = play(harm.dns_subsets, peer=AsksOften, hold=7.0)

    assert "its answers vary" in seen.log
    late = seen.result.servers(since=seen.result.ended - 2.0)
    assert late.keys() == {"api1", "api2", "api3"}
    assert seen.figures.failed == 0
    assert seen.result.cuts == []


# The agent is restarted when nothing has been concluded yet.


@pytest.mark.parametrize("scenario", [harm.silent_restarted, harm.frozen_restarted])
def test_agent_restarted_in_an_outage_of_one_leaves_that_one_and_no_other(
    play: Play, scenario: Callable[..., None]
) -> None:
    seen = play(scenario, hold=8.0, after=0.0)

    assert seen.course.left_out == {seen.address}
    assert seen.figures.stall < SOON + 2.0
    assert seen.figures.healthy_cut == 0
    assert seen.figures.left_out == 0


@pytest.mark.parametrize("scenario", [harm.hung_restarted, harm.network_away_restarted])
def test_agent_restarted_in_what_all_share_cuts_nobody_and_leaves_nobody_out(
    play: Play, scenario: Callable[..., None]
) -> None:
    seen = play(scenario, hold=6.0, after=3.0)

    assert seen.figures.working_cut == 0
    assert seen.figures.healthy_cut == 0
    assert seen.figures.left_out == 0


def test_edited_list_costs_no_request(play: Play) -> None:
    seen = play(scenarios.edited, between=3.0, after=3.0)

    assert seen.figures.failed == 0
    assert seen.figures.healthy_cut == 0
    assert seen.figures.added is not None
    assert seen.figures.added < SOON
    assert seen.figures.removed is not None
    assert seen.figures.removed < SOON
