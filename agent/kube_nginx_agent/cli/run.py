"""``run``: the daemon."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from kube_nginx_agent.cli import options
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.health.monitor import SHARED_SPREAD, Monitor
from kube_nginx_agent.health.nginx_errors import trouble
from kube_nginx_agent.health.prober import Prober
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.inbox import Inbox
from kube_nginx_agent.intake.intake import Intake
from kube_nginx_agent.loop.agent import Agent
from kube_nginx_agent.loop.signals import post_signals
from kube_nginx_agent.nginx.apply import Applier
from kube_nginx_agent.nginx.binary import Nginx
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.log import LogMessage, LogReader
from kube_nginx_agent.nginx.process import workers
from kube_nginx_agent.nginx.supervise import Attached, Standalone, Supervisor
from kube_nginx_agent.nginx.upgrade import Upgrader
from kube_nginx_agent.node.facts import discover_node, spread
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.run_folder import RunFolder
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink, choose_sink
from kube_nginx_agent.notices.problems import Problems
from kube_nginx_agent.report.reporter import Reporter
from kube_nginx_agent.sessions.cutting import Cutter
from kube_nginx_agent.sessions.session_watch import SessionWatch

_MORE = """\
Without --standalone nginx is systemd's (kube-nginx.service), and goes on when the agent stops.

Signals:
  HUP        read backends.yaml now
  TERM, INT  stop, with --standalone nginx too

Exit code:
  0  stopped by a signal
  1  it could not start; the last line says why
"""


_REMOVAL_GRACE = (10.0, 30.0)
"""Seconds for which the sessions of a removed backend go on, different on each node: its clients
should not all reconnect in the same second."""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = options.add_verb(verbs, "run", "run the agent in the foreground", _MORE)
    parser.add_argument(
        "--standalone",
        action="store_true",
        help="start nginx itself, restart it when it ends, stop it at the end",
    )
    options.add_config(parser)
    options.add_folders(parser)
    parser.set_defaults(verb=execute)


def execute(chosen: argparse.Namespace) -> int:
    """Run until a signal says stop."""
    sink = choose_sink()
    try:
        paths = options.paths(chosen)
        _make_folders(paths)
        nginx = Nginx(paths.nginx)
        supervisor: Supervisor = Standalone(nginx, paths) if chosen.standalone else Attached(paths)
        inbox = Inbox()
        log = LogReader(paths.log_socket, lambda message: _post_trouble(inbox, message))
        run_folder = RunFolder(paths, log, supervisor.worker_uid())
        run_folder.open()
        post_signals(inbox)
        agent = _assemble(paths, nginx, supervisor, inbox, log, run_folder, sink)
    except AgentError as error:
        sink(kinds.AGENT_FAILED, str(error), {})
        return 1
    agent.run()
    supervisor.stop()
    run_folder.clean()
    return 0


def _assemble(  # noqa: PLR0913 - the one place where all parts meet
    paths: Paths,
    nginx: Nginx,
    supervisor: Supervisor,
    inbox: Inbox,
    log: LogReader,
    run_folder: RunFolder,
    sink: Sink,
) -> Agent:
    node = discover_node()
    problems = Problems(sink, time.time)
    applier = Applier(paths, nginx, supervisor, log)
    data_plane = DataPlane(applier, supervisor, Upgrader(nginx, paths), sink, problems)
    sessions = SessionWatch(lambda: _nginx_pids(data_plane), inbox.post)
    sessions.start()
    shared = spread(node, "shared cause", 0.0, SHARED_SPREAD)
    monitor = Monitor(Prober(inbox.post, node.id), sessions, sink, shared)
    grace = spread(node, "removal grace", *_REMOVAL_GRACE)
    severer = Severer(sessions, Cutter(paths.cut_socket), sink, removal_grace=grace)
    return Agent(
        paths=paths,
        node=node,
        inbox=inbox,
        intake=Intake(paths, sink, problems, inbox.post),
        monitor=monitor,
        severer=severer,
        data_plane=data_plane,
        run_folder=run_folder,
        reporter=Reporter(paths, problems, nginx.version()),
        sink=sink,
        problems=problems,
    )


def _nginx_pids(data_plane: DataPlane) -> frozenset[int]:
    """Return the pids of nginx's master and workers as they are."""
    master = data_plane.master
    if master is None:
        return frozenset()
    return frozenset({master.pid, *(worker.process.pid for worker in workers(master))})


def _post_trouble(inbox: Inbox, message: LogMessage) -> None:
    complaint = trouble(message.text)
    if complaint:
        inbox.post(complaint)


def _make_folders(paths: Paths) -> None:
    for folder in (paths.state_dir, paths.run_dir):
        _make_writable(folder)


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AgentError(
            f"the folder can't be written: {error.strerror}",
            where=str(folder),
            hint="run as the user that owns it, or choose others: --state-dir, --run-dir",
        ) from error
