"""Another nginx is installed: it takes over from the one that runs, and no session is cut."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from component.conftest import StandIns
from component.rig import SECONDS, Rig, Session, session, who_answers
from kube_nginx_agent.nginx import limits, upgrade
from kube_nginx_agent.nginx.decision import Goal
from kube_nginx_agent.nginx.process import (
    Process,
    is_alive,
    is_retiring,
    send_signal,
    workers,
)
from kube_nginx_agent.notices import kinds
from support.apiserver import StandIn
from support.process import wait_until


@pytest.fixture
def own(own_binary_rig: Rig, api: StandIn) -> Rig:
    """nginx that serves, from a binary of its own."""
    own_binary_rig.reconcile_until_served(own_binary_rig.goal(api.address))
    own_binary_rig.said.clear()
    return own_binary_rig


@pytest.fixture
def goal(own: Rig, api: StandIn) -> Goal:
    return own.goal(api.address)


def install(own: Rig, content: bytes) -> None:
    """Put another program in the place of the binary by a rename, as package managers do."""
    beside = own.paths.nginx.with_name("beside")
    beside.write_bytes(content)
    beside.chmod(0o755)
    beside.replace(own.paths.nginx)


def install_newer(own: Rig) -> None:
    """Install the same nginx with other bytes: what follows the sections of an ELF is not read."""
    install(own, own.paths.nginx.read_bytes() + b"newer")


def install_one_that_only_tests(own: Rig, folder: Path) -> None:
    """Install an nginx that passes a test of the config and ends when it is started."""
    good = shutil.copy2(own.paths.nginx, folder / "good")
    script = f'#!/bin/sh\n[ "$1" = -c ] && exit 1\nexec {good} "$@"\n'
    install(own, script.encode())


def begin_upgrade(own: Rig) -> tuple[Process, Process]:
    """Do the first half of an upgrade, as an agent that is killed then; return old and new."""
    install_newer(own)
    old = own.master()
    send_signal(old, signal.SIGUSR2)

    def both_accept() -> Process | None:
        new = own.supervisor.master()
        return new if new and new != old and len(workers(new)) == 2 else None

    return old, wait_until(both_accept, SECONDS, "two masters with workers")


def upgraded(own: Rig, goal: Goal) -> tuple[Process, Process]:
    """Install another binary and let it take over; return the old and the new master."""
    old = own.master()
    install_newer(own)
    own.reconcile(goal)
    assert own.master() != old
    return old, own.master()


def runs_installed(own: Rig, master: Process) -> bool:
    return Path(f"/proc/{master.pid}/exe").samefile(own.paths.nginx)


def serves_last_sessions(master: Process) -> bool:
    return [worker.retiring for worker in workers(master)] == [True]


def reconcile_until_replaced(own: Rig, goal: Goal, *former: Process) -> Process:
    """Pass as the loop does until nginx runs with another master, and return that."""

    def other() -> Process | None:
        if own.is_due():
            own.reconcile(goal)
        master = own.supervisor.master()
        return master if master not in former and own.data_plane.served else None

    return wait_until(other, SECONDS, "another master serves")


def goes_on(watch: Session, lines: int = 3) -> bool:
    """Tell whether new lines come, those that have waited in the meantime left out."""
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline or lines > 0:
        lines -= time.monotonic() > deadline
        watch.server()
    return True


# It takes over


def test_other_binary_takes_over(own: Rig, goal: Goal, api: StandIn) -> None:
    _, new = upgraded(own, goal)

    assert runs_installed(own, new)
    assert own.served() == goal.generation
    assert who_answers(own.listen) == api.name


def test_upgrade_is_said_and_leaves_no_problem(own: Rig, goal: Goal) -> None:
    old, new = upgraded(own, goal)

    (message,) = own.messages(kinds.NGINX_UPGRADED)
    assert f"master {new.pid} has taken over, {old.pid} serves its last sessions" in message
    assert own.problems.all() == []


def test_same_bytes_are_no_upgrade(own: Rig, goal: Goal) -> None:
    old = own.master()
    install(own, own.paths.nginx.read_bytes())

    own.reconcile(goal)

    assert own.master() == old


def test_binary_that_was_moved_away_is_upgraded_too(own: Rig, goal: Goal) -> None:
    content = own.paths.nginx.read_bytes()
    own.paths.nginx.rename(own.paths.nginx.with_name("nginx.old"))
    install(own, content + b"newer")
    with session(own.listen) as watch:
        own.reconcile(goal)

        assert runs_installed(own, own.master())
        assert len(own.messages(kinds.NGINX_UPGRADED)) == 1
        assert goes_on(watch)


def test_sessions_of_the_old_master_go_on(own: Rig, goal: Goal) -> None:
    with session(own.listen) as watch:
        old, _ = upgraded(own, goal)

        assert goes_on(watch)
        assert serves_last_sessions(old)


def test_old_master_ends_with_its_last_session(own: Rig, goal: Goal) -> None:
    with session(own.listen):
        old, new = upgraded(own, goal)

    own.wait_for_end(old)
    assert own.master() == new


def test_new_master_takes_reloads_while_the_old_one_drains(
    own: Rig, goal: Goal, stand_ins: StandIns
) -> None:
    (other,) = stand_ins(1)
    with session(own.listen) as watch:
        upgraded(own, goal)

        own.reconcile_until_served(own.goal(other.address))

        assert who_answers(own.listen) == other.name
        assert goes_on(watch)


def test_next_upgrade_waits_until_the_one_before_has_drained(own: Rig, goal: Goal) -> None:
    with session(own.listen) as watch:
        first, second = upgraded(own, goal)
        install_newer(own)

        own.reconcile(goal)

        assert own.master() == second
        assert own.problems.all() == []
        assert goes_on(watch)

    own.wait_for_end(first)
    own.reconcile(goal)
    assert own.master() not in (first, second)
    assert runs_installed(own, own.master())


def test_stop_ends_the_old_master_too(own: Rig, goal: Goal) -> None:
    with session(own.listen) as watch:
        old, new = upgraded(own, goal)

        own.supervisor.stop()

        assert not is_alive(old)
        assert not is_alive(new)
        assert own.supervisor.master() is None
        watch.read_to_end()


# It does not


def test_broken_binary_leaves_the_running_nginx(own: Rig, goal: Goal, api: StandIn) -> None:
    before = own.workers()
    install(own, b"#!/bin/sh\nexit 1\n")

    own.reconcile(goal)

    assert own.workers() == before
    assert who_answers(own.listen) == api.name


def test_broken_binary_is_reported_once(own: Rig, goal: Goal) -> None:
    install(own, b"#!/bin/sh\nexit 1\n")

    own.reconcile(goal)
    wait_until(own.is_due, SECONDS, "the next try")
    own.reconcile(goal)

    (message,) = own.messages(kinds.UPGRADE_FAILED)
    assert "exit code 1" in message


def test_binary_that_does_not_start_is_given_up_at_once(
    own: Rig, goal: Goal, api: StandIn, folder: Path
) -> None:
    before = own.workers()
    install_one_that_only_tests(own, folder)

    began = time.monotonic()
    own.reconcile(goal)

    assert time.monotonic() - began < 2.0
    assert own.workers() == before
    assert who_answers(own.listen) == api.name
    (message,) = own.messages(kinds.UPGRADE_FAILED)
    assert "ended at once; the old one goes on" in message


def test_new_nginx_that_does_not_answer_is_ended(
    own: Rig, goal: Goal, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TAKEOVER", 0.5)
    monkeypatch.setattr(upgrade.Upgrader, "_answers", lambda _self, _new: False)
    before = own.workers()
    install_newer(own)

    own.reconcile(goal)

    assert own.workers() == before
    assert own.served() == goal.generation
    assert who_answers(own.listen) == api.name
    assert len(own.messages(kinds.UPGRADE_FAILED)) == 1


def test_mended_binary_takes_over(own: Rig, goal: Goal) -> None:
    good = own.paths.nginx.read_bytes()
    install(own, b"#!/bin/sh\nexit 1\n")
    own.reconcile(goal)

    install(own, good + b"newer")
    wait_until(own.is_due, SECONDS, "the next try")
    own.reconcile(goal)

    assert runs_installed(own, own.master())
    assert own.problems.all() == []


# It is interrupted


def test_upgrade_that_was_begun_is_finished(own: Rig, goal: Goal) -> None:
    with session(own.listen) as watch:
        old, new = begin_upgrade(own)

        own.reconcile(goal)

        assert own.master() == new
        assert serves_last_sessions(old)
        assert goes_on(watch)
        assert len(own.messages(kinds.NGINX_UPGRADED)) == 1


def test_upgrade_that_was_begun_is_finished_before_another_goal_goes_live(
    own: Rig, stand_ins: StandIns
) -> None:
    (other,) = stand_ins(1)
    old, _ = begin_upgrade(own)

    own.reconcile(own.goal(other.address))

    own.wait_for_end(old)
    assert {who_answers(own.listen) for _ in range(20)} == {other.name}


def test_upgrade_that_was_begun_and_does_not_serve_is_taken_back(
    own: Rig, goal: Goal, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TAKEOVER", 0.5)
    monkeypatch.setattr(upgrade.Upgrader, "_answers", lambda _self, _new: False)
    old, new = begin_upgrade(own)

    own.reconcile(goal)

    assert own.master() == old
    assert not is_alive(new)
    assert who_answers(own.listen) == api.name
    assert len(own.messages(kinds.UPGRADE_FAILED)) == 1


def test_new_master_that_is_killed_before_the_old_one_retires_costs_nothing(
    own: Rig, goal: Goal, api: StandIn, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(_self: object, new: Process) -> bool:
        send_signal(new, signal.SIGKILL)
        return False

    (other,) = stand_ins(1)
    monkeypatch.setattr(upgrade.Upgrader, "_answers", kill)
    before = own.workers()
    install_newer(own)
    with session(own.listen) as watch:
        own.reconcile(goal)

        assert own.workers() == before
        own.reconcile_until_served(own.goal(other.address))
        assert {who_answers(own.listen) for _ in range(20)} == {other.name}
        assert goes_on(watch)


def test_new_master_that_is_killed_while_the_old_one_drains_is_replaced(
    own: Rig, goal: Goal, api: StandIn
) -> None:
    with session(own.listen) as watch:
        old, new = upgraded(own, goal)
        with session(own.listen) as later:
            send_signal(new, signal.SIGKILL)
            wait_until(lambda: own.supervisor.master() == old, SECONDS, "nginx's own repair")

            third = reconcile_until_replaced(own, goal, old, new)

            assert not is_retiring(third)
            assert who_answers(own.listen) == api.name
            assert goes_on(watch)
            assert goes_on(later)
    (message,) = own.messages(kinds.NGINX_HUNG)
    assert "was told to quit and takes no new connections" in message


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 3])
def test_master_that_was_told_to_quit_is_replaced_whenever_it_is_seen(
    own: Rig, goal: Goal, api: StandIn, delay_ms: int
) -> None:
    with session(own.listen) as watch:
        first = own.master()
        send_signal(first, signal.SIGQUIT)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began >= delay_ms / 1000, SECONDS, "the moment")

        reconcile_until_replaced(own, goal, first)

        assert time.monotonic() - began < 2.0  # ten times what it takes, and a fifth of a proof
        assert who_answers(own.listen) == api.name
        assert goes_on(watch)


def test_agent_that_is_killed_while_it_upgrades_leaves_the_rest_to_the_next(
    own: Rig, goal: Goal
) -> None:
    def be_killed(process: Process, signum: signal.Signals) -> None:
        send_signal(process, signum)
        os.kill(os.getpid(), signal.SIGKILL)

    with session(own.listen) as watch:
        old = own.master()
        install_newer(own)
        agent = os.fork()
        if not agent:
            vars(upgrade)["send_signal"] = be_killed
            own.reconcile(goal)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]) == -signal.SIGKILL
        wait_until(lambda: own.supervisor.master() not in (None, old), SECONDS, "a new master")

        own.reconcile_until_served(goal)

        assert serves_last_sessions(old)
        assert goes_on(watch)
