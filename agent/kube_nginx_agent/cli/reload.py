"""``reload``: have the running agent read backends.yaml now, and wait until that is live."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from kube_nginx_agent.cli import options
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.nginx.process import Process, ProcessGoneError, is_alive, send_signal
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.waiting import wait_until
from kube_nginx_agent.report.status_file import read_status, running_agent

_TIMEOUT = 80.0  # seconds; two failing applies take up to 68 (nginx/limits.py)
_POLL = 0.02
_MORE = """\
An edit is noticed without this; it is for scripts that want to know how it ended, and it is what
`systemctl reload kube-nginx-agent` does.

Exit code:
  0  the list of backends.yaml is live, whoever of it is well
  1  it is not; the output says why, and the last good list goes on
  3  the agent is not running
"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = options.add_verb(
        verbs, "reload", "read backends.yaml now and wait until it is live", _MORE
    )
    options.add_run_dir(parser)
    parser.set_defaults(verb=execute)


def execute(chosen: argparse.Namespace) -> int:
    """Ask, wait, and print how it ended."""
    paths = Paths(run_dir=chosen.run_dir.absolute())
    agent = running_agent(paths)
    before = _reloads(paths, agent)
    _ask(agent)
    content = wait_until(lambda: _finished(paths, agent, before), _TIMEOUT, poll=_POLL)
    if content is None:
        raise AgentError(
            f"the agent (pid {agent.pid}) did not finish within {_TIMEOUT:g} s",
            hint="`kube-nginx-agent status` shows what it says",
        )
    is_live = bool(content["is_list_live"])
    print(content["summary"], file=sys.stdout if is_live else sys.stderr)
    return 0 if is_live else 1


def _reloads(paths: Paths, agent: Process) -> int:
    """Return how many reloads were asked for before ours; 0 of one that has not reported yet."""
    try:
        content = read_status(paths)
    except AgentError:
        return 0
    return int(content["reloads_requested"]) if content["pid"] == agent.pid else 0


def _finished(paths: Paths, agent: Process, before: int) -> dict[str, Any] | None:
    """Return the status once our reload is over. Raise AgentError when the agent has ended."""
    try:
        content = read_status(paths)
    except AgentError:
        if not is_alive(agent):
            raise
        return None
    return content if content["reloads_done"] > before else None


def _ask(agent: Process) -> None:
    where = f"pid {agent.pid}"
    try:
        send_signal(agent, signal.SIGHUP)
    except ProcessGoneError as error:
        raise AgentError("the agent has just ended", where=where) from error
    except PermissionError as error:
        hint = "run it as root"
        raise AgentError("this user may not ask the agent", where=where, hint=hint) from error
