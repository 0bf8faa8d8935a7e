"""nginx is brought to the desired state, kept there, and healed where it is hurt."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Iterator

import pytest

from component.conftest import FreePort, StandIns
from component.rig import SECONDS, Rig, halt, holder, session, who_answers
from kube_nginx_agent.nginx import decision, limits
from kube_nginx_agent.nginx.decision import Goal
from kube_nginx_agent.nginx.process import Process, is_alive, is_stopped, send_signal
from kube_nginx_agent.nginx.supervise import Attached, Standalone
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices import kinds
from support.address import Address
from support.apiserver import StandIn
from support.process import wait_until

_PTRACE_SEIZE, _PTRACE_INTERRUPT = 0x4206, 0x4207  # ptrace(2), linux/ptrace.h


@pytest.fixture
def goal(rig: Rig, api: StandIn) -> Goal:
    """What nginx is told to do, and does."""
    goal = rig.goal(api.address)
    rig.reconcile_until_served(goal)
    rig.said.clear()
    return goal


def astray_goal(rig: Rig, api: StandIn, nowhere: Address) -> Goal:
    """Return a goal whose config leads elsewhere than to the apiserver that it is to serve."""
    return replace(rig.goal(nowhere), desired=rig.goal(api.address).desired)


@pytest.fixture
def unreachable(rig: Rig, api: StandIn, free_port: FreePort) -> Iterator[Goal]:
    """A goal that fails in the preflight, as long as it takes."""
    held = Address("127.0.0.1", free_port())
    with holder(held):
        yield rig.goal(api.address, listen=held)


# No needless reload


def test_goal_that_is_served_is_no_reload(rig: Rig, goal: Goal) -> None:
    before = rig.workers()

    for _ in range(3):
        rig.reconcile(goal)

    assert rig.workers() == before


def test_goal_that_is_served_is_no_news(rig: Rig, goal: Goal) -> None:
    rig.reconcile(goal)

    assert rig.said == []


def test_new_agent_does_not_reload_what_an_earlier_one_left(rig: Rig, goal: Goal) -> None:
    before = rig.workers()
    successor = Rig(rig.paths, rig.listen)

    assert successor.reconcile(goal) is None
    assert (successor.data_plane.served, rig.workers()) == (goal.generation, before)


def test_goal_that_goes_live_is_proven(rig: Rig, api: StandIn) -> None:
    goal = rig.goal(api.address)

    proof = rig.reconcile(goal)

    assert proof
    assert (proof.generation, proof.master) == (rig.data_plane.served, rig.data_plane.master)


# A config that fails


def test_failed_goal_leaves_the_last_good_one_served(
    rig: Rig, goal: Goal, unreachable: Goal, api: StandIn
) -> None:
    assert rig.reconcile(unreachable) is None

    assert rig.data_plane.served == goal.generation
    assert who_answers(rig.listen) == api.name


def test_failed_goal_is_said_once(rig: Rig, goal: Goal, unreachable: Goal) -> None:
    rig.reconcile(unreachable)
    for _ in range(3):
        rig.reconcile(unreachable)

    (message,) = rig.messages(kinds.APPLY_FAILED)
    assert f"(pid {os.getpid()}, user " in message
    assert "the last good config goes on" in message


def test_failed_goal_is_tried_ever_more_seldom(
    rig: Rig, goal: Goal, unreachable: Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, tries = 1000.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(4):
        rig.reconcile_at(now, unreachable)
        tries.append(now)
        now = rig.data_plane.due(now) or pytest.fail("it is not tried again")

    assert [later - earlier for earlier, later in zip(tries, tries[1:])] == [1.0, 2.0, 4.0]


def test_failed_goal_is_not_tried_before_it_is_due(
    rig: Rig, goal: Goal, unreachable: Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.reconcile(unreachable)
    monkeypatch.setattr(rig.applier, "apply", lambda *_: pytest.fail("it was tried"))

    rig.reconcile(unreachable)


def test_another_goal_is_tried_at_once_after_a_failure(
    rig: Rig, goal: Goal, unreachable: Goal, stand_ins: StandIns
) -> None:
    (other,) = stand_ins(1)
    rig.reconcile(unreachable)

    assert rig.reconcile(rig.goal(other.address))
    assert who_answers(rig.listen) == other.name


def test_goal_that_becomes_possible_goes_live(
    rig: Rig, goal: Goal, api: StandIn, free_port: FreePort
) -> None:
    elsewhere = Address("127.0.0.1", free_port())
    later = rig.goal(api.address, listen=elsewhere)
    with holder(elsewhere):
        rig.reconcile(later)

    rig.reconcile_until_served(later)

    assert who_answers(elsewhere) == api.name
    (message,) = rig.messages(kinds.PROBLEM_SOLVED)
    assert message.startswith("over after ")


def test_goal_that_leads_nowhere_is_no_success_because_nginx_serves_it(
    rig: Rig, api: StandIn, free_port: FreePort
) -> None:
    astray = astray_goal(rig, api, Address("127.0.0.1", free_port()))
    rig.reconcile(astray)
    assert rig.served() == astray.generation

    rig.reconcile(astray)

    (problem,) = rig.problems.all()
    assert "clients would not be served" in problem.error.what


# The live config, changed by another hand


def edit(rig: Rig) -> None:
    with rig.paths.live.open("a") as file:
        file.write("# somebody was here\n")


def truncate(rig: Rig) -> None:
    rig.paths.live.write_text("")


def delete(rig: Rig) -> None:
    rig.paths.live.unlink()


def garble(rig: Rig) -> None:
    rig.paths.live.write_bytes(b"\xff\x00" * 100)


HANDS = [edit, truncate, delete, garble]


@pytest.mark.parametrize("hand", HANDS)
def test_changed_live_config_is_restored(rig: Rig, goal: Goal, hand: object) -> None:
    assert callable(hand)
    hand(rig)

    rig.reconcile(goal)

    assert rig.paths.live.read_text() == goal.rendered.text


@pytest.mark.parametrize("hand", HANDS)
def test_restored_live_config_is_no_reload(rig: Rig, goal: Goal, hand: object) -> None:
    before = rig.workers()
    assert callable(hand)
    hand(rig)

    rig.reconcile(goal)

    assert rig.workers() == before


def test_restored_live_config_is_said_with_the_difference(rig: Rig, goal: Goal) -> None:
    edit(rig)

    rig.reconcile(goal)

    (message,) = rig.messages(kinds.LIVE_RESTORED)
    assert message.splitlines()[-1] == "+# somebody was here"


def test_long_difference_is_cut_short(rig: Rig, goal: Goal) -> None:
    truncate(rig)

    rig.reconcile(goal)

    (message,) = rig.messages(kinds.LIVE_RESTORED)
    assert len(message.splitlines()) == 22
    assert message.endswith("more lines")


def test_deleted_live_config_is_said_to_be_gone(rig: Rig, goal: Goal) -> None:
    delete(rig)

    rig.reconcile(goal)

    assert rig.messages(kinds.LIVE_RESTORED) == [
        "the live config was gone or unreadable: it is restored"
    ]


@pytest.mark.parametrize("hand", HANDS)
def test_live_config_is_restored_also_while_a_newer_goal_fails(
    rig: Rig, goal: Goal, unreachable: Goal, hand: object
) -> None:
    rig.reconcile(unreachable)
    assert callable(hand)
    hand(rig)

    rig.reconcile(unreachable)

    assert rig.paths.live.read_text() == goal.rendered.text


def test_edit_of_the_live_config_never_goes_live(rig: Rig, goal: Goal, api: StandIn) -> None:
    rig.paths.live.write_text("nonsense on;\n")
    send_signal(rig.master(), signal.SIGHUP)

    rig.reconcile(goal)

    assert rig.served() == goal.generation
    assert who_answers(rig.listen) == api.name


# A master that ends


def end_master(rig: Rig) -> Process:
    master = rig.master()
    send_signal(master, signal.SIGKILL)
    rig.wait_for_end(master)
    return master


def test_killed_master_is_started_again(rig: Rig, goal: Goal, api: StandIn) -> None:
    killed = end_master(rig)

    rig.reconcile_until_served(goal)

    assert rig.master() != killed
    assert who_answers(rig.listen) == api.name


def test_killed_master_is_said(rig: Rig, goal: Goal) -> None:
    killed = end_master(rig)

    rig.reconcile(goal)

    assert rig.messages(kinds.NGINX_ENDED) == [f"nginx (master {killed.pid}) has ended"]


def test_session_goes_on_while_the_master_is_started_again(
    rig: Rig, goal: Goal, api: StandIn
) -> None:
    with session(rig.listen) as watch:
        end_master(rig)

        rig.reconcile_until_served(goal)

        assert {watch.server() for _ in range(20)} == {api.name}


def test_master_that_keeps_ending_is_started_ever_more_seldom(rig: Rig, goal: Goal) -> None:
    waits = []
    for _ in range(3):
        end_master(rig)
        now = time.monotonic()
        rig.reconcile_at(now, goal)
        waits.append((rig.data_plane.due(now) or now) - now)
        rig.reconcile_until_served(goal)

    assert waits == pytest.approx([0.1, 0.2, 0.4])


def test_edited_config_is_not_what_a_killed_master_is_started_with(
    rig: Rig, goal: Goal, api: StandIn
) -> None:
    rig.paths.live.write_text("nonsense on;\n")
    end_master(rig)

    rig.reconcile_until_served(goal)

    assert who_answers(rig.listen) == api.name


def test_last_good_config_is_started_when_the_master_ends_and_the_goal_fails(
    rig: Rig, goal: Goal, unreachable: Goal, api: StandIn
) -> None:
    rig.reconcile(unreachable)
    end_master(rig)

    def is_served() -> bool:
        rig.reconcile(unreachable)
        return rig.data_plane.served == goal.generation

    wait_until(is_served, SECONDS, "nginx serves the last good config again")
    assert who_answers(rig.listen) == api.name


# A service manager that runs nginx


@pytest.fixture
def attached(paths: Paths, listen: Address, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """An agent beside an nginx that others start and stop."""
    monkeypatch.setattr(limits, "ADOPTION", 0.1)
    return Rig(paths, listen, Attached(paths))


@pytest.fixture
def manager(attached: Rig) -> Standalone:
    """Who starts and stops that nginx."""
    return Standalone(attached.nginx, attached.paths)


def test_nginx_of_the_service_manager_is_brought_to_the_goal(
    attached: Rig, manager: Standalone, api: StandIn
) -> None:
    attached.paths.live.write_text(attached.goal().rendered.text)
    manager.start()

    attached.reconcile_until_served(attached.goal(api.address))

    assert who_answers(attached.listen) == api.name


def test_nginx_that_the_administrator_stopped_stays_so_and_is_reported(
    attached: Rig, api: StandIn
) -> None:
    attached.reconcile(attached.goal(api.address))

    (problem,) = attached.problems.all()
    assert problem.error.what == "kube-nginx.service is not running"
    assert attached.supervisor.master() is None


def test_nginx_that_the_administrator_starts_again_is_no_problem_any_more(
    attached: Rig, manager: Standalone, api: StandIn
) -> None:
    goal = attached.goal(api.address)
    attached.reconcile(goal)

    manager.start()
    attached.reconcile_until_served(goal)

    assert attached.problems.all() == []


def test_nginx_that_the_administrator_starts_again_has_the_last_good_config(
    attached: Rig, manager: Standalone, api: StandIn, stand_ins: StandIns
) -> None:
    attached.paths.live.write_text(attached.goal().rendered.text)
    manager.start()
    attached.reconcile_until_served(attached.goal(api.address))
    manager.stop()
    (other,) = stand_ins(1)
    attached.reconcile(attached.goal(other.address))

    manager.start()

    assert who_answers(attached.listen) == api.name


# An nginx that does not react


def test_stopped_workers_are_told_to_go_on(rig: Rig, goal: Goal, api: StandIn) -> None:
    for worker in rig.workers():
        halt(worker.process)

    rig.reconcile_until_served(goal)

    assert who_answers(rig.listen) == api.name


def test_stopped_master_is_told_to_go_on(rig: Rig, goal: Goal) -> None:
    master = rig.master()
    halt(master)

    rig.reconcile(goal)

    wait_until(lambda: not is_stopped(master), SECONDS, "the master goes on")


def test_stopped_process_is_named(rig: Rig, goal: Goal) -> None:
    master = rig.master()
    halt(master)

    rig.reconcile(goal)

    assert rig.messages(kinds.NGINX_HUNG) == [
        f"nginx process {master.pid} is stopped; it is told to go on"
    ]


def test_stopped_process_that_goes_on_is_no_problem_any_more(rig: Rig, goal: Goal) -> None:
    master = rig.master()
    halt(master)
    rig.reconcile(goal)
    wait_until(lambda: not is_stopped(master), SECONDS, "the master goes on")

    rig.reconcile(goal)

    assert rig.problems.all() == []


def test_stopped_process_that_ends_is_no_problem_any_more(rig: Rig, goal: Goal) -> None:
    halt(rig.master())
    rig.reconcile(goal)
    end_master(rig)

    rig.reconcile_until_served(goal)

    assert rig.problems.all() == []


def hang(rig: Rig) -> list[Process]:
    """Make all of nginx stand still in a way that no signal but SIGKILL ends: under a debugger."""
    libc = ctypes.CDLL(None, use_errno=True)
    processes = [rig.master(), *(worker.process for worker in rig.workers())]
    for process in processes:
        for request in (_PTRACE_SEIZE, _PTRACE_INTERRUPT):
            if libc.ptrace(request, process.pid, None, None):
                pytest.skip(f"ptrace is not allowed: {os.strerror(ctypes.get_errno())}")
    return processes


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "MUTE_FOR", 0.6)


@pytest.mark.usefixtures("impatient")
def test_mute_nginx_is_killed_and_started_again(rig: Rig, goal: Goal, api: StandIn) -> None:
    hung = hang(rig)

    rig.reconcile_until_served(goal)

    assert rig.master() not in hung
    assert who_answers(rig.listen) == api.name


@pytest.mark.usefixtures("impatient")
def test_mute_nginx_leaves_no_process_behind(rig: Rig, goal: Goal) -> None:
    hung = hang(rig)

    rig.reconcile_until_served(goal)

    assert not any(map(is_alive, hung))


@pytest.mark.usefixtures("impatient")
def test_mute_nginx_is_said(rig: Rig, goal: Goal) -> None:
    master = hang(rig)[0]

    rig.reconcile_until_served(goal)

    said = rig.messages(kinds.NGINX_HUNG)
    assert any(line.startswith(f"nginx (master {master.pid}) is hung: ") for line in said)


def test_nginx_that_is_mute_for_an_instant_is_left_alone(rig: Rig, goal: Goal) -> None:
    master = rig.master()
    hang(rig)

    rig.reconcile(goal)

    assert is_alive(master)


# Old generations with sessions


def test_as_many_old_generations_serve_sessions_as_there_may_be(
    rig: Rig, stand_ins: StandIns
) -> None:
    apis = stand_ins(2)
    with ExitStack() as held:
        for number in range(9):
            rig.reconcile(rig.goal(apis[number % 2].address))
            held.enter_context(session(rig.listen)).server()

        assert rig.data_plane.draining == decision.MAX_DRAINING
        assert rig.messages(kinds.GENERATION_CUT) == []


def test_oldest_generation_is_ended_when_there_are_too_many(rig: Rig, stand_ins: StandIns) -> None:
    apis = stand_ins(2)
    with ExitStack() as held:
        watches = []
        for number in range(10):
            rig.reconcile(rig.goal(apis[number % 2].address))
            watches.append(held.enter_context(session(rig.listen)))

        watches[0].read_to_end()

        assert [watch.server() for watch in watches[1:3]] == [apis[1].name, apis[0].name]


def test_ended_generation_is_said(rig: Rig, stand_ins: StandIns) -> None:
    apis = stand_ins(2)
    with ExitStack() as held:
        for number in range(10):
            rig.reconcile(rig.goal(apis[number % 2].address))
            held.enter_context(session(rig.listen))

        (message,) = rig.messages(kinds.GENERATION_CUT)

    assert "the oldest (worker " in message


# The binary


@pytest.fixture
def own(own_binary_rig: Rig, api: StandIn) -> Rig:
    """nginx that serves, from a binary of its own."""
    own_binary_rig.reconcile_until_served(own_binary_rig.goal(api.address))
    own_binary_rig.said.clear()
    return own_binary_rig


def test_running_nginx_goes_on_without_its_binary(own: Rig, api: StandIn) -> None:
    goal, workers = own.goal(api.address), own.workers()
    own.paths.nginx.unlink()

    own.reconcile(goal)

    assert own.workers() == workers
    assert who_answers(own.listen) == api.name


def test_missing_binary_is_reported(own: Rig, api: StandIn) -> None:
    own.paths.nginx.unlink()

    own.reconcile(own.goal(api.address))

    (problem,) = own.problems.all()
    assert (problem.error.where, problem.error.what) == (str(own.paths.nginx), "there is no nginx")


def test_new_goal_goes_live_without_the_binary_because_the_running_one_reads_it(
    own: Rig, stand_ins: StandIns
) -> None:
    (other,) = stand_ins(1)
    own.paths.nginx.unlink()

    own.reconcile(own.goal(other.address))

    assert who_answers(own.listen) == other.name
    assert len(own.messages(kinds.UPGRADE_FAILED)) == 1


def test_binary_that_comes_back_is_no_problem_any_more(own: Rig, api: StandIn) -> None:
    goal = own.goal(api.address)
    away = own.paths.nginx.rename(own.paths.nginx.with_name("away"))
    own.reconcile(goal)

    away.rename(own.paths.nginx)
    own.reconcile(goal)

    assert own.problems.all() == []


# The start


def test_config_on_disk_is_started_where_nothing_better_is_known(rig: Rig, api: StandIn) -> None:
    rig.paths.live.write_text(rig.goal(api.address).rendered.text)

    rig.data_plane.start_from_disk()

    assert who_answers(rig.listen) == api.name


def test_config_on_disk_that_does_not_start_is_reported(rig: Rig) -> None:
    rig.paths.live.write_text("nonsense on;\n")

    rig.data_plane.start_from_disk()
    rig.problems.update(rig.data_plane.problems())

    (message,) = rig.messages(kinds.APPLY_FAILED)
    assert 'unknown directive "nonsense"' in message
