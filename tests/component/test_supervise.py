"""Who starts and stops nginx: the agent itself, or a service manager beside it."""

from __future__ import annotations

import os
import pwd
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from component.conftest import StandIns
from component.rig import SECONDS, Rig, halt, holder, session
from kube_nginx_agent.nginx import limits, supervise
from kube_nginx_agent.nginx.binary import NginxError
from kube_nginx_agent.nginx.process import is_alive
from kube_nginx_agent.nginx.supervise import Attached, Standalone


@pytest.fixture
def installed(rig: Rig) -> Rig:
    """A live config on disk, and no nginx."""
    rig.paths.live.write_text(rig.goal().rendered.text)
    return rig


def start(rig: Rig) -> Rig:
    rig.supervisor.start()
    rig.wait_for_workers(2)
    return rig


def test_lost_pid_file_is_written_again(installed: Rig) -> None:
    master = installed.supervisor.start()
    installed.wait_for_workers(2)
    installed.paths.pid_file.unlink()

    assert installed.supervisor.master() == master
    assert installed.paths.pid_file.read_text() == f"{master.pid}\n"


def test_pid_file_that_nginx_has_moved_away_for_an_upgrade_is_not_written_again(
    installed: Rig,
) -> None:
    master = installed.supervisor.start()
    installed.wait_for_workers(2)
    pid_file = installed.paths.pid_file
    pid_file.rename(pid_file.with_name(f"{pid_file.name}.oldbin"))

    assert installed.supervisor.master() == master
    assert not pid_file.exists()


# Standalone


def test_nothing_runs_before_the_start(installed: Rig) -> None:
    assert installed.supervisor.master() is None


def test_started_nginx_is_its_master(installed: Rig) -> None:
    assert installed.supervisor.start() == installed.supervisor.master()


def test_started_nginx_outlives_who_started_it(installed: Rig) -> None:
    master = installed.supervisor.start()

    assert os.getsid(master.pid) != os.getsid(0)


def test_started_nginx_may_open_as_many_files_as_the_system_allows(installed: Rig) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    try:
        master = installed.supervisor.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert resource.prlimit(master.pid, resource.RLIMIT_NOFILE)[0] == hard


def test_nginx_of_an_earlier_agent_is_taken_over(installed: Rig) -> None:
    master = installed.supervisor.start()

    assert Standalone(installed.nginx, installed.paths).master() == master


def test_workers_run_as_the_user_that_the_log_is_opened_for(installed: Rig) -> None:
    start(installed)

    owners = {Path(f"/proc/{worker.process.pid}").stat().st_uid for worker in installed.workers()}

    assert owners == {installed.supervisor.worker_uid()}


def test_nginx_that_does_not_start_says_why(installed: Rig) -> None:
    installed.paths.live.write_text("nonsense on;\n")

    with pytest.raises(NginxError, match='nginx does not start: .*unknown directive "nonsense"'):
        installed.supervisor.start()


def test_nginx_whose_port_is_held_says_which(installed: Rig) -> None:
    with holder(installed.listen), pytest.raises(NginxError) as caught:
        installed.supervisor.start()

    assert f"bind() to {installed.listen} failed (98: Address already in use)" in caught.value.what


def test_program_that_leaves_no_pid_file_is_no_nginx(
    own_binary_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PID_FILE", 0.2)
    own_binary_rig.paths.nginx.unlink()
    own_binary_rig.paths.nginx.symlink_to("/bin/true")

    with pytest.raises(NginxError, match="left no pid file"):
        own_binary_rig.supervisor.start()


def test_stopped_nginx_leaves_no_process(installed: Rig) -> None:
    start(installed)
    processes = [installed.master(), *(worker.process for worker in installed.workers())]

    installed.supervisor.stop()

    assert not any(map(is_alive, processes))


def test_stopped_nginx_leaves_no_file(installed: Rig) -> None:
    start(installed)

    installed.supervisor.stop()

    left = {path.name for path in installed.paths.run_dir.iterdir()}
    assert left == {installed.paths.log_socket.name}


def test_stop_does_not_wait_for_sessions(rig: Rig, stand_ins: StandIns) -> None:
    (api,) = stand_ins(1)
    rig.apply(rig.goal(api.address))
    with session(rig.listen) as watch:
        rig.supervisor.stop()

        watch.read_to_end()


def test_hung_nginx_is_stopped_all_the_same(
    installed: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_STOP_TIMEOUT", 0.2)
    start(installed)
    processes = [*(worker.process for worker in installed.workers()), installed.master()]
    for process in processes:
        halt(process)

    installed.supervisor.stop()

    installed.wait_for_end(*processes)


def test_stop_without_nginx_is_no_error(installed: Rig) -> None:
    installed.supervisor.stop()


# Attached


@pytest.fixture
def attached(installed: Rig) -> Attached:
    return Attached(installed.paths)


def test_nginx_of_the_service_manager_is_found(installed: Rig, attached: Attached) -> None:
    assert installed.supervisor.start() == attached.master()


def test_start_waits_for_the_service_manager(installed: Rig, attached: Attached) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(attached.start)
        master = installed.supervisor.start()

        assert waiting.result(SECONDS) == master


def test_nginx_that_was_stopped_by_the_administrator_is_left_so(
    installed: Rig, attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ADOPTION", 0.1)

    with pytest.raises(NginxError, match="not running; `systemctl start kube-nginx`"):
        attached.start()

    assert attached.master() is None


def test_nginx_goes_on_when_the_agent_beside_it_stops(installed: Rig, attached: Attached) -> None:
    master = installed.supervisor.start()

    attached.stop()

    assert is_alive(master)


def test_log_of_the_service_managers_nginx_is_opened_for_our_own_user(attached: Attached) -> None:
    assert attached.worker_uid() == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's workers are another user")
def test_roots_workers_are_nobody(installed: Rig) -> None:
    assert installed.supervisor.worker_uid() == pwd.getpwnam("nobody").pw_uid
