"""``version``: which agent, which nginx."""

from __future__ import annotations

import argparse
from typing import Any

from kube_nginx_agent import __version__
from kube_nginx_agent.cli import options
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.nginx.binary import Nginx


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = options.add_verb(
        verbs,
        "version",
        "show the versions of the agent and of its nginx",
        "Exit code: 0.",
    )
    options.add_nginx(parser)
    parser.set_defaults(verb=execute)


def execute(chosen: argparse.Namespace) -> int:
    """Print both; a missing nginx is said, but is no failure of this verb."""
    print(f"kube-nginx-agent {__version__}")
    try:
        print(f"{Nginx(chosen.nginx).version()} ({chosen.nginx})")
    except AgentError as error:
        print(f"nginx: {error}")
    return 0
