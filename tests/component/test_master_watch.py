"""The end of nginx is told at once, also where no descriptor was left to wait with for a while."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from kube_nginx_agent.inbox import NginxEnded
from kube_nginx_agent.nginx import master_watch
from kube_nginx_agent.nginx.master_watch import MasterWatch
from kube_nginx_agent.nginx.process import Process, identify
from support.process import wait_until

SECONDS = 5.0


def test_end_is_told_once(child: subprocess.Popen[bytes]) -> None:
    told: list[NginxEnded] = []
    watch = MasterWatch(told.append)
    for _ in range(3):
        watch.follow(identify(child.pid))

    child.kill()

    wait_until(lambda: told, SECONDS, "the news")
    assert told == [NginxEnded()]


def test_watch_that_could_not_begin_is_tried_again(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Process] = []

    def refuse(master: Process) -> bool:
        tries.append(master)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    told: list[NginxEnded] = []
    watch = MasterWatch(told.append)
    with monkeypatch.context() as patched:
        patched.setattr(master_watch, "wait_until_gone", refuse)

        def is_tried_twice() -> bool:
            watch.follow(identify(child.pid))
            return len(tries) >= 2

        wait_until(is_tried_twice, SECONDS, "a second try")
    wait_until(lambda: watch._followed is None, SECONDS, "the end of the last try")
    assert told == []

    watch.follow(identify(child.pid))
    child.kill()
    wait_until(lambda: told, SECONDS, "the news")
