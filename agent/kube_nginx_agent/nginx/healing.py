"""An nginx that runs but does not serve: stopped by a signal, hung, or told to quit."""

from __future__ import annotations

import signal
from contextlib import suppress

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.nginx.process import (
    Process,
    ProcessGoneError,
    is_retiring,
    is_stopped,
    send_signal,
    workers,
)
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problems

_MUTE_FOR = 3.0  # seconds in which nginx accepts but does not answer, until it counts as hung
_RETIRING_FOR = 0.5  # seconds for which all workers have retired, and none has come
_ASK_AGAIN = 0.5


class Healer:
    """Tells stopped processes to go on, and ends a master that takes no new clients."""

    def __init__(self, sink: Sink, problems: Problems) -> None:
        """Take where the lines go."""
        self._sink = sink
        self._problems = problems
        self._unfit_since: float | None = None

    @property
    def is_unfit(self) -> bool:
        """Whether nginx takes no new clients, so that a reload is no help."""
        return self._unfit_since is not None

    def heal(self, master: Process | None, now: float, *, is_mute: bool) -> float | None:
        """Look at the processes of ``master`` and do what helps; return when to look again.

        ``is_mute``: it has accepted a question, and not answered.
        """
        has_woken = self._wake_stopped(master)
        is_ending = self._end_unfit(master, now, is_mute=is_mute)
        return now + _ASK_AGAIN if has_woken or is_ending else None

    def _wake_stopped(self, master: Process | None) -> bool:
        """Tell processes of nginx that a signal has stopped to go on."""
        found = {f"stopped {process.pid}": process for process in _processes(master)}
        stopped = {about: process for about, process in found.items() if is_stopped(process)}
        for about, process in stopped.items():
            signal_if_there(process, signal.SIGCONT)
            error = AgentError(f"nginx process {process.pid} is stopped; it is told to go on")
            self._problems.begins(about, kinds.NGINX_HUNG, error, {"NGINX_PID": str(process.pid)})
        for about in self._problems.about("stopped "):
            if about not in stopped:
                self._problems.ends(about, f"nginx process {about.partition(' ')[2]} goes on")
        return bool(stopped)

    def _end_unfit(self, master: Process | None, now: float, *, is_mute: bool) -> bool:
        """Kill an nginx that serves no new clients, so that it is started again.

        It is hung when it has accepted but not answered for a while, or it was told to quit: by
        hand, or as the old one of an upgrade whose new master has ended since.
        """
        if master is None or not (is_mute or is_retiring(master)):
            self._unfit_since = None
            return False
        if self._unfit_since is None:
            self._unfit_since = now
        if now - self._unfit_since < (_MUTE_FOR if is_mute else _RETIRING_FOR):
            return True
        how = "is hung" if is_mute else "was told to quit and takes no new connections"
        message = f"nginx (master {master.pid}) {how}: it is killed and started again"
        self._sink(kinds.NGINX_HUNG, message, {"NGINX_PID": str(master.pid)})
        # The workers of one that retires serve their sessions to the end, if they are let.
        for process in _processes(master) if is_mute else [master]:
            signal_if_there(process, signal.SIGKILL)
        self._unfit_since = None
        return True


def signal_if_there(process: Process, signum: signal.Signals) -> None:
    """Signal a process that may have ended, or that may not be ours to signal."""
    with suppress(ProcessGoneError, PermissionError):
        send_signal(process, signum)


def _processes(master: Process | None) -> list[Process]:
    return [master, *(worker.process for worker in workers(master))] if master else []
