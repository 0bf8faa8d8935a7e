"""What the agent meets at its edges: the disk, nginx's processes and sockets, and waiting."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Callable, Iterable, Protocol, TypeVar

from kube_nginx_agent.inbox import NginxEnded
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.nginx.binary import NginxError
from kube_nginx_agent.nginx.canary import Reach
from kube_nginx_agent.nginx.generation import Answer, NoAnswer
from kube_nginx_agent.nginx.log import LogMessage
from kube_nginx_agent.nginx.ports import AddressHeldError, Holder
from kube_nginx_agent.nginx.process import Process, ProcessGoneError
from kube_nginx_agent.observation import Result
from simulation.backends import Backends
from simulation.clock import Clock
from simulation.conf import read_conf
from simulation.disk import Disk
from simulation.nginx import SimNginx

Found = TypeVar("Found")
AGENT = Process(50, 1)
_TEST, _TEST_AT_MOST = 0.005, 5.0
_A_MOMENT = 0.0005


class Waits(Protocol):
    """The agent's process, which may be stopped while it waits."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass for it."""


class Hooks(Disk):
    """All edges of the agent; what is a file is the disk's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.nginx: SimNginx
        self.backends: Backends
        self.process: Waits
        self.dice: random.Random
        self.on_signal: Callable[[Process, int], None] = lambda _process, _signum: None
        self.on_master_end: Callable[[NginxEnded], None] = lambda _: None

    # Waiting.

    def wait_until(
        self, condition: Callable[[], Found | None], timeout: float, poll: float = 0.005
    ) -> Found | None:
        deadline = self.clock.now + timeout
        while True:
            value = condition()
            if value or self.clock.now >= deadline:
                return value
            self.process.pass_time(poll)

    # Processes.

    def identify(self, pid: int) -> Process | None:
        return AGENT if pid == os.getpid() else self.nginx.identify(pid)

    def is_alive(self, process: Process) -> bool:
        return self.nginx.is_alive(process)

    def is_stopped(self, process: Process) -> bool:
        return self.nginx.is_stopped(process)

    def workers(self, master: Process) -> object:
        return self.nginx.workers(master)

    def serving(self, master: Process) -> frozenset[Process]:
        return self.nginx.serving(master)

    def is_retiring(self, master: Process) -> bool:
        return self.nginx.is_retiring(master)

    def turns_of(self, process: Process) -> int:
        return self.nginx.turns_of(process)

    def send_signal(self, process: Process, signum: int) -> None:
        self.on_signal(process, signum)
        if not self.nginx.signal(process, signum):
            raise ProcessGoneError(process)

    def signal_if_there(self, process: Process, signum: int) -> bool:
        self.on_signal(process, signum)
        return self.nginx.signal(process, signum)

    def wait_until_gone(self, process: Process, timeout: float | None = None) -> bool:
        return bool(self.wait_until(lambda: not self.is_alive(process), timeout or 0.0))

    def find_master(self, pid_file: Path, binary: Path) -> Process | None:
        return self.nginx.found_master()

    def find_lost_master(self, config: Path, binary: Path) -> Process | None:
        return self.nginx.found_master()

    def parent_of(self, pid: int) -> int | None:
        return 1

    def find_orphans(self, generation_socket: Path, binary: Path) -> list[Process]:
        return []

    def reap_orphans(self) -> None:
        pass

    # Sockets.

    def is_there(self, path: Path) -> bool:
        """Have nginx's socket in the run folder while it listens there."""
        if path.suffix == ".sock":
            return bool(self.nginx.accepting())
        return super().is_there(path)

    def ask(self, generation_socket: Path, timeout: float) -> Answer | NoAnswer:
        if not self.nginx.accepting():
            return NoAnswer.ABSENT
        running = self.nginx.running()
        if not running:
            self.process.pass_time(timeout)
            return NoAnswer.MUTE
        self.process.pass_time(_A_MOMENT)
        worker = self.dice.choice(running)
        return Answer(worker.conf.generation, worker.process.pid)

    def try_to_bind(self, address: SocketAddress) -> OSError | None:
        if self.nginx.master or self.nginx.port_is_held:
            return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return None

    def check_listen(
        self,
        listen: Iterable[SocketAddress],
        master: Process | None,
        orphans: Iterable[Process] = (),
    ) -> None:
        if self.nginx.port_is_held and not self.nginx.master:
            holder = Holder("nobody", 4711, "python3", 65534)
            raise AddressHeldError(next(iter(listen)), errno.EADDRINUSE, holder)

    def find_fault(
        self,
        listen: Iterable[SocketAddress],
        servers: Iterable[SocketAddress],
        server_name: str | None = None,
    ) -> str:
        servers, address = list(servers), next(iter(listen))
        if not self.nginx.accepting():
            return f"{address}: {Reach.REFUSED.value}"
        if not servers:
            return ""
        outcome = self._reach_through_nginx()
        if outcome is Reach.ANSWERED:
            return ""
        direct = [self._reach(server) for server in servers]
        self.process.pass_time(max(seconds for _, seconds in direct))
        provable = all if outcome is Reach.SILENT else any
        if provable(found is Reach.ANSWERED for found, _ in direct):
            return f"{address}: {outcome.value}, while apiservers answer directly"
        return ""

    def _reach_through_nginx(self) -> Reach:
        running = self.nginx.running()
        if not running:
            self.process.pass_time(1.0)
            return Reach.SILENT
        conf = self.dice.choice(running).conf
        left = [peer.address for peer in conf.peers if not peer.is_down]
        deadline = self.clock.now + 1.0
        for backend in self.dice.sample(left, len(left)):
            result, ends = self.backends.connect(backend, self.clock.now)
            if result is Result.REFUSED:
                continue
            if ends > self.clock.now + conf.connect_timeout:
                self.process.pass_time(conf.connect_timeout)
                if self.clock.now >= deadline:
                    return Reach.SILENT
                continue
            found, seconds = self._reach(backend)
            self.process.pass_time(min(seconds, max(deadline - self.clock.now, 0.001)))
            return found
        return Reach.CLOSED

    def _reach(self, backend: SocketAddress) -> tuple[Reach, float]:
        """Return what a TLS handshake of at most a second comes to, and how long it takes."""
        now = self.clock.now
        result, _ = self.backends.connect(backend, now)
        if result is Result.REFUSED:
            return Reach.REFUSED, 0.001
        answered = self.backends.answers_at(backend, now)
        return (Reach.ANSWERED, answered - now) if answered <= now + 1.0 else (Reach.SILENT, 1.0)

    # Classes that the agent makes itself.

    def MasterWatch(self, post: Callable[[NginxEnded], None]) -> Follows:  # noqa: N802 - it stands in for the class of that name
        self.on_master_end = post
        return Follows()

    def Resolver(self, post: object) -> NoNames:  # noqa: N802 - it stands in for the class of that name
        return NoNames()


