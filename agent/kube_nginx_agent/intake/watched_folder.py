"""A folder that watchdog watches: what it tells of it, under each of the folder's paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from watchdog import events

Tell = Callable[[Path, str], None]
"""Takes what was touched, and watchdog's word for how (``events.EVENT_TYPE_...``)."""

_NAMES = ("Created", "Modified", "Attrib", "Deleted", "Moved", "Closed")
EVENTS = tuple(
    getattr(events, f"{what}{how}Event")
    for what in ("File", "Dir")
    for how in _NAMES
    if hasattr(events, f"{what}{how}Event")  # Attrib: since 7.0; only files are closed
)
"""The classes of events that are asked for, where watchdog can be asked (since 4.0)."""

_MERE_READING = ("opened", "closed_no_write")  # since 2.3: our own looks would wake us


class WatchedFolder(events.FileSystemEventHandler):  # type: ignore[misc,unused-ignore]  # untyped
    """A folder by the path that watchdog knows it by, with the ways that lead to it."""

    def __init__(self, spelled: str, tell: Tell) -> None:
        """Take watchdog's path for it, and who is told."""
        self.spelled = spelled
        self.paths: frozenset[Path] = frozenset()
        self.is_gone = False
        self.watch: Any = None
        self.emitter: Any = None
        self._tell = tell

    def is_removed(self) -> bool:
        """Tell whether its thread ends because the folder is gone: watchdog stops it then.

        The last event, which sets ``is_gone``, may still be on its way.
        """
        return self.is_gone or bool(self.emitter.stopped_event.is_set())

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
