"""The probing threads: looks that are late, that fail, that end in ways nobody foresaw."""

from __future__ import annotations

import os
import random
import subprocess
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.lookers import Lookers
from kube_nginx_agent.health.pace import Haste, Limits, Pace, Wish
from kube_nginx_agent.health.prober import Prober, ReadyzAsker
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.health.repeated import Look, Repeated
from kube_nginx_agent.health.trust import Trust
from kube_nginx_agent.inbox import Probed, Timing
from kube_nginx_agent.model import HealthCheck, Probe, SocketAddress
from kube_nginx_agent.observation import Layer, Observation, Result
from support.agent_process import PYTHON, environment, for_all_to_read
from support.apiserver import StandIn
from support.process import wait_until

ADDRESS = parse_address("192.0.2.1:6443")
PATIENT, QUICK = Limits(early=20.0, timeout=30.0), Limits(early=0.05, timeout=0.15)
WISH = Wish(connect=PATIENT, answer=PATIENT)
IN_A_HURRY = Wish(connect=QUICK, answer=QUICK)


@dataclass
class Scripted:
    """Looks that take the seconds they are told to, and then end in what they are told to."""

    seconds: float = 0.0
    outcome: Result | Exception = Result.OK
    asked: list[bool] = field(default_factory=list)

    def next_look(self, *, fresh: bool) -> Look:
        self.asked.append(fresh)
        return self._look

    def stop(self) -> None:
        pass

    def _look(self, timeout: float) -> Observation:
        seconds, outcome = self.seconds, self.outcome
        time.sleep(min(seconds, timeout))
        if isinstance(outcome, Exception):
            raise outcome
        took = seconds if outcome is Result.OK else None
        return Observation(Layer.TCP, outcome, rtt=took)


class Bench:
    """A repeated probe, and what it has posted."""

    def __init__(self, asker: Scripted, wish: Wish = WISH) -> None:
        self.posted: list[Probed] = []
        check = replace(HealthCheck.tcp)
        pace = Pace(Layer.TCP, check, random.Random(1))
        self.probe = Repeated(ADDRESS, Layer.TCP, pace, asker, wish, Lookers(2), self.posted.append)

    def __enter__(self) -> Bench:
        self.probe.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.probe.end()

    def wait_for(self, count: int) -> list[Probed]:
        wait_until(lambda: len(self.posted) >= count, 5, f"{count} posts")
        return list(self.posted)


def test_look_in_time_is_told_of_once() -> None:
    with Bench(Scripted()) as bench:
        (first,) = bench.wait_for(1)

    assert (first.seen.result, first.timing) == (Result.OK, Timing.IN_TIME)


def test_late_look_is_told_of_as_late_then_as_failed_then_by_its_answer() -> None:
    with Bench(Scripted(seconds=0.4), IN_A_HURRY) as bench:
        posts = bench.wait_for(3)

    assert [(p.seen.result, p.timing) for p in posts] == [
        (Result.TIMEOUT, Timing.EARLY),
        (Result.TIMEOUT, Timing.IN_TIME),
        (Result.OK, Timing.OVERDUE),
    ]
    assert len({p.began for p in posts}) == 1


def test_late_look_that_fails_in_the_end_is_told_of_no_third_time() -> None:
    asker = Scripted(0.4, Result.TIMEOUT)
    with Bench(asker, IN_A_HURRY) as bench:
        bench.wait_for(2)
        asker.outcome, asker.seconds = Result.OK, 0.0
        bench.probe.set_wish(replace(IN_A_HURRY, asked_at=1.0))
        posts = bench.wait_for(3)
        wait_until(lambda: not bench.probe._pending, 5, "the end of the late look")

    assert [(p.seen.result, p.timing) for p in posts] == [
        (Result.TIMEOUT, Timing.EARLY),
        (Result.TIMEOUT, Timing.IN_TIME),
        (Result.OK, Timing.IN_TIME),
    ]
    assert bench.posted == posts


