"""One thread a name, for as long as the name stands in the list, whatever its resolver does."""

from __future__ import annotations

import socket
import threading
from typing import Callable, Iterator

import pytest

from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.intake import resolver as module
from kube_nginx_agent.intake.resolver import Resolver, resolve
from support.process import wait_until
from unit.making import ips

SECONDS = 5.0


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"dns-{name}"]


class Dns:
    """Answers when it is told to; counts who asks."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.posted: list[NameAnswered] = []
        self.open = threading.Event()
        self.error: Exception | None = None

    def ask(self, name: str) -> NameAnswered:
        self.asked.append(name)
        self.open.wait(SECONDS)
        if self.error:
            raise self.error
        return NameAnswered(name, ips(["10.0.0.1"]), "")

    def waits_for_threads(self, name: str, count: int) -> None:
        wait_until(lambda: len(threads_of(name)) == count, SECONDS, f"{count} threads")


@pytest.fixture(name="dns")
def _dns() -> Dns:
    return Dns()


@pytest.fixture(name="resolver")
def _resolver(dns: Dns) -> Iterator[Resolver]:
    resolver = Resolver(dns.posted.append, dns.ask)
    yield resolver
    resolver.want([])
    dns.open.set()
    wait_until(
        lambda: not any(t.name.startswith("dns-") for t in threading.enumerate()),
        SECONDS,
        "all threads have ended",
    )


def test_answer_is_posted(dns: Dns, resolver: Resolver) -> None:
    dns.open.set()

    resolver.want(["a.b"])

    wait_until(lambda: dns.posted, SECONDS, "an answer")
    assert dns.posted[0].name == "a.b"


def test_thread_ends_when_its_name_leaves(dns: Dns, resolver: Resolver) -> None:
    dns.open.set()
    resolver.want(["a.b", "c.d"])
    wait_until(lambda: len(dns.posted) == 2, SECONDS, "two answers")

    resolver.want(["c.d"])

    dns.waits_for_threads("a.b", 0)
    assert threads_of("c.d")


def test_answer_that_comes_after_its_name_has_left_is_dropped(dns: Dns, resolver: Resolver) -> None:
    resolver.want(["a.b"])
    wait_until(lambda: dns.asked, SECONDS, "it is asked for")

    resolver.want([])
    dns.open.set()

    dns.waits_for_threads("a.b", 0)
    assert dns.posted == []


def test_name_that_leaves_and_returns_while_it_hangs_has_one_thread(
    dns: Dns, resolver: Resolver
) -> None:
    for _ in range(20):
        resolver.want(["a.b"])
        resolver.want([])
    resolver.want(["a.b"])

    assert len(threads_of("a.b")) == 1
    dns.open.set()
    wait_until(lambda: dns.posted, SECONDS, "it is answered")


def test_name_that_leaves_and_returns_is_asked_for_at_once(dns: Dns, resolver: Resolver) -> None:
    dns.open.set()
    resolver.want(["a.b"])
    wait_until(lambda: dns.posted, SECONDS, "a first answer")

    resolver.want([])
    resolver.want(["a.b"])

    wait_until(lambda: len(dns.posted) > 1, SECONDS, "a second answer")


def test_same_names_again_ask_nobody(dns: Dns, resolver: Resolver) -> None:
    dns.open.set()
    resolver.want(["a.b"])
    wait_until(lambda: dns.posted, SECONDS, "a first answer")

    for _ in range(100):
        resolver.want(["a.b"])
    resolver.want(["a.b", "c.d"])

    wait_until(lambda: len(dns.posted) == 2, SECONDS, "the other's answer")
    assert dns.asked == ["a.b", "c.d"]


def test_thread_survives_any_exception(
    dns: Dns, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.01)
    dns.error = RuntimeError("a plug-in's fault")
    dns.open.set()

    resolver.want(["a.b"])
    wait_until(lambda: len(dns.posted) > 1, SECONDS, "two errors")
    dns.error = None

    wait_until(lambda: not dns.posted[-1].error, SECONDS, "an answer")
    assert "a plug-in's fault" in dns.posted[0].error


def test_threads_that_hang_have_a_bound(
    dns: Dns, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_THREADS", 3)
    for n in range(10):
        resolver.want([f"a{n}.b"])
        # Whose name is wanted no more before it has asked need not ask, and ends.
        wait_until(lambda: len(dns.asked) >= min(n + 1, 3), SECONDS, "it hangs")  # noqa: B023

    assert sum(thread.name.startswith("dns-") for thread in threading.enumerate()) == 3

    dns.open.set()
    wait_until(lambda: dns.posted, SECONDS, "the last name gets a thread that has ended")
    assert {answer.name for answer in dns.posted} == {"a9.b"}


def test_thread_that_cannot_start_is_tried_again(
    dns: Dns, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns.open.set()

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        resolver.want(["a.b"])
    resolver.want(["a.b"])

    wait_until(lambda: dns.posted, SECONDS, "an answer")


Found = Callable[..., list[tuple[object, ...]]]


def answering(*texts: str) -> Found:
    return lambda *_, **__: [(0, 0, 0, "", (text, 0)) for text in texts]


@pytest.mark.parametrize(
    ("found", "addresses", "error"),
    [
        (answering("10.0.0.1", "10.0.0.1"), ["10.0.0.1"], ""),
        (answering("::ffff:10.0.0.1"), ["10.0.0.1"], ""),
        (answering("fe80::1%eth0", "2001:db8::1"), ["2001:db8::1"], ""),
        (answering("0.0.0.0", "10.0.0.1"), ["10.0.0.1"], ""),
        (answering("0.0.0.0", "::"), [], "0.0.0.0, :: is no host"),
        (answering(), [], "the name has no address"),
    ],
)
def test_answer_has_only_addresses_of_hosts(
    monkeypatch: pytest.MonkeyPatch, found: Found, addresses: list[str], error: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", found)

    assert resolve("a.b") == NameAnswered("a.b", ips(addresses), error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError(), "OSError"),
        (UnicodeError("label too long"), "label too long"),
        (RuntimeError("what a plug-in does"), "what a plug-in does"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_whatever_is_raised_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    assert resolve("a.b") == NameAnswered("a.b", frozenset(), reason)
