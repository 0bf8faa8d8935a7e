"""The faults, each a function that acts on a stage; how long they last is the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Callable

from faultbed.stage import Apiserver, Stage

LATENCY = 0.8  # seconds
_STOP_SECONDS = 10.0
_FOREVER = 3600.0


def killed(stage: Stage, hold: float = 8.0, after: float = 7.0) -> None:
    """One apiserver is ended by SIGKILL and started again later."""
    with stage.trouble(stage.victim, fault=_killed(stage.victim)):
        stage.rest(hold)
    stage.rest(after)


def silent(stage: Stage, hold: float = 12.0, after: float = 7.0) -> None:
    """Packets to and from one host are dropped."""
    with stage.trouble(stage.victim, fault=stage.network.silent(stage.victim.host)):
        stage.rest(hold)
    stage.rest(after)


def unplugged(stage: Stage, hold: float = 14.0, after: float = 7.0) -> None:
    """One host's cable is pulled, so that ARP fails as well after a while."""
    with stage.trouble(stage.victim, fault=stage.network.unplugged(stage.victim.host)):
        stage.rest(hold)
    stage.rest(after)


def two_silent(stage: Stage, hold: float = 12.0, after: float = 7.0) -> None:
    """Packets to and from two hosts are dropped at once."""
    victims = sorted(stage.apiservers, key=lambda one: one is not stage.victim)[:2]
    fault = _all(stage.network.silent(apiserver.host) for apiserver in victims)
    with stage.trouble(*victims, fault=fault):
        stage.rest(hold)
    stage.rest(after)


def all_silent(stage: Stage, hold: float = 10.0, after: float = 8.0) -> None:
    """Packets to and from all hosts are dropped, as when the node itself loses its network."""
    network = stage.network
    fault = _all(network.silent(apiserver.host) for apiserver in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault):
        stage.rest(hold)
    stage.rest(after)


def rejected(stage: Stage, hold: float = 10.0, after: float = 7.0) -> None:
    """One host's firewall prohibits every packet, with an ICMP answer."""
    with stage.trouble(stage.victim, fault=stage.network.rejecting(stage.victim.host)):
        stage.rest(hold)
    stage.rest(after)


def frozen(stage: Stage, hold: float = 12.0, after: float = 7.0) -> None:
    """One apiserver is stopped (SIGSTOP), while its kernel goes on accepting connections."""
    with stage.trouble(stage.victim, fault=_frozen(stage.victim)):
        stage.rest(hold)
    stage.rest(after)


def unready(stage: Stage, hold: float = 16.0, after: float = 7.0) -> None:
    """/readyz of one apiserver is red, and all else works."""
    with stage.trouble(stage.victim, fault=_faulty(stage.victim, readyz=500), serves=True):
        stage.rest(hold)
    stage.rest(after)


