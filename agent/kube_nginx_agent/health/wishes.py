"""What the loop still wants to know, of whom, and how soon: doubt spreads, within a budget."""

from __future__ import annotations

from typing import Mapping

from kube_nginx_agent.health.evidence import Case, Healths, is_outdone, lead, must_fail_anew
from kube_nginx_agent.health.machine import Health
from kube_nginx_agent.health.pace import SHARED_INTERVAL, SLOWED_INTERVAL, Haste, Limits, Wish
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.observation import Layer

_GAP = 0.3
"""Seconds between two looks at somebody because of another, while the budget lasts."""
_BURST, _REFILL = 5, 0.2
"""That budget: looks at once, and more of them a second."""
_LAST_CONNECTS_EACH = 0.1
_ASKS_FOR = 5.0
"""Seconds from the first failure of a backend for which the others are asked because of it."""


class Wishes:
    """Remembers when each backend was asked because of another: at most once in a while."""

    def __init__(self) -> None:
        """Start with nobody asked."""
        self._asked_at: dict[SocketAddress, float] = {}
        self._connected_at: dict[SocketAddress, float] = {}
        self._tokens: dict[SocketAddress, float] = {}
        self._due: float | None = None

    def due(self, now: float) -> float | None:
        """Return when somebody may be asked again who has been asked already."""
        return self._due if self._due is not None and self._due > now else None

    def of(  # noqa: PLR0913 - all that the loop knows
        self,
        healths: Healths,
        pressing: Mapping[SocketAddress, Case],
        check: HealthCheck,
        limits: tuple[Limits, Limits],
        now: float,
        *,
        is_at_stake: bool = False,
    ) -> dict[SocketAddress, Wish]:
        """Return what is wanted of each; ``pressing`` are the cases in which time matters.

        ``is_at_stake``: a backend that fails has sessions, against which its looks may yet count.
        """
        connect, answer = limits
        self._forget(healths)
        self._due = None
        failing = {b for b, health in healths.items() if health.failing_since is not None}
        doubted = {backend for backend in healths if self._needs_witness(backend, healths, now)}
        gap = SHARED_INTERVAL[Layer.READYZ] if len(failing) > 1 else SLOWED_INTERVAL
        quick = _GAP if doubted and len(failing) == 1 else gap
        for backend, case in pressing.items():
            early = answer.early if case.conviction.needs_data else connect.early
            if now >= case.ripe_at - lead(early):
                doubted.add(backend)
                self._look_a_last_time(backend, case, lead(early), now)
        is_settled = not is_at_stake and all(h.is_settled(check, now) for h in healths.values())
        for backend in healths:
            if doubted - {backend} or must_fail_anew(backend, healths):
                self._ask(backend, now, quick, gap)
                is_settled = False
        return {
            backend: Wish(
                connect=connect,
                answer=answer,
                haste=Haste.DOUBT if health.is_in_doubt(check, now) else Haste.NONE,
                is_failing=backend in failing,
                is_shared=len(failing) > 1,
                is_settled=is_settled,
                fresh=health.readyz.needs_fresh,
                asked_at=self._asked_at.get(backend, 0.0),
                connected_at=self._connected_at.get(backend, 0.0),
            )
            for backend, health in healths.items()
        }

    def _needs_witness(self, backend: SocketAddress, healths: Healths, now: float) -> bool:
        """Tell whether it fails, and no other has passed a look that began since."""
        since = healths[backend].failing_since
        is_new = since is not None and now - since < _ASKS_FOR
        return is_new and not is_outdone(backend, healths)

    def _look_a_last_time(
        self, backend: SocketAddress, case: Case, seconds: float, now: float
    ) -> None:
        """Look again in the last ``seconds`` before it is ripe: any answer refutes the case.

        A silent host has to be asked again and again, for what was sent to it is lost. It is also
        asked two questions, one of which is on the kept connection: where only new connections are
        lost, that is what still answers. A frozen process finds what it was sent when it thaws.
        """
        if now >= case.ripe_at:
            return
        if case.conviction.needs_data:
            self._renew(self._asked_at, backend, SLOWED_INTERVAL, now)
            return
        self._renew(self._connected_at, backend, _LAST_CONNECTS_EACH, now)
        self._renew(self._asked_at, backend, seconds / 2, now)

    def _renew(
        self, known: dict[SocketAddress, float], backend: SocketAddress, gap: float, now: float
    ) -> None:
        """Ask for a look, unless the last one was less than ``gap`` s ago."""
        again_at = known.get(backend, 0.0) + gap
        if now >= again_at:
            known[backend] = now
            again_at = now + gap
        self._due = min(again_at, self._due or again_at)

    def _ask(self, backend: SocketAddress, now: float, quick: float, gap: float) -> None:
        asked_at, tokens = self._asked_at.get(backend, 0.0), self._tokens.get(backend, _BURST)
        tokens = min(tokens + _REFILL * (now - max(asked_at, 0.0)), _BURST)
        gap = quick if tokens >= 1 else gap
        if now >= asked_at + gap:
            self._asked_at[backend], self._tokens[backend] = now, max(tokens - 1, 0.0)
            asked_at = now
        again_at = asked_at + gap
        self._due = min(again_at, self._due or again_at)

    def _forget(self, healths: Mapping[SocketAddress, Health]) -> None:
        for known in (self._asked_at, self._connected_at, self._tokens):
            for backend in known.keys() - healths.keys():
                del known[backend]
