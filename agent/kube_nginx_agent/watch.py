"""Changes of files -> events in the inbox.

A hint, never the truth: the loop looks for itself now and then (``agent.POLL``). So a missed event
costs seconds, and this module may be simple: it watches the folder of everything that is looked at
on the way to a file, symbolic links and their targets included.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterable

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import ObservedWatch

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import FileTouched

_CHANGES = {"created", "deleted", "moved", "modified", "closed"}
"""Not the events that reading a file causes: opened, closed_no_write."""

_MAX_LINKS = 40  # path_resolution(7): the kernel's own limit


def trail(path: Path) -> list[Path]:
    """Return every path that is looked at to open ``path``: links, their targets, all folders."""
    found: list[Path] = []
    links = 0
    todo = [Path(os.path.abspath(path))]
    while todo:
        path = todo.pop()
        for step in (*reversed(path.parents), path):
            if step in found:
                continue
            found.append(step)
            if step.is_symlink() and links < _MAX_LINKS:
                links += 1
                target = Path(os.path.abspath(step.parent / os.readlink(step)))
                todo.append(target / path.relative_to(step))
    return found


class Watch(FileSystemEventHandler):
    """Watches a few files; where inotify is exhausted it stays silent and the poll remains."""

    def __init__(self, files: Iterable[Path], post: Callable[[FileTouched], None]) -> None:
        """Take the files, which need not exist; nothing is watched before ``refresh``."""
        self._files = tuple(files)
        self._post = post
        self._observer = Observer()
        self._watches: dict[Path, tuple[tuple[int, int], ObservedWatch]] = {}
        self._trail: set[str] = set()
        self._reason = ""
        self.is_working = True

    def start(self) -> None:
        """Begin to watch."""
        try:
            self._observer.start()
        except (OSError, RuntimeError) as error:
            self._give_up(str(error))
        self.refresh()

    def stop(self) -> None:
        """End the watching thread."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def is_alive(self) -> bool:
        """Tell whether the watching thread still runs, or was given up for the poll."""
        return self._observer.is_alive() or not self.is_working

    def explain(self, poll: float) -> AgentError:
        """Say what it means that the kernel refuses a watch; ``poll`` is in seconds."""
        return AgentError(
            f"changes of files are seen only every {poll:g} s: {self._reason}",
            hint="raise the sysctl fs.inotify.max_user_watches or fs.inotify.max_user_instances",
        )

    def refresh(self) -> None:
        """Follow the files to where they are now: links and folders may have been replaced."""
        if not self._observer.is_alive():
            return
        self.is_working = True
        paths = [path for file in self._files for path in trail(file)]
        self._trail = {str(path) for path in paths}
        folders = {path.parent: _identity(path.parent) for path in paths}
        for folder in list(self._watches):
            if folders.get(folder) != self._watches[folder][0]:
                self._forget(folder)
        for folder, identity in folders.items():
            if identity and folder not in self._watches:
                self._add(folder, identity)

    def _add(self, folder: Path, identity: tuple[int, int]) -> None:
        try:
            self._watches[folder] = (identity, self._observer.schedule(self, str(folder)))
        except PermissionError:
            return  # A folder on the way that may be passed through, but not watched.
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def _give_up(self, reason: str) -> None:
        self.is_working = False
        self._reason = reason

    def _forget(self, folder: Path) -> None:
        _, watch = self._watches.pop(folder)
        with suppress(KeyError, OSError):
            self._observer.unschedule(watch)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass on what concerns our files; called in the observer's thread."""
        if event.is_directory and event.event_type == "modified":
            return  # The folder of something that has an event of its own.
        paths = {os.fsdecode(event.src_path), os.fsdecode(getattr(event, "dest_path", ""))}
        if event.event_type in _CHANGES and not self._trail.isdisjoint(paths):
            self._post(FileTouched(being_written=event.event_type == "modified"))


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
