"""The administrator's file: its bytes once they have settled, and the last ones that were live."""

from __future__ import annotations

import errno
import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kube_nginx_agent.config.document import MAX_BYTES
from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.config.load import Loaded, load_config
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.intake.settle import QUIET_WHILE_OPEN, Settler
from kube_nginx_agent.node.files import FileError, link_target, read_file, replace_file

_HINTS = {
    errno.ENOENT: 'create it; an empty list is written "backends: []"',
    errno.EACCES: "let the user of the agent read it: chmod 644",
    errno.EISDIR: "it must be a file",
    errno.ELOOP: "its symbolic links lead in a circle",
}


@dataclass(frozen=True)
class Content:
    """What a look at the file gave: bytes, or why there are none."""

    data: bytes = b""
    error: AgentError | None = None
    changed_at: float | None = None
    """When the file came to be as it is, in seconds since the epoch; its change time (inode(7)),
    for a rename leaves the time of modification as it was."""
    modified_at: float | None = None
    """When its bytes were last written, in seconds since the epoch."""

    @property
    def digest(self) -> str:
        """Return what two looks are compared by."""
        return f"error: {self.error}" if self.error else hashlib.sha256(self.data).hexdigest()


class BackendsFile:
    """Watches over one file: what it holds, and whether that is new and complete."""

    def __init__(self, path: Path) -> None:
        """Take the path; nothing is read yet."""
        self.path = path
        self._settler = Settler()
        self._taken: str | None = None

    @property
    def due(self) -> float | None:
        """When the file wants to be looked at again; None: when something happens to it."""
        return self._settler.due

    def touch(self, now: float, *, being_written: bool = False) -> None:
        """Note that something may have happened to it."""
        self._settler.touch(now, being_written=being_written)

    def poll(self, now: float) -> None:
        """Have it looked at although nothing is known to have happened to it."""
        self._settler.poll(now)

    def forget(self) -> None:
        """Take what it holds for new at the next look, whether it has changed or not."""
        self._taken = None

    def news(self, now: float, *, at_once: bool = False) -> Content | None:
        """Return the content if it is new and has settled; ``at_once``: in any case."""
        if not at_once and (self.due is None or now < self.due):
            return None
        content = read_content(self.path)
        at_rest = content.digest == self._taken or _is_old(content)
        settled = self._settler.look(now, content.digest, at_rest=at_rest)
        if not (settled or at_once) or (content.digest == self._taken and not at_once):
            return None
        self._taken = content.digest
        return content


def _is_old(content: Content) -> bool:
    """Tell whether its bytes are older than any pause between two writes."""
    written = content.modified_at
    return written is not None and time.time() - written > QUIET_WHILE_OPEN


def read_content(path: Path) -> Content:
    """Read at most one byte more than a valid file has; never waits, as on a named pipe."""
    try:
        file = read_file(path, MAX_BYTES + 1)
    except FileError as error:
        return Content(error=_explain(error, path))
    status = file.status
    return Content(file.data, changed_at=status.st_ctime, modified_at=status.st_mtime)


def _explain(error: FileError, path: Path) -> AgentError:
    target = link_target(path)
    if error.errno == errno.ENOENT and target is not None:
        return AgentError(f"it is a link to {target}, which does not exist", where=str(path))
    return AgentError(error.what, where=str(path), hint=_HINTS.get(error.errno, error.hint))


class AcceptedCopy:
    """The last list that was live, for an agent that starts while a newer one is broken."""

    def __init__(self, copy: Path, original: Path) -> None:
        """Take the path of the copy, and of the file that it is one of."""
        self._copy = copy
        self._original = original

    def save(self, data: bytes) -> None:
        """Keep ``data``; worth a try only, for the live config is kept elsewhere."""
        with suppress(FileError):
            if read_content(self._copy).data != data:
                replace_file(self._copy, data.decode("utf-8"))

    def load(self) -> tuple[bytes, Loaded | None]:
        """Return what was kept last; None if nothing was, or this version refuses it."""
        content = read_content(self._copy)
        if content.error:
            return b"", None
        try:
            return content.data, load_config(content.data, str(self._original))
        except ConfigError:
            return b"", None
