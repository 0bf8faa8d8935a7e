"""The results of a bench as JSON and as one Markdown table, with the project's own targets."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from faultbed.figures import Figures
from faultbed.peers import Peer
from faultbed.scenarios import Fault
from faultbed.stage import RATE, WATCHES

HEADINGS = {
    "failed": "requests failed",
    "bad": "requests failed or slower than 0.5 s",
    "steady": "steady again after",
    "stall": "longest stall of a watch",
    "healthy_cut": "healthy sessions cut",
    "working_cut": "its own sessions cut",
    "unready": "requests to it after 5 s",
    "late": "requests failed later than 1 s after the return",
    "back": "steady after the return",
    "watches_back": "all watches run after the return",
    "share": "its share of requests after the return",
    "added": "the added one answers after",
    "removed": "the removed one answers until",
}
_SECONDS = {"steady", "stall", "back", "watches_back", "added", "removed"}

TARGETS: dict[tuple[str, str], float] = {
    ("killed", "failed"): 0,
    ("silent", "bad"): 1,
    ("silent", "steady"): 1.5,
    ("silent", "stall"): 2.5,
    ("frozen", "steady"): 2.0,
    ("frozen", "stall"): 3.5,
    ("unready", "unready"): 0,
    ("rolling-restart", "bad"): 0,
    ("all-down", "late"): 0,
}
"""The most that this agent may have; a missing one stands for no promise."""
_HARMLESS = {
    *("hung", "slow", "slow-checks", "network-blink", "network-away", "syns-lost"),
    *("all-syns-lost", "paused", "blinked", "half-dead", "mtu-hole", "unready"),
}
"""The faults in which a session that would go on is not to be ended."""


@dataclass(frozen=True)
class Run:
    """One fault, played to one peer."""

    peer: str
    fault: str
    figures: Figures


def target(fault: str, figure: str) -> Optional[float]:
    """Return the most that this agent may have; healthy sessions are never to be cut."""
    is_harm = figure == "healthy_cut" or (figure == "working_cut" and fault in _HARMLESS)
    return 0 if is_harm else TARGETS.get((fault, figure))


def missed(runs: Sequence[Run]) -> list[str]:
    """Return the targets that the agent's runs miss, in words."""
    return [
        f"{run.fault}: {HEADINGS[name]}: {_cell(name, value)}, target {_cell(name, limit)}"
        for run in runs
        if run.peer == "agent"
        for name, value in asdict(run.figures).items()
        if (limit := target(run.fault, name)) is not None and (value is None or value > limit)
    ]


def table(runs: Sequence[Run], faults: Sequence[Fault], peers: Sequence[type[Peer]]) -> str:
    """Return the Markdown table: a row for each figure, a column for each peer."""
    names = [peer.name for peer in peers]
    rows = [["fault", "figure", *names, "target"], ["---"] * (len(names) + 3)]
    figures = {(run.peer, run.fault): asdict(run.figures) for run in runs}
    for fault in faults:
        title = fault.title
        for figure in fault.figures:
            got = [figures.get((name, fault.name)) for name in names]
            cells = ["" if one is None else _cell(figure, one[figure]) for one in got]
            limit = target(fault.name, figure)
            last = "" if limit is None else _cell(figure, limit)
            rows.append([title, HEADINGS[figure], *cells, last])
            title = ""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def document(
    runs: Sequence[Run], peers: Sequence[type[Peer]], nginx: Path, skipped: Sequence[str]
) -> dict[str, object]:
    """Return everything, ready for JSON."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "peers": {
            peer.name: {"about": peer.about, "version": peer.version(nginx)} for peer in peers
        },
        "skipped": list(skipped),
        "load": {"connections_per_second": RATE, "watches": WATCHES, "apiservers": 3},
        "runs": [
            {"peer": run.peer, "fault": run.fault, "figures": asdict(run.figures)} for run in runs
        ],
        "missed": missed(runs),
    }


def machine() -> dict[str, object]:
    """Return what a reader needs to judge the figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _cell(figure: str, value: Optional[float]) -> str:
    if value is None:
        return "not at all"
    if figure in _SECONDS:
        return f"{value:.1f} s"
    return f"{value:g} %" if figure == "share" else f"{value:g}"
