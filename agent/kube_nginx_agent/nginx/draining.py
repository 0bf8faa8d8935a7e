"""Old workers that serve their last sessions: how many generations of them there are."""

from __future__ import annotations

from typing import Iterable

from kube_nginx_agent.nginx.process import Worker

_SAME_GENERATION = 5
"""Clock ticks (10 ms each): a master starts its workers one right after the other, and a reload
takes 110 ms at least (docs/decisions/0002)."""


def draining_generations(workers: Iterable[Worker]) -> list[list[Worker]]:
    """Group the retiring workers by the reload that started them, the oldest first."""
    generations: list[list[Worker]] = []
    retiring = (worker for worker in workers if worker.retiring)
    for worker in sorted(retiring, key=lambda worker: worker.process.start_time):
        if generations and _started_together(generations[-1][-1], worker):
            generations[-1].append(worker)
        else:
            generations.append([worker])
    return generations


def _started_together(earlier: Worker, later: Worker) -> bool:
    return later.process.start_time - earlier.process.start_time <= _SAME_GENERATION
