"""The state of the whole as one value: a line for systemd and people, a JSON file for the rest."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Tuple

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.files import replace_file
from kube_nginx_agent.node.paths import Paths


class Verdict(IntEnum):
    """The whole in one word; its number is the exit code of ``kube-nginx-agent status``."""

    OK = 0
    DEGRADED = 1
    DOWN = 2
    NOT_RUNNING = 3


_UP = ("up", "suspect", "new")


@dataclass(frozen=True)
class BackendStatus:
    """One server of nginx's upstream."""

    address: str
    name: str
    state: str
    since: float
    cause: str
    takes_connections: bool
    rtt_ms: float | None
    sessions: int
    sessions_cut: int
    weight: int
    backup: bool


@dataclass(frozen=True)
class Status:
    """Everything that ``status`` shows; times are seconds since the epoch."""

    pid: int
    version: str
    config_file: str
    started_at: float
    updated_at: float
    listen: Tuple[str, ...] = ()
    backends: Tuple[BackendStatus, ...] = ()
    nginx_pid: int | None = None
    nginx_version: str = ""
    generation: str | None = None
    """The one that nginx serves."""
    wanted_generation: str | None = None
    live_since: float | None = None
    draining_generations: int = 0
    problems: Tuple[dict[str, Any], ...] = ()
    reloads_requested: int = 0
    reloads_done: int = 0
    verdict: str = field(init=False)
    summary: str = field(init=False)

    def __post_init__(self) -> None:
        """Derive the word and the line, so that they are in the file for those who only read it."""
        object.__setattr__(self, "verdict", self._verdict().name.lower())
        object.__setattr__(self, "summary", self._summary())

    def _verdict(self) -> Verdict:
        if self.generation is None or (self.backends and not self._up()):
            return Verdict.DOWN
        healthy = self.generation == self.wanted_generation and not self.problems
        return Verdict.OK if healthy else Verdict.DEGRADED

    def _summary(self) -> str:
        parts = [_describe(problem) for problem in self.problems[:1]]
        if len(self.problems) > 1:
            parts.append(f"{len(self.problems) - 1} more problems")
        parts.append(self._serving())
        return "; ".join(parts)

    def _serving(self) -> str:
        if self.generation is None:
            return "nginx serves nothing yet" if self.nginx_pid else "nginx is not running"
        where = f"generation {self.generation} live on {', '.join(self.listen)}"
        if not self.backends:
            return f"no backends configured, {where}"
        noun = "apiserver" if len(self.backends) == 1 else "apiservers"
        return f"{len(self._up())}/{len(self.backends)} {noun} up, {where}"

    def _up(self) -> list[BackendStatus]:
        return [backend for backend in self.backends if backend.state in _UP]


def write_status(status: Status, file: Path) -> None:
    """Replace the status file. Raise FileError."""
    replace_file(file, json.dumps(asdict(status), indent=1) + "\n")


def read_status(paths: Paths) -> dict[str, Any]:
    """Return what the running agent last wrote; raise AgentError when none is running."""
    if not is_agent_running(paths):
        raise AgentError(
            "the agent is not running",
            where=str(paths.run_dir),
            hint="`systemctl start kube-nginx-agent` starts it",
        )
    try:
        content: dict[str, Any] = json.loads(paths.status.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AgentError(
            "the agent has not reported yet", where=str(paths.status), hint="try again in a second"
        ) from error
    except (OSError, ValueError) as error:
        raise AgentError(f"the status can't be read: {error}", where=str(paths.status)) from error
    return content


def is_agent_running(paths: Paths) -> bool:
    """Tell whether an agent holds the lock of this run folder."""
    try:
        descriptor = os.open(paths.lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AgentError(f"it can't be read: {error.strerror}", where=str(paths.lock)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _describe(problem: dict[str, Any]) -> str:
    where = f"{problem['where']}: " if problem["where"] else ""
    return f"{where}{problem['what']}"
