"""The one edge to files and their errors: nobody else asks pathlib or os about the disk.

pathlib's predicates raise PermissionError where a folder may not be entered, which on a hardened
node is any folder, at any time. Here a question has an answer for every errno, and what can't be
done raises FileError, an error that a user can act on. What is written here any user may read,
whatever the umask.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from kube_nginx_agent.errors import AgentError

_FILE_MODE, _FOLDER_MODE = 0o644, 0o755

_MOST_DIGITS = 20
"""Of the largest number of 64 bits."""
_SPARE_BYTES = 16 * 1024
"""A config with 64 backends has 9 KB."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_HINTS = {
    errno.EACCES: "let the agent's user reach it: its folders need x, the file r",
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EROFS: "mount it writable",
    errno.EIO: "look at the disk",
}


class FileError(AgentError):
    """A file can't be used; ``errno`` is the system's number for why."""

    def __init__(self, path: Path | str, what: str, error: OSError, hint: str = "") -> None:
        """Say ``what`` failed, in the system's words; ``hint`` if the errno's own is too little."""
        self.errno = error.errno or 0
        reason = error.strerror or str(error)
        hint = hint or _HINTS.get(self.errno, "")
        super().__init__(f"{what}: {reason}", where=str(path), hint=hint)


def status_of(path: Path) -> os.stat_result | None:
    """Return what stat(2) says; None where there is nothing. Raise FileError: it can't be told."""
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise FileError(path, "it can't be looked at", error) from error
    except ValueError:
        return None  # no name has a null byte


def is_there(path: Path) -> bool:
    """Tell whether there is something at ``path`` that we may look at."""
    return _mode(path) is not None


def is_regular(path: Path) -> bool:
    """Tell whether there is a regular file at ``path``, at the end of all links."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder at ``path``, at the end of all links."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def owner_of(path: Path) -> int | None:
    """Return the uid that a file or folder belongs to; None where there is nothing to be seen."""
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def is_runnable(path: Path) -> bool:
    """Tell whether we may run the file at ``path``."""
    return os.access(path, os.X_OK)


def link_target(path: Path) -> str | None:
    """Return where the link at ``path`` leads; None when it is none, or can't be looked at."""
    try:
        return os.readlink(path)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class FileContent:
    """The bytes of a file, and what fstat(2) says of just that file."""

    data: bytes
    status: os.stat_result


def read_file(path: Path, longest: int = -1) -> FileContent:
    """Return the content, at most ``longest`` bytes of it (-1: all). Raise FileError.

    Never waits, as on a named pipe, and reads nothing but regular files.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                if stat.S_ISDIR(status.st_mode):
                    raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
                raise OSError(errno.EINVAL, "it is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                return FileContent(file.read(longest), status)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FileError(path, "it can't be read", error) from error


def read_bytes(path: Path, longest: int = -1) -> bytes:
    """Return the content, at most ``longest`` bytes of it (-1: all). Raise FileError."""
    return read_file(path, longest).data


def read_text(path: Path) -> str | None:
    """Return the content; None when there is no such file or it can't be read as text."""
    try:
        return read_bytes(path).decode("utf-8")
    except (FileError, UnicodeDecodeError):
        return None


def read_proc(path: Path | str) -> str:
    """Return what proc(5) shows there; "" when it is gone or closed to us.

    The kernel passes on what strangers have chosen: names of processes and of sockets are bytes,
    which are kept as they are (``os.fsencode`` gives them back).
    """
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read())
    except OSError:
        return ""


def number_of(text: str) -> int | None:
    """Return the number that stands there as the kernel prints one; None if it is something else.

    Names that strangers choose stand in the same lines, and int() refuses more than 4,300 digits.
    """
    return int(text) if len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit() else None


def names_in(folder: Path | str) -> list[str]:
    """Return the names in a folder; none when it is gone or closed to us."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def open_files_of(pid: int | str) -> Iterator[tuple[int, str]]:
    """Yield (descriptor, where it leads) of a process's open files, as far as we may look."""
    folder = f"/proc/{pid}/fd"
    for name in names_in(folder):
        with suppress(OSError):
            yield int(name), os.readlink(f"{folder}/{name}")


