"""One peer before three apiservers, under load: what a scenario acts on, and what comes of it."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from faultbed.network import Host, Network
from faultbed.peers import LISTEN, Peer
from support.address import Address
from support.apiserver import StandIn
from support.load import Load
from support.process import Closing
from support.results import Result

RATE = 20.0  # new TLS connections a second
WATCHES = 12
WARM_UP = 2.0  # seconds of load before the fault, at least
STARTING = 1.0  # seconds that /readyz is red after a start, as a kube-apiserver's is
DRAIN = 2.0  # seconds that open watches are served on at a graceful stop
MOST_SECONDS = 120.0

MakePeer = Callable[[Path], Peer]


@dataclass
class Trouble:
    """A time in which an apiserver had a fault."""

    server: str
    begins: float
    serves: bool
    """Whether the sessions that it has would go on well, if nobody ended them."""
    struck: float = math.inf
    """When the fault was complete: what was under way until then is lost with a killed one."""
    ends: float = math.inf


@dataclass
class Course:
    """What was done when; times are of the machine's monotonic clock."""

    victim: str = ""
    troubles: list[Trouble] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    """The backends that the peer did not use any more just before the fault was mended."""
    added: Optional[tuple[str, float]] = None
    removed: Optional[tuple[str, float]] = None

    @property
    def fault(self) -> float:
        return self.added[1] if self.added else self.troubles[0].struck

    @property
    def healed(self) -> float:
        return max(trouble.ends for trouble in self.troubles)


@dataclass(frozen=True)
class Apiserver:
    """A stand-in and the host that it runs on."""

    stand_in: StandIn
    host: Host

    @property
    def name(self) -> str:
        return self.stand_in.name

    @property
    def address(self) -> Address:
        return self.host.address


class Stage(Closing):
    """As a context: apiservers, peer and load are started, and ended in the opposite order."""

    peer: Peer
    load: Load
    victim: Apiserver
    """The one that answers the most: its end is felt the most."""

    def __init__(
        self,
        network: Network,
        certs: Path,
        make_peer: MakePeer,
        warm_up: float = WARM_UP,
        starting: float = STARTING,
    ) -> None:
        self.network = network
        self.starting = starting
        self._warm_up = warm_up
        self.course = Course()
        self.log = ""
        """The peer's own words, once it has ended."""
        self._make_peer = make_peer
        self._everyone = [
            Apiserver(_stand_in(number, host, certs, starting), host)
            for number, host in enumerate(network.hosts, 1)
        ]
        self.apiservers, self.spare = self._everyone[:3], self._everyone[3]
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        folder = Path(tempfile.mkdtemp(prefix="kna-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # nginx's workers are another user
        for apiserver in self._everyone:
            stack.callback(apiserver.stand_in.close)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda apiserver: apiserver.stand_in.start(), self._everyone))
        time.sleep(self.starting)
        self.peer = self._make_peer(folder)
        stack.callback(self._keep_log)
        stack.callback(self.network.node.clear)
        stack.enter_context(self.peer).start([a.address for a in self.apiservers])
        prefix = self.network.node.prefix
        load = Load(LISTEN, rate=RATE, watches=WATCHES, seconds=MOST_SECONDS, prefix=prefix)
        self.load = stack.enter_context(load)
        self.load.until(_all_watch, 10.0, "every watch is open")
        time.sleep(self._warm_up)
        self._choose_victim()

    def _choose_victim(self) -> None:
        answers = self.load.so_far().servers()
        self.victim = max(self.apiservers, key=lambda one: answers.get(one.name, 0))
        self.course.victim = self.victim.name

    def _keep_log(self) -> None:
        if self.peer.log.exists():
            self.log = self.peer.log.read_text(encoding="utf-8", errors="replace")

    @contextmanager
    def trouble(
        self, *apiservers: Apiserver, fault: AbstractContextManager[None], serves: bool = False
    ) -> Iterator[None]:
        """Have these suffer the fault meanwhile."""
        now = time.monotonic()
        begun = [Trouble(apiserver.name, now, serves) for apiserver in apiservers]
        self.course.troubles += begun
        with fault:
            for trouble in begun:
                trouble.struck = time.monotonic()
            yield
            self.course.left_out = self.peer.left_out()
        for trouble in begun:
            trouble.ends = time.monotonic()

    def edit(self, apiservers: Sequence[Apiserver]) -> float:
        """Give the peer another list and return when that was."""
        now = time.monotonic()
        self.peer.update([apiserver.address for apiserver in apiservers])
        return now

    def rest(self, seconds: float) -> None:
        """Let the load go on."""
        time.sleep(seconds)

    def wait_until_served_by(self, apiserver: Apiserver, seconds: float) -> None:
        """Let the load go on until this one answers it."""
        now = time.monotonic()
        what = f"{apiserver.name} answers clients"
        self.load.until(lambda seen: apiserver.name in seen.servers(since=now), seconds, what)

    def finish(self) -> Result:
        """End the load and return all that it saw."""
        return self.load.stop()


def _stand_in(number: int, host: Host, certs: Path, starting: float) -> StandIn:
    return StandIn(
        f"api{number}",
        certs,
        listen=host.address,
        warm_up=starting,
        drain=DRAIN,
        prefix=host.namespace.prefix,
    )


def _all_watch(result: Result) -> bool:
    return len({line.watch for line in result.lines}) == WATCHES
