"""FileWatch by itself: nothing is missed, nothing is kept, and what can't be watched is said."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c
from watchdog.observers.inotify import InotifyObserver

from kube_nginx_agent.inbox import FileTouched, Inbox
from kube_nginx_agent.intake import folder_watches
from kube_nginx_agent.intake.file_watch import FileWatch
from kube_nginx_agent.intake.watched_folder import WatchedFolder
from support.process import wait_until

SECONDS = 5.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces, becomes another user")


class Watched:
    """A FileWatch that is refreshed at each event, as the loop does."""

    def __init__(self, file: Path) -> None:
        self.inbox = Inbox()
        self.watch = FileWatch([file], self.inbox.post)
        self.watch.refresh()

    def hears(self, seconds: float = SECONDS) -> bool:
        heard = self.inbox.wait(seconds)
        self.watch.refresh()
        return any(isinstance(event, FileTouched) for event in heard)

    def settle(self) -> None:
        """Take what is still to come of earlier changes."""
        while self.hears(0.3):
            pass

    def said(self) -> str:
        return "; ".join(str(problem.error) for problem in self.watch.problems())

    def says(self, what: str) -> None:
        wait_until(lambda: self.hears(0.1) or what in self.said(), SECONDS, f"it says {what}")
        wait_until(lambda: not self.hears(0.1) and what in self.said(), SECONDS, f"it says {what}")

    def is_well_again(self) -> None:
        wait_until(lambda: not self.hears(0.1) and not self.said(), SECONDS, "it is well again")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "file"
    path.parent.mkdir()
    path.write_text("first")
    return path


def swap(file: Path, number: int) -> None:
    """Swap a ConfigMap as kubelet does, and remove the old one."""
    folder = file.parent
    (folder / f"..{number}").mkdir()
    (folder / f"..{number}" / file.name).write_text(str(number))
    (folder / "..new").symlink_to(f"..{number}")
    (folder / "..new").replace(folder / "..data")
    shutil.rmtree(folder / f"..{number - 1}", ignore_errors=True)


def held() -> tuple[int, int]:
    """Return how many threads and descriptors the kernel counts."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("swaps", [300, pytest.param(3000, marks=pytest.mark.soak)])
def test_no_swap_is_missed_and_none_leaves_anything(file: Path, swaps: int) -> None:
    file.unlink()
    swap(file, 0)
    file.symlink_to(Path("..data", file.name))
    watched = Watched(file)
    watched.settle()
    before = held()
    for number in range(1, swaps + 1):
        swap(file, number)
        assert watched.hears(), f"swap {number} was missed"
        if number % 5 == 0:
            watched.settle()
            (file.parent / f"..{number}" / file.name).write_text("in place")
            assert watched.hears(0.9), f"the edit after swap {number} was missed"

    def is_as_before() -> bool:
        watched.watch.refresh()
        now = held()
        return now[0] <= before[0] and now[1] <= before[1]

    wait_until(is_as_before, SECONDS, f"threads and descriptors are {before} again")
    assert not watched.said()


def test_reading_wakes_nobody(file: Path) -> None:
    watched = Watched(file)
    watched.settle()
    file.read_text()
    assert not watched.hears(0.5)


@pytest.mark.parametrize("how", ["opened", "closed_no_write"])
def test_events_of_readers_are_dropped(how: str) -> None:
    """Also where watchdog has them (since 2.3) and takes no filter (before 4.0)."""
    told: list[Path] = []
    folder = WatchedFolder("/spelled/.", lambda path, _how: told.append(path))
    folder.paths = frozenset([Path("/etc")])
    event: Any = type("Event", (), {"event_type": how, "src_path": "/spelled/./file"})()
    folder.dispatch(event)
    assert not told


def test_rights_that_change_are_told(file: Path) -> None:
    """They have events of their own since watchdog 7.0."""
    watched = Watched(file)
    watched.settle()
    file.chmod(0o600)
    assert watched.hears(0.5)


def test_an_observer_that_has_died_is_said_and_started_again(file: Path) -> None:
    watched = Watched(file)
    watched.settle()
    observer = watched.watch._watches._observer
    observer.stop = lambda: None  # what it watches goes on, as after an error in its thread
    observer._stopped_event.set()
    file.write_text("wakes it")
    wait_until(lambda: not observer.is_alive(), SECONDS, "it has ended")
    assert not watched.watch.is_alive()
    watched.watch.refresh()
    assert watched.watch.is_alive()
    assert "had ended, and was started again" in watched.said()
    watched.settle()
    assert not watched.said()
    file.write_text("second")
    assert watched.hears(0.9)


