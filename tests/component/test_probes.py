"""What the probes make of apiservers that misbehave, for real."""

from __future__ import annotations

import resource
import socket
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.prober import Prober
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.health.trust import Trust
from kube_nginx_agent.inbox import Probed
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.net.tcp import probe_tcp
from kube_nginx_agent.observation import Result
from support.apiserver import StandIn
from support.certs import make_certs
from support.process import wait_until

TIMEOUT = 1.0
PATIENCE = 4.0
"""Seconds; a probe must have ended by then on the slowest machine, though it asks for TIMEOUT."""


@pytest.fixture
def api(certs: Path) -> Iterator[StandIn]:
    with StandIn("api1", certs) as started:
        yield started


def address_of(api: StandIn) -> SocketAddress:
    return parse_address(str(api.address))


def readyz(api: StandIn, ca_file: Path | None = None) -> ReadyzProbe:
    trust = Trust(str(ca_file)) if ca_file else Trust("/nonexistent")
    return ReadyzProbe(address_of(api), "/readyz", trust.context)


def test_ready_apiserver_is_ok_over_one_kept_connection(api: StandIn) -> None:
    probe = readyz(api)

    results = [probe.look(TIMEOUT).result for _ in range(5)]

    assert results == [Result.OK] * 5
    assert api.report().connections == 1
    probe.close()


@pytest.mark.parametrize(
    ("faults", "result", "detail"),
    [
        ({"readyz": 401}, Result.ALIVE, "HTTP 401"),
        ({"readyz": 403}, Result.ALIVE, "HTTP 403"),
        ({"readyz": 429}, Result.ALIVE, "HTTP 429"),
        ({"readyz": 500}, Result.NOT_READY, "HTTP 500"),
        ({"mode": "redirect"}, Result.NOT_READY, "HTTP 30"),
        ({"mode": "garbage"}, Result.GARBAGE, "no HTTP"),
        ({"mode": "plain"}, Result.GARBAGE, "no TLS"),
        ({"mode": "reset"}, Result.CLOSED, ""),
        ({"mode": "trickle"}, Result.SILENT, ""),
        ({"latency": 5.0}, Result.SILENT, ""),
    ],
)
def test_misbehaviour_is_classified_in_time(
    api: StandIn, faults: dict[str, Any], result: Result, detail: str
) -> None:
    api.fault(**faults)
    began = time.monotonic()

    seen = readyz(api).look(TIMEOUT)

    assert seen.result is result
    assert seen.detail.startswith(detail)
    assert time.monotonic() - began < PATIENCE


def test_frozen_process_is_told_from_a_closed_port(api: StandIn) -> None:
    api.freeze()

    assert probe_tcp(address_of(api), TIMEOUT).result is Result.OK
    assert readyz(api).look(TIMEOUT).result is Result.SILENT


def test_endless_body_grows_no_memory(api: StandIn) -> None:
    api.fault(mode="huge")
    probe = readyz(api)
    probe.look(TIMEOUT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(5):
        assert probe.look(TIMEOUT).result is Result.OK
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB


@pytest.mark.parametrize("kind", ["expired", "foreign"])
def test_certificate_that_clients_would_refuse_is_its_own_class(certs: Path, kind: str) -> None:
    ca = make_certs(certs).ca
    with StandIn("api1", certs, certificate=kind) as api:
        assert readyz(api, ca).look(TIMEOUT).result is Result.CERTIFICATE
        assert readyz(api).look(TIMEOUT).result is Result.OK


def test_known_ca_is_checked_and_satisfied(api: StandIn, certs: Path) -> None:
    assert readyz(api, make_certs(certs).ca).look(TIMEOUT).result is Result.OK


def test_kept_connection_that_was_closed_meanwhile_is_no_failure(api: StandIn) -> None:
    probe = readyz(api)
    probe.look(TIMEOUT)
    api.restart()

    assert probe.look(TIMEOUT).result is Result.OK


def test_refused_port(api: StandIn) -> None:
    address = address_of(api)
    api.kill()

    assert probe_tcp(address, TIMEOUT).result is Result.REFUSED
    assert readyz(api).look(TIMEOUT).result is Result.REFUSED


def test_probes_leave_no_time_wait_and_no_open_file(api: StandIn) -> None:
    address = address_of(api)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    waiting_before = _sockets_in_time_wait(address.port)  # of who had the port before

    for _ in range(50):
        probe_tcp(address, TIMEOUT)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert _sockets_in_time_wait(address.port) <= waiting_before


def _sockets_in_time_wait(remote_port: int) -> set[str]:
    lines = Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    rows = [line.split() for line in lines]
    return {row[1] for row in rows if row[2].endswith(f":{remote_port:04X}") and row[3] == "06"}


def test_backend_that_hangs_holds_up_no_other(certs: Path) -> None:
    seen: list[Probed] = []
    with StandIn("api1", certs) as hung, StandIn("api2", certs) as well:
        hung.fault(mode="trickle")
        prober = Prober(seen.append, "node")
        check = HealthCheck()
        context = Trust("/nonexistent").context
        backends = [address_of(hung), address_of(well)]
        prober.want(backends, check, lambda backend: ReadyzProbe(backend, "/readyz", context))
        began = time.monotonic()
        wait_until(lambda: _results(seen, address_of(well)) >= {Result.OK}, 5, "the other's")
        took = time.monotonic() - began
        prober.want([], check, lambda backend: ReadyzProbe(backend, "/readyz", context))

    assert took < TIMEOUT


def _results(seen: list[Probed], backend: SocketAddress) -> set[Result]:
    return {probed.seen.result for probed in seen if probed.backend == backend}


def test_silent_port_times_out_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = parse_address(f"127.0.0.1:{full.getsockname()[1]}")
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:  # fills its queue: the kernel then drops what comes
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        try:
            assert probe_tcp(address, 0.3).result is Result.TIMEOUT
        finally:
            for client in waiting:
                client.close()
