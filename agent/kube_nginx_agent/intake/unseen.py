"""Files whose changes inotify(7) does not tell to those who watch their folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from kube_nginx_agent.node.files import FileError, read_proc, status_of

_REMOTE = re.compile(
    r"nfs|nfs4|cifs|smb3|smbfs|9p|afs|ceph|lustre|gpfs|glusterfs|virtiofs|fuse\..+"
)
"""inotify(7), "Limitations and caveats": what another host changes makes no event here."""

_LOOK_AGAIN = 10.0
"""Seconds for which the table of mounts is kept: a node with many pods has thousands of lines."""


class Mounts:
    """What is mounted where: mount points and their types of file system."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._types: dict[str, str] = {}
        self._until = float("-inf")

    def refresh(self, now: float) -> None:
        """Read the table if it is old; ``now`` is in seconds of the steady clock."""
        if now >= self._until:
            self._types = parse(read_proc("/proc/self/mountinfo"))
            self._until = now + _LOOK_AGAIN

    def of(self, path: Path) -> tuple[Path | None, str]:
        """Return the mount point that a path lies below, or is, and the type, if known."""
        for point in (path, *path.parents):
            if str(point) in self._types:
                return point, self._types[str(point)]
        return None, ""


def parse(mountinfo: str) -> dict[str, str]:
    """Return the type at each mount point, of /proc/self/mountinfo (proc(5)); later ones cover."""
    types = {}
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split(" ")
        if len(words) > 4 and rest:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4])
            types[point] = rest.split(" ")[0]
    return types


def why_unseen(file: Path, mounts: Mounts) -> str:
    """Return why changes of a file may make no event in its folder; "" when they do."""
    real = Path(os.path.realpath(file))
    point, kind = mounts.of(real)
    if _REMOTE.fullmatch(kind):
        return f"it lies on a network file system ({kind})"
    if point == real:
        return "it is mounted by itself, and its changes are told where it comes from"
    try:
        status = status_of(file)
    except FileError:
        return "it can't be looked at"
    # An executable is replaced, never written over (ETXTBSY), and some systems link all of /usr.
    is_data = status is not None and stat.S_ISREG(status.st_mode) and not status.st_mode & 0o111
    if status and is_data and status.st_nlink > 1:
        return "it has a second name (a hard link), and changes made there are told there"
    return ""
