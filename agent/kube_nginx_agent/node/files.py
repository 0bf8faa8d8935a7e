"""Replace a file so that a crash at any moment leaves the old one or the new one, whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_beside(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` and to the disk; on failure there is no file. Raise OSError."""
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


def move_over(source: Path, target: Path) -> None:
    """Put ``source`` in the place of ``target``, both in one folder, and have the disk know it."""
    source.replace(target)
    sync_folder(target.parent)


def replace_file(path: Path, text: str) -> None:
    """Give ``path`` the content ``text``, all at once. Raise OSError."""
    beside = path.with_name(f"{path.name}.new")
    write_beside(beside, text)
    move_over(beside, path)


def read_text(path: Path) -> str | None:
    """Return the content, or None when there is no such file or it can't be read as text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in ``folder``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
