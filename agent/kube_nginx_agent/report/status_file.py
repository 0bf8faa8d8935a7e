"""The state of the whole as one value: a line for systemd and people, a JSON file for the rest."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, Tuple

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.nginx.process import Process, is_alive
from kube_nginx_agent.node.files import FileError, is_there, read_bytes, remove, replace_file
from kube_nginx_agent.node.lock import words_of_holder
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.report.report_form import LONGEST, parse_report


class Verdict(IntEnum):
    """The whole in one word; its number is the exit code of ``kube-nginx-agent status``."""

    OK = 0
    DEGRADED = 1
    DOWN = 2
    NOT_RUNNING = 3
    UNKNOWN = 4


class NotRunningError(AgentError):
    """No agent runs on this run folder."""

    def __init__(self, paths: Paths, why: str) -> None:
        """Say how that is known."""
        hint = "`systemctl start kube-nginx-agent` starts it"
        super().__init__(f"the agent is not running: {why}", where=str(paths.run_dir), hint=hint)


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
    start_time: int
    """The agent's, in clock ticks since boot: with the pid it names one process for good."""
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
    is_list_live: bool = False
    """Whether nginx serves the list that backends.yaml holds now, whoever of it is well."""
    is_anybody_served: bool = True
    """Whether an apiserver passes its checks; a list without backends lacks none."""
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
        if self.generation is None or not self.is_anybody_served:
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


def write_status(status: Status, paths: Paths) -> None:
    """Replace the status file. Raise FileError; then there is none, for an old one would lie."""
    try:
        text = json.dumps(asdict(status), indent=1) + "\n"
        replace_file(paths.status, text, spare=paths.status_spare)
    except FileError:
        with suppress(FileError):
            remove(paths.status)
        raise


def read_status(paths: Paths) -> dict[str, Any]:
    """Return what the running agent last wrote.

    Raise NotRunningError when it has ended, AgentError when that can't be told.
    """
    try:
        content = parse_report(read_bytes(paths.status, longest=LONGEST))
    except FileError as error:
        if error.errno == errno.ENOENT:
            raise _no_report(paths) from error
        raise
    except ValueError as error:
        hint = "it is written anew within 10 s"
        raise AgentError("it is not a status", where=str(paths.status), hint=hint) from error
    if not is_alive(Process(content["pid"], content["start_time"])):
        age = max(time.time() - content["updated_at"], 0.0)
        raise NotRunningError(paths, f"it last reported {age:.0f} s ago, and has ended since")
    return content


def running_agent(paths: Paths) -> Process:
    """Return the agent that holds the lock. Raise AgentError when there is none, or none is seen.

    The lock, and not the status file, says whom to signal: files outlive their writers, and a pid
    is somebody else's by then.
    """
    words = words_of_holder(paths.lock)
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
        process = Process(int(words[0]), int(words[1]))
        if is_alive(process):
            return process
    is_closed = is_there(paths.private_dir) and not os.access(paths.private_dir, os.X_OK)
    if is_closed and os.geteuid():
        raise AgentError("this user may not read it", where=str(paths.lock), hint="run it as root")
    raise NotRunningError(paths, "nobody holds its lock")


def _no_report(paths: Paths) -> AgentError:
    """Tell an agent that can't report from one that is not there."""
    try:
        pid = running_agent(paths).pid
    except NotRunningError as error:
        return error
    except AgentError:
        what = "there is no report, and this user can't see whether the agent runs"
        return AgentError(what, where=str(paths.status), hint="ask as root")
    return AgentError(
        f"the agent (pid {pid}) runs but has not reported",
        where=str(paths.status),
        hint="try again in a second; is there room in that folder?",
    )


def _describe(problem: dict[str, Any]) -> str:
    where = f"{problem['where']}: " if problem["where"] else ""
    return f"{where}{problem['what']}"
