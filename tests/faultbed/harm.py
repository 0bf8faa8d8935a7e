"""What is shared, soon over, or no apiserver's fault: nothing that is well may be harmed."""

from __future__ import annotations

import time

from faultbed.relay import Way
from faultbed.stage import Stage
from faultbed.troubles import FOREVER, all_of, crowded, faulty, frozen_one, without_files

SOON = 0.5  # seconds between two lines of a watch that shows that it lives
QUIET = 1.5  # seconds after which what was said last has been acknowledged
CROWD = 400  # connections that one user wants, where about a hundred fit


def hung(stage: Stage, hold: float = 10.0, after: float = 5.0) -> None:
    """Every answer of all takes 2 s, and /readyz then says 500, as when a shared etcd hangs."""
    fault = all_of(faulty(one, latency=2.0, readyz=500) for one in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, serves=True, hold=hold, after=after)


def hung_ticking(stage: Stage, hold: float = 10.0, after: float = 5.0) -> None:
    """The same, while the watches tick each 2 s."""
    fault = all_of(faulty(one, latency=2.0, readyz=500, tick=2.0) for one in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, serves=True, hold=hold, after=after)


def slow_checks(stage: Stage, hold: float = 10.0, after: float = 3.0) -> None:
    """/readyz of all takes 1.5 s, and all else works."""
    fault = all_of(faulty(one, latency=1.5, path="/readyz") for one in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, serves=True, hold=hold, after=after)


def network_away(stage: Stage, hold: float = 12.0, after: float = 8.0) -> None:
    """The node's own network is away for a while; TCP outlives it."""
    fault = all_of(stage.network.silent(apiserver.host) for apiserver in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, serves=True, hold=hold, after=after)


def network_blink(stage: Stage) -> None:
    """The node's own network is away for 3 s."""
    network_away(stage, hold=3.0, after=6.0)


