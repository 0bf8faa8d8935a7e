"""The agent's nginx side on folders of its own, and clients that use it."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Iterator

from kube_nginx_agent.config.load import load_config
from kube_nginx_agent.desired import desire
from kube_nginx_agent.model import Node, SocketAddress
from kube_nginx_agent.nginx.apply import Applier, Proof
from kube_nginx_agent.nginx.binary import Nginx
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.decision import Goal
from kube_nginx_agent.nginx.log import LogReader
from kube_nginx_agent.nginx.process import (
    Process,
    Worker,
    is_alive,
    is_stopped,
    send_signal,
    workers,
)
from kube_nginx_agent.nginx.rendering import render
from kube_nginx_agent.nginx.supervise import Standalone, Supervisor
from kube_nginx_agent.nginx.upgrade import Upgrader
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices.journal import Fields
from kube_nginx_agent.notices.kinds import Kind
from kube_nginx_agent.notices.problems import Problems
from support.address import Address
from support.process import wait_until

SECONDS = 10.0  # deadline of every wait
NODE = Node(id="4f2a91c0d3e5", has_ipv6_loopback=False)


class Rig:
    """nginx and what steers it, assembled as `cli.run` does."""

    def __init__(self, paths: Paths, listen: Address, supervisor: Supervisor | None = None) -> None:
        for path in (paths.state_dir, paths.run_dir):
            path.mkdir(exist_ok=True)
        self.paths = paths
        self.listen = listen
        self.nginx = Nginx(paths.nginx)
        self.supervisor = supervisor or Standalone(self.nginx, paths)
        self.log = LogReader(paths.log_socket)
        self.log.open(self.supervisor.worker_uid())
        self._due: float | None = None
        self.said: list[tuple[Kind, str]] = []
        self.problems = Problems(self._note, time.time)
        self.applier = Applier(paths, self.nginx, self.supervisor, self.log)
        upgrader = Upgrader(self.nginx, paths)
        self.data_plane = DataPlane(self.applier, self.supervisor, upgrader, self._note)

    def _note(self, kind: Kind, message: str, _fields: Fields) -> None:
        self.said.append((kind, message))

    def goal(self, *backends: Address, listen: Address | None = None, more: str = "") -> Goal:
        """Work out what a backends.yaml with these backends wants; `more` are lines of it."""
        servers = "".join(f"\n  - {backend}" for backend in backends) or " []"
        text = f'listen: "{listen or self.listen}"\nbackends:{servers}\n{more}'
        desired = desire(load_config(text.encode(), "backends.yaml").config, {}, NODE)
        rendered = render(desired, self.paths)
        return Goal(rendered, desired, key=rendered.generation)

    def apply(self, goal: Goal) -> Proof:
        """Make it live and wait for the last of its workers: the proof needs only the first."""
        proof = self.applier.apply(goal.rendered, goal.desired)
        self._wait_for_all_workers(goal)
        return proof

    def reconcile(self, *goals: Goal) -> Proof | None:
        return self.reconcile_at(time.monotonic(), *goals)

    def reconcile_at(self, now: float, *goals: Goal) -> Proof | None:
        """Pass as the loop does, the most wanted goal first."""
        proof = self.data_plane.reconcile(goals, now)
        self.problems.update(self.data_plane.problems())
        return proof

    def is_due(self) -> bool:
        """Whether the loop would pass now though nothing happens."""
        now = time.monotonic()
        due = self.data_plane.due(now)
        self._due = due or self._due
        return self._due is None or now >= self._due

    def reconcile_until_served(self, goal: Goal, seconds: float = SECONDS) -> None:
        """Pass as the loop does, each time that a pass is due, until nginx serves the goal."""

        self.reconcile(goal)

        def is_served() -> bool:
            if self.is_due():
                self.reconcile(goal)
            return self.data_plane.served == goal.generation

        wait_until(is_served, seconds, f"nginx serves {goal.generation}")
        self._wait_for_all_workers(goal)

    def _wait_for_all_workers(self, goal: Goal) -> None:
        def are_all_there() -> bool:
            serving = [worker for worker in self.workers() if not worker.retiring]
            return len(serving) == goal.desired.workers

        wait_until(are_all_there, SECONDS, f"nginx has {goal.desired.workers} workers that serve")

    def messages(self, kind: Kind) -> list[str]:
        """Return what was said of this kind."""
        return [message for said, message in self.said if said == kind]

    def served(self) -> str | None:
        return self.applier.served_generation()

    def master(self) -> Process:
        master = self.supervisor.master()
        assert master, "nginx does not run"
        return master

    def workers(self) -> list[Worker]:
        return workers(self.master())

    def wait_for_workers(self, number: int) -> list[Worker]:
        """Wait until that many workers are there, those that retire included."""

        def all_there() -> list[Worker] | None:
            found = self.workers()
            return found if len(found) == number else None

        return wait_until(all_there, SECONDS, f"nginx has {number} workers")

    def wait_for_end(self, *processes: Process) -> None:
        wait_until(lambda: not any(map(is_alive, processes)), SECONDS, f"{processes} ended")


class Session:
    """A TLS session that watches: the server sends a line now and then, with its name in it."""

    def __init__(self, to: Address) -> None:
        self._tls = _context().wrap_socket(socket.create_connection(to, SECONDS))
        self._tls.sendall(b"GET /watch HTTP/1.1\r\nHost: x\r\n\r\n")
        self._lines = self._tls.makefile("rb")
        assert b" 200 " in self._lines.readline()

    def server(self) -> str:
        """Wait for the next line and return the name in it; raise EOFError after a cut."""
        for line in self._lines:
            if line.startswith(b"{"):
                return str(json.loads(line)["name"])
        raise EOFError

    def read_to_end(self) -> None:
        """Read until the session is cut; raise TimeoutError while it goes on in silence."""
        with suppress(ConnectionError, ssl.SSLError):
            while self._lines.readline():
                pass

    def close(self) -> None:
        self._lines.close()
        self._tls.close()


def halt(process: Process) -> None:
    """SIGSTOP it and wait until it stands still."""
    send_signal(process, signal.SIGSTOP)
    wait_until(lambda: is_stopped(process), SECONDS, f"{process} is stopped")


@contextmanager
def session(to: Address) -> Iterator[Session]:
    """Watch through `to` from a connection that is closed at the end."""
    opened = Session(to)
    try:
        yield opened
    finally:
        opened.close()


def who_answers(to: Address) -> str:
    """Return the name of the apiserver that a new TLS connection reaches, or "" if it is closed."""
    try:
        with _context().wrap_socket(socket.create_connection(to, SECONDS)) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with tls.makefile("rb") as answer:
                body = answer.read().rpartition(b"\r\n\r\n")[2]
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
        return ""
    return str(json.loads(body)["name"])


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def holder(address: Address) -> Iterator[socket.socket]:
    """Listen on an address, as a stranger does who was there first."""
    with socket.socket(address.family, socket.SOCK_STREAM) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(tuple(address))
        stranger.listen()
        yield stranger


def as_model(address: Address) -> SocketAddress:
    """Return the address as the agent's code has it."""
    return SocketAddress(ip_address(address.host), address.port)
