"""A look at each file every second, for changes that inotify(7) does not tell of.

It does not on network file systems, for a file that is mounted by itself or is written under a
second name, for folders that we may not read, and when a thread of watchdog has died. So this does
not ask why: a change that is found here before an event has told of it shows that none does.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterable, Tuple

from kube_nginx_agent.node.files import FileError, status_of
from kube_nginx_agent.node.starting import NoThreadError, start_thread

SECONDS = 1.0
"""Between two looks, and the time that an event may take: a look at five files takes 20 us."""

Look = Tuple[int, ...]
"""What differs when a file is another: device, inode, size, time of the last write, and rights.

Not the time of change (inode(7)), which a second name alters, without an event for the first.
"""


class FilePoll:
    """Knows how each file looked last; a thread of its own looks again.

    Of its own, because a stat(2) of a file whose server is away may take for ever.
    """

    def __init__(
        self, files: Iterable[Path], tell: Callable[[Path], None], seconds: float = SECONDS
    ) -> None:
        """Take who is told, in the thread, that a file has changed, or gone unseen."""
        self.unseen: frozenset[Path] = frozenset()
        """Files of whose last change no event has told."""
        self._tell = tell
        self._seconds = seconds
        self._seen = {file: look(file) for file in files}
        self._awaited: set[Path] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def keep_running(self) -> bool:
        """Start the thread if none runs, and tell whether one had ended.

        Where there is no thread to be had, ``is_alive`` says so, and the next call tries again.
        """
        if self.is_alive():
            return False
        has_ended = self._thread is not None
        with suppress(NoThreadError):
            self._thread = start_thread("file poll", self._run)
        return has_ended

    def note_event(self, file: Path) -> bool:
        """Take that an event has told of a file; return whether its bytes are others now."""
        with self._lock:
            self._awaited.discard(file)
            self.unseen -= {file}
            before, now = self._look(file)
        return before[:4] != now[:4]

    def _run(self) -> None:
        wait = threading.Event().wait
        while not wait(self._seconds):
            for file in self._seen:
                if self._has_news(file):
                    self._tell(file)

    def _has_news(self, file: Path) -> bool:
        with self._lock:
            was_awaited = file in self._awaited
            if was_awaited:
                self._awaited.discard(file)
                self.unseen |= {file}
            before, now = self._look(file)
            if before != now:
                self._awaited.add(file)
        return was_awaited or before != now

    def _look(self, file: Path) -> tuple[Look, Look]:
        before, self._seen[file] = self._seen[file], look(file)
        return before, self._seen[file]


def look(file: Path) -> Look:
    """Return how a file looks now; one that can't be looked at has its errno."""
    try:
        status = status_of(file)
    except FileError as error:
        return (error.errno,)
    if status is None:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