def write_beside(path: Path, text: str, *, spare: Path | None = None) -> None:
    """Write ``text`` to ``path`` and to the disk; on failure there is no file. Raise FileError.

    Where the disk is full the text goes into the room that the file ``spare`` has, if it is given.
    """
    try:
        try:
            _write(path, text)
        except OSError as error:
            if error.errno not in _NO_SPACE or spare is None or not _is_free(spare):
                raise
            os.replace(spare, path)
            _write(path, text, within=True)
    except OSError as error:
        with suppress(OSError):
            os.unlink(path)
        raise FileError(path, "it can't be written", error) from error


def move_over(source: Path, target: Path, *, spare: Path | None = None) -> None:
    """Put ``source`` in the place of ``target``, both in one folder, and have the disk know it.

    With ``spare`` there is a file of that name, for its room, if that can be had. Raise FileError.
    """
    try:
        if spare:
            _keep_room_of(target, spare)
        os.replace(source, target)
    except OSError as error:
        raise FileError(target, "it can't be replaced", error) from error
    if spare:
        _reserve(spare)
    sync_folder(target.parent)


def replace_file(path: Path, text: str, *, spare: Path | None = None) -> None:
    """Give ``path`` the content ``text``, all at once. Raise FileError."""
    beside = path.with_name(f"{path.name}.new")
    write_beside(beside, text, spare=spare)
    move_over(beside, path, spare=spare)


def remove(path: Path) -> None:
    """Remove the file, if there is one. Raise FileError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileError(path, "it can't be removed", error) from error


def make_folder(path: Path, mode: int = _FOLDER_MODE) -> None:
    """Make the folder, and those above it for everyone to pass, where missing. Raise FileError."""
    missing = [folder for folder in (path, *path.parents) if not is_there(folder)]
    try:
        for folder in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(folder)
                os.chmod(folder, mode if folder == path else _FOLDER_MODE)
    except OSError as error:
        raise FileError(path, "the folder can't be made", error) from error


def set_mode(path: Path, mode: int) -> None:
    """Give the file or folder this mode, unless it has it. Raise FileError."""
    try:
        if stat.S_IMODE(os.stat(path).st_mode) != mode:
            os.chmod(path, mode)
    except OSError as error:
        raise FileError(path, "its mode can't be set", error) from error


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in ``folder``. Raise FileError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FileError(folder, "the folder can't be synced", error) from error


def _write(path: Path, text: str, *, within: bool = False) -> None:
    """Write and sync; ``within`` the blocks that the file has already, as far as they reach."""
    # Never through a link: nginx, once taken over, may have put one into the run folder.
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_RDWR if within else os.O_WRONLY | os.O_CREAT)
    descriptor = os.open(path, flags | (0 if within else os.O_TRUNC), _FILE_MODE)
    with open(descriptor, "r+" if within else "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), _FILE_MODE)
        file.write(text)
        file.flush()
        if within:
            file.truncate()
        os.fsync(file.fileno())


def _is_free(spare: Path) -> bool:
    """Tell whether the spare is there; with a second name it is still the live file."""
    try:
        return os.stat(spare).st_nlink == 1
    except OSError:
        return False


def _keep_room_of(old: Path, spare: Path) -> None:
    """Keep the blocks of ``old``, which is about to be replaced, where the spare has been used."""
    with suppress(OSError):
        os.link(old, spare)


def _reserve(spare: Path) -> None:
    """Have room for a longer text than the last one; worth a try only.

    Always in a file of its own: somebody may still be reading what was replaced.
    """
    larger = spare.with_name(f"{spare.name}.new")
    with suppress(OSError):
        if _size(spare) >= _SPARE_BYTES:
            return
        try:
            with open(larger, "xb") as file:
                os.posix_fallocate(file.fileno(), 0, _SPARE_BYTES)
            os.replace(larger, spare)
        except OSError:
            os.unlink(larger)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return None
