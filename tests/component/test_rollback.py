"""Whatever step of an apply fails: the last good config serves on, and the error is of use."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from component.conftest import FreePort, StandIns
from component.rig import SECONDS, Rig, as_model, halt, holder, session, who_answers
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.nginx import limits, ports
from kube_nginx_agent.nginx.apply import ApplyError
from kube_nginx_agent.nginx.decision import Goal
from kube_nginx_agent.nginx.process import Process, ProcessGoneError, send_signal
from support.address import Address
from support.apiserver import StandIn
from support.process import wait_until

_CLONE_NEWNS = 0x00020000  # unshare(2), linux/sched.h

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: run as root")


class Serving:
    """nginx serves a good config: what has to be so again after any failure."""

    def __init__(self, rig: Rig, api: StandIn) -> None:
        self.rig = rig
        self.api = api
        self.good = rig.goal(api.address)
        rig.apply(self.good)

    def fails(self, goal: Goal) -> ApplyError:
        with pytest.raises(ApplyError) as caught:
            self.rig.apply(goal)
        return caught.value

    def assert_as_before(self) -> None:
        """Disk, nginx's own answer and a client all say: the good one."""
        assert self.rig.paths.live.read_text() == self.good.rendered.text
        assert self.rig.paths.last_good.read_text() == self.good.rendered.text
        assert not self.rig.paths.candidate.exists()
        assert self.rig.served() == self.good.generation
        assert {who_answers(self.rig.listen) for _ in range(4)} == {self.api.name}


@pytest.fixture
def other(stand_ins: StandIns) -> StandIn:
    """An apiserver to which the config under test would move the clients."""
    return stand_ins(1)[0]


@pytest.fixture
def serving(rig: Rig, stand_ins: StandIns) -> Serving:
    return Serving(rig, stand_ins(1)[0])


# nginx -t


def with_nonsense(goal: Goal) -> Goal:
    text = goal.rendered.text + "nonsense on;\n"
    return replace(goal, rendered=replace(goal.rendered, text=text))


def test_config_that_nginx_refuses_changes_nothing(serving: Serving, other: StandIn) -> None:
    serving.fails(with_nonsense(serving.rig.goal(other.address)))

    serving.assert_as_before()


def test_config_that_nginx_refuses_is_no_reload(serving: Serving, other: StandIn) -> None:
    workers = serving.rig.workers()

    serving.fails(with_nonsense(serving.rig.goal(other.address)))

    assert serving.rig.workers() == workers


def test_refusal_is_told_in_nginx_own_words(serving: Serving, other: StandIn) -> None:
    error = serving.fails(with_nonsense(serving.rig.goal(other.address)))

    assert error.step == "test"
    assert 'nginx -t refuses the config: [emerg] unknown directive "nonsense"' in error.what
    assert error.hint.endswith("the last good config goes on")


# The port


def test_held_port_is_found_before_the_reload(
    serving: Serving, other: StandIn, free_port: FreePort
) -> None:
    held = Address("127.0.0.1", free_port())
    with holder(held):
        error = serving.fails(serving.rig.goal(other.address, listen=held))

    assert error.step == "preflight"
    serving.assert_as_before()


def test_held_port_is_told_with_its_holder(
    serving: Serving, other: StandIn, free_port: FreePort
) -> None:
    held = Address("127.0.0.1", free_port())
    with holder(held):
        error = serving.fails(serving.rig.goal(other.address, listen=held))

    assert error.where == str(held)
    assert f"(pid {os.getpid()}, user " in error.what
    assert "end that process or change listen" in error.hint


@pytest.fixture
def snatched(monkeypatch: pytest.MonkeyPatch, free_port: FreePort) -> Iterator[Address]:
    """A port that a stranger takes in the instant between the preflight and the reload."""
    address = Address("127.0.0.1", free_port())
    check_listen = ports.check_listen
    with ExitStack() as strangers:

        def check_then_lose(listen: tuple[SocketAddress, ...], *others: Any) -> None:
            check_listen(listen, *others)
            if as_model(address) in listen:
                strangers.enter_context(holder(address))

        monkeypatch.setattr(ports, "check_listen", check_then_lose)
        yield address


