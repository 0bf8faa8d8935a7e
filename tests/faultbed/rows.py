"""The rows of the bench: scenarios, their terms, what is told of them, what is promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Callable, Optional

from faultbed import harm, scenarios
from faultbed.stage import USUAL, Stage, Terms

_HARM = ("healthy_cut", "working_cut", "left_out")
"""What nobody may do to what is well, whatever happens: the target is 0 wherever it is told."""
_DEAD = ("failed", "bad", "steady", "stall", "healthy_cut", "left_out", "share")
_ALIVE = ("failed", "bad", "stall", *_HARM)
_SHARED = ("late", *_HARM)
_NEW_ONES_LOST = ("failed", "unready", *_HARM)


@dataclass(frozen=True)
class Fault:
    """A scenario, and the figures that matter in it (fields of `figures.Figures`)."""

    play: Callable[[Stage], None]
    figures: tuple[str, ...]
    targets: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """The most that this agent may have; a missing one stands for no promise."""
    terms: Terms = USUAL
    needs: str = ""
    """What a peer must be able to do (`peers.Peer.can`), or it has no such row."""
    is_extra: bool = False
    """Whether the bench plays it only when it is asked for by name."""

    @property
    def name(self) -> str:
        return self.play.__name__.replace("_", "-")

    @property
    def title(self) -> str:
        return (self.play.__doc__ or "").rstrip(".")

    def target(self, figure: str) -> Optional[float]:
        return 0 if figure in _HARM else self.targets.get(figure)


_IDLE = Terms(rate=0.0)
_FAR = Terms(timeout=10.0)
_EXACT = Terms(tick=0.1)
"""A stall lasts from the last line of a watch: with a line a second it is up to one too long."""

FAULTS: tuple[Fault, ...] = (
    Fault(scenarios.killed, _DEAD, {"failed": 0}, _EXACT),
    Fault(scenarios.silent, _DEAD, {"bad": 1, "steady": 1.5, "stall": 2.5}, _EXACT),
    Fault(scenarios.frozen, _DEAD, {"steady": 2.0, "stall": 3.5}, _EXACT),
    Fault(scenarios.unready, ("failed", "bad", "unready", *_HARM, "share"), {"unready": 0}),
    Fault(scenarios.lossy, _ALIVE),
    Fault(scenarios.flapping, ("failed", "bad", "stall", "healthy_cut")),
    Fault(scenarios.rolling_restart, ("failed", "bad", "stall", "healthy_cut"), {"bad": 0}),
    Fault(scenarios.all_down, ("late", "back", "watches_back"), {"late": 0}),
    Fault(scenarios.slow, ("failed", *_HARM)),
    Fault(scenarios.edited, ("failed", "bad", "added", "removed", "healthy_cut")),
    Fault(harm.hung, _SHARED),
    Fault(harm.hung_ticking, _SHARED),
    Fault(harm.slow_checks, ("failed", *_SHARED)),
    Fault(harm.network_blink, _SHARED),
    Fault(harm.network_away, _SHARED),
    Fault(harm.network_blink_idle, ("watches_back", *_HARM), {"watches_back": 1}, _IDLE),
    Fault(harm.network_away_idle, ("watches_back", *_HARM), {"watches_back": 1}, _IDLE),
    Fault(harm.syns_lost, _ALIVE),
    Fault(harm.all_syns_lost, _SHARED),
    Fault(harm.paused, _ALIVE),
    Fault(harm.blinked, _ALIVE),
    Fault(harm.far, ("failed", "stall", *_HARM), terms=_FAR),
    Fault(harm.half_dead, _NEW_ONES_LOST, {"unready": 0}),
    Fault(harm.mtu_hole, _NEW_ONES_LOST, {"unready": 0, "failed": 3}),
    Fault(harm.without_files_left, _NEW_ONES_LOST, {"unready": 0, "failed": 3}),
    Fault(
        harm.dead_flows,
        ("failed", "stall", *_HARM),
        {"stall": 12.0},
        Terms(tick=0.5, ping=0.5),
    ),
    Fault(harm.address_gone, ("failed", "stall", "left_out"), {"stall": 2.0}, _EXACT),
    Fault(
        harm.table_full,
        ("failed", *_SHARED),
        {"late": 0},
        Terms(connections=100),
        needs="limit",
    ),
    Fault(
        harm.dns_subsets,
        ("failed", *_HARM),
        {"failed": 0},
        Terms(answers=((0, 1), (1, 2), (0, 2))),
        needs="names",
    ),
    Fault(harm.silent_restarted, _DEAD, {"bad": 1, "steady": 1.5, "stall": 5.5}, _EXACT, "restart"),
    Fault(harm.frozen_restarted, _DEAD, {"steady": 5.0, "stall": 6.5}, _EXACT, "restart"),
    Fault(harm.hung_restarted, _SHARED, needs="restart"),
    Fault(harm.network_away_restarted, _SHARED, needs="restart"),
    Fault(scenarios.one_slow, ("failed", "bad", *_HARM), is_extra=True),
    Fault(scenarios.unplugged, _DEAD, is_extra=True),
    Fault(scenarios.rejected, _DEAD, is_extra=True),
    Fault(scenarios.two_silent, _DEAD, is_extra=True),
    Fault(scenarios.all_silent, ("late", "back", "watches_back"), is_extra=True),
    Fault(scenarios.all_unready, ("failed", "bad", *_HARM), is_extra=True),
    Fault(harm.far_for_long, ("failed", "stall", *_HARM), terms=_FAR, is_extra=True),
    Fault(harm.lossy_for_long, _ALIVE, is_extra=True),
)
