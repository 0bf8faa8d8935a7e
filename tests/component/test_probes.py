"""What the probes make of apiservers that misbehave, for real."""

from __future__ import annotations

import gzip
import os
import resource
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

import pytest

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.prober import Prober
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.health.trust import Trust
from kube_nginx_agent.inbox import Probed
from kube_nginx_agent.intake.ca_file import refusal
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.net.http import HttpError, HttpSession
from kube_nginx_agent.net.tcp import probe_tcp
from kube_nginx_agent.net.tls import trust_anybody
from kube_nginx_agent.observation import Result
from support.apiserver import StandIn
from support.certs import make_certs
from support.process import wait_until
from support.scripted import Say, ScriptedServer

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
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_before
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


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def forever(piece: bytes) -> Say:
    def say(tls: ssl.SSLSocket) -> None:
        while True:
            tls.sendall(piece)

    return say


def ask(certs: Path, say: Say, timeout: float = TIMEOUT) -> tuple[Result, str, float]:
    with ScriptedServer(make_certs(certs), say) as server:
        probe = ReadyzProbe(parse_address(str(server.address)), "/readyz", trust_anybody)
        began = time.monotonic()
        seen = probe.look(timeout)
        took = time.monotonic() - began
        probe.close()
    return seen.result, seen.detail, took


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 60000 + b"\r\n",
    ],
)
def test_answer_whose_head_has_no_end_is_hung_up_on(certs: Path, flood: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    result, detail, took = ask(certs, forever(flood))

    assert (result, detail) == (Result.GARBAGE, "no HTTP: its answer has no end")
    assert took < TIMEOUT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_answers_are_skipped(certs: Path, status: bytes) -> None:
    interim = b"HTTP/1.1 " + status + b"\r\nLink: </style.css>\r\n\r\n"

    assert ask(certs, lambda tls: tls.sendall(interim * 3 + OK))[0] is Result.OK


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found\r\nLocation: https://192.0.2.1/"])
def test_gzip_bomb_is_not_unpacked(certs: Path, status: bytes) -> None:
    bomb = gzip.compress(bytes(50_000_000))[:60000]
    head = b"HTTP/1.1 " + status + b"\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    ask(certs, lambda tls: tls.sendall(head % len(bomb) + bomb))

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8192  # KiB


def test_slow_servers_asked_at_once_share_no_deadline(certs: Path) -> None:
    def trickle(tls: ssl.SSLSocket) -> None:
        for _ in range(100):
            tls.sendall(b"H")
            threading.Event().wait(0.05)

    limits = (0.3, 0.6, 0.9)
    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(lambda limit: ask(certs, trickle, limit), limits))

    assert [result for result, _, _ in ends] == [Result.SILENT] * 3
    for limit, (_, _, took) in zip(limits, ends):
        assert limit <= took < limit + 0.25


@pytest.mark.parametrize("is_silent", [True, False])
def test_stop_from_another_thread_ends_a_question_at_once(certs: Path, *, is_silent: bool) -> None:
    asked = threading.Event()

    def say(tls: ssl.SSLSocket) -> None:
        if not is_silent:
            tls.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")
        asked.set()

    with ScriptedServer(make_certs(certs), say) as server, ThreadPoolExecutor() as pool:
        session = HttpSession(parse_address(str(server.address)), trust_anybody)
        running = pool.submit(lambda: list(session.stream("/watch", 30.0)))
        assert asked.wait(5)
        began = time.monotonic()
        session.stop()
        error = running.exception(5)
        took = time.monotonic() - began
        assert took < 0.05
        assert error is None or isinstance(error, HttpError)


def test_stop_ends_a_question_that_is_still_connecting() -> None:
    with socket.socket() as full, ThreadPoolExecutor() as pool:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        session = HttpSession(parse_address(f"127.0.0.1:{port}"), trust_anybody)
        running = pool.submit(session.get, "/", 5.0)
        wait_until(lambda: session._line._socket is not None, 2, "a socket")
        began = time.monotonic()
        session.stop()
        assert isinstance(running.exception(5), HttpError)
        assert time.monotonic() - began < 0.5
        for client in waiting:
            client.close()


def test_stream_gives_each_piece_as_it_comes(certs: Path) -> None:
    goes_on = threading.Event()

    def say(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        goes_on.wait(5)
        tls.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    with ScriptedServer(make_certs(certs), say) as server:
        pieces = HttpSession(parse_address(str(server.address)), trust_anybody).stream("/", 5.0)
        assert next(pieces) == b"one"
        goes_on.set()
        assert list(pieces) == [b"two"]


def test_first_look_makes_a_connection_and_a_kept_one_says_so(api: StandIn) -> None:
    probe = readyz(api)

    looks = [probe.look(TIMEOUT), probe.look(TIMEOUT)]

    assert [seen.is_fresh for seen in looks] == [True, False]
    assert api.report().connections == 1


def test_bytes_of_an_apiserver_are_made_printable(certs: Path) -> None:
    body = b"[-]\x1b]0;owned\x07" + b"x" * 5000 + b" failed\n"
    head = b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(body)

    _, detail, _ = ask(certs, lambda tls: tls.sendall(head + body))

    assert detail.isprintable()
    assert len(detail) < 250


def test_name_for_a_router_is_asked_for(certs: Path) -> None:
    with ScriptedServer(make_certs(certs), lambda tls: tls.sendall(OK)) as server:
        address = parse_address(str(server.address))
        ReadyzProbe(address, "/readyz", trust_anybody, "api.example.com").look(TIMEOUT)
        assert server.names == ["api.example.com"]


def test_ca_that_comes_later_is_used_on_a_kept_connection(certs: Path, tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    trust = Trust(str(ca))
    with StandIn("api1", certs, certificate="foreign") as api:
        probe = ReadyzProbe(address_of(api), "/readyz", trust.context)
        assert probe.look(TIMEOUT).result is Result.OK
        assert [problem.about for problem in trust.problems()] == ["ca file"]
        ca.write_bytes(make_certs(certs).ca.read_bytes())
        assert probe.look(TIMEOUT).result is Result.CERTIFICATE
        assert not list(trust.problems())


def test_ca_that_is_gone_for_a_moment_goes_on_and_is_told(certs: Path, tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(make_certs(certs).ca.read_bytes())
    trust = Trust(str(ca))
    good = trust.context()

    ca.unlink()

    assert trust.context() is good
    assert "the one read before is used" in str(*[p.error for p in trust.problems()])


def test_declined_ca_is_no_problem() -> None:
    assert Trust("none").context() is trust_anybody()
    assert not list(Trust("none").problems())


def test_what_can_never_be_a_ca_refuses_the_list(certs: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate")
    os.mkfifo(tmp_path / "pipe")

    for never in (tmp_path, tmp_path / "text", tmp_path / "pipe", Path("/dev/zero")):
        assert refusal(str(never)), never
    for later in (None, "none", str(tmp_path / "missing"), str(make_certs(certs).ca)):
        assert refusal(later) is None, later


def test_certificate_below_the_root_is_enough_as_it_is_for_kubelet(
    certs: Path, api: StandIn
) -> None:
    assert readyz(api, make_certs(certs).cert).look(TIMEOUT).result is Result.OK
