"""Files in memory, with the errors that a real disk has: full, read-only, closed."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import cast

from kube_nginx_agent.node.files import FileContent, FileError
from simulation.clock import Clock


@dataclass(frozen=True)
class File:
    data: bytes
    written_at: float
    inode: int


@dataclass(frozen=True)
class Status:
    """As much of os.stat_result as is asked for."""

    st_ino: int
    st_size: int
    st_mtime: float
    st_dev: int = 1
    st_mode: int = 0o100644

    @property
    def st_ctime(self) -> float:
        return self.st_mtime

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime * 1e9)

    @property
    def st_ctime_ns(self) -> int:
        return self.st_mtime_ns


class Disk:
    """Stands in for ``node.files``: the methods have its functions' names and meaning."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._files: dict[Path, File] = {}
        self._inodes = count(10)
        self.trouble: dict[Path, int] = {}
        """The errno that each write to a folder fails with, if one does."""
        self.closed: set[Path] = set()
        """Files that the agent may not read."""

    def put(self, path: Path, data: bytes) -> None:
        """Write as somebody else does, for whom no fault of ours counts."""
        self._files[path] = File(data, self._clock.wall, next(self._inodes))

    def data(self, path: Path) -> bytes | None:
        file = self._files.get(path)
        return file.data if file else None

    def take_away(self, path: Path) -> None:
        self._files.pop(path, None)

    def status_of(self, path: Path) -> os.stat_result | None:
        file = self._files.get(path)
        return cast(os.stat_result, _status(file)) if file else None

    def is_there(self, path: Path) -> bool:
        return path in self._files

    def link_target(self, path: Path) -> str | None:
        del path
        return None

    def read_file(self, path: Path, longest: int = -1) -> FileContent:
        file = self._files.get(path)
        if file is None or path in self.closed:
            raise _error(path, "it can't be read", errno.EACCES if file else errno.ENOENT)
        data = file.data if longest < 0 else file.data[:longest]
        return FileContent(data, cast(os.stat_result, _status(file)))

    def read_bytes(self, path: Path, longest: int = -1) -> bytes:
        return self.read_file(path, longest).data

    def read_text(self, path: Path) -> str | None:
        try:
            return self.read_bytes(path).decode("utf-8")
        except (FileError, UnicodeDecodeError):
            return None

    def write_beside(self, path: Path, text: str, *, spare: Path | None = None) -> None:
        trouble = self.trouble.get(path.parent)
        if trouble == errno.ENOSPC and spare in self._files:
            del self._files[spare]  # its room is taken
        elif trouble:
            self._files.pop(path, None)
            raise _error(path, "it can't be written", trouble)
        self.put(path, text.encode())

    def move_over(self, source: Path, target: Path, *, spare: Path | None = None) -> None:
        trouble = self.trouble.get(target.parent)
        if trouble == errno.EROFS or source not in self._files:
            raise _error(target, "it can't be replaced", trouble or errno.ENOENT)
        has_room = target in self._files or trouble != errno.ENOSPC
        self._files[target] = self._files.pop(source)
        if spare and has_room:
            self.put(spare, b"")

    def replace_file(self, path: Path, text: str, *, spare: Path | None = None) -> None:
        beside = path.with_name(f"{path.name}.new")
        self.write_beside(beside, text, spare=spare)
        self.move_over(beside, path, spare=spare)

    def remove(self, path: Path) -> None:
        if path in self._files and self.trouble.get(path.parent) == errno.EROFS:
            raise _error(path, "it can't be removed", errno.EROFS)
        self._files.pop(path, None)


def _status(file: File) -> Status:
    return Status(file.inode, len(file.data), file.written_at)


def _error(path: Path, what: str, number: int) -> FileError:
    return FileError(path, what, OSError(number, os.strerror(number)))