def test_an_observer_that_dies_again_and_again_leaves_the_look(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_watches, "MOST_STARTS", 0)
    watched = Watched(file)
    assert "by a look each second" in watched.said()
    assert watched.watch.is_alive()
    file.write_text("second")
    assert watched.hears()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_of_the_kernel_that_has_died_is_found_and_replaced(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its emitter and observer live on and wait for it in vain."""
    if _is_shared():
        monkeypatch.setattr("watchdog.observers.inotify_c.InotifyFD._instance", None)
    earlier = set(threading.enumerate())
    watched = Watched(file)
    watched.settle()
    readers = [
        thread
        for thread in set(threading.enumerate()) - earlier
        if type(thread).__name__ in ("InotifyBuffer", "InotifyFD")
    ]
    assert readers
    for reader in readers:
        step = "handle_event" if _is_shared() else "_group_events"
        monkeypatch.setattr(reader, step, end_thread, raising=True)
    file.write_text("ends it")
    watched.says("no event told of the last change")
    assert watched.watch.is_alive()
    if not _is_shared():  # watchdog 7: one for all observers, and no public way to another
        file.write_text("a third text")
        assert watched.hears(0.9)
        watched.is_well_again()


def _is_shared() -> bool:
    return hasattr(inotify_c, "InotifyFD")


def end_thread(*_: object) -> None:
    raise SystemExit


def test_a_look_that_has_died_is_said_and_started_again(file: Path) -> None:
    watched = Watched(file)
    dead = threading.Thread()
    dead.start()
    dead.join()
    watched.watch._poll._thread = dead
    assert not watched.watch.is_alive()
    watched.watch.refresh()
    assert watched.watch.is_alive()
    assert "had ended, and was started again" in watched.said()


def test_a_change_under_a_second_name_is_found_by_a_look_and_said(file: Path) -> None:
    other = file.parent.parent / "elsewhere" / "other"
    other.parent.mkdir()
    os.link(file, other)
    watched = Watched(file)
    watched.settle()
    for number in range(6):  # more often than watchdog may be started again
        other.write_text("x" * number)
        watched.says("hard link")
    file.write_text("an event tells of this")
    watched.is_well_again()


def test_a_second_name_alone_is_no_change(file: Path) -> None:
    watched = Watched(file)
    watched.settle()
    os.link(file, file.parent.parent / "other")
    assert not watched.hears(2.2)


def test_a_folder_that_is_needed_no_more_keeps_its_watch_up_to_a_bound(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_watches, "MOST_WATCHES", 6)
    watched = Watched(file)
    for number in itertools.count():
        target = file.parent.parent / f"at{number}" / "file"
        target.parent.mkdir()
        target.write_text("x")
        (file.parent / "new").symlink_to(target)
        (file.parent / "new").replace(file)
        assert watched.hears()
        if watched.said():
            break
    assert "6 folders are watched already" in watched.said()
    watched.settle()
    target.write_text("second")
    assert watched.hears()


def test_watches_used_up_are_said_and_an_edit_is_found_by_a_look(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faked: the limit is the whole system's, for root's user namespace is."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    with monkeypatch.context() as patched:
        patched.setattr(InotifyObserver, "schedule", refuse)
        watched = Watched(file)
        assert "fs.inotify.max_user_watches" in watched.said()
        watched.settle()
        file.write_text("second")
        assert watched.hears()
    watched.is_well_again()


CHILD = """
import ctypes, os, sys
from pathlib import Path
from component.test_file_watch import Watched
file, source = map(Path, sys.argv[1:])
{before}
watched = Watched(file)
assert {at_once!r} in watched.said(), watched.said()
watched.settle()
source.write_text('second')
assert watched.hears(), "missed"
watched.says({then!r})
"""
DROP = "os.setgroups([]); os.setgid(61000); os.setuid(61000)"
HOARD = f"{DROP}\nwhile ctypes.CDLL(None).inotify_init1(0) >= 0: pass"


def run_child(
    file: Path, source: Path, *, before: str = "", at_once: str = "", then: str, prefix: Any = ()
) -> None:
    """Run it in a process of its own: another user, or other namespaces."""
    for folder in [folder for folder in file.parents if folder.owner() == "root"][:-2]:
        if folder.parent != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = CHILD.format(before=before, at_once=at_once, then=then)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run(
        [*prefix, sys.executable, "-c", script, file, source],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        timeout=60,
    )


@needs_root
def test_a_file_that_is_mounted_by_itself_is_found_by_a_look(file: Path) -> None:
    source = file.parent.parent / "source"
    source.write_text("first")
    mount = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    prefix = ["unshare", "-m", "sh", "-c", mount, "sh", str(source), str(file)]
    run_child(file, source, then="mounted by itself", prefix=prefix)


@needs_root
def test_a_folder_that_may_not_be_read_is_said_and_its_file_found_by_a_look(file: Path) -> None:
    file.parent.chmod(0o711)
    file.chmod(0o666)
    said = "etc: changes are found by a look each second: can't be watched: Permission denied"
    run_child(file, file, before=DROP, at_once=said, then=said)


@needs_root
def test_instances_used_up_are_said_and_an_edit_is_found_by_a_look(file: Path) -> None:
    """By a user of this test's own, whose limit it is; they come back when the child ends."""
    file.chmod(0o666)
    said = "fs.inotify.max_user_instances"
    run_child(file, file, before=HOARD, at_once=said, then=said)
