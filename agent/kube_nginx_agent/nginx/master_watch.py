"""Tells the loop at once when the nginx master ends."""

from __future__ import annotations

from typing import Callable

from kube_nginx_agent.inbox import NginxEnded
from kube_nginx_agent.nginx.process import Process, wait_until_gone
from kube_nginx_agent.node.starting import NoThreadError, start_thread


class MasterWatch:
    """Waits for the end of one process at a time, in a thread of its own for each."""

    def __init__(self, post: Callable[[NginxEnded], None]) -> None:
        """Take where the event goes."""
        self._post = post
        self._followed: Process | None = None

    def follow(self, master: Process | None) -> None:
        """From now on tell of the end of ``master``, if it isn't watched already.

        Without a thread for it the next call tries again.
        """
        before, self._followed = self._followed, master
        if master and master != before:
            try:
                start_thread(f"nginx-{master.pid}", self._wait, master)
            except NoThreadError:
                self._followed = None

    def _wait(self, master: Process) -> None:
        try:
            wait_until_gone(master)
        except OSError:  # no descriptor is left: the next pass tries again
            if self._followed == master:
                self._followed = None
        else:
            self._post(NginxEnded())
