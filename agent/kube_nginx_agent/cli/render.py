"""``render``: the nginx config that a backends.yaml makes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from kube_nginx_agent.cli import options
from kube_nginx_agent.cli.preview import preview
from kube_nginx_agent.nginx.rendering import render

_MORE = """\
Names in the list are resolved, as the agent does. Nothing is changed.

Exit code:
  0  the config is printed
  1  the file is invalid; every error in it is printed
"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = options.add_verb(verbs, "render", "print the nginx config made from a list", _MORE)
    options.add_file(parser)
    options.add_run_dir(parser)
    parser.set_defaults(verb=execute)


def execute(chosen: argparse.Namespace) -> int:
    """Print the config, and warnings to standard error."""
    paths = options.paths(chosen)
    found = preview(paths)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(render(found.desired, paths).text, end="")
    return 0
