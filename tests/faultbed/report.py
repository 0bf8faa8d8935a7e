"""The results of a bench as JSON and as one Markdown table, with the project's own targets."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from faultbed.figures import Figures
from faultbed.peers import Peer
from faultbed.rows import Fault
from faultbed.stage import RATE, WATCHES

HEADINGS = {
    "failed": "requests failed",
    "bad": "requests failed or slower than 0.5 s",
    "steady": "steady again after",
    "stall": "longest stall of a watch",
    "healthy_cut": "healthy sessions cut",
    "working_cut": "its own sessions cut",
    "left_out": "healthy apiservers left out",
    "unready": "requests to it after 5 s",
    "late": "requests failed later than 1 s after the return",
    "back": "steady after the return",
    "watches_back": "all watches run after the return",
    "share": "its share of requests after the return",
    "added": "the added one answers after",
    "removed": "the removed one answers until",
}
_SECONDS = {"steady", "stall", "back", "watches_back", "added", "removed"}


@dataclass(frozen=True)
class Run:
    """One fault, played to one peer."""

    peer: str
    fault: str
    figures: Figures


def can_play(peer: type[Peer], fault: Fault) -> bool:
    """Tell whether the peer can do what the fault needs."""
    return not fault.needs or fault.needs in peer.can


def missed(runs: Sequence[Run], faults: Sequence[Fault]) -> list[str]:
    """Return the targets that the agent's runs miss, in words; runs of others say nothing."""
    figures = {run.fault: asdict(run.figures) for run in runs if run.peer == "agent"}
    return [
        f"{fault.name}: {HEADINGS[name]}: {_cell(name, value)}, target {_cell(name, limit)}"
        for fault in faults
        if fault.name in figures
        for name in fault.figures
        if (limit := fault.target(name)) is not None
        and ((value := figures[fault.name][name]) is None or value > limit)
    ]


def table(runs: Sequence[Run], faults: Sequence[Fault], peers: Sequence[type[Peer]]) -> str:
    """Return the Markdown table: a row for each figure, a column for each peer."""
    names = [peer.name for peer in peers]
    rows = [["fault", "figure", *names, "target"], ["---"] * (len(names) + 3)]
    figures = {(run.peer, run.fault): asdict(run.figures) for run in runs}
    for fault in faults:
        title = fault.title
        for figure in fault.figures:
            cells = [_cell_of(peer, fault, figure, figures) for peer in peers]
            limit = fault.target(figure)
            last = "" if limit is None else _cell(figure, limit)
            rows.append([title, HEADINGS[figure], *cells, last])
            title = ""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def document(
    runs: Sequence[Run],
    faults: Sequence[Fault],
    peers: Sequence[type[Peer]],
    nginx: Path,
    skipped: Sequence[str],
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
        "missed": missed(runs, faults),
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


def _cell_of(
    peer: type[Peer],
    fault: Fault,
    figure: str,
    figures: Mapping[tuple[str, str], Mapping[str, Optional[float]]],
) -> str:
    """Return what stands in the table: nothing without a result, n/a where none can be."""
    got = figures.get((peer.name, fault.name))
    if got is None:
        return "" if can_play(peer, fault) else "n/a"
    return _cell(figure, got[figure])


def _cell(figure: str, value: Optional[float]) -> str:
    if value is None:
        return "n/a" if figure == "left_out" else "not at all"
    if figure in _SECONDS:
        return f"{value:.1f} s"
    return f"{value:g} %" if figure == "share" else f"{value:g}"