def test_look_that_says_again_what_is_known_can_wait() -> None:
    with Bench(Scripted(), replace(WISH, is_settled=True)) as bench:
        first = bench.wait_for(1)[0]
        bench.probe.set_wish(replace(WISH, is_settled=True, asked_at=1.0))
        second = bench.wait_for(2)[1]

    assert (first.can_wait, second.can_wait) == (False, True)
    assert first.began <= first.at <= second.at


def test_look_that_hangs_holds_up_none_of_those_that_doubt_asks_for() -> None:
    asker = Scripted(seconds=30.0)
    with Bench(asker, IN_A_HURRY) as bench:
        bench.wait_for(1)
        bench.probe.set_wish(replace(IN_A_HURRY, haste=Haste.DOUBT, is_failing=True))
        wait_until(lambda: len(asker.asked) >= 4, 5, "four looks")


def test_whoever_is_asked_for_now_is_looked_at_now_on_a_new_connection() -> None:
    asker = Scripted()
    with Bench(asker) as bench:
        bench.wait_for(1)
        bench.probe.set_wish(replace(WISH, asked_at=1.0))
        bench.wait_for(2)

    assert asker.asked[:2] == [False, True]


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError("x"), MemoryError()])
def test_error_that_nobody_foresaw_says_nothing_and_ends_nothing(error: Exception) -> None:
    asker = Scripted(outcome=error)
    with Bench(asker) as bench:
        (first,) = bench.wait_for(1)
        asker.outcome = Result.OK
        bench.probe.set_wish(replace(WISH, asked_at=1.0))
        second = bench.wait_for(2)[1]

    assert first.seen.result is Result.NO_ROOM
    assert type(error).__name__ in first.seen.detail
    assert second.seen.result is Result.OK


