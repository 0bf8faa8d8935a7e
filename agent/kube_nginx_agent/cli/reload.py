"""``reload``: have the running agent read backends.yaml now, and wait until that is live."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Any

from kube_nginx_agent.cli import options
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.report.status_file import read_status

_TIMEOUT = 45.0  # seconds; a failing reload takes up to 25: the proof's time-out, then back again
_POLL = 0.02
_MORE = """\
An edit is noticed without this; it is for scripts that want to know how it ended, and it is what
`systemctl reload kube-nginx-agent` does.

Exit code:
  0  the content of backends.yaml is live
  1  it is not; the output says why, and the last good list goes on
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
    before = read_status(paths)
    _ask(before["pid"])
    deadline = time.monotonic() + _TIMEOUT
    while True:
        content = read_status(paths)
        if content["reloads_done"] > before["reloads_requested"]:
            break
        if time.monotonic() > deadline:
            raise AgentError(
                f"the agent (pid {before['pid']}) did not finish within {_TIMEOUT:g} s",
                hint="`kube-nginx-agent status` shows what it says",
            )
        time.sleep(_POLL)
    is_live = content["verdict"] == "ok"
    print(content["summary"], file=sys.stdout if is_live else sys.stderr)
    return 0 if is_live else 1


def _ask(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError as error:
        raise AgentError("the agent has just ended", where=f"pid {pid}") from error
    except PermissionError as error:
        raise AgentError(
            "this user may not ask the agent", where=f"pid {pid}", hint="run it as root"
        ) from error
