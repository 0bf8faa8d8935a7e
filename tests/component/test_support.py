"""The stand-ins and the load do what a fault bench relies on."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import load as load_program
from support.address import Address
from support.apiserver import StandIn
from support.certs import Certs, make_certs
from support.load import Load
from support.process import StartError, wait_until
from support.results import Cut, Line, Request, Result

SECONDS = 10.0  # deadline of every wait


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certs")


@pytest.fixture
def api(certs: Path) -> Iterator[StandIn]:
    with StandIn("api1", certs, tick=0.05) as api:
        yield api


def connection(to: Address, ca: Path | None = None) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=ca)
    if ca is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(to.host, to.port, timeout=SECONDS, context=context)


def get(to: Address, path: str, ca: Path | None = None) -> tuple[int, bytes]:
    http = connection(to, ca)
    try:
        http.request("GET", path)
        response = http.getresponse()
        return response.status, response.read()
    finally:
        http.close()


def refuses(to: Address) -> bool:
    try:
        socket.create_connection(to, SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


# Addresses and certificates


@pytest.mark.parametrize("text", ["127.0.0.1:6443", "[::1]:8443"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["127.0.0.1", "::1:8443", "host:port", ":1", "a:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT|65535"):
        Address.parse(text)


def test_processes_that_make_certificates_at_once_get_the_same_ones(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        made = pool.map(make_certs, [tmp_path] * 8)
    assert set(made) == {Certs(*(tmp_path / name for name in ("ca.crt", "good.crt", "good.key")))}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made[0].cert, made[0].key)  # raises if they don't belong together
    assert not list(tmp_path.glob(".making-*"))


def test_a_good_certificate_verifies(certs: Path, api: StandIn) -> None:
    assert get(api.address, "/readyz", make_certs(certs).ca) == (200, b"ok")


@pytest.mark.parametrize("kind", ["expired", "foreign"])
def test_a_bad_certificate_does_not_verify(certs: Path, kind: str) -> None:
    with StandIn("api1", certs, certificate=kind) as api:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired|unable to get"):
            get(api.address, "/readyz", make_certs(certs).ca)
        assert get(api.address, "/readyz") == (200, b"ok")


# The stand-in


@pytest.mark.parametrize("path", ["/readyz", "/livez", "/healthz"])
def test_health_is_ok(api: StandIn, path: str) -> None:
    assert get(api.address, path) == (200, b"ok")


def test_any_other_path_answers_with_the_name(api: StandIn) -> None:
    status, body = get(api.address, "/api/v1/nodes?limit=1")
    assert status == 200
    assert json.loads(body) == {"name": "api1", "path": "/api/v1/nodes", "connections": 1}


def test_requests_and_connections_are_counted(api: StandIn) -> None:
    http = connection(api.address)
    for path in ("/readyz", "/readyz", "/other"):
        http.request("GET", path)
        http.getresponse().read()
    http.close()
    report = api.report()
    assert (report.requests, report.connections) == ({"/readyz": 2, "/other": 1}, 1)


def test_a_watch_sends_numbered_lines(api: StandIn) -> None:
    http = connection(api.address)
    http.request("GET", "/api/v1/pods?watch=1")
    response = http.getresponse()
    lines = [json.loads(response.readline()) for _ in range(3)]
    assert lines == [{"name": "api1", "seq": number} for number in range(3)]
    assert api.report().watches == 1
    response.close()
    http.close()
    wait_until(lambda: api.report().watches == 0, SECONDS, "the watch's end is noticed")


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_readyz_alone_can_be_red(api: StandIn, status: int) -> None:
    api.fault(readyz=status)
    assert get(api.address, "/readyz")[0] == status
    assert get(api.address, "/livez")[0] == 200
    api.heal()
    assert get(api.address, "/readyz")[0] == 200


def test_latency_delays_the_answer(api: StandIn) -> None:
    api.fault(latency=0.3)
    begun = time.monotonic()
    get(api.address, "/livez")
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("garbage", http.client.HTTPException),
        ("reset", ConnectionResetError),
        ("plain", ssl.SSLError),
    ],
)
def test_a_broken_one_cannot_be_talked_to(api: StandIn, mode: str, error: type[Exception]) -> None:
    api.fault(mode=mode)
    with pytest.raises(error):
        get(api.address, "/readyz")


def test_a_redirect_leads_elsewhere(api: StandIn) -> None:
    api.fault(mode="redirect", path="/readyz")
    assert get(api.address, "/readyz")[0] == 302
    assert get(api.address, "/livez")[0] == 200


def test_a_huge_body_goes_on_and_on(api: StandIn) -> None:
    api.fault(mode="huge")
    http = connection(api.address)
    http.request("GET", "/readyz")
    response = http.getresponse()
    assert response.length == 1 << 30
    assert len(response.read(1 << 22)) == 1 << 22
    response.close()
    http.close()


def test_a_trickle_is_a_byte_a_second(api: StandIn) -> None:
    api.fault(mode="trickle")
    http = connection(api.address)
    http.request("GET", "/readyz")
    assert http.sock.recv(100) == b"H"
    http.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        http.sock.recv(100)
    http.close()


def test_a_fault_that_there_is_not_is_refused(api: StandIn) -> None:
    with pytest.raises(ValueError, match="no mode 'slow'"):
        api.fault(mode="slow")


def test_a_held_port_is_one_clear_line(certs: Path, api: StandIn) -> None:
    with pytest.raises(StartError, match="api2: cannot listen on .*: Address already in use$"):
        StandIn("api2", certs, listen=api.address).start()


def test_shutdown_is_red_first_then_refuses_and_serves_its_watches_on(certs: Path) -> None:
    with StandIn("api1", certs, tick=0.05, shutdown_delay=1.0, drain=1.0) as api:
        http = connection(api.address)
        http.request("GET", "/watch")
        watch = http.getresponse()
        api.terminate()
        wait_until(lambda: get(api.address, "/readyz")[0] == 500, SECONDS, "red")
        assert get(api.address, "/livez")[0] == 200
        wait_until(lambda: refuses(api.address), SECONDS, "the listener's end")
        assert json.loads(watch.readline())["name"] == "api1"
        assert api.wait(SECONDS) == 0
        http.close()


def test_it_returns_on_the_same_port(api: StandIn) -> None:
    before, pid = api.address, api.pid
    api.kill()
    assert refuses(before)
    api.start()
    assert (api.address, get(before, "/livez")[0]) == (before, 200)
    assert api.pid != pid


# The load


def test_a_load_keeps_its_rate_and_says_who_answered(api: StandIn) -> None:
    with Load(api.address, rate=100, seconds=1, watches=2) as load:
        result = load.wait()
    assert (result.count("ok"), result.servers()) == (100, {"api1": 100})
    assert {line.server for line in result.lines} == {"api1"}
    assert (result.cuts, result.misses) == ([], [])
    assert api.report().connections == 102


def test_a_slow_answer_does_not_slow_the_rate(api: StandIn) -> None:
    api.fault(latency=0.7, path="/load")
    with Load(api.address, rate=50, seconds=1) as load:
        result = load.wait()
    begun = [request.at for request in result.requests]
    assert result.count("slow") == 50
    assert max(begun) - min(begun) < 1.3


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("reset", "reset"), ("plain", "tls"), ("garbage", "eof"), ("trickle", "timeout")],
)
def test_failures_are_told_apart(api: StandIn, mode: str, reason: str) -> None:
    api.fault(mode=mode)
    timeout = 0.5 if reason == "timeout" else SECONDS
    with Load(api.address, rate=20, seconds=0.5, timeout=timeout) as load:
        assert load.wait().reasons() == {reason: 10}


def test_a_killed_server_refuses_and_its_watches_count_as_cut(api: StandIn) -> None:
    with Load(api.address, rate=50, seconds=60, watches=3) as load:
        load.until(lambda seen: len(seen.lines) >= 6 and seen.count("ok") > 0, SECONDS, "lines")
        api.kill()
        load.until(lambda seen: len(seen.cuts) == 3 and len(seen.misses) > 0, SECONDS, "cuts")
        api.start()
        load.until(lambda seen: seen.lines[-1].at > seen.misses[-1].at, SECONDS, "lines again")
        result = load.stop()
    assert {cut.server for cut in result.cuts} == {"api1"}
    assert result.cuts_of_others({"api1"}) == []
    assert result.reasons().get("refused", 0) > 0


def test_a_frozen_server_stalls_its_watches_until_the_client_gives_up(api: StandIn) -> None:
    with Load(api.address, rate=0, seconds=60, watches=2, silence=0.5) as load:
        load.until(lambda seen: len(seen.lines) >= 4, SECONDS, "lines")
        api.freeze()
        load.until(lambda seen: len(seen.cuts) == 2, SECONDS, "cuts")
        api.thaw()
        load.until(lambda seen: seen.lines[-1].at > seen.cuts[-1].at, SECONDS, "lines again")
        result = load.stop()
    assert {cut.reason for cut in result.cuts} == {"silent"}
    assert result.longest_stall() >= 0.5


def test_the_program_prints_one_json_document(api: StandIn) -> None:
    command = [sys.executable, "-m", "support.load", "--to", str(api.address), "--json"]
    command += ["--rate", "20", "--seconds", "0.5", "--watches", "1"]
    tests = Path(load_program.__file__).parent.parent
    done = subprocess.run(command, cwd=tests, capture_output=True, check=True, timeout=30)
    shown = json.loads(done.stdout)
    assert (shown["ok"], len(shown["trace"]["requests"])) == (10, 10)
    assert shown["longest_stall"] > 0


def test_a_load_without_bounds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_program.main(["--to", "127.0.0.1:1", "--rate", "1e9"])
    assert ended.value.code == 2
    assert "at most 1000000" in capsys.readouterr().err


# The arithmetic


def test_steady_after_is_the_time_of_the_last_bad_request() -> None:
    bad = {12.0: 0.9, 13.5: 3.0}
    times = [10.0 + tick / 2 for tick in range(20)]
    result = Result(requests=[Request(at, bad.get(at, 0.01), "", "a") for at in times])
    assert result.steady_after(11.0) == 2.5
    assert result.steady_after(14.0) == 0.0
    assert result.steady_after(11.0, until=14.0) is None


def test_a_watch_that_never_returns_stalls_to_the_end() -> None:
    lines = [Line(0, at, "a") for at in (1.0, 2.0, 3.0, 9.0)] + [Line(1, 1.0, "b")]
    result = Result(started=0.5, ended=9.5, watches=2, lines=lines, cuts=[Cut(0, 4.0, "a", "eof")])
    assert result.longest_stall() == 8.5
    assert result.cuts_of_others({"b"}) == [Cut(0, 4.0, "a", "eof")]
