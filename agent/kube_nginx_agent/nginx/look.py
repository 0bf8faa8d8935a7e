"""One look at nginx: its processes, its answer, its files. Changes nothing but a lost pid file."""

from __future__ import annotations

from kube_nginx_agent.nginx import generation
from kube_nginx_agent.nginx.apply import Applier
from kube_nginx_agent.nginx.decision import Seen, UpgradeState
from kube_nginx_agent.nginx.draining import draining_generations
from kube_nginx_agent.nginx.process import (
    Process,
    is_retiring,
    is_stopped,
    serving,
    turns_of,
    workers,
)
from kube_nginx_agent.nginx.supervise import Supervisor
from kube_nginx_agent.nginx.upgrade import Upgrader


class Looker:
    """Knows where to look."""

    def __init__(self, applier: Applier, supervisor: Supervisor, upgrader: Upgrader) -> None:
        """Take whom to ask."""
        self._applier = applier
        self._supervisor = supervisor
        self._upgrader = upgrader

    def look(self) -> Seen:
        """Return what there is now."""
        master = self._supervisor.master()
        live, last_good = self._applier.live_text(), self._applier.last_good()
        if master is None:
            return Seen(live=live, last_good=last_good)
        family = workers(master)
        processes = (master, *(worker.process for worker in family))
        before = self._upgrader.previous(master)
        earlier = {before, *(worker.process for worker in workers(before))} if before else set()
        answer = self._applier.ask()
        return Seen(
            master=master,
            family=frozenset({*processes, *earlier}),
            stopped=tuple(process for process in processes if is_stopped(process)),
            is_retiring=is_retiring(master),
            answer=answer,
            # Only a silent one is suspected of being stuck, and costs the look.
            turns=_turns(master) if answer is generation.NoAnswer.MUTE else 0,
            draining=len(draining_generations(family)),
            live=live,
            last_good=last_good,
            upgrade=self._upgrade_state(master),
        )

    def _upgrade_state(self, master: Process) -> UpgradeState:
        if self._upgrader.is_unfinished(master):
            return UpgradeState.UNFINISHED
        is_wanted = self._upgrader.is_needed(master) and self._upgrader.is_possible(master)
        return UpgradeState.WANTED if is_wanted else UpgradeState.NONE


def _turns(master: Process) -> int:
    return sum(map(turns_of, serving(master)))
