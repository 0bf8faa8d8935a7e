"""inotify(7): the kernel's word on what changes in a few folders.

Bound here because watchdog's way to drop a folder is to join a thread that may wait for ever: with
Debian 12's 2.2.1 a ConfigMap that was swapped a few times in a row stopped the whole agent. It also
takes an inotify instance and two threads for each folder; this is one instance for all.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

# include/uapi/linux/inotify.h
IN_MODIFY = 0x002
IN_ATTRIB = 0x004
IN_CLOSE_WRITE = 0x008
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_Q_OVERFLOW = 0x4000
_IN_ONLYDIR = 0x01000000
_CHANGES = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
)

_HEAD = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len; then the name
_BUFFER = 64 * 1024


@dataclass(frozen=True)
class Change:
    """What happened (``mask``) to the file ``name`` in the folder of the watch ``watch``."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One inotify instance."""

    def __init__(self) -> None:
        """Raise OSError where the user has as many instances as the kernel allows."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._checked(self._libc.inotify_init1(os.O_CLOEXEC))

    def add(self, folder: Path) -> int:
        """Watch a folder and return the watch's number; one that is watched keeps its own.

        Raise OSError, as inotify_add_watch(2).
        """
        path, mask = os.fsencode(folder), ctypes.c_uint32(_CHANGES | _IN_ONLYDIR)
        return self._checked(self._libc.inotify_add_watch(self._descriptor, path, mask))

    def remove(self, watch: int) -> None:
        """Watch no longer; a folder that is gone has taken its watch with it."""
        self._libc.inotify_rm_watch(self._descriptor, watch)

    def wait(self) -> list[Change]:
        """Wait for changes and return them, in order."""
        data = os.read(self._descriptor, _BUFFER)
        changes, place = [], 0
        while place < len(data):
            watch, mask, _cookie, length = _HEAD.unpack_from(data, place)
            name = data[place + _HEAD.size : place + _HEAD.size + length].rstrip(b"\0")
            changes.append(Change(watch, mask, os.fsdecode(name)))
            place += _HEAD.size + length
        return changes

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
