"""The workers of a killed master: a new master takes their place, their sessions go on."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from component.conftest import FreePort
from component.rig import SECONDS, Rig, halt, session, who_answers
from kube_nginx_agent.nginx.orphans import find_orphans, retire_orphans
from kube_nginx_agent.nginx.process import Process, is_alive, send_signal
from kube_nginx_agent.node.paths import Paths
from support.address import Address
from support.apiserver import StandIn


@pytest.fixture
def rig(rig: Rig, api: StandIn) -> Rig:
    """nginx that serves."""
    rig.apply(rig.goal(api.address))
    return rig


def kill_master(rig: Rig) -> list[Process]:
    """End the master as the kernel's out-of-memory killer does; return the workers it leaves."""
    master, left = rig.master(), [worker.process for worker in rig.workers()]
    send_signal(master, signal.SIGKILL)
    rig.wait_for_end(master)
    return left


def orphans(rig: Rig) -> list[Process]:
    return find_orphans(rig.paths.generation_socket, rig.paths.nginx)


def retire(rig: Rig) -> list[Process]:
    return retire_orphans(rig.paths.generation_socket, rig.paths.nginx)


def test_workers_of_a_running_master_are_no_orphans(rig: Rig) -> None:
    assert orphans(rig) == []


def test_workers_of_a_killed_master_are_orphans(rig: Rig) -> None:
    left = kill_master(rig)

    assert sorted(orphans(rig), key=lambda process: process.pid) == left


def test_orphans_are_found_when_the_sockets_name_is_gone(rig: Rig) -> None:
    left = kill_master(rig)

    rig.paths.generation_socket.unlink()

    assert set(orphans(rig)) == set(left)


def test_orphans_of_another_nginx_are_not_ours(rig: Rig, folder: Path, free_port: FreePort) -> None:
    (folder / "other").mkdir()
    paths = Paths(
        folder / "other.yaml", rig.paths.nginx, folder / "other/state", folder / "other/run"
    )
    other = Rig(paths, Address("127.0.0.1", free_port()))
    other.apply(other.goal())
    kill_master(other)

    assert orphans(rig) == []


def test_orphans_serve_new_clients_until_they_are_retired(rig: Rig, api: StandIn) -> None:
    kill_master(rig)

    assert who_answers(rig.listen) == api.name


def test_retired_orphans_accept_no_more_clients(rig: Rig) -> None:
    kill_master(rig)

    retire(rig)

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(rig.listen, SECONDS)


def test_retired_orphans_are_named(rig: Rig) -> None:
    left = kill_master(rig)

    assert set(retire(rig)) == set(left)


def test_nothing_is_retired_where_nothing_is_left(rig: Rig) -> None:
    rig.supervisor.stop()

    assert retire(rig) == []


def test_session_goes_on_while_a_new_master_takes_over(rig: Rig, api: StandIn) -> None:
    with session(rig.listen) as watch:
        watch.server()
        kill_master(rig)

        rig.supervisor.start()

        assert {watch.server() for _ in range(20)} == {api.name}


def test_retired_orphan_ends_with_its_last_session(rig: Rig) -> None:
    with session(rig.listen):
        left = kill_master(rig)
        retire(rig)
        assert any(map(is_alive, left))

    rig.wait_for_end(*left)


def test_new_master_serves_where_the_killed_one_did(rig: Rig, api: StandIn) -> None:
    kill_master(rig)

    rig.supervisor.start()

    assert who_answers(rig.listen) == api.name


def test_new_master_answers_at_the_socket_that_the_killed_one_left(rig: Rig) -> None:
    generation = rig.served()
    kill_master(rig)
    assert rig.paths.generation_socket.exists()

    rig.supervisor.start()

    assert rig.served() == generation


def test_only_the_new_masters_workers_accept(rig: Rig) -> None:
    left = kill_master(rig)

    rig.supervisor.start()

    assert orphans(rig) == []
    assert not {worker.process for worker in rig.workers()} & set(left)


def test_stopped_orphan_does_not_keep_a_new_master_from_starting(rig: Rig, api: StandIn) -> None:
    left = kill_master(rig)
    for process in left:
        halt(process)

    rig.supervisor.start()

    assert who_answers(rig.listen) == api.name


def test_master_and_workers_killed_leave_only_names_that_do_not_matter(
    rig: Rig, api: StandIn
) -> None:
    for process in kill_master(rig):
        send_signal(process, signal.SIGKILL)
        rig.wait_for_end(process)
    assert rig.paths.pid_file.exists()

    rig.supervisor.start()

    assert who_answers(rig.listen) == api.name
