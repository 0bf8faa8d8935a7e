"""What a load saw, and the arithmetic on it.

Times are seconds on the machine's monotonic clock (`time.monotonic()`), which all processes share:
a bench notes it at the fault and asks for what came after.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import IO, NamedTuple, Optional

SLOW = 0.5  # seconds; a client notices


class Request(NamedTuple):
    """One new TLS connection with one GET on it."""

    at: float  # when the connection was begun
    seconds: float  # until the whole answer, or the failure
    reason: str  # why it failed, "" if it did not
    server: str  # who answered, "" if nobody

    @property
    def outcome(self) -> str:
        if self.reason:
            return "failed"
        return "slow" if self.seconds > SLOW else "ok"


class Line(NamedTuple):
    """One line that arrived on an open watch."""

    watch: int
    at: float
    server: str


class Cut(NamedTuple):
    """The end of an open watch that the client did not want."""

    watch: int
    at: float
    server: str
    reason: str  # `silent`: the client itself gave up on it


class Miss(NamedTuple):
    """A watch that could not be opened; the client tries again."""

    watch: int
    at: float
    reason: str


@dataclass
class Result:
    """All that one load recorded, in order of its end."""

    started: float = math.nan
    ended: float = math.nan  # nan while it runs
    cpu: float = math.nan  # seconds that the generator used
    late: float = 0.0  # seconds, the worst lateness of the generator itself against its schedule
    watches: int = 0
    requests: list[Request] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)

    @classmethod
    def read(cls, records: Iterable[str]) -> Result:
        """Read the generator's JSON lines; a last line still being written is left out."""
        result = cls()
        for record in records:
            if not record.endswith("\n"):
                break
            kind, *values = json.loads(record)
            result._add(kind, values)
        return result

    def _add(self, kind: str, values: list[object]) -> None:
        if kind == "request":
            self.requests.append(Request(*values))  # type: ignore[arg-type]
        elif kind == "line":
            self.lines.append(Line(*values))  # type: ignore[arg-type]
        elif kind == "cut":
            self.cuts.append(Cut(*values))  # type: ignore[arg-type]
        elif kind == "miss":
            self.misses.append(Miss(*values))  # type: ignore[arg-type]
        elif kind == "start":
            self.started, self.watches = values  # type: ignore[assignment]
        else:
            self.ended, self.cpu, self.late = values  # type: ignore[assignment]

    def count(self, outcome: str, since: float = -math.inf, until: float = math.inf) -> int:
        """Count the requests begun in [since, until) that ended `ok`, `slow` or `failed`."""
        return sum(r.outcome == outcome and since <= r.at < until for r in self.requests)

    def reasons(self) -> dict[str, int]:
        return dict(Counter(r.reason for r in self.requests if r.reason))

    def servers(self, since: float = -math.inf, until: float = math.inf) -> dict[str, int]:
        """Count the answers by the name of who gave them."""
        return dict(Counter(r.server for r in self.requests if r.server and since <= r.at < until))

    def latency(self, percent: float) -> float:
        """Return the seconds within which so many percent of the answers came (nearest rank)."""
        times = sorted(r.seconds for r in self.requests if not r.reason)
        return times[max(0, math.ceil(len(times) * percent / 100) - 1)] if times else math.nan

    def steady_after(
        self, fault: float, until: float = math.inf, *, quiet: float = 1.0
    ) -> Optional[float]:
        """Return the seconds from the fault to the last request that failed or was slow.

        0 if none did; None if the last `quiet` seconds of the time looked at still had one.
        """
        begun = [r.at for r in self.requests if fault <= r.at < until]
        bad = [r.at for r in self.requests if fault <= r.at < until and r.outcome != "ok"]
        if not bad:
            return 0.0 if begun else None
        return max(bad) - fault if max(begun) - max(bad) >= quiet else None

    def longest_stall(self, since: float = -math.inf, until: float = math.inf) -> float:
        """Return the longest time that any watch was without a line, reconnects included.

        The time from the last line to the end counts as well: a watch may be stuck for good.
        """
        gaps = (self._longest_gap(watch, since, until) for watch in range(self.watches))
        return max(gaps, default=0.0)

    def _longest_gap(self, watch: int, since: float, until: float) -> float:
        times = [line.at for line in self.lines if line.watch == watch]
        end = self.ended if not math.isnan(self.ended) else max(times, default=self.started)
        marks = [self.started, *times, end]
        pairs = zip(marks, marks[1:])
        return max((b - a for a, b in pairs if b >= since and a <= until), default=0.0)

    def cuts_of_others(self, faulty: Collection[str], since: float = -math.inf) -> list[Cut]:
        """Return the cuts of sessions to servers that were well: there should be none."""
        return [cut for cut in self.cuts if cut.server not in faulty and cut.at >= since]

    def summary(self) -> dict[str, object]:
        """Return the figures, ready for JSON; times in seconds."""
        percentiles = {f"p{p}": _rounded(self.latency(p)) for p in (50, 90, 99, 100)}
        return {
            "seconds": _rounded(self.ended - self.started),
            "requests": len(self.requests),
            **{outcome: self.count(outcome) for outcome in ("ok", "slow", "failed")},
            "reasons": self.reasons(),
            "servers": self.servers(),
            "latency": percentiles,
            "watches": self.watches,
            "lines": len(self.lines),
            "longest_stall": _rounded(self.longest_stall()),
            "cuts": [cut._asdict() for cut in self.cuts],
            "misses": len(self.misses),
            "generator": {"cpu": _rounded(self.cpu), "late": _rounded(self.late)},
        }

    def write(self, records: IO[str]) -> None:
        """Write the summary and every record as one JSON document."""
        trace = {
            "started": self.started,
            "ended": self.ended,
            "requests": [r._asdict() for r in self.requests],
            "lines": [line._asdict() for line in self.lines],
            "misses": [miss._asdict() for miss in self.misses],
        }
        json.dump({**self.summary(), "trace": trace}, records)
        records.write("\n")


def _rounded(seconds: float) -> Optional[float]:
    return None if math.isnan(seconds) else round(seconds, 4)
