"""Changes of files -> events in the inbox.

A hint, never the truth: the loop looks for itself now and then (``loop.agent.POLL``). So a missed
event costs seconds, and this module may be simple: watchdog tells what happens in the folders where
something on the way to a file may be put in another's place, and a look each second finds what it
does not tell.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Callable, Iterable, Iterator

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import FileTouched, Touch
from kube_nginx_agent.intake.file_poll import FilePoll
from kube_nginx_agent.intake.folder_watches import FolderWatches
from kube_nginx_agent.intake.trail import Trail, folders_of, trail
from kube_nginx_agent.node.files import is_regular, link_target
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem

_HINTS = {
    errno.EMFILE: "raise the sysctl fs.inotify.max_user_instances",
    errno.ENOSPC: "raise the sysctl fs.inotify.max_user_watches",
    errno.EACCES: "let the agent's user read the folder",
}
_NO_EVENT = "no event told of the last change"
_WHY_NO_EVENT = (
    "none does on a network file system, for a file that is mounted by itself, "
    "or for one that is written under a second name (a hard link)"
)


class FileWatch:
    """Watches a few files, which need not exist."""

    def __init__(self, files: Iterable[Path], post: Callable[[FileTouched], None]) -> None:
        """Take the files; nothing is watched before ``refresh``."""
        self._files = tuple(files)
        self._post = post
        self._watches = FolderWatches(self._note)
        self._poll = FilePoll(self._files, lambda file: self._touch(file, Touch.UNKNOWN))
        self._trails: dict[Path, Trail] = {}
        self._refused: dict[Path, OSError] = {}
        self._deaf: frozenset[Path] = frozenset()
        """Files with a folder that can't be watched: why no event may tell of them is known."""
        self._unseen: frozenset[Path] = frozenset()
        """Files of whose last change no event has told, nobody knows why."""
        self._has_died = False

    def is_alive(self) -> bool:
        """Tell whether what should run runs; ``refresh`` starts it again."""
        return self._watches.is_alive() and self._poll.is_alive()

    def refresh(self) -> None:
        """Follow the files to where they are now: links and folders may have been replaced."""
        self._trails = {file: trail(file) for file in self._files}
        folders = {file: set(folders_of(steps)) for file, steps in self._trails.items()}
        wanted = sorted(set().union(*folders.values()))
        unseen = self._poll.unseen
        is_blind = bool(unseen - self._unseen - self._deaf)
        self._refused = self._watches.follow(wanted, anew=is_blind)
        if self._watches.is_fresh and not is_blind:
            self._catch_up()
        poll_has_died = self._poll.keep_running()
        self._has_died = self._watches.has_died or poll_has_died
        self._deaf = frozenset(file for file in folders if folders[file] & self._refused.keys())
        self._unseen = unseen & self._poll.unseen - self._deaf

    def problems(self) -> Iterator[Problem]:
        """Yield what keeps changes from being seen at once."""
        by_reason: dict[tuple[str, str], list[Path]] = {}
        for folder, refusal in self._refused.items():
            reason = f"can't be watched: {refusal.strerror or refusal}"
            hint = _HINTS.get(refusal.errno or 0, "")
            by_reason.setdefault((reason, hint), []).append(folder)
        if self._unseen:
            by_reason[_NO_EVENT, _WHY_NO_EVENT] = sorted(self._unseen)
        for (reason, hint), places in by_reason.items():
            what = f"changes are found by a look each second: {reason}"
            error = AgentError(what, where=", ".join(map(str, places)), hint=hint)
            yield Problem(f"watch: {reason}", kinds.WATCH_LOST, error)
        if self._has_died:
            error = AgentError("a thread that watches files had ended, and was started again")
            yield Problem("watch: thread", kinds.WATCH_LOST, error)

    def _catch_up(self) -> None:
        """Look at what happened in folders that came in others' place before they were watched."""
        for file in self._files:
            if self._poll.note_event(file):
                self._touch(file, Touch.UNKNOWN)

    def _note(self, path: Path, how: str) -> None:
        """Take what watchdog tells, in its thread."""
        for file, steps in self._trails.items():
            if path in steps:
                has_changed = self._poll.note_event(file)
                self._touch(file, _kind(path, how, has_changed=has_changed))

    def _touch(self, file: Path, kind: Touch) -> None:
        self._post(FileTouched(file, kind))


def _kind(path: Path, how: str, *, has_changed: bool) -> Touch:
    """Tell how far a writer is. "modified" is also said of rights; then the bytes stay."""
    if how == "attrib":  # since 7.0
        return Touch.UNKNOWN
    if how == "modified":
        return Touch.WRITING if has_changed else Touch.UNKNOWN
    is_begun = how == "created" and is_regular(path) and link_target(path) is None
    return Touch.WRITING if is_begun else Touch.DONE
