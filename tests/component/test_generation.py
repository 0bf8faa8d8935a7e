"""What nginx answers when it is asked for its generation, and what its silence means."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Iterator

import pytest

from component.rig import Rig
from kube_nginx_agent.nginx.generation import Answer, NoAnswer, ask

PATIENCE = 0.2  # seconds


@pytest.fixture
def place(folder: Path) -> Path:
    return folder / "generation.sock"


@pytest.fixture
def listener(place: Path) -> Iterator[socket.socket]:
    """Somebody who listens where nginx should, and accepts nothing by itself."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen(1)
        yield listening


def answer_with(listener: socket.socket, *parts: bytes) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            for part in parts:
                connection.sendall(part)

    threading.Thread(target=answer, daemon=True).start()


def test_nginx_answers_with_its_generation_and_a_worker(rig: Rig) -> None:
    goal = rig.goal()
    rig.apply(goal)

    answer = ask(rig.paths.generation_socket, PATIENCE)

    assert isinstance(answer, Answer)
    assert answer.generation == goal.generation
    assert answer.worker_pid in {worker.process.pid for worker in rig.workers()}


def test_without_a_socket_nobody_is_there(place: Path) -> None:
    assert ask(place, PATIENCE) is NoAnswer.ABSENT


def test_at_a_dead_masters_socket_nobody_is_there(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))

    assert ask(place, PATIENCE) is NoAnswer.ABSENT


def test_listener_that_never_accepts_is_mute(place: Path, listener: socket.socket) -> None:
    assert ask(place, PATIENCE) is NoAnswer.MUTE


def test_listener_whose_queue_is_full_is_mute(place: Path, listener: socket.socket) -> None:
    waiting = []
    for _ in range(2):
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].connect(str(place))

    assert ask(place, PATIENCE) is NoAnswer.MUTE
    for connection in waiting:
        connection.close()


@pytest.mark.parametrize("text", [b"", b"hello\n", b"4f2a91c one\n", b"\xff\xfe\n", b"x" * 1000])
def test_what_ends_without_an_answer_is_not_mute_but_full(
    place: Path, listener: socket.socket, text: bytes
) -> None:
    answer_with(listener, text)

    assert ask(place, PATIENCE) is NoAnswer.CLOSED


def test_answer_may_come_in_parts(place: Path, listener: socket.socket) -> None:
    answer_with(listener, b"4f2a", b"91c 12", b"345\n")

    assert ask(place, PATIENCE) == Answer("4f2a91c", 12345)
