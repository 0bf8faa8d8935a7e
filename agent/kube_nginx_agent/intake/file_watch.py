"""Changes of files -> events in the inbox.

A hint, never the truth: the loop looks for itself now and then (``agent.POLL``). So a missed event
costs seconds, and this module may be simple: it watches the folder of everything that is looked at
on the way to a file, symbolic links and their targets included.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Callable, Iterable

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import FileTouched, Touch
from kube_nginx_agent.intake.inotify import (
    IN_ATTRIB,
    IN_CREATE,
    IN_MODIFY,
    IN_Q_OVERFLOW,
    Change,
    Inotify,
)
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM)
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


class Watch:
    """Watches a few files; where inotify is exhausted it stays silent and the poll remains."""

    def __init__(self, files: Iterable[Path], post: Callable[[FileTouched], None]) -> None:
        """Take the files, which need not exist; nothing is watched before ``refresh``."""
        self._files = tuple(files)
        self._post = post
        self._inotify: Inotify | None = None
        self._reader: threading.Thread | None = None
        self._trails: dict[Path, set[Path]] = {}
        self._folders: dict[int, set[Path]] = {}
        self._reason = ""

    @property
    def is_working(self) -> bool:
        """Whether the kernel watches all that it was asked to."""
        return not self._reason

    def is_alive(self) -> bool:
        """Tell whether the watching thread still runs, or was given up for the poll."""
        return self._reader.is_alive() if self._reader else not self.is_working

    def problems(self) -> Iterable[Problem]:
        """Yield what keeps changes from being seen at once."""
        if self._reason:
            yield Problem("watch", kinds.WATCH_LOST, self.explain(10.0))

    def explain(self, poll: float) -> AgentError:
        """Say what it means that the kernel refuses a watch; ``poll`` is in seconds."""
        return AgentError(
            f"changes of files are seen only every {poll:g} s: {self._reason}",
            hint="raise the sysctl fs.inotify.max_user_watches or fs.inotify.max_user_instances",
        )

    def refresh(self) -> None:
        """Follow the files to where they are now: links and folders may have been replaced.

        A folder that is watched already keeps the number of its watch, and one that has come in
        the place of another has a new one, so that nothing need be remembered to tell them apart.
        """
        self._reason = ""
        inotify = self._inotify or self._start()
        if inotify is None:
            return
        self._trails = {file: set(trail(file)) for file in self._files}
        folders: dict[int, set[Path]] = {}
        for folder in {path.parent for steps in self._trails.values() for path in steps}:
            watch = self._add(inotify, folder)
            if watch is not None:
                folders.setdefault(watch, set()).add(folder)
        dropped = self._folders.keys() - folders.keys()
        self._folders = folders
        for watch in dropped:
            inotify.remove(watch)

    def _start(self) -> Inotify | None:
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._reason = f"no inotify instance: {error.strerror}"
            return None
        self._reader = threading.Thread(
            target=self._read, args=(self._inotify,), name="inotify", daemon=True
        )
        self._reader.start()
        return self._inotify

    def _add(self, inotify: Inotify, folder: Path) -> int | None:
        """Return the watch; None where there is no such folder, or we may only pass through it."""
        try:
            return inotify.add(folder)
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._reason = f"no inotify watch: {error.strerror}"
            return None

    def _read(self, inotify: Inotify) -> None:
        while True:
            for change in inotify.wait():
                self._pass_on(change)

    def _pass_on(self, change: Change) -> None:
        if change.mask & IN_Q_OVERFLOW:
            self._touch(self._files, Touch.UNKNOWN)
            return
        for folder in self._folders.get(change.watch, ()):
            path = folder / change.name
            files = [file for file, steps in self._trails.items() if path in steps]
            if files:
                self._touch(files, _kind(change, path))

    def _touch(self, files: Iterable[Path], kind: Touch) -> None:
        for file in files:
            self._post(FileTouched(file, kind))


def _kind(change: Change, path: Path) -> Touch:
    if change.mask & IN_MODIFY:
        return Touch.WRITING
    if change.mask & IN_CREATE and path.is_file() and not path.is_symlink():
        return Touch.WRITING
    return Touch.UNKNOWN if change.mask & IN_ATTRIB else Touch.DONE
