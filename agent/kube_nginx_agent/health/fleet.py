"""All backends together: what to say of them. Pure."""

from __future__ import annotations

from enum import Enum

from kube_nginx_agent.health.evidence import Healths
from kube_nginx_agent.health.machine import Health, State
from kube_nginx_agent.observation import Result

_UNREACHED = frozenset({Result.TIMEOUT, Result.UNREACHABLE})


class Outlook(Enum):
    """The whole in one word."""

    SOME = "some take connections"
    NONE = "none passes, so the best of them stay in"


def outlook(healths: Healths) -> Outlook:
    """Tell whether anybody is left; a list without backends is no outage."""
    takers = [health for health in healths.values() if health.takes_connections]
    return Outlook.SOME if takers or not healths else Outlook.NONE


def is_own_network(healths: Healths) -> bool:
    """Tell whether all fail as they would if this node itself had lost its network.

    One that had accepted a look just before looks frozen at first: what tells it from a frozen one
    is that its kernel has not answered since either.
    """
    return len(healths) > 1 and all(_is_out_of_reach(health) for health in healths.values())


def _is_out_of_reach(health: Health) -> bool:
    if health.state is not State.DOWN:
        return False
    since = health.failing_since
    is_mute = since is not None and health.reached_at < since
    return health.cause in _UNREACHED or (health.cause is Result.SILENT and is_mute)


def slowest_connect(healths: Healths) -> float | None:
    """Return the longest connect of late in seconds, None while none is known."""
    return max((health.rtt for health in healths.values() if health.rtt is not None), default=None)


def slowest_answer(healths: Healths) -> float | None:
    """Return the longest whole question to /readyz of late in seconds, None while none is."""
    known = (health.answer_time for health in healths.values() if health.answer_time is not None)
    return max(known, default=None)
