"""watchdog's watches on a set of folders that changes while it runs.

Rules, for watchdog 2.2.1 (Debian 12) and later; docs/decisions/0010 has the figures:

- A folder is held open while it is scheduled. It can't vanish meanwhile, which would leak a
  descriptor, and its inode, not its name, is what is watched.
- A watch that lives is never stopped: up to 5.0.2 ``Inotify.close()`` may close its descriptor
  twice (watchdog #1045), and the second may be somebody else's. A folder that is wanted no longer
  keeps its watch until it is removed, or wanted again.
- What has ended by itself is unscheduled: there is nothing left to close.
"""

from __future__ import annotations

import errno
import inspect
import os
from pathlib import Path
from typing import Any, Callable, Iterable, Tuple

from watchdog import events
from watchdog.observers.inotify import InotifyObserver

Tell = Callable[[Path, str], None]
"""Takes what was touched, and watchdog's word for how (``events.EVENT_TYPE_...``)."""

MOST_WATCHES = 64
"""Folders, of which a user has 128 inotify instances, one each before watchdog 7."""

MOST_OBSERVERS = 3
"""What a dead observer has watched can't be stopped either; then a poll is the better way."""

_NEEDS = (
    events.FileCreatedEvent,
    events.DirCreatedEvent,
    events.FileModifiedEvent,
    events.FileDeletedEvent,
    events.DirDeletedEvent,
    events.FileMovedEvent,
    events.DirMovedEvent,
    events.FileClosedEvent,
)
_MERE_READING = ("opened", "closed_no_write")  # since 2.3: our own looks would wake us
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_Inode = Tuple[int, int]


class Folder(events.FileSystemEventHandler):  # type: ignore[misc,unused-ignore]  # 2.2.1: untyped
    """A watched folder: passes on what watchdog tells of it under each of its paths."""

    def __init__(self, spelled: str, tell: Tell) -> None:
        """Take the path that watchdog knows it by."""
        self.spelled = spelled
        self.paths: frozenset[Path] = frozenset()
        self.is_gone = False
        self.watch: Any = None
        self.emitter: Any = None
        self._tell = tell

    def dispatch(self, event: Any) -> None:
        """Take an event; called in the observer's thread."""
        if event.event_type in _MERE_READING:
            return
        if event.src_path == self.spelled:
            # Its own rights are its parent's to tell; "modified" is watchdog's echo of a change.
            if event.event_type == "deleted":
                self.is_gone = True
                self._tell_of("", event.event_type)
            return
        for path in (event.src_path, getattr(event, "dest_path", None)):
            if path:  # None or "": moved in from elsewhere, or out
                self._tell_of(Path(path).name, event.event_type)

    def _tell_of(self, name: str, how: str) -> None:
        for path in self.paths:
            self._tell(path / name, how)


class FolderWatches:
    """Folders under watchdog; ``follow`` says which."""

    def __init__(self, tell: Tell) -> None:
        """Take who is told, in the observer's thread; nothing runs yet."""
        self._tell = tell
        self._observer: Any = None
        self._started = 0
        self._folders: dict[_Inode, Folder] = {}
        self._ending: list[Folder] = []
        self.has_died = False
        """Whether the last ``follow`` found that a thread had ended that should run."""

    def is_alive(self) -> bool:
        """Tell whether watchdog's thread runs."""
        return self._observer is not None and bool(self._observer.is_alive())

    def follow(self, folders: Iterable[Path]) -> dict[Path, OSError]:
        """Watch these folders; return those that can't be watched, and why.

        One that does not exist is none of them: the folder above it tells when it comes.
        """
        self.has_died = False
        wanted = list(folders)
        try:
            self._keep_observer()
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            failed = error if isinstance(error, OSError) else OSError(errno.EAGAIN, str(error))
            return dict.fromkeys(wanted, failed)
        self._reap()
        refused: dict[Path, OSError] = {}
        paths: dict[_Inode, set[Path]] = {}
        for folder in wanted:
            try:
                paths.setdefault(self._watch(folder), set()).add(folder)
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    refused[folder] = error
        for inode, watched in self._folders.items():
            watched.paths = frozenset(paths.get(inode, ()))
        return refused

    def _keep_observer(self) -> None:
        """Have an observer that runs. Raise OSError or RuntimeError: there is none to be had."""
        if self.is_alive():
            return
        if self._observer is not None:
            self.has_died = True
            self._observer = None
            self._folders, self._ending = {}, []
        if self._started >= MOST_OBSERVERS:
            raise OSError(errno.EAGAIN, "watchdog's thread has ended again and again")
        # "full": a file that is moved in from elsewhere is told from one that is being written.
        make: Any = InotifyObserver  # untyped in 2.2.1
        observer = make(generate_full_events=True)
        observer.start()
        self._started += 1
        self._observer = observer

    def _reap(self) -> None:
        """Forget the folders that are gone, at once: their inode numbers will be used again."""
        for inode, folder in list(self._folders.items()):
            if folder.is_gone or not folder.emitter.is_alive():
                # The last word of one that is being removed may still be on its way to us.
                self.has_died = self.has_died or not (folder.is_gone or _is_removed(folder))
                self._ending.append(self._folders.pop(inode))
        for folder in [folder for folder in self._ending if not folder.emitter.is_alive()]:
            self._observer.unschedule(folder.watch)
            self._ending.remove(folder)

    def _watch(self, folder: Path) -> _Inode:
        """Return the inode of a folder that is watched from now on. Raise OSError."""
        pin = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(pin)
            inode = (status.st_dev, status.st_ino)
            if inode not in self._folders:
                self._folders[inode] = self._schedule(pin)
            return inode
        finally:
            os.close(pin)

    def _schedule(self, pin: int) -> Folder:
        if len(self._folders) + len(self._ending) >= MOST_WATCHES:
            raise OSError(errno.ENOSPC, f"{MOST_WATCHES} folders are watched already")
        # "/.": watchdog follows no link at the end of a path.
        spelled = f"/proc/self/fd/{pin}/."
        taken = {known.spelled for known in (*self._folders.values(), *self._ending)}
        while spelled in taken:
            spelled += "/."
        if not os.access(spelled, os.R_OK):  # watchdog up to 6.0 takes EACCES for success
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        folder = Folder(spelled, self._tell)
        earlier = set(self._observer.emitters)
        schedule = self._observer.schedule
        has_filter = "event_filter" in inspect.signature(schedule).parameters  # since 4.0
        options = {"event_filter": list(_NEEDS)} if has_filter else {}
        try:
            folder.watch = schedule(folder, spelled, recursive=False, **options)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error
        (folder.emitter,) = set(self._observer.emitters) - earlier
        return folder


def _is_removed(folder: Folder) -> bool:
    """Tell whether an emitter has ended because its folder has: it is asked to stop then."""
    return bool(folder.emitter.stopped_event.is_set())
