"""A real nginx with few connections or descriptors, and clients that take them all."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Iterator

import pytest

from component.conftest import FreePort
from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.nginx.capacity import Capacity, Fullness, Scarce
from kube_nginx_agent.nginx.process import identify, workers
from support.address import Address
from support.process import wait_until

CONFIG = """
worker_processes 1;
worker_rlimit_nofile {files};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections {connections}; }}
stream {{
    server {{ listen {listen}; proxy_pass {backend}; }}
    server {{ listen unix:{folder}/generation.sock; return "x"; }}
}}
"""


class Small:
    """nginx in front of a listener that accepts and says nothing."""

    def __init__(self, pid: int, listen: Address, folder: Path, connections: int) -> None:
        master = identify(pid)
        assert master
        (worker,) = workers(master)
        self.worker = worker.process.pid
        self.files = f"/proc/{self.worker}/fd"
        self.listen = parse_address(str(listen))
        self.capacity = Capacity()
        self._connections = connections
        self._log = folder / "error.log"

    def look(self) -> Fullness | None:
        now = time.monotonic()
        return self.capacity.look([self.worker], [self.listen], self._connections, now)

    @property
    def words(self) -> list[str]:
        return self._log.read_text().splitlines()


class Clients:
    """Connections that are kept open; those that nginx closes at once are counted."""

    def __init__(self, listen: Address, stack: ExitStack) -> None:
        self._listen = listen
        self._stack = stack

    def come(self, number: int) -> None:
        for _ in range(number):
            client = socket.create_connection((self._listen.host, self._listen.port), 5)
            self._stack.enter_context(client)


@pytest.fixture
def clients(listen: Address) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(listen, stack)


@pytest.fixture
def backend(free_port: FreePort) -> Iterator[str]:
    port = free_port()
    with socket.create_server(("127.0.0.1", port), backlog=512):
        yield f"127.0.0.1:{port}"


def start(
    stack: ExitStack,
    binary: Path,
    folder: Path,
    listen: Address,
    backend: str,
    connections: int,
    files: int = 1024,
) -> Small:
    folder.joinpath("nginx.conf").write_text(
        CONFIG.format(
            folder=folder, connections=connections, files=files, listen=listen, backend=backend
        )
    )
    process = stack.enter_context(subprocess.Popen([binary, "-c", folder / "nginx.conf"]))
    stack.callback(process.terminate)

    def has_worker() -> bool:
        master = identify(process.pid)
        return (
            master is not None
            and bool(workers(master))
            and folder.joinpath("generation.sock").exists()
        )

    wait_until(has_worker, 5, "nginx to start")
    return Small(process.pid, listen, folder, connections)


def test_connections_that_are_used_up_are_told_with_who_has_them(
    nginx_binary: Path, folder: Path, listen: Address, backend: str, clients: Clients
) -> None:
    with ExitStack() as stack:
        nginx = start(stack, nginx_binary, folder, listen, backend, connections=64)
        clients.come(27)
        served = 2 * 27
        wait_until(lambda: len(os.listdir(nginx.files)) > served, 5, "all to be passed on")
        assert nginx.look() is None

        clients.come(13)
        wait_until(lambda: nginx.look() is not None, 5, "nginx to be full")

        found = nginx.look()
        assert found is not None
        assert (found.what, found.limit) == (Scarce.CONNECTIONS, 64)
        assert f"user {os.getuid()}" in found.holder
        assert f"(pid {os.getpid()})" in found.holder
        assert [problem.about for problem in nginx.capacity.problems()] == ["capacity"]


def test_nginx_s_own_words_are_understood(
    nginx_binary: Path, folder: Path, listen: Address, backend: str, clients: Clients
) -> None:
    with ExitStack() as stack:
        nginx = start(stack, nginx_binary, folder, listen, backend, connections=32)
        clients.come(40)
        wait_until(lambda: bool(nginx.words), 5, "nginx to complain")

        fresh = Capacity()
        for line in nginx.words:
            fresh.hear(line, time.monotonic())
        found = fresh.look([], [], 32, time.monotonic())
        assert found is not None
        assert found.what is Scarce.CONNECTIONS


def test_open_files_that_are_used_up_are_told(
    nginx_binary: Path, folder: Path, listen: Address, backend: str, clients: Clients
) -> None:
    with ExitStack() as stack:
        nginx = start(stack, nginx_binary, folder, listen, backend, connections=512, files=40)
        clients.come(30)

        def is_told() -> bool:
            for line in nginx.words:
                nginx.capacity.hear(line, time.monotonic())
            return nginx.look() is not None

        wait_until(is_told, 5, "nginx to be full")
        found = nginx.look()
        assert found is not None
        assert (found.what, found.limit) == (Scarce.FILES, 40)


def test_it_is_over_when_the_clients_have_gone(
    nginx_binary: Path, folder: Path, listen: Address, backend: str
) -> None:
    with ExitStack() as stack:
        nginx = start(stack, nginx_binary, folder, listen, backend, connections=64)
        with ExitStack() as visit:
            Clients(listen, visit).come(40)
            wait_until(lambda: nginx.look() is not None, 5, "nginx to be full")

        wait_until(lambda: nginx.look() is None, 5, "nginx to have room again")
        assert nginx.capacity.problems() == []
