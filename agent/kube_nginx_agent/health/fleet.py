"""All backends together: who takes connections, and what to say of a change. Pure."""

from __future__ import annotations

from enum import Enum
from typing import FrozenSet, Mapping

from kube_nginx_agent.health.machine import Health, State
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.observation import Result

Healths = Mapping[SocketAddress, Health]


class Outlook(Enum):
    """The whole in one word."""

    SOME = "some take connections"
    NONE = "none passes, so all stay in"


def outlook(healths: Healths) -> Outlook:
    """Tell whether anybody is left; a list without backends is no outage."""
    takers = [health for health in healths.values() if health.takes_connections]
    return Outlook.SOME if takers or not healths else Outlook.NONE


def out_of_use(healths: Healths) -> FrozenSet[SocketAddress]:
    """Return who should get no new connections; nobody, where that would be everybody."""
    if outlook(healths) is Outlook.NONE:
        return frozenset()
    return frozenset(backend for backend, health in healths.items() if not health.takes_connections)


def stuck(healths: Healths) -> FrozenSet[SocketAddress]:
    """Return the backends whose sessions are better ended, because another one can take them."""
    if outlook(healths) is Outlook.NONE:
        return frozenset()
    return frozenset(backend for backend, health in healths.items() if health.is_stuck)


def is_own_network(healths: Healths) -> bool:
    """Tell whether all fail as they would if this node itself had lost its network."""
    silent = {Result.TIMEOUT, Result.UNREACHABLE}
    return len(healths) > 1 and all(
        health.state is State.DOWN and health.cause in silent for health in healths.values()
    )


def slowest(healths: Healths) -> float | None:
    """Return the longest of the smoothed round-trip times in seconds, None while none is known."""
    return max((health.rtt for health in healths.values() if health.rtt is not None), default=None)
