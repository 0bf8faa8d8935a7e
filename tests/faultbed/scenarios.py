"""What fails, or is changed: functions that act on a stage, for as long as the caller says."""

from __future__ import annotations

from contextlib import nullcontext

from faultbed.stage import Stage
from faultbed.troubles import all_of, faulty, frozen_one, killed_one, restarted_one

LATENCY = 0.8  # seconds


def killed(stage: Stage, hold: float = 6.0, after: float = 7.0) -> None:
    """One apiserver is ended by SIGKILL and started again later."""
    stage.suffer(stage.victim, fault=killed_one(stage.victim), hold=hold, after=after)


def silent(stage: Stage, hold: float = 12.0, after: float = 7.0) -> None:
    """Packets to and from one host are dropped."""
    stage.suffer(
        stage.victim, fault=stage.network.silent(stage.victim.host), hold=hold, after=after
    )


def unplugged(stage: Stage, hold: float = 14.0, after: float = 7.0) -> None:
    """One host's cable is pulled, so that ARP fails as well after a while."""
    stage.suffer(
        stage.victim, fault=stage.network.unplugged(stage.victim.host), hold=hold, after=after
    )


def two_silent(stage: Stage, hold: float = 12.0, after: float = 7.0) -> None:
    """Packets to and from two hosts are dropped at once."""
    victims = sorted(stage.apiservers, key=lambda one: one is not stage.victim)[:2]
    fault = all_of(stage.network.silent(apiserver.host) for apiserver in victims)
    stage.suffer(*victims, fault=fault, hold=hold, after=after)


def all_silent(stage: Stage, hold: float = 10.0, after: float = 8.0) -> None:
    """Packets to and from all hosts are dropped, as when the node itself loses its network."""
    network = stage.network
    fault = all_of(network.silent(apiserver.host) for apiserver in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, hold=hold, after=after)


def rejected(stage: Stage, hold: float = 10.0, after: float = 7.0) -> None:
    """One host's firewall prohibits every packet, with an ICMP answer."""
    stage.suffer(
        stage.victim, fault=stage.network.rejecting(stage.victim.host), hold=hold, after=after
    )


def frozen(stage: Stage, hold: float = 12.0, after: float = 7.0) -> None:
    """One apiserver is stopped (SIGSTOP), while its kernel goes on accepting connections."""
    stage.suffer(stage.victim, fault=frozen_one(stage.victim), hold=hold, after=after)


def unready(stage: Stage, hold: float = 12.0, after: float = 6.0) -> None:
    """/readyz of one apiserver is red, and all else works."""
    stage.suffer(
        stage.victim, fault=faulty(stage.victim, readyz=500), serves=True, hold=hold, after=after
    )


def all_unready(stage: Stage, hold: float = 10.0, after: float = 3.0) -> None:
    """/readyz of all is red, as when a shared etcd hangs."""
    fault = all_of(faulty(apiserver, readyz=500) for apiserver in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, serves=True, hold=hold, after=after)


def lossy(stage: Stage, hold: float = 10.0, after: float = 2.0) -> None:
    """30 % of the packets to one host are lost."""
    fault = stage.network.lossy(stage.victim.host, 30)
    stage.suffer(stage.victim, fault=fault, serves=True, hold=hold, after=after)


def flapping(stage: Stage, times: int = 4, pause: float = 2.0, after: float = 4.0) -> None:
    """One apiserver is killed and started over and over."""
    for _ in range(times):
        with stage.trouble(stage.victim, fault=killed_one(stage.victim)):
            stage.rest(pause)
        stage.rest(pause)
    stage.rest(after)


def rolling_restart(stage: Stage, down: float = 3.0, between: float = 3.0) -> None:
    """One apiserver after the other is stopped gracefully and started again."""
    for apiserver in stage.apiservers:
        with stage.trouble(apiserver, fault=restarted_one(stage, apiserver)):
            stage.rest(down)
        stage.rest(between)


def all_down(stage: Stage, hold: float = 12.0, after: float = 15.0) -> None:
    """All are killed, and all are started again later."""
    fault = all_of(killed_one(apiserver) for apiserver in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, hold=hold, after=after)


def slow(stage: Stage, hold: float = 8.0, after: float = 3.0) -> None:
    """Every answer of all takes 0.8 s, that of /readyz as well."""
    fault = all_of(faulty(apiserver, latency=LATENCY) for apiserver in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, serves=True, hold=hold, after=after)


def one_slow(stage: Stage, hold: float = 10.0, after: float = 3.0) -> None:
    """Every answer of one takes 0.8 s, that of /readyz as well."""
    stage.suffer(
        stage.victim,
        fault=faulty(stage.victim, latency=LATENCY),
        serves=True,
        hold=hold,
        after=after,
    )


def edited(stage: Stage, between: float = 5.0, after: float = 5.0) -> None:
    """A fourth apiserver is added to the list, and later one of the three is removed."""
    grown = [*stage.apiservers, stage.spare]
    stage.course.added = (stage.spare.name, stage.edit(grown))
    stage.rest(between)
    with stage.trouble(stage.victim, fault=nullcontext()):
        left = [apiserver for apiserver in grown if apiserver is not stage.victim]
        stage.course.removed = (stage.victim.name, stage.edit(left))
        stage.rest(after)
