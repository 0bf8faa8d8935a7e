"""The canary blames nginx's data path only where an apiserver answers when it is asked directly."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import Iterator

import pytest

from component.conftest import FreePort, StandIns
from component.rig import Rig, as_model
from kube_nginx_agent.nginx import limits
from kube_nginx_agent.nginx.canary import Reach, find_fault, reach
from support.address import Address
from support.apiserver import StandIn


@pytest.fixture
def nobody(free_port: FreePort) -> Address:
    return Address("127.0.0.1", free_port())


def through(rig: Rig, *backends: Address) -> str:
    """Serve these backends and return the fault that is found."""
    goal = rig.goal(*backends)
    rig.paths.live.write_text(goal.rendered.text)
    rig.supervisor.start()
    return find_fault(goal.desired.listen, map(as_model, backends))


@contextmanager
def late(seconds: float, answer: bytes) -> Iterator[Address]:
    """Accept connections, and end each after so long, with these bytes before."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def end(connection: socket.socket) -> None:
            time.sleep(seconds)
            with suppress(OSError), connection:
                connection.recv(4096)
                connection.sendall(answer)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=end, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield Address(*server.getsockname())


def test_canary_keeps_its_limit_where_everything_takes_almost_too_long() -> None:
    with late(0.9, b"plain") as slow, late(0.9, b"") as closing, late(60, b"") as silent:
        began = time.monotonic()
        fault = find_fault([as_model(slow), as_model(closing)], [as_model(silent)])
        took = time.monotonic() - began

    assert fault == ""
    assert took < limits.CANARY


def test_apiserver_that_answers_is_reached(api: StandIn) -> None:
    assert reach(as_model(api.address)) is Reach.ANSWERED


def test_port_where_nobody_listens_refuses(nobody: Address) -> None:
    assert reach(as_model(nobody)) is Reach.REFUSED


def test_frozen_apiserver_is_silent(api: StandIn) -> None:
    api.freeze()

    assert reach(as_model(api.address)) is Reach.SILENT


def test_apiserver_that_resets_closes(api: StandIn) -> None:
    api.fault(mode="reset")

    assert reach(as_model(api.address)) is Reach.CLOSED


def test_bytes_that_are_not_tls_are_an_answer(api: StandIn) -> None:
    api.fault(mode="plain")

    assert reach(as_model(api.address)) is Reach.ANSWERED


def test_end_without_a_byte_is_a_close_however_tls_calls_it(rig: Rig) -> None:
    through(rig)

    assert {reach(as_model(rig.listen)) for _ in range(20)} == {Reach.CLOSED}


def test_nginx_that_leads_to_an_apiserver_has_no_fault(rig: Rig, api: StandIn) -> None:
    assert through(rig, api.address) == ""


def test_nginx_that_leads_round_a_dead_apiserver_has_no_fault(
    rig: Rig, api: StandIn, nobody: Address
) -> None:
    assert through(rig, nobody, api.address) == ""


def test_nginx_is_not_blamed_when_no_apiserver_answers(rig: Rig, nobody: Address) -> None:
    assert through(rig, nobody) == ""


def test_nginx_is_not_blamed_when_the_one_apiserver_is_frozen(rig: Rig, api: StandIn) -> None:
    api.freeze()

    assert through(rig, api.address) == ""


def test_nginx_is_not_blamed_for_a_list_without_backends(rig: Rig) -> None:
    assert through(rig) == ""


def test_entrance_where_nobody_listens_is_a_fault(nobody: Address, api: StandIn) -> None:
    fault = find_fault([as_model(nobody)], [as_model(api.address)])

    assert fault == f"{nobody}: nobody accepts connections"


def test_entrance_that_closes_while_an_apiserver_answers_is_a_fault(rig: Rig, api: StandIn) -> None:
    through(rig)

    fault = find_fault([as_model(rig.listen)], [as_model(api.address)])

    assert fault == (
        f"{rig.listen}: the connection is accepted and closed, while apiservers answer directly"
    )


def test_silent_entrance_is_a_fault_when_every_apiserver_answers(stand_ins: StandIns) -> None:
    frozen, one, two = stand_ins(3)
    frozen.freeze()

    fault = find_fault([as_model(frozen.address)], [as_model(one.address), as_model(two.address)])

    assert "accepted, but nothing answers" in fault


def test_silent_entrance_is_no_fault_when_one_apiserver_is_silent_too(
    stand_ins: StandIns,
) -> None:
    frozen, well = stand_ins(2)
    frozen.freeze()

    fault = find_fault(
        [as_model(frozen.address)], [as_model(frozen.address), as_model(well.address)]
    )

    assert fault == ""


def test_canary_tries_again_before_it_blames(rig: Rig, api: StandIn, nobody: Address) -> None:
    through(rig, api.address)
    tried = api.report().connections

    assert find_fault([as_model(rig.listen)], [as_model(nobody)]) == ""
    assert api.report().connections == tried + 1
