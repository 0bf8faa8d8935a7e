"""A real nginx on loopback: each test has its own folder, ports, stand-ins and processes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterator

import psutil
import pytest

from component.rig import Rig
from kube_nginx_agent.node.paths import Paths
from support.address import Address
from support.agent_process import AgentProcess
from support.apiserver import StandIn
from support.certs import make_certs

_CHECKOUT = Path(__file__).resolve().parents[2]
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), linux/prctl.h

FreePort = Callable[[], int]
StandIns = Callable[[int], "list[StandIn]"]


@pytest.fixture(scope="session")
def nginx_binary() -> Path:
    """The project's own nginx: the one that KUBE_NGINX_TEST_NGINX names, else `make nginx`'s."""
    named = os.environ.get("KUBE_NGINX_TEST_NGINX")
    if named:
        return Path(named).resolve()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kube-nginx-agent"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".test-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "nginx"], cwd=_CHECKOUT, check=True, timeout=600)
    return (cache / "nginx" / "nginx").resolve()


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins' certificates, made once."""
    folder = tmp_path_factory.mktemp("certs")
    make_certs(folder)
    return folder


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name, open to nginx's workers.

    Every nginx that was started meanwhile is ended with it, whoever its parent was.
    """
    _adopt_orphans()
    earlier = set(_descendants())
    path = Path(tempfile.mkdtemp(prefix="kna-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        _end([process for process in _descendants() if process not in earlier])
        shutil.rmtree(path)


@pytest.fixture
def free_port() -> Iterator[FreePort]:
    """Return a function that finds a TCP port of 127.0.0.1 that is this test's alone.

    A bound socket keeps everybody off it, but those who listen with SO_REUSEADDR, as nginx does.
    """
    with ExitStack() as reservations:

        def find() -> int:
            reserved = reservations.enter_context(socket.socket())
            reserved.bind(("127.0.0.1", 0))
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return int(reserved.getsockname()[1])

        yield find


@pytest.fixture
def stand_ins(certs: Path) -> Iterator[StandIns]:
    """Return a function that starts that many stand-in apiservers: api1, api2, ..."""
    started: list[StandIn] = []

    def start(number: int) -> list[StandIn]:
        first = len(started) + 1
        new = [StandIn(f"api{first + i}", certs, tick=0.02) for i in range(number)]
        started.extend(new)
        with ThreadPoolExecutor(max_workers=max(number, 1)) as pool:
            list(pool.map(StandIn.start, new))
        return new

    try:
        yield start
    finally:
        for stand_in in started:
            stand_in.close()


@pytest.fixture
def api(stand_ins: StandIns) -> StandIn:
    return stand_ins(1)[0]


@pytest.fixture
def listen(free_port: FreePort) -> Address:
    """Where this test's nginx serves its clients."""
    return Address("127.0.0.1", free_port())


@pytest.fixture
def paths(folder: Path, nginx_binary: Path) -> Paths:
    """This test's files, with the project's nginx."""
    return Paths(folder / "backends.yaml", nginx_binary, folder / "state", folder / "run")


@pytest.fixture
def rig(paths: Paths, listen: Address) -> Rig:
    """What steers this test's nginx; nothing runs yet."""
    return Rig(paths, listen)


@pytest.fixture(scope="session")
def apis(certs: Path) -> Iterator[tuple[str, ...]]:
    """The addresses of eight stand-ins that are well, for tests that don't touch them."""
    with ExitStack() as stack:
        started = [stack.enter_context(StandIn(f"api{i}", certs)) for i in range(8)]
        yield tuple(str(api.address) for api in started)


@pytest.fixture
def agent(folder: Path, nginx_binary: Path, listen: Address) -> Iterator[AgentProcess]:
    """An agent with folders and a listen address of its own, not started yet."""
    with AgentProcess(folder, nginx_binary, listen) as agent:
        yield agent
        unforeseen = agent.lines("internal error(?!.*: a mistake)")  # which one test makes
    assert unforeseen == []


@pytest.fixture
def own_binary_rig(paths: Paths, listen: Address, folder: Path) -> Rig:
    """The same with a copy of nginx that a test may replace."""
    own = Path(shutil.copy2(paths.nginx, folder / "nginx"))
    return Rig(replace(paths, nginx=own), listen)


def _adopt_orphans() -> None:
    """Become the parent of what our children leave behind, so that it can be found."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _descendants() -> list[psutil.Process]:
    """Return all nginx processes that descend from this one."""
    with suppress(psutil.NoSuchProcess):
        return [
            process for process in psutil.Process().children(recursive=True) if _is_nginx(process)
        ]
    return []


def _is_nginx(process: psutil.Process) -> bool:
    try:
        return process.name() == "nginx" or " ".join(process.cmdline()).startswith("nginx:")
    except psutil.NoSuchProcess:
        return False


def _end(processes: list[psutil.Process]) -> None:
    """Kill them, and reap those that are our own children by now."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    for process in processes:
        with suppress(ChildProcessError):
            os.waitpid(process.pid, 0)
