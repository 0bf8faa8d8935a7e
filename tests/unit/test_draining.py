"""Retiring workers, grouped by the reload that left them."""

from __future__ import annotations

from kube_nginx_agent.nginx.draining import draining_generations
from kube_nginx_agent.nginx.process import Process, Worker


def worker(pid: int, start_time: int, *, retiring: bool = True) -> Worker:
    return Worker(Process(pid, start_time), retiring)


def pids_of(workers: list[Worker]) -> list[list[int]]:
    return [[member.process.pid for member in group] for group in draining_generations(workers)]


def test_no_workers_are_no_generations() -> None:
    assert pids_of([]) == []


def test_serving_workers_are_no_draining_generation() -> None:
    assert pids_of([worker(1, 100, retiring=False), worker(2, 100, retiring=False)]) == []


def test_workers_started_together_are_one_generation() -> None:
    assert pids_of([worker(1, 100), worker(2, 101), worker(3, 101)]) == [[1, 2, 3]]


def test_workers_of_two_reloads_are_two_generations_the_oldest_first() -> None:
    assert pids_of([worker(3, 111), worker(1, 100), worker(4, 112), worker(2, 100)]) == [
        [1, 2],
        [3, 4],
    ]


def test_many_workers_that_took_long_to_start_are_one_generation() -> None:
    slow_start = [worker(number, 100 + 4 * number) for number in range(64)]

    assert len(pids_of(slow_start)) == 1


def test_gap_of_more_than_50_ms_parts_two_generations() -> None:
    assert pids_of([worker(1, 100), worker(2, 105), worker(3, 111)]) == [[1, 2], [3]]
