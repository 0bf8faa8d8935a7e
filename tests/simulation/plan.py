"""What happens in one run: the node, and its list of troubles, all made from a seed."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass, replace
from typing import Callable, Tuple

CALM_BEFORE = 15.0
"""Seconds in which all are seen well before anything happens."""

# Seconds that a trouble lasts, the shortest and the longest; 0: it is done in a moment.
_OF_BACKENDS = {
    "silent": (0.1, 60.0),
    "syns": (0.5, 40.0),
    "handshakes": (0.5, 40.0),
    "frozen": (0.1, 60.0),
    "leaving": (0.5, 60.0),
    "killed": (0.5, 60.0),
    "red": (0.5, 60.0),
    "slow": (1.0, 40.0),
    "far": (2.0, 60.0),
    "lossy": (1.0, 40.0),
    "stalled": (0.1, 4.0),
}
_OF_NGINX = {
    "nginx killed": (0.0, 0.0),
    "worker killed": (0.0, 0.0),
    "worker hung": (0.5, 30.0),
    "all workers hung": (0.5, 30.0),
    "nginx stopped": (0.1, 10.0),
    "worker stopped": (0.1, 10.0),
    "nginx told to quit": (0.0, 0.0),
    "nginx stopped by the administrator": (1.0, 60.0),
    "nginx reads slowly": (1.0, 30.0),
    "nginx -t hangs": (1.0, 30.0),
    "nginx does not start": (0.5, 40.0),
}
_OF_THE_NODE = {
    "agent killed": (0.05, 20.0),
    "agent stopped": (0.2, 60.0),
    "all stopped": (0.5, 60.0),
    "clock jumps": (0.0, 0.0),
    "disk full": (1.0, 60.0),
    "disk read-only": (1.0, 60.0),
    "run folder full": (1.0, 60.0),
    "sessions unseen": (1.0, 40.0),
    "cuts fail": (1.0, 40.0),
    "flow lost": (60.0, 120.0),
    "port held": (1.0, 40.0),
    "inotify lost": (1.0, 60.0),
}
_OF_FILES = {
    "live config edited": (0.0, 0.0),
    "live config gone": (0.0, 0.0),
    "last good gone": (0.0, 0.0),
    "list edited": (0.0, 0.0),
    "list invalid": (0.5, 30.0),
    "list gone": (0.5, 30.0),
    "list closed": (0.5, 30.0),
}
_GROUPS = ((_OF_BACKENDS, 6), (_OF_NGINX, 3), (_OF_THE_NODE, 3), (_OF_FILES, 2))


@dataclass(frozen=True)
class Trouble:
    """One fault: ``at`` and ``lasts`` in seconds, ``whom`` are numbers of backends."""

    kind: str
    at: float
    lasts: float = 0.0
    whom: Tuple[int, ...] = ()
    by: float = 0.0

    @property
    def ends(self) -> float:
        return self.at + self.lasts

    def __str__(self) -> str:
        whom = f" of {', '.join(map(str, self.whom))}" if self.whom else ""
        lasts = f" for {self.lasts:.2f} s" if self.lasts else ""
        by = f" by {self.by:g}" if self.by else ""
        return f"{self.at:8.2f}  {self.kind}{whom}{lasts}{by}"


@dataclass(frozen=True)
class Plan:
    """One node's hour, or a part of it. The seed decides all that no trouble names as well."""

    seed: int
    backends: int = 3
    tick: float = 1.0
    """Seconds between two lines of each watch; infinite: the sessions are idle."""
    asks: float = 2.0
    """Seconds between two new connections of a client, on average."""
    troubles: Tuple[Trouble, ...] = ()

    @property
    def ends(self) -> float:
        """When the last trouble is over."""
        return max((trouble.ends for trouble in self.troubles), default=CALM_BEFORE)

    def only(self, troubles: Tuple[Trouble, ...]) -> Plan:
        return replace(self, troubles=troubles)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        how = (
            f"seed {self.seed}: {self.backends} backends, tick {self.tick:g} s, asks {self.asks} s"
        )
        return "\n".join([how, *map(str, self.troubles)])


def from_json(text: str) -> Plan:
    fields = json.loads(text)
    troubles = (Trouble(**{**t, "whom": tuple(t.get("whom", ()))}) for t in fields.pop("troubles"))
    return Plan(**fields, troubles=tuple(troubles))


def make_plan(seed: int, seconds: float = 300.0) -> Plan:
    """Return what the seed stands for."""
    dice = random.Random(seed)
    backends = dice.choice((1, 2, 3, 3, 3, 3, 5))
    tick = dice.choice((math.inf, 1.0, 1.0, 5.0))
    apart = dice.choice((5.0, 15.0, 15.0, 40.0))
    troubles: list[Trouble] = []
    at = CALM_BEFORE + dice.expovariate(1 / apart)
    while at < seconds:
        troubles += _trouble(dice, at, backends)
        at += dice.expovariate(1 / apart)
    return Plan(seed, backends, tick, dice.choice((1.0, 2.0, 5.0)), tuple(troubles))


def _trouble(dice: random.Random, at: float, backends: int) -> list[Trouble]:
    """Return a trouble, or two of the same moment."""
    ((group, _),) = dice.choices(_GROUPS, [weight for _, weight in _GROUPS])
    kind = dice.choice(list(group))
    shortest, longest = group[kind]
    # As many short ones as long ones: what is half over is worth as much as what stays.
    lasts = shortest * (longest / shortest) ** dice.random() if shortest else 0.0
    whom, by = _whom(dice, group is _OF_BACKENDS, backends), _by(kind, dice)
    found = [Trouble(kind, round(at, 3), round(lasts, 3), whom, by)]
    return found + (_trouble(dice, at + dice.random() * 2, backends) if dice.random() < 0.2 else [])


def _whom(dice: random.Random, is_of_backends: bool, backends: int) -> Tuple[int, ...]:
    """Mostly one, now and then some, or all, as a switch or the node's own network would."""
    if not is_of_backends:
        return ()
    count = dice.choice((1, 1, 1, 1, 2, backends, backends))
    return tuple(sorted(dice.sample(range(backends), min(count, backends))))


def _by(kind: str, dice: random.Random) -> float:
    choose = _BY.get(kind)
    return choose(dice) if choose else 0.0


_BY: dict[str, Callable[[random.Random], float]] = {
    "slow": lambda dice: dice.choice((0.3, 0.8, 1.5, 3.0)),
    "far": lambda dice: dice.choice((0.05, 0.3, 1.0)),
    "lossy": lambda dice: dice.choice((0.05, 0.3)),
    "clock jumps": lambda dice: dice.choice((-31e6, -3600.0, -5.0, 5.0, 3600.0, 31e6)),
    "list edited": lambda dice: dice.randrange(1 << 16),
    "nginx reads slowly": lambda dice: dice.choice((0.5, 3.0, 12.0)),
    "live config edited": lambda dice: dice.choice((0.0, 1.0)),
}
