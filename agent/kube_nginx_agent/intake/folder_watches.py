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
from typing import Any, Iterable, Tuple

from watchdog.observers.inotify import InotifyObserver

from kube_nginx_agent.intake.watched_folder import EVENTS, Tell, WatchedFolder

MOST_WATCHES = 64
"""Folders, of which a user has 128 inotify instances, one each before watchdog 7."""
MOST_STARTS = 4
"""Observers in all, for what an old one watches can't be stopped either."""

_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_Inode = Tuple[int, int]


class FolderWatches:
    """Folders under watchdog; ``follow`` says which."""

    def __init__(self, tell: Tell) -> None:
        """Take who is told, in the observer's thread; nothing runs yet."""
        self.has_died = False
        """Whether the last ``follow`` found that a thread had ended that should run."""
        self.is_fresh = False
        """Whether the last ``follow`` came to watch a folder that was not watched before it."""
        self._tell = tell
        self._observer: Any = None
        self._starts = 0
        self._folders: dict[_Inode, WatchedFolder] = {}
        self._ending: list[WatchedFolder] = []

    def is_alive(self) -> bool:
        """Tell whether watchdog's thread runs, or was given up."""
        if self._observer is None:
            return self._starts == MOST_STARTS
        return bool(self._observer.is_alive())

    def follow(self, folders: Iterable[Path], *, anew: bool = False) -> dict[Path, OSError]:
        """Watch these folders; return those that can't be watched, and why.

        One that does not exist is none of them: the folder above it tells when it comes. ``anew``:
        what watches has gone blind, and is left for another.
        """
        self.has_died = self.is_fresh = False
        wanted = list(folders)
        try:
            self._keep_observer(anew=anew)
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            return dict.fromkeys(wanted, _as_os_error(error))
        self._reap()
        refused: dict[Path, OSError] = {}
        paths: dict[_Inode, set[Path]] = {}
        for folder in wanted:
            try:
                paths.setdefault(self._watch(folder), set()).add(folder)
            except (OSError, RuntimeError) as error:
                if getattr(error, "errno", None) not in _NO_FOLDER:
                    refused[folder] = _as_os_error(error)
        for inode, watched in self._folders.items():
            watched.paths = frozenset(paths.get(inode, ()))
        return refused

    def _keep_observer(self, *, anew: bool) -> None:
        """Have an observer that runs. Raise OSError or RuntimeError: there is none to be had."""
        if self._observer is not None:
            self.has_died = not self._observer.is_alive()
            if not (self.has_died or (anew and self._starts < MOST_STARTS)):
                return
            for folder in self._folders.values():
                folder.paths = frozenset()
            self._observer, self._folders, self._ending = None, {}, []
        if self._starts == MOST_STARTS:
            raise OSError(errno.EAGAIN, "watchdog's thread has ended again and again")
        # "full": a file that is moved in from elsewhere is told from one that is being written.
        make: Any = InotifyObserver  # untyped in 2.2.1
        observer = make(generate_full_events=True)
        observer.start()
        self._starts += 1
        self._observer = observer

    def _reap(self) -> None:
        """Forget the folders that are gone, at once: their inode numbers will be used again."""
        for inode, folder in list(self._folders.items()):
            if folder.is_gone or not folder.emitter.is_alive():
                self.has_died = self.has_died or not folder.is_removed()
                self._ending.append(self._folders.pop(inode))
        for folder in [folder for folder in self._ending if not folder.emitter.is_alive()]:
            self._observer.unschedule(folder.watch)
            self._ending.remove(folder)

    def _watch(self, path: Path) -> _Inode:
        """Return the inode of a folder that is watched from now on. Raise OSError, RuntimeError."""
        pin = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(pin)
            inode = (status.st_dev, status.st_ino)
            if inode not in self._folders:
                self._folders[inode] = self._schedule(pin)
                self.is_fresh = True
            return inode
        finally:
            os.close(pin)

    def _schedule(self, pin: int) -> WatchedFolder:
        if len(self._folders) + len(self._ending) >= MOST_WATCHES:
            raise OSError(errno.EAGAIN, f"{MOST_WATCHES} folders are watched already")
        # "/.": watchdog follows no link at the end of a path.
        spelled = f"/proc/self/fd/{pin}/."
        taken = {known.spelled for known in (*self._folders.values(), *self._ending)}
        while spelled in taken:
            spelled += "/."
        if not os.access(spelled, os.R_OK):  # watchdog takes EACCES for success
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        folder = WatchedFolder(spelled, self._tell)
        earlier = set(self._observer.emitters)
        schedule = self._observer.schedule
        has_filter = "event_filter" in inspect.signature(schedule).parameters  # since 4.0
        options = {"event_filter": list(EVENTS)} if has_filter else {}
        folder.watch = schedule(folder, spelled, recursive=False, **options)
        (folder.emitter,) = set(self._observer.emitters) - earlier
        return folder


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(errno.EAGAIN, str(error))
