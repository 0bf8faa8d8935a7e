"""A look at a file each second, for changes that inotify(7) does not tell of."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Callable, Collection

from kube_nginx_agent.node.files import FileError, status_of

SECONDS = 1.0
"""Between two looks: a stat(2) of a few files costs some 10 us."""


class FilePoll:
    """Looks at a few files in a thread of its own, which runs only while there are any.

    Of its own, because a stat(2) of a file whose server is away may take for ever.
    """

    def __init__(self, tell: Callable[[Path], None], seconds: float = SECONDS) -> None:
        """Take who is told of a change, in the thread, and the seconds between two looks."""
        self._tell = tell
        self._seconds = seconds
        self._seen: dict[Path, tuple[object, ...]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def follow(self, files: Collection[Path]) -> None:
        """Look at these files from now on; at none: end the thread.

        Where there is no thread to be had, ``is_alive`` says so, and the next call tries again.
        """
        seen = self._seen
        self._seen = {file: seen[file] if file in seen else look(file) for file in files}
        if files and not self.is_alive():
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="file poll", daemon=True
            )
            with suppress(RuntimeError):
                self._thread.start()
        elif not files:
            self._stop.set()
            self._thread = None

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._seconds):
            seen = self._seen  # ``follow`` puts another in its place, and never changes one
            for file, before in list(seen.items()):
                now = look(file)
                if now != before:
                    seen[file] = now
                    self._tell(file)


def look(file: Path) -> tuple[object, ...]:
    """Return what differs when the file has changed, in content, in rights, or as a whole."""
    try:
        status = status_of(file)
    except FileError as error:
        return (error.errno,)
    if status is None:
        return ()
    return (
        *(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns),
        *(status.st_ctime_ns, status.st_mode),
    )