def all_unready(stage: Stage, hold: float = 10.0, after: float = 3.0) -> None:
    """/readyz of all is red, as when a shared etcd hangs."""
    fault = _all(_faulty(apiserver, readyz=500) for apiserver in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        stage.rest(hold)
    stage.rest(after)


def lossy(stage: Stage, hold: float = 10.0, after: float = 2.0) -> None:
    """30 % of the packets to one host are lost."""
    fault = stage.network.lossy(stage.victim.host, 30)
    with stage.trouble(stage.victim, fault=fault, serves=True):
        stage.rest(hold)
    stage.rest(after)


def flapping(stage: Stage, times: int = 5, pause: float = 2.0, after: float = 5.0) -> None:
    """One apiserver is killed and started over and over."""
    for _ in range(times):
        with stage.trouble(stage.victim, fault=_killed(stage.victim)):
            stage.rest(pause)
        stage.rest(pause)
    stage.rest(after)


def rolling_restart(stage: Stage, down: float = 3.0, between: float = 3.0) -> None:
    """One apiserver after the other is stopped gracefully and started again."""
    for apiserver in stage.apiservers:
        with stage.trouble(apiserver, fault=_restarted(stage, apiserver)):
            stage.rest(down)
        stage.rest(between)


def all_down(stage: Stage, hold: float = 12.0, after: float = 15.0) -> None:
    """All are killed, and all are started again later."""
    fault = _all(_killed(apiserver) for apiserver in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault):
        stage.rest(hold)
    stage.rest(after)


def slow(stage: Stage, hold: float = 8.0, after: float = 3.0) -> None:
    """Every answer of all takes 0.8 s, that of /readyz as well."""
    fault = _all(_faulty(apiserver, latency=LATENCY) for apiserver in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        stage.rest(hold)
    stage.rest(after)


def one_slow(stage: Stage, hold: float = 10.0, after: float = 3.0) -> None:
    """Every answer of one takes 0.8 s, that of /readyz as well."""
    with stage.trouble(stage.victim, fault=_faulty(stage.victim, latency=LATENCY), serves=True):
        stage.rest(hold)
    stage.rest(after)


def hung(stage: Stage, hold: float = 12.0, after: float = 6.0) -> None:
    """Every answer of all takes 2 s, and /readyz then says 500, as when a shared etcd hangs."""
    fault = _all(_faulty(one, latency=2.0, readyz=500) for one in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        stage.rest(hold)
    stage.rest(after)


def slow_checks(stage: Stage, hold: float = 12.0, after: float = 4.0) -> None:
    """/readyz of all takes 1.5 s, and all else works."""
    fault = _all(_faulty(one, latency=1.5, path="/readyz") for one in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        stage.rest(hold)
    stage.rest(after)


def network_away(stage: Stage, hold: float = 12.0, after: float = 12.0) -> None:
    """The node's own network is away for a while; TCP outlives it."""
    fault = _all(stage.network.silent(apiserver.host) for apiserver in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        stage.rest(hold)
    stage.rest(after)


def network_blink(stage: Stage) -> None:
    """The node's own network is away for 3 s."""
    network_away(stage, hold=3.0, after=8.0)


def syns_lost(stage: Stage, hold: float = 10.0, after: float = 4.0) -> None:
    """New connections to one host are lost, and its open ones are well."""
    with stage.trouble(
        stage.victim, fault=stage.network.losing_syns(stage.victim.host), serves=True
    ):
        stage.rest(hold)
    stage.rest(after)


def all_syns_lost(stage: Stage, hold: float = 8.0, after: float = 6.0) -> None:
    """New connections to all hosts are lost, and the open ones are well."""
    fault = _all(stage.network.losing_syns(apiserver.host) for apiserver in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        stage.rest(hold)
    stage.rest(after)


def paused(stage: Stage, hold: float = 2.0, after: float = 6.0) -> None:
    """One apiserver stands still for 2 s, as its virtual machine is moved."""
    with stage.trouble(stage.victim, fault=_frozen(stage.victim), serves=True):
        stage.rest(hold)
    stage.rest(after)


def blinked(stage: Stage, hold: float = 2.0, after: float = 8.0) -> None:
    """Packets to and from one host are dropped for 2 s."""
    with stage.trouble(stage.victim, fault=stage.network.silent(stage.victim.host), serves=True):
        stage.rest(hold)
    stage.rest(after)


def half_dead(stage: Stage, hold: float = 12.0, after: float = 4.0) -> None:
    """One apiserver answers nobody new, /readyz included, while its open watches tick on."""
    fault = _faulty(stage.victim, latency=_FOREVER)
    with stage.trouble(stage.victim, fault=fault, serves=True):
        stage.rest(hold)
    stage.rest(after)


def mtu_hole(stage: Stage, hold: float = 12.0, after: float = 4.0) -> None:
    """Large packets from one host are lost: no handshake with it ends, its watches tick on."""
    with stage.trouble(
        stage.victim, fault=stage.network.losing_large(stage.victim.host), serves=True
    ):
        stage.rest(hold)
    stage.rest(after)


def edited(stage: Stage, between: float = 5.0, after: float = 5.0) -> None:
    """A fourth apiserver is added to the list, and later one of the three is removed."""
    grown = [*stage.apiservers, stage.spare]
    stage.course.added = (stage.spare.name, stage.edit(grown))
    stage.rest(between)
    with stage.trouble(stage.victim, fault=nullcontext()):
        left = [apiserver for apiserver in grown if apiserver is not stage.victim]
        stage.course.removed = (stage.victim.name, stage.edit(left))
        stage.rest(after)


@dataclass(frozen=True)
class Fault:
    """A scenario, and the figures that matter in it (fields of `figures.Figures`)."""

    play: Callable[[Stage], None]
    figures: tuple[str, ...]
    is_extra: bool = False
    """Whether the bench plays it only when it is asked for by name."""

    @property
    def name(self) -> str:
        return self.play.__name__.replace("_", "-")

    @property
    def title(self) -> str:
        return (self.play.__doc__ or "").rstrip(".")


_DEAD = ("failed", "bad", "steady", "stall", "healthy_cut", "share")
_ALIVE = ("failed", "bad", "stall", "healthy_cut", "working_cut")
_NO_HARM = ("healthy_cut", "working_cut", "late")
"""What is shared, or soon over, is nobody's fault."""

FAULTS: tuple[Fault, ...] = (
    Fault(killed, _DEAD),
    Fault(silent, _DEAD),
    Fault(frozen, _DEAD),
    Fault(unready, ("failed", "bad", "unready", "healthy_cut", "working_cut", "share")),
    Fault(lossy, _ALIVE),
    Fault(flapping, ("failed", "bad", "stall", "healthy_cut")),
    Fault(rolling_restart, ("failed", "bad", "stall", "healthy_cut")),
    Fault(all_down, ("late", "back", "watches_back")),
    Fault(slow, ("failed", "healthy_cut", "working_cut")),
    Fault(edited, ("failed", "bad", "added", "removed", "healthy_cut")),
    Fault(hung, _NO_HARM),
    Fault(slow_checks, ("failed", *_NO_HARM)),
    Fault(network_blink, _NO_HARM),
    Fault(network_away, _NO_HARM),
    Fault(syns_lost, _ALIVE),
    Fault(all_syns_lost, _NO_HARM),
    Fault(paused, _ALIVE),
    Fault(blinked, _ALIVE),
    Fault(half_dead, ("failed", "unready", "healthy_cut", "working_cut")),
    Fault(mtu_hole, ("failed", "unready", "healthy_cut", "working_cut")),
    Fault(one_slow, ("failed", "bad", "healthy_cut", "working_cut"), is_extra=True),
    Fault(unplugged, _DEAD, is_extra=True),
    Fault(rejected, _DEAD, is_extra=True),
    Fault(two_silent, _DEAD, is_extra=True),
    Fault(all_silent, ("late", "back", "watches_back"), is_extra=True),
    Fault(all_unready, ("failed", "bad", "healthy_cut", "working_cut"), is_extra=True),
)


@contextmanager
def _killed(apiserver: Apiserver) -> Iterator[None]:
    apiserver.stand_in.kill()
    yield
    apiserver.stand_in.start()


@contextmanager
def _restarted(stage: Stage, apiserver: Apiserver) -> Iterator[None]:
    """Stop it as SIGTERM does, and start it; ends when it is ready."""
    apiserver.stand_in.terminate()
    yield
    apiserver.stand_in.wait(_STOP_SECONDS)
    apiserver.stand_in.start()
    stage.rest(stage.starting)


@contextmanager
def _frozen(apiserver: Apiserver) -> Iterator[None]:
    apiserver.stand_in.freeze()
    try:
        yield
    finally:
        apiserver.stand_in.thaw()


@contextmanager
def _faulty(apiserver: Apiserver, **changes: object) -> Iterator[None]:
    apiserver.stand_in.fault(**changes)
    yield
    apiserver.stand_in.heal()


@contextmanager
def _all(faults: Iterable[AbstractContextManager[None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(fault)
        yield