def test_port_lost_after_the_preflight_is_rolled_back(
    serving: Serving, other: StandIn, snatched: Address
) -> None:
    error = serving.fails(serving.rig.goal(other.address, listen=snatched))

    assert error.step == "reload"
    serving.assert_as_before()


def test_port_lost_after_the_preflight_is_told_in_nginx_own_words(
    serving: Serving, other: StandIn, snatched: Address
) -> None:
    error = serving.fails(serving.rig.goal(other.address, listen=snatched))

    assert f"bind() to {snatched} failed (98: Address already in use)" in error.what
    assert "still could not bind()" in error.what


def test_session_survives_a_reload_that_is_rolled_back(
    serving: Serving, other: StandIn, snatched: Address
) -> None:
    with session(serving.rig.listen) as watch:
        serving.fails(serving.rig.goal(other.address, listen=snatched))

        assert {watch.server() for _ in range(20)} == {serving.api.name}


# A master that does not react


@pytest.fixture
def stopped(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(limits, "PROOF", 0.5)
    master = serving.rig.master()
    halt(master)
    yield master
    with suppress(ProcessGoneError):
        send_signal(master, signal.SIGCONT)


def test_stopped_master_leaves_the_last_good_config_serving(
    serving: Serving, other: StandIn, stopped: Process
) -> None:
    error = serving.fails(serving.rig.goal(other.address))

    assert error.step == "reload"
    serving.assert_as_before()


def test_stopped_master_is_named_with_what_wakes_it(
    serving: Serving, other: StandIn, stopped: Process
) -> None:
    error = serving.fails(serving.rig.goal(other.address))

    assert f"master process {stopped.pid} is stopped" in error.what
    assert f"`kill -CONT {stopped.pid}`" in error.hint


def test_master_that_goes_on_later_reloads_the_last_good_config(
    serving: Serving, other: StandIn, stopped: Process
) -> None:
    old = serving.rig.workers()
    serving.fails(serving.rig.goal(other.address))

    send_signal(stopped, signal.SIGCONT)

    wait_until(
        lambda: len(serving.rig.workers()) == 2 and serving.rig.workers() != old,
        SECONDS,
        "the reload that was pending is done",
    )
    serving.assert_as_before()


def is_told_to_reload(stopped: Process) -> bool:
    """Look for a SIGHUP that waits for the process to go on: proc(5), ShdPnd."""
    status = Path(f"/proc/{stopped.pid}/status").read_text()
    pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return bool(pending >> (signal.SIGHUP - 1) & 1)


def test_master_that_ends_in_the_reload_is_started_again_with_the_last_good_config(
    serving: Serving, other: StandIn, stopped: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROOF", SECONDS)
    with ThreadPoolExecutor() as pool:
        failure = pool.submit(serving.fails, serving.rig.goal(other.address))
        wait_until(lambda: is_told_to_reload(stopped), SECONDS, "the master is told to reload")
        send_signal(stopped, signal.SIGKILL)
        error = failure.result(SECONDS)

    assert f"nginx (pid {stopped.pid}) ended" in error.what
    serving.assert_as_before()


def test_worker_that_does_not_retire_is_named(
    serving: Serving, other: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROOF", 0.5)
    worker = serving.rig.workers()[0].process
    halt(worker)

    error = serving.fails(serving.rig.goal(other.address))

    assert error.step == "reload"
    assert error.what.endswith(f"its old worker {worker.pid} does not retire")


# A master that is not there


def test_config_that_does_not_start_gives_way_to_the_last_good_one(
    serving: Serving, other: StandIn, snatched: Address
) -> None:
    serving.rig.supervisor.stop()

    error = serving.fails(serving.rig.goal(other.address, listen=snatched))

    assert error.step == "start"
    assert error.last_good_serves
    serving.assert_as_before()


def test_first_config_that_does_not_start_leaves_nothing_served(
    rig: Rig, other: StandIn, snatched: Address
) -> None:
    with pytest.raises(ApplyError, match="nginx does not start") as caught:
        rig.apply(rig.goal(other.address, listen=snatched))

    assert not caught.value.last_good_serves
    assert caught.value.hint.endswith("nothing is served")


# The disk


@contextmanager
def small_files_only() -> Iterator[None]:
    """Let this process write no file beyond 100 bytes: EFBIG, as a full quota is EDQUOT."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_config_that_can_not_be_written_changes_nothing(serving: Serving, other: StandIn) -> None:
    with small_files_only():
        error = serving.fails(serving.rig.goal(other.address))

    assert error.step == "test"
    serving.assert_as_before()


def test_config_that_can_not_be_written_is_told_with_its_place(
    serving: Serving, other: StandIn
) -> None:
    with small_files_only():
        error = serving.fails(serving.rig.goal(other.address))

    assert error.where == str(serving.rig.paths.candidate)
    assert error.what == "it can't be written: File too large"


def with_file_system(folder: Path, options: str, test: Callable[[], None]) -> None:
    """Run the test with a small tmpfs on the folder, in a thread with mounts of its own."""

    def mounted() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        test()

    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(mounted).result()


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


@needs_root
def test_full_disk_takes_no_config_away_from_failover(rig: Rig, stand_ins: StandIns) -> None:
    def test() -> None:
        apis = stand_ins(3)
        rig.apply(rig.goal(apis[0].address))
        fill(rig.paths.state_dir)

        for api in (apis[1], apis[2], apis[0]):
            rig.apply(rig.goal(api.address))
            assert who_answers(rig.listen) == api.name

    with_file_system(rig.paths.state_dir, "size=64k,mode=755", test)


@needs_root
def test_full_disk_without_any_room_of_ours_changes_nothing(
    rig: Rig, stand_ins: StandIns, other: StandIn
) -> None:
    def test() -> None:
        serving = Serving(rig, stand_ins(1)[0])
        rig.paths.spare.unlink()
        fill(rig.paths.state_dir)

        error = serving.fails(rig.goal(other.address))

        assert error.what == "it can't be written: No space left on device"
        serving.assert_as_before()

    with_file_system(rig.paths.state_dir, "size=64k,mode=755", test)


@needs_root
def test_config_goes_live_when_there_is_room_again(
    rig: Rig, stand_ins: StandIns, other: StandIn
) -> None:
    def test() -> None:
        serving = Serving(rig, stand_ins(1)[0])
        rig.paths.spare.unlink()
        fill(rig.paths.state_dir)
        serving.fails(rig.goal(other.address))
        (rig.paths.state_dir / "ballast").unlink()

        rig.apply(rig.goal(other.address))

        assert who_answers(rig.listen) == other.name

    with_file_system(rig.paths.state_dir, "size=64k,mode=755", test)


@needs_root
def test_disk_without_room_for_another_name_serves_all_the_same(rig: Rig, other: StandIn) -> None:
    def test() -> None:
        rig.apply(rig.goal(other.address))

        assert who_answers(rig.listen) == other.name

    with_file_system(rig.paths.state_dir, "nr_inodes=2,mode=755", test)


@needs_root
def test_read_only_disk_changes_nothing(rig: Rig, stand_ins: StandIns, other: StandIn) -> None:
    def test() -> None:
        serving = Serving(rig, stand_ins(1)[0])
        folder = str(rig.paths.state_dir)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)

        error = serving.fails(rig.goal(other.address))

        assert error.what == "it can't be written: Read-only file system"
        serving.assert_as_before()

    with_file_system(rig.paths.state_dir, "mode=755", test)


# The binary


def put_program(path: Path, text: str) -> None:
    """Put a script in the place of a binary that runs, as a package's upgrade does."""
    script = path.with_name("new")
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    script.replace(path)


@pytest.fixture
def replaceable(own_binary_rig: Rig, stand_ins: StandIns) -> Serving:
    return Serving(own_binary_rig, stand_ins(1)[0])


# While nginx runs its own binary reads the config, in a test as in a reload, whatever is installed.


@pytest.mark.parametrize("program", ["exit 1", "exec sleep 60"])
def test_config_goes_live_beside_a_binary_that_is_broken(
    replaceable: Serving, other: StandIn, program: str
) -> None:
    put_program(replaceable.rig.paths.nginx, program)

    replaceable.rig.apply(replaceable.rig.goal(other.address))

    assert who_answers(replaceable.rig.listen) == other.name


def test_config_goes_live_without_a_binary(replaceable: Serving, other: StandIn) -> None:
    replaceable.rig.paths.nginx.unlink()

    replaceable.rig.apply(replaceable.rig.goal(other.address))

    assert who_answers(replaceable.rig.listen) == other.name


@pytest.fixture
def ended(replaceable: Serving) -> Serving:
    """nginx has served, and has ended; what reads the config now is the installed binary."""
    replaceable.rig.supervisor.stop()
    return replaceable


def refusal(ended: Serving, other: StandIn) -> ApplyError:
    with pytest.raises(ApplyError) as caught:
        ended.rig.apply(ended.rig.goal(other.address))
    return caught.value


def test_binary_that_exits_1_is_said(ended: Serving, other: StandIn) -> None:
    put_program(ended.rig.paths.nginx, "exit 1")

    error = refusal(ended, other)

    assert error.what == "nginx -t refuses the config: it ended with exit code 1 and said nothing"


def test_binary_that_is_gone_is_said(ended: Serving, other: StandIn) -> None:
    ended.rig.paths.nginx.unlink()

    error = refusal(ended, other)

    assert (error.where, error.what) == (str(ended.rig.paths.nginx), "there is no nginx")


def test_binary_that_is_none_is_said(ended: Serving, other: StandIn) -> None:
    ended.rig.paths.nginx.unlink()
    ended.rig.paths.nginx.write_bytes(b"\x7fELF, cut off")
    ended.rig.paths.nginx.chmod(0o755)

    assert refusal(ended, other).what == "it can't be run: Exec format error"


def test_binary_that_hangs_is_said(
    ended: Serving, other: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TEST", 0.3)
    put_program(ended.rig.paths.nginx, "exec sleep 60")

    assert refusal(ended, other).what == "it did not end within 0.3 s"


# The canary


@pytest.fixture
def astray(serving: Serving, other: StandIn, free_port: FreePort) -> Goal:
    """A config that nginx serves well, but from which the apiserver is not reached."""
    nowhere = Address("127.0.0.1", free_port())
    return replace(serving.rig.goal(nowhere), desired=serving.rig.goal(other.address).desired)


def test_config_that_leads_nowhere_is_rolled_back(serving: Serving, astray: Goal) -> None:
    error = serving.fails(astray)

    assert error.step == "canary"
    serving.assert_as_before()


def test_config_that_leads_nowhere_is_told_with_its_entrance(
    serving: Serving, astray: Goal
) -> None:
    error = serving.fails(astray)

    assert "clients would not be served" in error.what
    assert str(serving.rig.listen) in error.what


def test_config_that_leads_nowhere_gives_way_also_if_nginx_did_not_run(
    serving: Serving, astray: Goal
) -> None:
    serving.rig.supervisor.stop()

    serving.fails(astray)

    serving.assert_as_before()


# The config that is rolled back to


def test_live_config_that_was_edited_is_not_taken_for_the_last_good_one(
    serving: Serving, other: StandIn
) -> None:
    serving.rig.paths.live.write_text("# somebody's notes\n")

    serving.fails(with_nonsense(serving.rig.goal(other.address)))

    assert serving.rig.paths.last_good.read_text() == serving.good.rendered.text


def test_edited_live_config_is_replaced_by_the_last_good_one_in_a_rollback(
    serving: Serving, other: StandIn, snatched: Address
) -> None:
    serving.rig.paths.live.write_text("# somebody's notes\n")

    serving.fails(serving.rig.goal(other.address, listen=snatched))

    serving.assert_as_before()


def test_lost_last_good_config_is_no_reason_to_say_that_nothing_is_served(
    serving: Serving, other: StandIn, snatched: Address
) -> None:
    serving.rig.paths.live.write_text("# somebody's notes\n")
    serving.rig.paths.last_good.unlink()

    error = serving.fails(serving.rig.goal(other.address, listen=snatched))

    assert error.last_good_serves
    assert who_answers(serving.rig.listen) == serving.api.name


def test_after_a_failure_the_next_good_config_goes_live(serving: Serving, other: StandIn) -> None:
    serving.fails(with_nonsense(serving.rig.goal(other.address)))

    serving.rig.apply(serving.rig.goal(other.address))

    assert who_answers(serving.rig.listen) == other.name