def network_away_idle(stage: Stage, hold: float = 12.0, after: float = 5.0) -> None:
    """The node's own network is away for a while, and nobody says anything meanwhile."""
    for apiserver in stage.apiservers:
        apiserver.stand_in.fault(tick=FOREVER)
    stage.rest(QUIET)
    fault = all_of(stage.network.silent(apiserver.host) for apiserver in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        stage.rest(hold)
    for apiserver in stage.apiservers:
        apiserver.stand_in.fault(tick=SOON)
    stage.rest(after)


def network_blink_idle(stage: Stage) -> None:
    """The node's own network is away for 3 s, and nobody says anything."""
    network_away_idle(stage, hold=3.0, after=4.0)


def syns_lost(stage: Stage, hold: float = 10.0, after: float = 4.0) -> None:
    """New connections to one host are lost, and its open ones are well."""
    stage.suffer(
        stage.victim,
        fault=stage.network.losing_syns(stage.victim.host),
        serves=True,
        hold=hold,
        after=after,
    )


def all_syns_lost(stage: Stage, hold: float = 8.0, after: float = 6.0) -> None:
    """New connections to all hosts are lost, and the open ones are well."""
    fault = all_of(stage.network.losing_syns(apiserver.host) for apiserver in stage.apiservers)
    stage.suffer(*stage.apiservers, fault=fault, serves=True, hold=hold, after=after)


def paused(stage: Stage, hold: float = 2.0, after: float = 6.0) -> None:
    """One apiserver stands still for 2 s, as its virtual machine is moved."""
    stage.suffer(stage.victim, fault=frozen_one(stage.victim), serves=True, hold=hold, after=after)


def blinked(stage: Stage, hold: float = 2.0, after: float = 6.0) -> None:
    """Packets to and from one host are dropped for 2 s."""
    stage.suffer(
        stage.victim,
        fault=stage.network.silent(stage.victim.host),
        serves=True,
        hold=hold,
        after=after,
    )


def half_dead(stage: Stage, hold: float = 10.0, after: float = 3.0) -> None:
    """One apiserver answers nobody new, /readyz included, while its open watches tick on."""
    fault = faulty(stage.victim, latency=FOREVER)
    stage.suffer(stage.victim, fault=fault, serves=True, hold=hold, after=after)


def mtu_hole(stage: Stage, hold: float = 10.0, after: float = 3.0) -> None:
    """Large packets from one host are lost: no handshake with it ends, its watches tick on."""
    stage.suffer(
        stage.victim,
        fault=stage.network.losing_large(stage.victim.host),
        serves=True,
        hold=hold,
        after=after,
    )


def far(stage: Stage, hold: float = 14.0, after: float = 3.0, every: float = 8.0) -> None:
    """The way is 300 to 500 ms long, there and back, and at times all stands still for 3 s."""
    way = Way(round_trip=0.3, jitter=0.2, spike=3.0, every=every)
    stage.suffer(
        *stage.apiservers, fault=stage.network.far(way), serves=True, hold=hold, after=after
    )


def far_for_long(stage: Stage) -> None:
    """The same for 10 minutes, with a standstill each 30 s."""
    far(stage, hold=600.0, after=5.0, every=30.0)


def lossy_for_long(stage: Stage) -> None:
    """30 % of the packets to one host are lost for 10 minutes."""
    fault = stage.network.lossy(stage.victim.host, 30)
    with stage.trouble(stage.victim, fault=fault, serves=True):
        stage.rest(600.0)
    stage.rest(2.0)


def dns_subsets(stage: Stage, hold: float = 62.0) -> None:
    """The list is one name, and each answer of DNS has two of the three apiservers, in turn."""
    with stage.trouble():
        stage.rest(hold)


def table_full(stage: Stage, hold: float = 9.0, after: float = 4.0) -> None:
    """One local user takes every connection that is free, until all of them are used up."""
    stage.suffer(fault=crowded(stage, CROWD), hold=hold, after=after)


def without_files_left(stage: Stage, hold: float = 10.0, after: float = 3.0) -> None:
    """One apiserver is at its limit of open files: it accepts nothing new, its kernel does."""
    stage.suffer(
        stage.victim, fault=without_files(stage.victim), serves=True, hold=hold, after=after
    )


def dead_flows(stage: Stage, hold: float = 14.0, after: float = 1.0) -> None:
    """The open connections to one host are lost, as when a firewall has forgotten them."""
    fault = stage.network.losing_flows(stage.victim.host)
    stage.suffer(stage.victim, fault=fault, blameless=True, hold=hold, after=after)


def address_gone(stage: Stage, hold: float = 8.0, after: float = 1.0) -> None:
    """The node's address leaves it, and with it all connections from it; another one stays."""
    stage.suffer(*stage.apiservers, fault=stage.network.renumbered(), hold=hold, after=after)


# The agent is killed, and started again, in the middle of it; at 1 s nothing has been concluded.


def silent_restarted(stage: Stage, hold: float = 8.0, after: float = 5.0) -> None:
    """Packets to and from one host are dropped, and the agent is restarted a second later."""
    with stage.trouble(stage.victim, fault=stage.network.silent(stage.victim.host)):
        _restart_in_the_middle(stage, hold)
    stage.rest(after)


def frozen_restarted(stage: Stage, hold: float = 8.0, after: float = 5.0) -> None:
    """One apiserver is stopped (SIGSTOP), and the agent is restarted a second later."""
    with stage.trouble(stage.victim, fault=frozen_one(stage.victim)):
        _restart_in_the_middle(stage, hold)
    stage.rest(after)


def hung_restarted(stage: Stage, hold: float = 10.0, after: float = 4.0) -> None:
    """Every answer of all takes 2 s, /readyz then says 500, and the agent is restarted."""
    fault = all_of(faulty(one, latency=2.0, readyz=500) for one in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        _restart_in_the_middle(stage, hold)
    stage.rest(after)


def network_away_restarted(stage: Stage, hold: float = 10.0, after: float = 6.0) -> None:
    """The node's own network is away, and the agent is restarted meanwhile."""
    fault = all_of(stage.network.silent(apiserver.host) for apiserver in stage.apiservers)
    with stage.trouble(*stage.apiservers, fault=fault, serves=True):
        _restart_in_the_middle(stage, hold)
    stage.rest(after)


def _restart_in_the_middle(stage: Stage, hold: float) -> None:
    began = time.monotonic()
    stage.rest(1.0)
    stage.peer.restart()
    stage.rest(began + hold - time.monotonic())
