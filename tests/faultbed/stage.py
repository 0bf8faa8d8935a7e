"""One peer before three apiservers, under load: what a scenario acts on, and what comes of it."""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from faultbed.network import Host, Network
from faultbed.peers import LISTEN, Peer
from support.address import Address
from support.apiserver import StandIn
from support.load import Load
from support.names import NAME, NameServer
from support.process import Closing
from support.results import Result

RATE = 20.0  # new TLS connections a second
WATCHES = 12
WARM_UP = 2.0  # seconds of load before the fault, at least
STARTING = 1.0  # seconds that /readyz is red after a start, as a kube-apiserver's is
DRAIN = 2.0  # seconds that open watches are served on at a graceful stop
MOST_SECONDS = 900.0
NOBODY = ""
"""Whose fault it is when the apiservers are all well."""
_GLANCE = 0.1  # seconds

MakePeer = Callable[..., Peer]


@dataclass(frozen=True)
class Terms:
    """What a scenario wants to be otherwise than usual."""

    rate: float = RATE
    timeout: float = 5.0
    """Seconds for a request, all in all."""
    tick: float = 1.0
    """Seconds between two lines of a watch."""
    ping: float = 0.0
    """Seconds between what a watch's client says; 0: it only listens."""
    connections: int = 0
    """The peer's own limit; 0: its usual one."""
    answers: tuple[tuple[int, ...], ...] = ()
    """Which apiservers each answer of DNS names, in turn; then the list is one name."""


USUAL = Terms()


@dataclass
class Trouble:
    """A time in which an apiserver had a fault."""

    server: str
    begins: float
    serves: bool
    """Whether the sessions that it has would go on well, if nobody ended them."""
    blameless: bool = False
    """Whether the apiserver itself is well, so that nobody should leave it out."""
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
    absences: Optional[list[tuple[float, frozenset[str]]]] = None
    """The apiservers that the peer did not use, from when on; None if it does not tell."""
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
        terms: Terms = USUAL,
        over: Optional[threading.Event] = None,
    ) -> None:
        """Take the world to play in; once `over` is set, a scenario breaks off."""
        self._over = over or threading.Event()
        self.network = network
        self.terms = terms
        self.listen = LISTEN
        self.starting = starting
        self._warm_up = warm_up
        self.course = Course()
        self.log = ""
        """The peer's own words, once it has ended."""
        self._make_peer = make_peer
        self._everyone = [
            Apiserver(_stand_in(number, host, certs, starting, self.terms.tick), host)
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
        self.folder = Path(tempfile.mkdtemp(prefix="kna-", dir="/tmp"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o755)  # nginx's workers are another user
        for apiserver in self._everyone:
            stack.callback(apiserver.stand_in.close)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda apiserver: apiserver.stand_in.start(), self._everyone))
        time.sleep(self.starting)
        stack.callback(self._keep_log)
        stack.callback(self.network.node.clear)
        self._start_peer(stack)
        self.load = stack.enter_context(self._load())
        self.load.until(_all_watch, 10.0, "every watch is open")
        self.rest(self._warm_up)
        self._choose_victim()
        self._follow(stack)

    def _start_peer(self, stack: ExitStack) -> None:
        prefix = self.network.node.prefix
        backends = [apiserver.address for apiserver in self.apiservers]
        asking: list[str] = []
        if self.terms.answers:
            answers = [[backends[one].host for one in some] for some in self.terms.answers]
            server = stack.enter_context(NameServer(self.folder, answers, prefix))
            backends, asking = [Address(NAME, backends[0].port)], server.asked_by
        self.peer = self._make_peer(self.folder, prefix=asking, connections=self.terms.connections)
        stack.enter_context(self.peer).start(backends)

    def _load(self) -> Load:
        terms = self.terms
        return Load(
            LISTEN,
            rate=terms.rate,
            watches=WATCHES,
            seconds=MOST_SECONDS,
            timeout=terms.timeout,
            ping=terms.ping,
            prefix=self.network.node.prefix,
        )

    def _follow(self, stack: ExitStack) -> None:
        """Note from now on whom the peer leaves out, if it tells."""
        if self.peer.left_out() is None:
            return
        self.course.absences, over = [], threading.Event()
        following = threading.Thread(target=self._keep_following, args=(over,), daemon=True)
        following.start()
        stack.callback(following.join)
        stack.callback(over.set)

    def _keep_following(self, over: threading.Event) -> None:
        names = {str(apiserver.address): apiserver.name for apiserver in self._everyone}
        absences = self.course.absences
        assert absences is not None
        while not over.wait(_GLANCE):
            absent = frozenset(names[one] for one in self.peer.left_out() or () if one in names)
            if not absences or absences[-1][1] != absent:
                absences.append((time.monotonic(), absent))

    def _choose_victim(self) -> None:
        answers = self.load.so_far().servers()
        self.victim = max(self.apiservers, key=lambda one: answers.get(one.name, 0))
        self.course.victim = self.victim.name

    def _keep_log(self) -> None:
        if self.peer.log.exists():
            self.log = self.peer.log.read_text(encoding="utf-8", errors="replace")

    @contextmanager
    def trouble(
        self,
        *apiservers: Apiserver,
        fault: Optional[AbstractContextManager[None]] = None,
        serves: bool = False,
        blameless: bool = False,
    ) -> Iterator[None]:
        """Have these suffer the fault meanwhile; one that all of them have is nobody's."""
        fault = fault or nullcontext()
        blameless = blameless or len(apiservers) == len(self.apiservers)
        now = time.monotonic()
        names = [apiserver.name for apiserver in apiservers] or [NOBODY]
        begun = [Trouble(name, now, serves, blameless) for name in names]
        self.course.troubles += begun
        with fault:
            for trouble in begun:
                trouble.struck = time.monotonic()
            yield
            self.course.left_out = self.peer.left_out() or set()
        for trouble in begun:
            trouble.ends = time.monotonic()

    def suffer(
        self,
        *apiservers: Apiserver,
        fault: AbstractContextManager[None],
        hold: float,
        after: float,
        serves: bool = False,
        blameless: bool = False,
    ) -> None:
        """Let these suffer the fault for ``hold`` seconds, and be well for ``after``."""
        with self.trouble(*apiservers, fault=fault, serves=serves, blameless=blameless):
            self.rest(hold)
        self.rest(after)

    def edit(self, apiservers: Sequence[Apiserver]) -> float:
        """Give the peer another list and return when that was."""
        now = time.monotonic()
        self.peer.update([apiserver.address for apiserver in apiservers])
        return now

    def rest(self, seconds: float) -> None:
        """Let the load go on; raise RuntimeError if all of it is over before."""
        if self._over.wait(seconds):
            raise RuntimeError("it was broken off")

    def wait_until_served_by(self, apiserver: Apiserver, seconds: float) -> None:
        """Let the load go on until this one answers it."""
        now = time.monotonic()
        what = f"{apiserver.name} answers clients"
        self.load.until(lambda seen: apiserver.name in seen.servers(since=now), seconds, what)

    def finish(self) -> Result:
        """End the load and return all that it saw."""
        return self.load.stop()


def _stand_in(number: int, host: Host, certs: Path, starting: float, tick: float) -> StandIn:
    return StandIn(
        f"api{number}",
        certs,
        listen=host.address,
        warm_up=starting,
        drain=DRAIN,
        tick=tick,
        prefix=host.namespace.prefix,
    )


def _all_watch(result: Result) -> bool:
    return len({line.watch for line in result.lines}) == WATCHES