class Follows:
    """The end of a master is told of by the simulation itself."""

    def follow(self, master: Process | None) -> None:
        pass


class NoNames:
    """The lists of a simulation have no DNS names in them."""

    def want(self, names: Iterable[str]) -> None:
        pass


class Log:
    """nginx's error log, as ``LogReader`` has it."""

    def __init__(self, messages: list[LogMessage]) -> None:
        self._messages = messages

    def mark(self) -> int:
        return len(self._messages)

    def since(self, mark: int) -> list[LogMessage]:
        return self._messages[mark:]


class Binary:
    """The installed nginx."""

    def __init__(self, hooks: Hooks, path: Path) -> None:
        self.path = path
        self._hooks = hooks

    def test(self, config: Path, master: Process | None = None) -> None:
        if self._hooks.nginx.tests_hang:
            self._hooks.process.pass_time(_TEST_AT_MOST)
            raise NginxError(f"nginx -t did not end within {_TEST_AT_MOST:g} s")
        self._hooks.process.pass_time(_TEST)
        if read_conf(self._hooks.read_text(config) or "") is None:
            raise NginxError("nginx -t refuses the config")


class NoUpgrades:
    """The installed binary is the one that runs."""

    def is_needed(self, master: Process) -> bool:
        return False

    def is_possible(self, master: Process) -> bool:
        return True

    def is_unfinished(self, master: Process) -> bool:
        return False

    def previous(self, master: Process) -> Process | None:
        return None

    def version(self) -> str:
        return "nginx/1.26.3"
