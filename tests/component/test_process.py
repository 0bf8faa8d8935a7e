"""A process is known for good, and a signal reaches no stranger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from component.conftest import StandIns
from component.rig import SECONDS, Rig, session
from kube_nginx_agent.nginx.process import (
    Process,
    ProcessGoneError,
    find_lost_master,
    find_master,
    identify,
    is_alive,
    is_stopped,
    is_worker,
    parent_of,
    runs,
    send_signal,
    wait_until_gone,
    workers,
)
from support.process import wait_until

_NOBODY = 65534


def identity(pid: int) -> Process:
    process = identify(pid)
    assert process
    return process


def before(process: Process) -> Process:
    """Return who had this pid earlier: the same number, another start."""
    return replace(process, start_time=process.start_time - 1)


# Identity


def test_process_is_the_same_when_looked_at_again(child: subprocess.Popen[bytes]) -> None:
    assert identify(child.pid) == identify(child.pid)


def test_pid_that_nobody_has_is_no_process() -> None:
    assert identify(2**22 + 1) is None


def test_zombie_has_ended(child: subprocess.Popen[bytes]) -> None:
    process = identity(child.pid)
    child.kill()

    wait_until(lambda: not is_alive(process), SECONDS, "the child is a zombie")
    assert child.returncode is None


def test_reused_pid_is_not_the_process_that_had_it(child: subprocess.Popen[bytes]) -> None:
    assert not is_alive(before(identity(child.pid)))


def test_process_with_brackets_and_spaces_in_its_name_is_identified(folder: Path) -> None:
    odd = folder / "a) S (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "60"]) as child:
        process = wait_until(lambda: identify(child.pid), SECONDS, "the process")
        try:
            assert parent_of(child.pid) == os.getpid()
            assert is_alive(process)
        finally:
            child.kill()


def test_stopped_process_is_told_from_a_running_one(child: subprocess.Popen[bytes]) -> None:
    process = identity(child.pid)
    assert not is_stopped(process)

    send_signal(process, signal.SIGSTOP)

    wait_until(lambda: is_stopped(process), SECONDS, "the child is stopped")


# Signals


def test_signal_reaches_its_process(child: subprocess.Popen[bytes]) -> None:
    send_signal(identity(child.pid), signal.SIGTERM)

    assert child.wait(SECONDS) == -signal.SIGTERM


def test_signal_for_the_earlier_owner_of_a_pid_reaches_nobody(
    child: subprocess.Popen[bytes],
) -> None:
    with pytest.raises(ProcessGoneError):
        send_signal(before(identity(child.pid)), signal.SIGKILL)

    assert child.poll() is None


def test_signal_to_an_ended_process_says_so(child: subprocess.Popen[bytes]) -> None:
    process = identity(child.pid)
    child.kill()
    child.wait()

    with pytest.raises(ProcessGoneError):
        send_signal(process, signal.SIGTERM)


def test_signal_to_somebody_elses_process_is_refused() -> None:
    other = os.fork()
    if other == 0:  # root may signal everybody: become somebody else
        os.setsid()  # within one session anybody may send SIGCONT (kill(2))
        if os.geteuid() == 0:
            os.setuid(_NOBODY)
        try:
            send_signal(identity(1), signal.SIGCONT)
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0


def test_end_of_a_process_is_waited_for(child: subprocess.Popen[bytes]) -> None:
    process = identity(child.pid)
    child.kill()

    assert wait_until_gone(process, SECONDS)


def test_wait_for_a_process_that_goes_on_ends_in_time(child: subprocess.Popen[bytes]) -> None:
    assert not wait_until_gone(identity(child.pid), 0.01)


def test_earlier_owner_of_a_pid_is_gone_at_once(child: subprocess.Popen[bytes]) -> None:
    assert wait_until_gone(before(identity(child.pid)), 0)


# The pid file


@pytest.fixture
def running(rig: Rig) -> Rig:
    rig.apply(rig.goal())
    return rig


def test_master_is_found_by_its_pid_file(running: Rig) -> None:
    pid = int(running.paths.pid_file.read_text())

    assert find_master(running.paths.pid_file, running.paths.nginx) == identify(pid)


@pytest.mark.parametrize("content", [b"", b"\n", b"master", b"-1", b"0", b"9" * 30, b"\xff\x00"])
def test_pid_file_without_a_pid_names_no_master(running: Rig, content: bytes) -> None:
    running.paths.pid_file.write_bytes(content)

    assert find_master(running.paths.pid_file, running.paths.nginx) is None


def test_missing_pid_file_names_no_master(running: Rig) -> None:
    running.paths.pid_file.unlink()

    assert find_master(running.paths.pid_file, running.paths.nginx) is None


def test_pid_file_of_an_ended_master_names_nobody(running: Rig) -> None:
    content = running.paths.pid_file.read_text()
    running.supervisor.stop()
    running.paths.pid_file.write_text(content)

    assert find_master(running.paths.pid_file, running.paths.nginx) is None


def test_pid_file_that_names_a_stranger_names_no_master(running: Rig) -> None:
    running.paths.pid_file.write_text(f"{os.getpid()}\n")

    assert find_master(running.paths.pid_file, running.paths.nginx) is None


def test_pid_file_that_names_a_worker_names_no_master(running: Rig) -> None:
    running.paths.pid_file.write_text(f"{running.workers()[0].process.pid}\n")

    assert find_master(running.paths.pid_file, running.paths.nginx) is None


def test_master_is_still_found_when_its_binary_was_replaced(own_binary_rig: Rig) -> None:
    own_binary_rig.apply(own_binary_rig.goal())
    binary = own_binary_rig.paths.nginx
    newer = binary.with_name("newer")
    newer.write_bytes(binary.read_bytes())

    newer.replace(binary)

    assert find_master(own_binary_rig.paths.pid_file, binary)


def test_master_is_still_found_when_its_binary_was_moved_away(own_binary_rig: Rig) -> None:
    own_binary_rig.apply(own_binary_rig.goal())
    binary = own_binary_rig.paths.nginx

    binary.rename(binary.with_name("away"))

    assert find_master(own_binary_rig.paths.pid_file, binary)


def test_master_is_found_through_a_link_to_its_binary(own_binary_rig: Rig) -> None:
    own_binary_rig.apply(own_binary_rig.goal())
    link = own_binary_rig.paths.nginx.with_name("link")

    link.symlink_to(own_binary_rig.paths.nginx)

    assert find_master(own_binary_rig.paths.pid_file, link)


def test_other_programs_do_not_run_our_binary(nginx_binary: Path) -> None:
    assert not runs(os.getpid(), nginx_binary)


# Workers


def test_workers_are_the_masters_own(running: Rig) -> None:
    parents = {parent_of(worker.process.pid) for worker in running.workers()}

    assert parents == {running.master().pid}


def test_worker_with_a_session_retires_after_a_reload(rig: Rig, stand_ins: StandIns) -> None:
    one, two = stand_ins(2)
    rig.apply(rig.goal(one.address))
    with session(rig.listen):
        rig.apply(rig.goal(two.address))

        assert [worker.retiring for worker in rig.wait_for_workers(3)].count(True) == 1


def test_ended_master_has_no_workers(running: Rig) -> None:
    master = running.master()
    running.supervisor.stop()

    assert workers(master) == []


def test_interpreter_is_not_taken_for_a_worker() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not is_worker(child.pid)


def test_lost_master_is_found_by_its_title(running: Rig) -> None:
    master = running.master()
    running.wait_for_workers(2)

    assert find_lost_master(running.paths.live, running.paths.nginx) == master


def test_worker_that_still_has_its_masters_title_is_not_taken_for_a_lost_master(rig: Rig) -> None:
    title = f"nginx: master process {rig.paths.nginx} -c {rig.paths.live}"
    with subprocess.Popen([title], executable="/bin/cat", stdin=subprocess.PIPE):
        assert find_lost_master(rig.paths.live, rig.paths.nginx) is None
