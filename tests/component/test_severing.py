"""Sessions that are ended, by the kernel's own table; as root, for it takes CAP_NET_ADMIN."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.machine import Health, State, Streak
from kube_nginx_agent.health.monitor import Monitor
from kube_nginx_agent.health.prober import Prober
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problems
from kube_nginx_agent.observation import Result
from kube_nginx_agent.sessions.cutting import Cutter
from kube_nginx_agent.sessions.session_watch import SessionWatch
from support.apiserver import StandIn
from support.process import wait_until

_CAP_NET_ADMIN = 12  # linux/capability.h


def may_destroy() -> bool:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)


pytestmark = pytest.mark.skipif(not may_destroy(), reason="SOCK_DESTROY needs CAP_NET_ADMIN")

GRACE = 20.0
CLIENT = """
import socket, sys
host, port = sys.argv[1].rsplit(":", 1)
session = socket.create_connection((host, int(port)))
print("open", flush=True)
try:
    print("ended" if session.recv(1) == b"" else "answered")
except OSError:
    print("ended")
"""


@contextmanager
def session_to(address: SocketAddress) -> Iterator[subprocess.Popen[str]]:
    """Stand in for nginx's worker: a process of its own with one connection."""
    command = [sys.executable, "-c", CLIENT, str(address)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        try:
            yield client
        finally:
            client.kill()


class Bench:
    """A Severer with a Monitor whose healths the test sets."""

    def __init__(self) -> None:
        self.said: list[kinds.Kind] = []
        sink: Any = lambda kind, _message, _fields: self.said.append(kind)  # noqa: E731
        problems = Problems(sink, time.time)
        watch = SessionWatch(os.getuid(), lambda _event: None)
        self.monitor = Monitor(Prober(lambda _event: None, "node"), watch, sink, problems)
        cutter = Cutter(Path("/nonexistent"))
        self.severer = Severer(self.monitor, watch, cutter, GRACE, sink, problems)


def is_ended(client: subprocess.Popen[str]) -> bool:
    return client.poll() is not None


@pytest.fixture
def apis(certs: Path) -> Iterator[list[SocketAddress]]:
    with StandIn("api1", certs) as one, StandIn("api2", certs) as two:
        yield [parse_address(str(api.address)) for api in (one, two)]


def test_removed_backend_keeps_its_sessions_for_its_grace_and_no_longer(
    apis: list[SocketAddress],
) -> None:
    bench = Bench()
    bench.severer.want(apis, 100.0)
    with session_to(apis[0]) as removed, session_to(apis[1]) as kept:
        bench.severer.want(apis[1:], 100.0)

        bench.severer.sever(100.0 + GRACE - 1)
        assert not is_ended(removed)
        assert bench.severer.due == 100.0 + GRACE

        bench.severer.sever(100.0 + GRACE)
        wait_until(lambda: is_ended(removed), 5, "the removed backend's session to end")
        assert not is_ended(kept)
    assert bench.severer.ended == {apis[0]: 1}
    assert bench.said == [kinds.SESSIONS_CUT]


def test_backend_that_comes_back_within_its_grace_keeps_its_sessions(
    apis: list[SocketAddress],
) -> None:
    bench = Bench()
    bench.severer.want(apis, 100.0)
    with session_to(apis[0]) as client:
        bench.severer.want(apis[1:], 100.0)
        bench.severer.want(apis, 101.0)

        bench.severer.sever(100.0 + GRACE + 1)

        assert not is_ended(client)
        assert bench.severer.counts() == {apis[0]: 1}


@pytest.mark.parametrize(("cause", "ends"), [(Result.UNREACHABLE, True), (Result.REFUSED, False)])
def test_down_backend_loses_its_sessions_only_if_they_hang(
    apis: list[SocketAddress], cause: Result, ends: bool
) -> None:
    bench = Bench()
    bench.severer.want(apis, 100.0)
    failed = Health(state=State.DOWN, tcp=Streak(last=cause, fails=2, has_failed=True))
    with session_to(apis[0]) as client, session_to(apis[1]) as other:
        bench.monitor.healths = {apis[0]: failed, apis[1]: Health(state=State.UP)}

        def sever() -> bool:
            bench.severer.sever(time.monotonic())
            return is_ended(client)

        if ends:
            wait_until(sever, 5, "the session to end, once nothing was heard for a while")
        else:
            assert not sever()
        assert not is_ended(other)


def test_sessions_are_left_alone_while_no_backend_passes(apis: list[SocketAddress]) -> None:
    bench = Bench()
    bench.severer.want(apis, 100.0)
    failed = Health(state=State.DOWN, readyz=Streak(last=Result.SILENT, fails=2, has_failed=True))
    with session_to(apis[0]) as client:
        bench.monitor.healths = dict.fromkeys(apis, failed)

        bench.severer.sever(time.monotonic())

        assert not is_ended(client)
