"""What wakes the loop, and what it finds then."""

from __future__ import annotations

from dataclasses import replace

from kube_nginx_agent.inbox import Inbox, NginxEnded, Probed, ReloadRequested
from kube_nginx_agent.observation import Layer, Observation, Result
from unit.making import address

LOOK = Probed(address("10.0.0.1:6443"), Observation(Layer.TCP, Result.OK), 1.0)
WAITING = replace(LOOK, can_wait=True)


def test_what_can_wait_wakes_nobody_and_is_there_after_the_wait() -> None:
    inbox = Inbox()
    inbox.post(WAITING)

    assert inbox.wait(0.01) == [WAITING]
    assert inbox.wait(0.0) == []


def test_what_wakes_brings_all_that_waited_in_its_order() -> None:
    inbox = Inbox()
    for event in (WAITING, LOOK, WAITING, NginxEnded()):
        inbox.post(event)

    assert inbox.wait(60.0) == [WAITING, LOOK, WAITING, NginxEnded()]


def test_each_wait_is_for_news_of_its_own() -> None:
    inbox = Inbox()
    inbox.post(LOOK)
    inbox.post(ReloadRequested())
    inbox.wait(60.0)
    inbox.post(WAITING)

    assert inbox.wait(0.01) == [WAITING]