def test_thread_that_can_not_be_started_is_no_news_of_the_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(Scripted())
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.endswith(" look"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with bench:
        (first,) = bench.wait_for(1)

    assert first.seen.result is Result.NO_ROOM


@pytest.fixture
def api(certs: Path) -> Iterator[StandIn]:
    with StandIn("api1", certs) as started:
        yield started


def asker_of(api: StandIn, turn: int = 0) -> tuple[ReadyzAsker, SocketAddress]:
    address = parse_address(str(api.address))
    context = Trust("none").context
    make = lambda backend: ReadyzProbe(backend, "/readyz", context)  # noqa: E731
    return ReadyzAsker(address, make, turn), address


def test_every_nth_question_makes_a_new_connection(api: StandIn) -> None:
    asker, _ = asker_of(api)

    seen = [asker.next_look(fresh=False)(2.0) for _ in range(10)]

    assert [look.is_fresh for look in seen] == [True, *[False] * 3, True, *[False] * 4, True]
    asker.stop()


def test_in_doubt_new_connections_and_the_kept_one_take_turns(api: StandIn) -> None:
    asker, _ = asker_of(api)
    asker.next_look(fresh=False)(2.0)

    seen = [asker.next_look(fresh=True)(2.0).is_fresh for _ in range(4)]

    assert seen == [False, True, False, True]
    asker.stop()


def test_question_on_the_kept_connection_that_hangs_leaves_room_for_new_ones(api: StandIn) -> None:
    asker, _ = asker_of(api)
    asker.next_look(fresh=False)(2.0)
    hanging = asker.next_look(fresh=False)

    assert asker.next_look(fresh=False)(2.0).is_fresh
    assert not hanging(2.0).is_fresh
    asker.stop()


def test_looks_end_at_once_when_their_backend_is_wanted_no_more(api: StandIn) -> None:
    api.fault(latency=60.0)
    address = parse_address(str(api.address))
    prober = Prober(lambda _: None, "node")
    context = Trust("none").context
    make = lambda backend: ReadyzProbe(backend, "/readyz", context)  # noqa: E731
    prober.want([address], HealthCheck(), make)
    wait_until(lambda: api.report().requests.get("/readyz", 0) > 0, 5, "the question")

    prober.want([], HealthCheck(), make)

    wait_until(lambda: not _names(str(address)), 1.0, "the threads to end")


def _names(backend: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if backend in thread.name]


# Who makes the looks


def test_look_that_hangs_keeps_no_other_from_being_made() -> None:
    lookers, goes_on, made = Lookers(2), threading.Event(), threading.Event()

    lookers.run("hangs", goes_on.wait)
    lookers.run("next", made.set)

    assert made.wait(5)
    goes_on.set()


def test_threads_that_made_looks_make_the_next_ones_and_few_stay() -> None:
    lookers, seen = Lookers(2), []
    others = set(threading.enumerate())  # some of which, of earlier tests, may be about to end
    at_once = threading.Barrier(5)
    for _ in range(4):
        lookers.run("one of many", at_once.wait)
    at_once.wait(5)
    wait_until(lambda: len(set(threading.enumerate()) - others) == 2, 5, "all but two to end")

    for count in range(1, 6):
        lookers.run("one by one", lambda: seen.append(threading.current_thread()))
        wait_until(lambda: len(seen) == count, 5, "the look")  # noqa: B023 - called at once
        wait_until(lambda: seen[-1].name == "looker", 5, "its thread to be idle")
    assert len(set(seen)) <= 2
    assert len(set(threading.enumerate()) - others) == 2


def test_questions_over_tls_never_share_a_thread_but_connects_do(api: StandIn) -> None:
    """What OpenSSL remembers of one connection is the thread's, and would spoil the next."""
    address = parse_address(str(api.address))
    context = Trust("none").context
    threads: dict[Layer, set[int]] = {Layer.TCP: set(), Layer.READYZ: set()}
    posts: list[Probed] = []

    def post(probed: Probed) -> None:
        threads[probed.seen.layer].add(threading.get_native_id())
        posts.append(probed)

    prober = Prober(post, "node")
    quick = Probe(interval=timedelta(milliseconds=50), timeout=timedelta(seconds=5))
    check = HealthCheck(tcp=quick, readyz=quick)
    prober.want([address], check, lambda backend: ReadyzProbe(backend, "/readyz", context))

    def asked(layer: Layer) -> int:
        return sum(probed.seen.layer is layer for probed in list(posts))

    wait_until(lambda: min(asked(Layer.TCP), asked(Layer.READYZ)) >= 10, 10, "ten looks each")
    prober.want([], check, lambda backend: ReadyzProbe(backend, "/readyz", context))
    assert len(threads[Layer.READYZ]) >= 10
    assert len(threads[Layer.TCP]) < 10


_AT_THE_LIMIT_OF_THREADS = """
    import resource, time
    from dataclasses import replace
    from kube_nginx_agent.config.addresses import parse_address
    from kube_nginx_agent.health.prober import Prober
    from kube_nginx_agent.model import HealthCheck

    backends = [parse_address(f"127.0.9.{n}:1") for n in range(1, 9)]
    check = replace(HealthCheck(), readyz=replace(HealthCheck().readyz, enabled=False))
    seen = set()
    prober = Prober(lambda probed: seen.add(probed.backend), "node")
    most = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (4, most[1]))

    prober.want(backends, check, None)
    print(prober.failure)
    resource.setrlimit(resource.RLIMIT_NPROC, most)
    prober.want(backends, check, None)
    end = time.monotonic() + 10
    while len(seen) < len(backends) and time.monotonic() < end:
        time.sleep(0.01)
    print(prober.failure, len(seen))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root's threads are not limited; becomes another")
def test_backends_for_which_no_thread_is_left_are_probed_when_there_is_one(
    folder: Path, nginx_binary: Path
) -> None:
    _, extra = for_all_to_read(folder, nginx_binary)
    nobody_else = 20000 + os.getpid() % 20000  # the kernel counts the threads of a user
    done = subprocess.run(
        [str(PYTHON), "-c", textwrap.dedent(_AT_THE_LIMIT_OF_THREADS)],
        env=environment(extra), user=nobody_else, cwd="/",
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    before, after = done.stdout.splitlines()
    assert "no thread can be started; it is tried again" in before
    assert after == "None 8"
