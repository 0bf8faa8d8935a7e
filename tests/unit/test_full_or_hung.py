"""Full is told from hung: by counting, and by nginx's own words."""

from __future__ import annotations

import pytest

from kube_nginx_agent.nginx.capacity import (
    HEARD_FOR,
    Fullness,
    Queue,
    Scarce,
    Use,
    judge,
    problem,
    used_up,
)

NOW = 1000.0
ROOMY = Use(sockets=100, files=110, files_limit=65536)


def judged(
    *uses: Use,
    queues: tuple[Queue, ...] = (),
    heard_at: dict[Scarce, float] | None = None,
) -> Fullness | None:
    return judge(uses, 4096, queues, heard_at or {}, 28232, NOW)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("4096 worker_connections are not enough", Scarce.CONNECTIONS),
        (
            "*7 512 worker_connections are not enough while connecting to upstream, client: "
            '127.0.0.1, server: 127.0.0.1:8443, upstream: "192.0.2.11:6443"',
            Scarce.CONNECTIONS,
        ),
        ("accept4() failed (24: Too many open files)", Scarce.FILES),
        (
            "*9 socket() failed (24: Too many open files) while connecting to upstream, client: "
            '127.0.0.1, server: 127.0.0.1:8443, upstream: "192.0.2.11:6443"',
            Scarce.FILES,
        ),
        (
            "*5 connect() to 192.0.2.11:6443 failed (99: Cannot assign requested address) while "
            'connecting to upstream, client: 127.0.0.1, upstream: "192.0.2.11:6443"',
            Scarce.PORTS,
        ),
        ("*5 connect() failed (111: Connection refused) while connecting to upstream", None),
        ("open() failed (24: Too many open files)", None),
    ],
)
def test_words_of_nginx(words: str, what: Scarce | None) -> None:
    assert used_up(words) is what


def test_nginx_with_room_is_not_full() -> None:
    assert judged(ROOMY, ROOMY, queues=(Queue(3, 511),)) is None


@pytest.mark.parametrize(("sockets", "is_full"), [(4094, False), (4095, True), (4096, True)])
def test_a_session_takes_two_connections(sockets: int, is_full: bool) -> None:
    found = judged(ROOMY, Use(sockets, sockets + 10, 65536))

    assert found == (Fullness(Scarce.CONNECTIONS, 4096) if is_full else None)


@pytest.mark.parametrize(("files", "is_full"), [(1022, False), (1023, True)])
def test_a_session_takes_two_descriptors(files: int, is_full: bool) -> None:
    found = judged(Use(files - 10, files, 1024))

    assert found == (Fullness(Scarce.FILES, 1024) if is_full else None)


def test_limit_that_can_not_be_read_convicts_nobody() -> None:
    assert judged(Use(100, 110, 0)) is None


def test_queue_without_a_known_limit_is_not_full() -> None:
    assert judged(ROOMY, queues=(Queue(0, 0),)) is None


def test_full_accept_queue() -> None:
    assert judged(ROOMY, queues=(Queue(0, 511), Queue(511, 511))) == Fullness(Scarce.QUEUE, 511)


@pytest.mark.parametrize("what", [Scarce.CONNECTIONS, Scarce.FILES, Scarce.PORTS])
def test_nginx_is_believed_for_a_while(what: Scarce) -> None:
    said = judged(ROOMY, heard_at={what: NOW - HEARD_FOR + 1})

    assert said is not None
    assert said.what is what
    assert judged(ROOMY, heard_at={what: NOW - HEARD_FOR}) is None


def test_problem_says_what_by_whom_and_what_to_raise() -> None:
    said = str(problem(Fullness(Scarce.CONNECTIONS, 4096, "user 1000")).error)

    assert "worker_connections are used up (the limit is 4096, and user 1000 holds most)" in said
    assert "raise worker_connections in backends.yaml" in said
