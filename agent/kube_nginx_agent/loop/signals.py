"""Signals -> events in the inbox."""

from __future__ import annotations

import signal
from types import FrameType

from kube_nginx_agent.inbox import Inbox, ReloadRequested, StopRequested
from kube_nginx_agent.node.waiting import stop_waiting


def post_signals(inbox: Inbox) -> None:
    """From now on SIGTERM and SIGINT ask the loop to stop, SIGHUP to read backends.yaml."""

    def stop(signum: int, _frame: FrameType | None) -> None:
        stop_waiting()
        inbox.post(StopRequested(signal.Signals(signum).name))

    def reload(_signum: int, _frame: FrameType | None) -> None:
        inbox.post(ReloadRequested())

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, reload)
