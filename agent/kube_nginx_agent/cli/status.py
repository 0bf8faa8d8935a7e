"""``status``: what the running agent says of itself, nginx and the apiservers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from kube_nginx_agent.cli import options
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.report.status_file import Verdict, read_status

_STALE = 15.0
"""Seconds; the agent reports each 10 s, unless it is stopped, hung, or waits for nginx."""

_COLUMNS = ("BACKEND", "STATE", "SINCE", "RTT", "SESSIONS", "CUT", "WHY")

_MORE = """\
Exit code:
  0  well: the list of backends.yaml is live
  1  degraded: something is wrong, but nginx serves; the output says what
  2  down: nginx serves nothing, or no apiserver of the list passes its checks
  3  the agent is not running
  4  it can't be told: the agent's report is missing, or closed to this user
"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = options.add_verb(verbs, "status", "show how the agent and its nginx are", _MORE)
    parser.add_argument("--json", action="store_true", help="print everything, for programs")
    options.add_run_dir(parser)
    parser.set_defaults(verb=execute)


def execute(chosen: argparse.Namespace) -> int:
    """Print the status; return its verdict as the exit code."""
    content = read_status(Paths(run_dir=chosen.run_dir.absolute()))
    age = time.time() - content["updated_at"]
    if age > _STALE:
        print(f"this is {_ago(age)} old: the agent has not reported since", file=sys.stderr)
        content["verdict"] = max(Verdict.DEGRADED, Verdict[content["verdict"].upper()]).name.lower()
    print(json.dumps(content, indent=2) if chosen.json else _as_text(content))
    return int(Verdict[content["verdict"].upper()])


def _as_text(content: dict[str, Any]) -> str:
    lines = [
        f"{content['verdict']}: {content['summary']}",
        "",
        f"agent       {content['version']}, pid {content['pid']}, "
        f"for {_ago(time.time() - content['started_at'])}",
        f"nginx       {_nginx(content)}",
        f"generation  {_generation(content)}",
        f"config      {content['config_file']}",
    ]
    rows = [_COLUMNS, *map(_backend_row, content["backends"])]
    if len(rows) > 1:
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines.append("")
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths))
            lines.append("  ".join(cells).rstrip())
    for problem in content["problems"]:
        lines += ["", *_problem_lines(problem)]
    return "\n".join(lines)


def _nginx(content: dict[str, Any]) -> str:
    if content["nginx_pid"] is None:
        return "is not running"
    draining = content["draining_generations"]
    more = f", {draining} earlier generations still serve sessions" if draining else ""
    return f"{content['nginx_version']}, pid {content['nginx_pid']}{more}"


def _generation(content: dict[str, Any]) -> str:
    if content["generation"] is None:
        return f"none is live, {content['wanted_generation'] or 'none'} is wanted"
    since = content["live_since"]
    lasted = "" if since is None else f" for {_ago(time.time() - since)}"
    text = f"{content['generation']}, live{lasted}"
    if content["wanted_generation"] not in (None, content["generation"]):
        text += f" ({content['wanted_generation']} is wanted)"
    return text


def _backend_row(backend: dict[str, Any]) -> tuple[str, ...]:
    name = f" ({backend['name']})" if backend["name"] != backend["address"] else ""
    state = f"{backend['state']} (backup)" if backend["backup"] else backend["state"]
    return (
        f"{backend['address']}{name}",
        state,
        _ago(time.time() - backend["since"]),
        "-" if backend["rtt_ms"] is None else f"{backend['rtt_ms']:.1f} ms",
        str(backend["sessions"]),
        str(backend["sessions_cut"]),
        backend["cause"],
    )


def _problem_lines(problem: dict[str, Any]) -> list[str]:
    where = f"{problem['where']}: " if problem["where"] else ""
    lines = [f"problem for {_ago(time.time() - problem['since'])}: {where}{problem['what']}"]
    return [*lines, f"  {problem['hint']}"] if problem["hint"] else lines


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
