"""``run``: the daemon."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress
from functools import partial
from typing import Any

from kube_nginx_agent.cli import options
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.health.monitor import SHARED_SPREAD, Monitor
from kube_nginx_agent.health.nginx_errors import trouble
from kube_nginx_agent.health.prober import Prober
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.inbox import Inbox, NginxIsFull
from kube_nginx_agent.intake.address_watch import AddressWatch
from kube_nginx_agent.intake.file_watch import FileWatch
from kube_nginx_agent.intake.intake import Intake
from kube_nginx_agent.loop.agent import Agent, Fleet, Inputs, Voice
from kube_nginx_agent.loop.signals import post_signals
from kube_nginx_agent.loop.threads import say_dead_threads
from kube_nginx_agent.nginx.apply import Applier
from kube_nginx_agent.nginx.binary import Nginx
from kube_nginx_agent.nginx.capacity import Capacity, used_up
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.log import LogMessage, LogReader
from kube_nginx_agent.nginx.process import identify
from kube_nginx_agent.nginx.supervise import Attached, Standalone, Supervisor
from kube_nginx_agent.nginx.upgrade import Upgrader
from kube_nginx_agent.node.facts import look_at_node, spread
from kube_nginx_agent.node.files import FileError, make_folder
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.run_folder import RunFolder
from kube_nginx_agent.node.sealing import seal
from kube_nginx_agent.node.waiting import wait_again
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
  1  it could not start, or only systemd can make its run folder again; the last line says why
"""


_ALERTS = ("alert", "crit", "emerg")
"""Levels of nginx's log that are said again here; errors of single connections are no news."""

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
    seal()
    sink = choose_sink()
    try:
        paths = options.paths(chosen)
        with suppress(FileError):  # what can't be written is said when it is to be written
            make_folder(paths.state_dir)
        nginx = Nginx(paths.nginx)
        supervisor: Supervisor = Standalone(nginx, paths) if chosen.standalone else Attached(paths)
        inbox, capacity = Inbox(), Capacity()
        log = LogReader(paths.log_socket, partial(_hear, inbox, sink, capacity))
        run_folder = RunFolder(paths, log, supervisor.worker_uid(), str(identify(os.getpid())))
        run_folder.open()
    except AgentError as error:
        sink(kinds.AGENT_FAILED, str(error), {})
        return 1
    post_signals(inbox)
    say_dead_threads(sink)
    code = _assemble(paths, nginx, supervisor, inbox, log, run_folder, sink, capacity).run()
    wait_again()
    supervisor.stop()
    run_folder.clean()
    return code


def _assemble(  # noqa: PLR0913 - the one place where all parts meet
    paths: Paths,
    nginx: Nginx,
    supervisor: Supervisor,
    inbox: Inbox,
    log: LogReader,
    run_folder: RunFolder,
    sink: Sink,
    capacity: Capacity,
) -> Agent:
    node = look_at_node()
    problems = Problems(sink, time.time)
    reporter = Reporter(paths, problems)
    applier = Applier(paths, nginx, supervisor, log)
    upgrader = Upgrader(nginx, paths)
    data_plane = DataPlane(applier, supervisor, upgrader, sink, reporter.say_alive)
    sessions = SessionWatch(data_plane.pids, inbox.post)
    sessions.start()
    shared = spread(node, "shared cause", 0.0, SHARED_SPREAD)
    monitor = Monitor(Prober(inbox.post, node.id), sessions, sink, shared)
    grace = spread(node, "removal grace", *_REMOVAL_GRACE)
    severer = Severer(sessions, Cutter(paths.cut_socket), sink, removal_grace=grace)
    files = (paths.config, paths.live, paths.pid_file, paths.generation_socket, paths.nginx)
    watch = FileWatch(files, inbox.post)
    AddressWatch(inbox.post).start()
    return Agent(
        paths,
        inbox,
        Inputs(Intake(paths, sink, inbox.post), watch, run_folder, look_at_node),
        Fleet(monitor, severer, sessions),
        data_plane,
        capacity,
        Voice(sink, problems, reporter),
        is_strict=os.environ.get("KUBE_NGINX_AGENT_STRICT") == "1",
    )


def _hear(inbox: Inbox, sink: Sink, capacity: Capacity, message: LogMessage) -> None:
    """Take a line of nginx's error log: trouble with a backend, or something worth telling."""
    complaint = trouble(message.text)
    if complaint:
        inbox.post(complaint)
    elif used_up(message.text):
        if capacity.hear(message.text, time.monotonic()):
            inbox.post(NginxIsFull())
    elif message.level in _ALERTS:
        sink(kinds.NGINX_SAYS, f"nginx: {message.text}", {"NGINX_PID": str(message.pid)})
