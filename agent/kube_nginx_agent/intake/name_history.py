"""What the answers for one name add up to: who joins at once, who leaves only after many answers.

One answer is an observation, not a decision: servers that hand out subsets, a stale secondary, a
half-synced zone. Time is an argument (docs/decisions/0013-names.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterable

from kube_nginx_agent.model import IPAddress

LEAST_ANSWERS = 20
"""Answers in a row without an address, errors not counted, before it leaves. Long, for to keep it
costs little: the probes leave a dead one within seconds, whatever DNS says."""
LEAST_SECONDS = 600.0
"""How long they must span: answers that follow each other quickly prove no more than one."""
MOST_ADDRESSES = 256
"""Of one name; what DNS says has no bound of its own."""
_SAME_FAILURES = 3
"""Failures in a row before a passing one is told, or words that alternate are changed."""


@dataclass
class _Absence:
    """How often an address was missing in a row, and since when."""

    since: float
    answers: int = 1

    def is_long(self, now: float) -> bool:
        return self.answers >= LEAST_ANSWERS and now - self.since >= LEAST_SECONDS


@dataclass(frozen=True)
class Change:
    """What an answer has changed."""

    joined: frozenset[IPAddress] = frozenset()
    left: frozenset[IPAddress] = frozenset()
    varies: bool = False
    """Whether it shows, for the first time, that the answers vary: one came back that had not
    left yet."""

    def __bool__(self) -> bool:
        """Tell whether the addresses are others than before."""
        return bool(self.joined or self.left)


@dataclass
class NameHistory:
    """The addresses of one name, and those that DNS has taken from it."""

    addresses: frozenset[IPAddress] = frozenset()
    retired: tuple[IPAddress, ...] = ()
    """Who has left, the latest last: their healthy sessions are not DNS's to end."""
    failure: str = ""
    """Why the name can't be resolved; "" while it can, or while a passing failure harms nobody."""
    is_answered: bool = False
    """Whether a try has ended since the agent began to ask."""
    _absences: dict[IPAddress, _Absence] = field(default_factory=dict)
    _varies: bool = False
    _failures: int = 0
    _same_failures: int = 0
    _last_failure: str = ""

    def note(self, found: Iterable[IPAddress], now: float) -> Change:
        """Take an answer that names somebody; ``now`` in seconds of the steady clock."""
        answer = frozenset(found)
        self.is_answered = True
        self.failure, self._failures, self._same_failures = "", 0, 0
        returned = answer & self._absences.keys()
        self._count_absent(answer, now)
        gone = {ip for ip, absence in self._absences.items() if absence.is_long(now)}
        before = self.addresses
        self.addresses = self._keep(answer, before - gone)
        left = before - self.addresses
        self._absences = {ip: a for ip, a in self._absences.items() if ip in self.addresses}
        still = [ip for ip in self.retired if ip not in self.addresses and ip not in left]
        self.retired = (*still, *sorted(left, key=_order))[-MOST_ADDRESSES:]
        varies = bool(returned) and not self._varies
        self._varies = self._varies or varies
        return Change(self.addresses - before, left, varies)

    def note_failure(self, reason: str) -> None:
        """Take a failed try: it says nothing of the addresses, which all stay.

        ``failure`` keeps its words while they only alternate, so that nobody reads a line a try.
        """
        self.is_answered = True
        self._failures += 1
        self._same_failures = self._same_failures + 1 if reason == self._last_failure else 1
        self._last_failure = reason
        begins = not self.failure and (not self.addresses or self._failures >= _SAME_FAILURES)
        if begins or self._same_failures >= _SAME_FAILURES:
            self.failure = reason

    def _count_absent(self, answer: frozenset[IPAddress], now: float) -> None:
        for ip in answer:
            self._absences.pop(ip, None)
        for ip in self.addresses - answer:
            if ip in self._absences:
                self._absences[ip].answers += 1
            else:
                self._absences[ip] = _Absence(now)

    @staticmethod
    def _keep(answer: frozenset[IPAddress], known: frozenset[IPAddress]) -> frozenset[IPAddress]:
        """Bound what is kept: those just named come first, of them those known already."""
        preferred = sorted(
            answer | known, key=lambda ip: (ip not in answer, ip not in known, _order(ip))
        )
        return frozenset(preferred[:MOST_ADDRESSES])


def _order(ip: IPAddress) -> tuple[int, int]:
    return ip.version, int(ip)
