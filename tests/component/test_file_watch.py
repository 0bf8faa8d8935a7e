"""FileWatch by itself: nothing is missed, nothing is kept, and what can't be watched is said."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from kube_nginx_agent.inbox import FileTouched, Inbox
from kube_nginx_agent.intake import file_watch, folder_watches
from kube_nginx_agent.intake.file_watch import FileWatch
from support.process import wait_until

SECONDS = 5.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces, becomes another user")


class Watched:
    """A FileWatch that is refreshed at each event, as the loop does."""

    def __init__(self, file: Path) -> None:
        self.inbox = Inbox()
        self.watch = FileWatch([file], self.inbox.post)
        self.watch.refresh(0.0)

    def hears(self, seconds: float = SECONDS) -> bool:
        heard = self.inbox.wait(seconds)
        self.watch.refresh(0.0)
        return any(isinstance(event, FileTouched) for event in heard)

    def settle(self) -> None:
        """Take what is still to come of earlier changes."""
        while self.hears(0.3):
            pass

    def said(self) -> str:
        return "; ".join(str(problem.error) for problem in self.watch.problems())


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


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("swaps", [300, pytest.param(3000, marks=pytest.mark.soak)])
def test_no_swap_is_missed_and_none_leaves_anything(file: Path, swaps: int) -> None:
    file.unlink()
    swap(file, 0)
    file.symlink_to(Path("..data", file.name))
    watched = Watched(file)
    watched.settle()
    before = threading.active_count(), descriptors()
    for number in range(1, swaps + 1):
        swap(file, number)
        assert watched.hears(), f"swap {number} was missed"
        if number % 5 == 0:
            watched.settle()
            (file.parent / f"..{number}" / file.name).write_text("in place")
            assert watched.hears(), f"the edit after swap {number} was missed"

    def is_as_before() -> bool:
        watched.watch.refresh(0.0)
        return threading.active_count() <= before[0] and descriptors() <= before[1]

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
    folder = folder_watches.Folder("/spelled/.", lambda path, _how: told.append(path))
    folder.paths = frozenset([Path("/etc")])
    event: Any = type("Event", (), {"event_type": how, "src_path": "/spelled/./file"})()
    folder.dispatch(event)
    assert not told


def test_an_observer_that_has_died_is_said_and_started_again(file: Path) -> None:
    watched = Watched(file)
    watched.settle()
    observer = watched.watch._watches._observer
    observer.stop = lambda: None  # what it watches goes on, as after an error in its thread
    observer._stopped_event.set()
    file.write_text("wakes it")
    wait_until(lambda: not observer.is_alive(), SECONDS, "it has ended")
    assert not watched.watch.is_alive()
    watched.watch.refresh(0.0)
    assert watched.watch.is_alive()
    assert "had ended, and was started again" in watched.said()
    watched.settle()
    assert not watched.said()
    file.write_text("second")
    assert watched.hears()


def test_an_observer_that_dies_again_and_again_leaves_the_poll(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_watches, "MOST_OBSERVERS", 0)
    watched = Watched(file)
    assert "by a look each second" in watched.said()
    assert watched.watch.is_alive()
    file.write_text("second")
    assert watched.hears()


def test_a_hard_link_is_found_by_a_look(file: Path) -> None:
    watched = Watched(file)
    assert not watched.said()
    other = file.parent.parent / "elsewhere" / "other"
    other.parent.mkdir()
    os.link(file, other)
    watched.settle()
    assert "hard link" in watched.said()
    other.write_text("second")
    assert watched.hears()
    other.unlink()
    watched.settle()
    wait_until(lambda: watched.hears(0.1) or not watched.said(), SECONDS, "it is well again")
    assert "file poll" not in {thread.name for thread in threading.enumerate()}


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


CHILD = """
import os, sys
from pathlib import Path
from component.test_file_watch import Watched
{before}
file = Path(sys.argv[1])
watched = Watched(file)
assert {said!r} in watched.said(), watched.said()
watched.settle()
{edit}
assert watched.hears(), "missed"
"""
DROP = "os.setgroups([]); os.setgid(61000); os.setuid(61000)"


def run_child(prefix: list[str], file: Path, before: str, said: str, edit: str) -> None:
    """Run it in a process of its own: another user, or other namespaces."""
    script = CHILD.format(before=before, said=said, edit=edit)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run(
        [*prefix, sys.executable, "-c", script, file],
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
    edit = "(file.parent.parent / 'source').write_text('second')"
    run_child(prefix, file, "", "it is mounted by itself", edit)


@needs_root
def test_a_folder_that_may_not_be_read_is_said_and_its_file_found_by_a_look(file: Path) -> None:
    for folder in list(file.parents)[:4]:
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    file.parent.chmod(0o711)
    file.chmod(0o666)
    said = "etc can't be watched: Permission denied"
    run_child([], file, DROP, said, "file.write_text('second')")


@needs_root
@pytest.mark.parametrize("limit", ["max_user_instances", "max_user_watches"])
def test_inotify_used_up_is_said_and_an_edit_found_by_a_look(file: Path, limit: str) -> None:
    prefix = ["unshare", "-U", "-r"]
    before = f"Path('/proc/sys/fs/inotify/{limit}').write_text('0')"
    run_child(prefix, file, before, f"fs.inotify.{limit}", "file.write_text('second')")


def test_a_link_that_is_swapped_while_it_is_looked_at_is_survived(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets: Callable[[], str | None] = iter([None, "a", None, "b"] * 99).__next__
    monkeypatch.setattr(file_watch, "link_target", lambda _path: targets())
    assert file in file_watch.trail(file)
