"""``check``: everything that a live apply would check, and nothing changed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from kube_nginx_agent.cli import options
from kube_nginx_agent.cli.preview import preview
from kube_nginx_agent.model import Desired
from kube_nginx_agent.nginx.binary import Nginx
from kube_nginx_agent.nginx.orphans import find_orphans
from kube_nginx_agent.nginx.ports import check_listen
from kube_nginx_agent.nginx.process import find_master
from kube_nginx_agent.nginx.rendering import render
from kube_nginx_agent.node.paths import Paths

_MORE = """\
Reads the file, resolves its names, renders the nginx config, has `nginx -t` test it, and looks
whether the listen addresses are free or held by our own nginx. Nothing is changed.

Exit code:
  0  the list would go live
  1  it would not; every error is printed as FILE:LINE:COLUMN: KEY: what is wrong
"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = options.add_verb(verbs, "check", "tell whether a list would go live", _MORE)
    options.add_file(parser)
    options.add_nginx(parser)
    options.add_run_dir(parser)
    parser.set_defaults(verb=execute)


def execute(chosen: argparse.Namespace) -> int:
    """Check, and say that it is well; whatever is not is raised as an AgentError."""
    paths = options.paths(chosen)
    found = preview(paths)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    master = find_master(paths.pid_file, paths.nginx)
    orphans = () if master else find_orphans(paths.generation_socket, paths.nginx)
    check_listen(found.desired.listen, master, orphans)
    _test(found.desired, paths)
    servers = len(found.desired.servers)
    what = f"{servers} server{'' if servers == 1 else 's'}" if servers else "no backends"
    print(f"{paths.config}: valid: {what} behind {', '.join(map(str, found.desired.listen))}")
    return 0


def _test(desired: Desired, paths: Paths) -> None:
    """Test in a folder of its own: ``nginx -t`` creates the pid file and unlinks the socket."""
    with tempfile.TemporaryDirectory(prefix="kube-nginx-check-") as folder:
        scratch = Paths(paths.config, paths.nginx, Path(folder), Path(folder))
        scratch.candidate.write_text(render(desired, scratch).text, encoding="utf-8")
        Nginx(paths.nginx).test(scratch.candidate)
