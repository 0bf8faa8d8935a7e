"""Sessions that are ended, by the kernel's own table; as root, for it takes CAP_NET_ADMIN."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

import kube_nginx_agent
from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.nginx import limits
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.observation import Conviction
from kube_nginx_agent.sessions import cut_helper, cutting, session_watch
from kube_nginx_agent.sessions.cutting import Cutter, shut_down_all
from kube_nginx_agent.sessions.ownership import Ownership
from kube_nginx_agent.sessions.session_watch import SessionWatch
from kube_nginx_agent.sessions.table import Session
from support.apiserver import StandIn
from support.process import wait_until
from unit.made_sessions import session

_CAP_NET_ADMIN = 12  # linux/capability.h


def may_destroy() -> bool:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)


needs_rights = pytest.mark.skipif(not may_destroy(), reason="SOCK_DESTROY needs CAP_NET_ADMIN")

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


class Client:
    """Stands in for nginx's worker: a process of its own with one connection."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def is_ended(self) -> bool:
        return self._process.poll() is not None


@contextmanager
def session_to(address: SocketAddress) -> Iterator[Client]:
    command = [sys.executable, "-c", CLIENT, str(address)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield Client(process)
        finally:
            process.kill()


class Bench:
    """A Severer over the kernel's table; ``pids`` are those of what it takes for nginx."""

    def __init__(self, *clients: Client) -> None:
        self.said: list[kinds.Kind] = []
        self.posted: list[Any] = []
        self.pids = {client.pid for client in clients}
        self.watch = SessionWatch(lambda: frozenset(self.pids), self.posted.append)
        self.severer = Severer(
            self.watch,
            Cutter(Path("/nonexistent")),
            lambda kind, _message, _fields: self.said.append(kind),
            removal_grace=20.0,
        )

    def sever_now(self, *backends: SocketAddress) -> None:
        """Sever with these convicted, of which nothing was heard since now."""
        now = time.monotonic()
        convictions = {b: Conviction(now + 1, needs_data=False, why="silence") for b in backends}
        self.severer.sever(now, convictions)


@pytest.fixture
def apis(certs: Path) -> Iterator[list[SocketAddress]]:
    with StandIn("api1", certs) as one, StandIn("api2", certs) as two:
        yield [parse_address(str(api.address)) for api in (one, two)]


# What is ended


@needs_rights
def test_convicted_backend_loses_its_sessions_and_no_other_does(apis: list[SocketAddress]) -> None:
    with session_to(apis[0]) as victim, session_to(apis[1]) as spared:
        bench = Bench(victim, spared)
        bench.severer.want(apis, time.monotonic())

        bench.sever_now(apis[0])

        wait_until(lambda: victim.is_ended, 5, "the session to end")
        assert not spared.is_ended
    assert bench.severer.ended == {apis[0]: 1}
    assert bench.said == [kinds.SESSIONS_CUT]


@needs_rights
def test_session_of_another_process_of_the_same_user_is_left_alone(
    apis: list[SocketAddress],
) -> None:
    with session_to(apis[0]) as nginx, session_to(apis[0]) as stranger:
        bench = Bench(nginx)
        bench.severer.want(apis, time.monotonic())

        bench.sever_now(apis[0])

        wait_until(lambda: nginx.is_ended, 5, "nginx's session to end")
        assert not stranger.is_ended


@needs_rights
def test_removed_backend_loses_its_sessions_after_its_grace(apis: list[SocketAddress]) -> None:
    with session_to(apis[0]) as removed, session_to(apis[1]) as kept:
        bench = Bench(removed, kept)
        began = time.monotonic()
        bench.severer.want(apis, began)
        bench.severer.want(apis[1:], began)

        bench.severer.sever(began + 19, {})
        assert not removed.is_ended

        bench.severer.sever(began + 20, {})
        wait_until(lambda: removed.is_ended, 5, "the removed backend's session to end")
        assert not kept.is_ended


def test_cut_without_any_right_says_what_is_missing(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(cutting, "_destroy", refuse)
    monkeypatch.setattr(cutting, "shut_down_all", refuse)
    with session_to(apis[0]) as client:
        bench = Bench(client)
        bench.severer.want(apis, time.monotonic())
        bench.sever_now(apis[0])

        (problem,) = bench.severer.problems()
        assert "Operation not permitted" in str(problem.error)
        assert not client.is_ended


# pidfd_getfd


def sessions_of(client: Client, *backends: SocketAddress) -> list[Session]:
    bench = Bench(client)
    bench.watch.want(backends)
    return bench.watch.look()


def test_copy_of_a_descriptor_ends_the_session(apis: list[SocketAddress]) -> None:
    with session_to(apis[0]) as client:
        try:
            assert shut_down_all(sessions_of(client, apis[0])) == 1
        except PermissionError:
            pytest.skip("Yama refuses it")
        wait_until(lambda: client.is_ended, 5, "the session to end")


def test_process_that_vanishes_midway_ends_nothing_and_leaks_nothing(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    with session_to(apis[0]) as client:
        found = sessions_of(client, apis[0])
    monkeypatch.setattr(cutting, "processes_holding", lambda _inodes: [client.pid])
    before = len(os.listdir("/proc/self/fd"))

    assert shut_down_all(found) == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptor_that_is_anothers_by_now_is_left_alone(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    with session_to(apis[0]) as client, session_to(apis[1]) as gone:
        (old,) = sessions_of(gone, apis[1])
        stale = [(3, f"socket:[{old.inode}]")]  # where it was; the number is the other's
        monkeypatch.setattr(cutting, "processes_holding", lambda _inodes: [client.pid])
        monkeypatch.setattr(cutting, "open_files_of", lambda _pid: stale)
        with suppress(PermissionError):
            assert shut_down_all([old]) == 0
        assert not client.is_ended


# The helper


def ask_helper(message: str) -> str:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(message.encode())
        ours.shutdown(socket.SHUT_WR)
        cut_helper.serve(theirs)
        return ours.recv(100).decode()


_HELPERS = "/system.slice/kube-nginx-cut.service"


def put_into(monkeypatch: pytest.MonkeyPatch, cgroups: dict[int, str]) -> None:
    """Have the helper see these processes in these cgroups of version 2, and all in one of 1."""

    def cgroups_of(pid: int) -> dict[str, str]:
        return {"name=systemd": "/", "": cgroups.get(pid, "/")}

    monkeypatch.setattr(cut_helper, "_cgroups", cgroups_of)


def test_helper_that_is_in_no_unit_ends_nothing(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    with session_to(apis[0]) as client:
        put_into(monkeypatch, {client.pid: "/kube-nginx.service"})
        (session,) = sessions_of(client, apis[0])

        assert "does not run as kube-nginx-cut" in ask_helper(f"{apis[0]} {session.inode}")


@needs_rights
def test_helper_ends_the_session_that_it_is_given(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    with session_to(apis[0]) as client, session_to(apis[0]) as other:
        unit = "/kube-nginx.service"
        put_into(monkeypatch, {os.getpid(): _HELPERS, client.pid: unit, other.pid: unit})
        (session,) = sessions_of(client, apis[0])

        assert ask_helper(f"{apis[0]} {session.inode}") == "1"
        wait_until(lambda: client.is_ended, 5, "the session to end")
        assert not other.is_ended


@needs_rights
@pytest.mark.parametrize("unit", ["/kube-nginx.service", "/system.slice/kube-nginx.service"])
def test_helper_ends_nothing_outside_nginx_s_unit(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    with session_to(apis[0]) as client, session_to(apis[0]) as stranger:
        cgroups = {
            os.getpid(): _HELPERS,
            client.pid: unit,
            stranger.pid: f"{unit}.d/other.service",
        }
        put_into(monkeypatch, cgroups)
        (session,) = sessions_of(client, apis[0])
        (other,) = sessions_of(stranger, apis[0])

        assert ask_helper(f"{apis[0]} {session.inode} {other.inode}") == "1"
        wait_until(lambda: client.is_ended, 5, "the session to end")
        assert not stranger.is_ended


def test_helper_needs_no_more_of_proc_than_its_unit_shows() -> None:
    """psutil reads /proc/stat when it is imported, which ProcSubset=pid hides."""
    program = (
        "import sys, kube_nginx_agent.sessions.cut_helper as _; print('psutil' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(kube_nginx_agent.__file__).parents[1])},
    )
    assert said.stdout == "False\n"


def test_helper_leaves_a_client_that_says_nothing_after_a_second() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        began = time.monotonic()
        cut_helper.serve(theirs)
        assert 0.9 < time.monotonic() - began < 3.0


def test_helper_leaves_a_client_that_never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_helper, "_CLIENT_WITHIN", 0.5)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def talk() -> None:
        with suppress(OSError):
            while True:
                ours.send(b"nonsense")
                ours.recv(100)

    with ours:
        talker = threading.Thread(target=talk, daemon=True)
        talker.start()
        began = time.monotonic()
        with theirs:
            cut_helper.serve(theirs)
        assert time.monotonic() - began < 3.0
        talker.join(5.0)
        assert not talker.is_alive()


def test_helper_does_not_take_nonsense() -> None:
    assert ask_helper("192.0.2.1:6443 all").startswith("not understood")


# The watch


def test_session_says_what_is_outstanding(apis: list[SocketAddress]) -> None:
    with session_to(apis[0]) as client:
        (session,) = sessions_of(client, apis[0])

    assert session.backend == apis[0]
    assert session.local.ip == apis[0].ip
    assert not session.is_connecting
    assert session.unacknowledged == 0
    assert session.heard_ago < 5.0


def test_refused_sock_diag_is_said_and_ends_when_it_is_allowed(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    with session_to(apis[0]) as client:
        bench = Bench(client)
        bench.watch.want(apis)
        with monkeypatch.context() as patch:
            patch.setattr(session_watch, "diag_socket", refuse)
            assert bench.watch.look() == []
            (problem,) = bench.watch.problems()
            assert "the kernel refuses sock_diag" in str(problem.error)

        assert len(bench.watch.look()) == 1
        assert bench.watch.problems() == []


def test_watch_survives_what_nobody_foresaw(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_watch, "QUIET_INTERVAL", 0.01)
    with session_to(apis[0]) as client:
        bench = Bench(client)
        bench.watch.want(apis)
        with monkeypatch.context() as patch:
            patch.setattr(bench.watch, "_tell", lambda _waiting: 1 / 0)
            bench.watch.start()
            wait_until(lambda: bench.watch.problems() != [], 5, "the mistake to be said")
            assert "ZeroDivisionError" in str(bench.watch.problems()[0].error)
        wait_until(lambda: bench.watch.problems() == [], 5, "the watch to go on")


def test_sessions_to_a_backend_of_an_earlier_list_are_found(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stand-in has an ephemeral port, which no apiserver has.
    monkeypatch.setattr(session_watch, "is_upstream", lambda entry, *_: entry.remote == apis[0])
    with session_to(apis[0]) as client:
        bench = Bench(client)
        bench.watch.want([apis[1]], [parse_address("127.0.0.1:8443")])
        assert bench.watch.look() == []

        bench.watch._survey()

        assert [session.backend for session in bench.watch.look()] == [apis[0]]


def test_whose_a_socket_is_is_asked_once(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask: Callable[..., dict[bytes, bool]] = Ownership._ask

    def count(self: Ownership, *args: Any) -> dict[bytes, bool]:
        asked.append(1)
        return ask(self, *args)

    monkeypatch.setattr(Ownership, "_ask", count)
    with session_to(apis[0]) as client, session_to(apis[0]) as stranger:
        bench = Bench(client)
        bench.watch.want(apis)
        assert len(bench.watch.look()) == 1
        assert len(bench.watch.look()) == 1
        assert len(asked) == 1

        bench.pids = {client.pid, stranger.pid}
        assert len(bench.watch.look()) == 2


def test_closed_processes_are_said(
    apis: list[SocketAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kube_nginx_agent.sessions.ownership.sockets_of", lambda _pid: None)
    monkeypatch.setattr("kube_nginx_agent.sessions.ownership.cgroup_id", lambda _pid: 1)
    with session_to(apis[0]) as client:
        bench = Bench(client)
        bench.watch.want(apis)

        assert bench.watch.look() == []
        assert "can't be told" in str(bench.watch.problems()[0].error)


def test_process_that_has_ended_is_not_closed(apis: list[SocketAddress]) -> None:
    with session_to(apis[0]) as client, session_to(apis[1]) as other:
        bench = Bench(client, other)
        bench.watch.want(apis)
        bench.pids = {client.pid, 2**22 - 1}

        assert [session.backend for session in bench.watch.look()] == [apis[0]]
        assert bench.watch.problems() == []


# The helper, as it is asked


@contextmanager
def helper_that_takes(seconds: float, path: Path) -> Iterator[list[str]]:
    """Answer each message after so long with how many inodes it has; yield the messages."""
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client, suppress(OSError):
                while message := client.recv(cut_helper.MAX_MESSAGE):
                    messages.append(message.decode())
                    time.sleep(seconds)
                    client.send(str(len(message.split()) - 1).encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield messages
        thread.join(5)


def made(count: int, backends: int) -> list[Session]:
    addresses = [parse_address(f"10.0.0.{number}:6443") for number in range(1, backends + 1)]
    return [session(10_000 + n, backend=addresses[n % backends]) for n in range(count)]


def test_helper_is_told_of_each_backend_in_messages_that_fit(folder: Path) -> None:
    with helper_that_takes(0.0, folder / "cut.sock") as messages:
        ended = Cutter(folder / "cut.sock")._ask_helper(made(9001, backends=2))

    assert ended == 9001
    assert len(messages) == 4
    assert max(map(len, messages)) < cut_helper.MAX_MESSAGE


def test_slow_helper_holds_the_loop_no_longer_than_its_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HELPER", 0.4)
    began = time.monotonic()

    with helper_that_takes(0.15, folder / "cut.sock"), pytest.raises(socket.timeout):
        Cutter(folder / "cut.sock")._ask_helper(made(20, backends=20))

    assert time.monotonic() - began < 2.0
