"""The apiservers: what a connect, a question or a session meets at any time. Arithmetic only."""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import Iterable, Sequence, Tuple

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.observation import Layer, Result
from simulation.plan import Plan
from support.virtual import Fault, World

Span = Tuple[float, float]

_MEANS = {"killed": "refused", "leaving": "refused"}
_SILENT = ("silent", "stalled")
"""What keeps every packet from its way."""
_DEAD_TO_CLIENTS = ("silent", "frozen", "syns", "handshakes", "refused", "red")
"""What keeps a backend from serving new clients, so that it is to be left."""


def address_of(number: int) -> SocketAddress:
    return parse_address(f"10.0.0.{number + 1}:6443")


class Backends(World):
    """All backends of a plan, with what befalls each."""

    def __init__(self, plan: Plan, begins: float, dice: random.Random) -> None:
        self.all = [address_of(number) for number in range(plan.backends)]
        faults: dict[SocketAddress, list[Fault]] = {backend: [] for backend in self.all}
        for trouble in plan.troubles:
            for number in trouble.whom:
                kind = _MEANS.get(trouble.kind, trouble.kind)
                at, ends = begins + trouble.at, begins + trouble.ends
                faults[address_of(number)].append(Fault(kind, at, ends, trouble.by))
        super().__init__(faults, plan.tick, dice=dice)
        self.spans = lru_cache(maxsize=None)(self._spans)

    def _spans(self, backend: SocketAddress, kinds: Tuple[str, ...]) -> Sequence[Span]:
        found = ((f.begins, f.ends) for f in self.faults[backend] if not kinds or f.kind in kinds)
        return merge(found)

    def look(
        self, backend: SocketAddress, layer: Layer, at: float, *, fresh: bool
    ) -> tuple[Result, float, float | None]:
        """Make a new connection where the kept one has ended with the process that it was to."""
        ended = [end for _, end in self.spans(backend, ("refused",)) if end <= at]
        waits_since = covering(self.spans(backend, ("handshakes", "syns")), at)
        is_lost = waits_since is not None and any(end >= waits_since for end in ended)
        return super().look(backend, layer, at, fresh=fresh or is_lost)

    def is_good(self, backend: SocketAddress, since: float, until: float) -> bool:
        """Tell whether nothing at all was wrong with it in all of this time."""
        return not any(begin < until and end > since for begin, end in self.spans(backend, ()))

    def may_answer(self, backend: SocketAddress, since: float, until: float) -> bool:
        """Tell whether nothing keeps it from answering a new client, soon or late."""
        spans = self.spans(backend, _DEAD_TO_CLIENTS)
        return not any(begin < until and end > since for begin, end in spans)

    def is_bad(self, backend: SocketAddress, since: float, until: float) -> bool:
        """Tell whether one and the same thing kept it from serving new clients all this time."""
        return any(
            begin <= since and end >= until
            for kind in _DEAD_TO_CLIENTS
            for begin, end in self.spans(backend, (kind,))
        )

    def stuck_since(self, backend: SocketAddress, at: float, *, needs_data: bool) -> float | None:
        """Return since when nothing comes from it (or no data, which only its process sends)."""
        kinds = (*_SILENT, "frozen") if needs_data else _SILENT
        return covering(self.spans(backend, kinds), at)

    def mute(self, backend: SocketAddress) -> Sequence[Span]:
        """Return when no data comes from it on the sessions that it has."""
        return self.spans(backend, (*_SILENT, "frozen"))

    def deaf(self, backend: SocketAddress) -> Sequence[Span]:
        """Return when its kernel acknowledges nothing."""
        return self.spans(backend, _SILENT)

    def connect(self, backend: SocketAddress, at: float) -> tuple[Result, float]:
        """Return how a connect that begins now ends, and when; never: infinite."""
        result, ends, _ = self.look(backend, Layer.TCP, at, fresh=True)
        return result, ends

    def answers_at(self, backend: SocketAddress, at: float) -> float:
        """Return when a client on a new connection has its first answer, red or not."""
        _, ends, _ = self.look(backend, Layer.READYZ, at, fresh=True)
        return ends


def merge(spans: Iterable[Span]) -> list[Span]:
    """Return the spans of time in order, those that touch as one."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def covering(spans: Sequence[Span], at: float) -> float | None:
    """Return when the span began that covers a moment, None if none does."""
    return next((begin for begin, end in spans if begin <= at < end), None)


def last_passed(spans: Sequence[Span], sent: Iterable[float], at: float) -> float | None:
    """Return when the newest of what was sent (newest first) had arrived by ``at``.

    What is sent within one of the ``spans`` arrives at its end.
    """
    for moment in sent:
        arrived = next((end for begin, end in spans if begin <= moment < end), moment)
        if arrived <= at:
            return arrived
    return None


def beats(first: float, apart: float, until: float) -> Iterable[float]:
    """Yield the moments of a steady beat, the newest first."""
    if apart == math.inf:
        return
    for number in range(int((until - first) / apart), -1, -1):
        yield first + number * apart
