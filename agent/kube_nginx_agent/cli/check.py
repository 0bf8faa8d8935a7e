"""``check``: everything that a live apply would check, and nothing changed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterable

from kube_nginx_agent.cli import options
from kube_nginx_agent.cli.preview import preview
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.intake.backends_file import read_content
from kube_nginx_agent.model import Desired, SocketAddress
from kube_nginx_agent.nginx.binary import Nginx
from kube_nginx_agent.nginx.orphans import find_orphans
from kube_nginx_agent.nginx.ports import AddressHeldError, check_listen
from kube_nginx_agent.nginx.process import find_master
from kube_nginx_agent.nginx.rendering import render
from kube_nginx_agent.node.files import owner_of, write_beside
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.user import become_owner_of
from kube_nginx_agent.report.status_file import read_status

_MORE = """\
Reads the file, resolves its names, renders the nginx config, has `nginx -t` test it, and looks
whether the listen addresses are free or held by our own nginx. Nothing is changed. As root it
looks with the rights of the user that the agent runs as, so that it finds what that user finds.

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
    # A draft may lie where only root may read it; the list itself must be the agent's to read.
    draft = None if paths.config == Paths.config else read_content(paths.config)
    become_owner_of(paths.run_dir)
    found = preview(paths, draft)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    _check_listen(found.desired.listen, paths)
    _test(found.desired, paths)
    servers = len(found.desired.servers)
    what = f"{servers} server{'' if servers == 1 else 's'}" if servers else "no backends"
    print(f"{paths.config}: valid: {what} behind {', '.join(map(str, found.desired.listen))}")
    return 0


def _check_listen(listen: Iterable[SocketAddress], paths: Paths) -> None:
    """Raise AgentError unless each address is free, or held by our own nginx.

    A user who may not look into nginx's processes knows its addresses from the agent's status, and
    that they are nginx's by the user that holds them.
    """
    master = find_master(paths.pid_file, paths.nginx)
    orphans = () if master else find_orphans(paths.generation_socket, paths.nginx)
    for address in listen:
        try:
            check_listen([address], master, orphans)
        except AddressHeldError as error:
            if not _is_ours(address, error, paths):
                raise


def _is_ours(address: SocketAddress, error: AddressHeldError, paths: Paths) -> bool:
    if error.holder is None or error.holder.pid is not None:
        return False
    try:
        content = read_status(paths)
    except AgentError:
        return False
    uid = owner_of(Path(f"/proc/{content['nginx_pid']}"))
    return str(address) in content["listen"] and error.holder.uid == uid


def _test(desired: Desired, paths: Paths) -> None:
    """Test in a folder of its own: ``nginx -t`` creates the pid file and unlinks the socket."""
    with tempfile.TemporaryDirectory(prefix="kube-nginx-check-") as folder:
        scratch = Paths(paths.config, paths.nginx, Path(folder), Path(folder))
        write_beside(scratch.candidate, render(desired, scratch).text)
        Nginx(paths.nginx).test(scratch.candidate)
