"""Changes of files -> events in the inbox.

A hint, never the truth: the loop looks for itself now and then (``agent.POLL``). So a missed event
costs seconds, and this module may be simple: it watches the folders in which something on the way
to a file may be put in another's place, and looks each second at what can't be watched.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Callable, Iterable, Iterator

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import FileTouched, Touch
from kube_nginx_agent.intake.file_poll import FilePoll, look
from kube_nginx_agent.intake.folder_watches import FolderWatches
from kube_nginx_agent.intake.unseen import Mounts, why_unseen
from kube_nginx_agent.node.files import is_folder, is_regular, link_target
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem

_HINTS = {
    errno.EMFILE: "raise the sysctl fs.inotify.max_user_instances",
    errno.ENOSPC: "raise the sysctl fs.inotify.max_user_watches",
    errno.EACCES: "let the agent's user read the folder",
}
_MAX_LINKS = 40  # path_resolution(7): the kernel's own limit
_LEVELS = 2
"""Folders watched above a file, and above each link on its way: the one that it is replaced in,
and the one that this one is replaced in. What is replaced further up is found by the loop."""


def trail(path: Path) -> list[Path]:
    """Return every path that is looked at to open ``path``: links, their targets, all folders."""
    return list(_steps(path))


def _steps(path: Path) -> dict[Path, str | None]:
    """Return the paths of the trail, each with where it leads if it is a link."""
    found: dict[Path, str | None] = {}
    links = 0
    todo = [Path(os.path.abspath(path))]
    while todo:
        path = todo.pop()
        for step in (*reversed(path.parents), path):
            if step in found:
                continue
            found[step] = leads_to = link_target(step)
            if leads_to is not None and links < _MAX_LINKS:
                links += 1
                todo.append(Path(os.path.abspath(step.parent / leads_to)) / path.relative_to(step))
    return found


def _folders(steps: dict[Path, str | None]) -> Iterator[Path]:
    """Yield the folders to watch: the nearest that exist above each link and each end."""
    above = {folder for step in steps for folder in step.parents}
    for step, leads_to in steps.items():
        if leads_to is not None or step not in above:
            there = [folder for folder in step.parents if is_folder(folder)]
            missing = len(step.parents) - len(there)
            # Those that may not be entered are no folders to us: asked for, they say why.
            yield from step.parents[:_LEVELS]
            yield from there[: _LEVELS if missing else 0]


class FileWatch:
    """Watches a few files, which need not exist."""

    def __init__(self, files: Iterable[Path], post: Callable[[FileTouched], None]) -> None:
        """Take the files; nothing is watched before ``refresh``."""
        self._files = tuple(files)
        self._post = post
        self._watches = FolderWatches(self._note)
        self._poll = FilePoll(lambda file: self._touch(file, Touch.UNKNOWN))
        self._mounts = Mounts()
        self._trails: dict[Path, dict[Path, str | None]] = {}
        self._content: dict[Path, tuple[object, ...]] = {}
        self._unseen: dict[Path, tuple[str, str]] = {}

    def is_alive(self) -> bool:
        """Tell whether what should run runs; ``refresh`` starts it again."""
        return (self._watches.is_alive() or len(self._unseen) == len(self._files)) and (
            self._poll.is_alive() or not self._unseen
        )

    def refresh(self, now: float) -> None:
        """Follow the files to where they are now: links and folders may have been replaced.

        ``now`` is in seconds of the steady clock.
        """
        self._trails = {file: _steps(file) for file in self._files}
        folders = {file: set(_folders(steps)) for file, steps in self._trails.items()}
        for file in self._files:
            self._content.setdefault(file, _content(file))
        refused = self._watches.follow(set().union(*folders.values()))
        self._mounts.refresh(now)
        self._unseen = {}
        for file in self._files:
            why = _first_refusal(folders[file], refused) or (why_unseen(file, self._mounts), "")
            if why[0]:
                self._unseen[file] = why
        self._poll.follow(self._unseen)

    def problems(self) -> Iterator[Problem]:
        """Yield what keeps changes from being seen at once."""
        for why in sorted(set(self._unseen.values())):
            files = ", ".join(str(file) for file, reason in self._unseen.items() if reason == why)
            reason, hint = why
            error = AgentError(f"changes are found by a look each second: {reason}", where=files,
                               hint=hint)  # fmt: skip
            yield Problem(f"watch: {reason}", kinds.WATCH_LOST, error)
        if self._watches.has_died:
            error = AgentError("a thread that watches files had ended, and was started again")
            yield Problem("watch: thread", kinds.WATCH_LOST, error)

    def _note(self, path: Path, how: str) -> None:
        """Take what watchdog tells, in its thread."""
        for file, steps in self._trails.items():
            if path in steps:
                self._touch(file, self._kind(file, path, how))

    def _kind(self, file: Path, path: Path, how: str) -> Touch:
        """Tell how far a writer is. "modified" is also said of rights; then the bytes stay."""
        before, self._content[file] = self._content.get(file), _content(file)
        if how == "modified":
            return Touch.UNKNOWN if before == self._content[file] else Touch.WRITING
        is_begun = how == "created" and is_regular(path) and link_target(path) is None
        return Touch.WRITING if is_begun else Touch.DONE

    def _touch(self, file: Path, kind: Touch) -> None:
        self._post(FileTouched(file, kind))


def _content(file: Path) -> tuple[object, ...]:
    """Return what differs when the bytes do: device, inode, size, time of the last write."""
    return look(file)[:4]


def _first_refusal(folders: set[Path], refused: dict[Path, OSError]) -> tuple[str, str] | None:
    for folder in sorted(folders & refused.keys()):
        error = refused[folder]
        what = f"{folder} can't be watched: {error.strerror or error}"
        return what, _HINTS.get(error.errno or 0, "")
    return None
