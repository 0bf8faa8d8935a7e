"""A config that is in order goes live, is proven, and costs nobody a connection."""

from __future__ import annotations

import socket

import pytest

from component.conftest import FreePort, StandIns
from component.rig import SECONDS, Rig, session, who_answers
from kube_nginx_agent.nginx import apply
from kube_nginx_agent.nginx.generation import Answer
from kube_nginx_agent.nginx.process import Process, serving
from support.address import Address
from support.load import Load
from support.process import wait_until


def test_first_config_starts_nginx(rig: Rig, stand_ins: StandIns) -> None:
    (api,) = stand_ins(1)

    rig.apply(rig.goal(api.address))

    assert who_answers(rig.listen) == api.name


def test_proof_names_the_generation_and_the_master_that_serves_it(
    rig: Rig, stand_ins: StandIns
) -> None:
    (api,) = stand_ins(1)
    goal = rig.goal(api.address)

    proof = rig.apply(goal)

    assert (proof.generation, proof.master) == (goal.generation, rig.master())


def test_nothing_is_proven_while_an_old_worker_accepts(
    rig: Rig, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx answers with the new generation up to 114 ms before the old workers are out."""
    one, two = stand_ins(2)
    rig.apply(rig.goal(one.address))
    old = serving(rig.master())
    looks = []

    def lingers(master: Process) -> frozenset[Process]:
        looks.append(rig.served())
        return serving(master) | (old if len(looks) < 40 else frozenset())

    monkeypatch.setattr(apply, "serving", lingers)
    goal = rig.goal(two.address)

    rig.applier.apply(goal.rendered, goal.desired)

    assert len(looks) == 40
    assert looks[-2] == goal.generation  # it had long said so


def test_next_config_is_a_reload_of_the_same_master(rig: Rig, stand_ins: StandIns) -> None:
    one, two = stand_ins(2)
    before = rig.apply(rig.goal(one.address)).master

    after = rig.apply(rig.goal(two.address)).master

    assert after == before


def test_applied_config_is_the_live_and_the_last_good_one(rig: Rig, stand_ins: StandIns) -> None:
    one, two = stand_ins(2)
    rig.apply(rig.goal(one.address))
    goal = rig.goal(two.address)

    rig.apply(goal)

    assert rig.paths.live.read_text() == goal.rendered.text
    assert rig.paths.last_good.read_text() == goal.rendered.text


def test_nothing_but_the_configs_and_the_spare_is_left_in_the_state_folder(
    rig: Rig, stand_ins: StandIns
) -> None:
    one, two = stand_ins(2)
    rig.apply(rig.goal(one.address))

    rig.apply(rig.goal(two.address))

    left = {path.name for path in rig.paths.state_dir.iterdir()}
    assert left == {rig.paths.live.name, rig.paths.last_good.name, rig.paths.spare.name}


def test_every_connection_after_the_proof_goes_to_the_new_list(
    rig: Rig, stand_ins: StandIns
) -> None:
    one, two = stand_ins(2)
    rig.apply(rig.goal(one.address))

    rig.apply(rig.goal(two.address))

    assert {who_answers(rig.listen) for _ in range(20)} == {two.name}


def test_proof_waits_until_every_old_worker_retires(rig: Rig, stand_ins: StandIns) -> None:
    one, two = stand_ins(2)
    rig.apply(rig.goal(one.address))
    old = {worker.process for worker in rig.workers()}

    with session(rig.listen):
        rig.apply(rig.goal(two.address))
        serving = {worker.process for worker in rig.workers() if not worker.retiring}

    assert serving
    assert serving.isdisjoint(old)


def test_session_goes_on_across_a_reload(rig: Rig, stand_ins: StandIns) -> None:
    one, two = stand_ins(2)
    rig.apply(rig.goal(one.address))

    with session(rig.listen) as watch:
        watch.server()
        rig.apply(rig.goal(two.address))

        assert {watch.server() for _ in range(20)} == {one.name}


def test_old_worker_ends_with_its_last_session(rig: Rig, stand_ins: StandIns) -> None:
    one, two = stand_ins(2)
    rig.apply(rig.goal(one.address))
    with session(rig.listen):
        rig.apply(rig.goal(two.address))
        rig.wait_for_workers(3)

    assert not any(worker.retiring for worker in rig.wait_for_workers(2))


def test_edits_under_load_fail_no_connection_and_cut_no_session(
    rig: Rig, stand_ins: StandIns
) -> None:
    one, two, three = stand_ins(3)
    lists = [(one, two), (two, three), (one, three)]
    rig.apply(rig.goal(one.address, two.address))

    with Load(rig.listen, rate=50, watches=4) as load:
        load.until(lambda seen: bool(seen.requests), SECONDS, "the load is under way")
        for number in range(9):
            rig.apply(rig.goal(*(api.address for api in lists[number % 3])))
        result = load.stop()

    assert result.requests
    assert (result.reasons(), result.cuts) == ({}, [])


def test_changed_listen_address_moves_the_clients(
    rig: Rig, stand_ins: StandIns, free_port: FreePort
) -> None:
    (api,) = stand_ins(1)
    rig.apply(rig.goal(api.address))
    elsewhere = Address("127.0.0.1", free_port())

    rig.apply(rig.goal(api.address, listen=elsewhere))

    assert who_answers(elsewhere) == api.name
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(rig.listen, SECONDS)


def test_empty_list_closes_every_connection_at_once(rig: Rig) -> None:
    rig.apply(rig.goal())

    assert who_answers(rig.listen) == ""


def test_backend_that_is_down_does_not_keep_a_config_from_going_live(
    rig: Rig, stand_ins: StandIns
) -> None:
    (api,) = stand_ins(1)
    api.kill()
    goal = rig.goal(api.address)

    assert rig.apply(goal).generation == goal.generation


def test_config_on_disk_is_started_as_it_is(rig: Rig, stand_ins: StandIns) -> None:
    (api,) = stand_ins(1)
    goal = rig.goal(api.address)
    rig.paths.live.write_text(goal.rendered.text)

    rig.applier.start_from_disk()

    assert wait_until(rig.served, SECONDS, "nginx answers") == goal.generation


def test_nothing_is_started_without_a_config_on_disk(rig: Rig) -> None:
    rig.applier.start_from_disk()

    assert rig.supervisor.master() is None


def test_answer_names_a_worker_that_serves(rig: Rig) -> None:
    rig.apply(rig.goal())

    answer = rig.applier.ask()

    assert isinstance(answer, Answer)
    assert answer.worker_pid in {worker.process.pid for worker in rig.workers()}
