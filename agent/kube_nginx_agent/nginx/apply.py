"""The one way to a live config: test, install, reload, prove; or all the way back."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import AbstractSet, Collection, Iterable

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import Desired, Rendered
from kube_nginx_agent.nginx import canary, generation, limits, ports
from kube_nginx_agent.nginx.binary import Nginx, NginxError
from kube_nginx_agent.nginx.log import LogMessage, LogReader
from kube_nginx_agent.nginx.orphans import find_orphans
from kube_nginx_agent.nginx.process import (
    Process,
    ProcessGoneError,
    is_alive,
    is_retiring,
    is_stopped,
    send_signal,
    serving,
)
from kube_nginx_agent.nginx.rendering import generation_of, without_generation_socket
from kube_nginx_agent.nginx.supervise import NotOursToStartError, Supervisor
from kube_nginx_agent.node.files import (
    FileError,
    is_there,
    move_over,
    read_text,
    remove,
    replace_file,
    write_beside,
)
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.waiting import StoppedWaitingError, wait_until

_ASK_TIMEOUT = 0.5


class ApplyError(AgentError):
    """A config did not go live."""

    def __init__(self, step: str, cause: AgentError, *, last_good_serves: bool) -> None:
        """Say at which step it failed, in the cause's words, and whether the last good goes on."""
        outcome = "the last good config goes on" if last_good_serves else "nothing is served"
        hint = f"{cause.hint}; {outcome}" if cause.hint else outcome
        super().__init__(cause.what, where=cause.where, hint=hint)
        self.step = step
        self.last_good_serves = last_good_serves


@dataclass(frozen=True)
class Proof:
    """nginx serves a generation: which, by whom, and how many seconds it took to get there."""

    generation: str
    master: Process
    seconds: float


class Applier:
    """Brings a rendered config to nginx; has no state but what the disk and nginx have."""

    def __init__(self, paths: Paths, nginx: Nginx, supervisor: Supervisor, log: LogReader) -> None:
        """Take the tools; nothing is touched yet."""
        self._paths = paths
        self._nginx = nginx
        self._supervisor = supervisor
        self._log = log

    def ask(self) -> generation.Answer | generation.NoAnswer:
        """Ask nginx what it serves."""
        return generation.ask(self._paths.generation_socket, _ASK_TIMEOUT)

    def served_generation(self) -> str | None:
        """Ask nginx what it serves; None when it does not answer."""
        answer = self.ask()
        return answer.generation if isinstance(answer, generation.Answer) else None

    def live_text(self) -> str | None:
        """Return the live config as it is on disk; None when there is none to be read."""
        return read_text(self._paths.live)

    def last_good(self) -> Rendered | None:
        """Return the last config that nginx was seen to serve; None when it is not known."""
        text = read_text(self._paths.last_good)
        found = generation_of(text)
        return Rendered(text, found) if text and found else None

    def restore(self, rendered: Rendered) -> None:
        """Put the text back that nginx serves, without a reload. Raise FileError."""
        replace_file(self._paths.live, rendered.text, spare=self._paths.spare)

    def start_from_disk(self) -> None:
        """Start nginx from the live config, if there is one. Raise AgentError."""
        if is_there(self._paths.live):
            self._supervisor.start()

    def apply(self, rendered: Rendered, desired: Desired) -> Proof:
        """Make ``rendered`` live and prove it.

        Raise ApplyError when a step fails; what nginx served before is then put back and proven.
        """
        began = time.monotonic()
        master = self._supervisor.master()
        served = self.served_generation() if master else None
        step = "test"
        try:
            self._test(rendered, master)
            step = "preflight"
            ports.check_listen(desired.listen, master, self._orphans(master))
            step = "install"
            if master and not is_there(self._paths.generation_socket):
                self._renew_socket(rendered, master)
            self._install(served)
        except StoppedWaitingError:
            raise
        except AgentError as cause:
            with suppress(FileError):  # on a read-only file system it is not there either
                remove(self._paths.candidate)
            last_good_serves = served is not None or (master is None and self._roll_back(None))
            raise ApplyError(step, cause, last_good_serves=last_good_serves) from cause
        try:
            step = "reload" if master else "start"
            master = self._activate(rendered.generation, master)
            step = "canary"
            self.check_data_path(desired)
        except StoppedWaitingError:
            raise  # The next agent sees what nginx serves, and goes on from there.
        except NotOursToStartError as cause:
            # Not the config's fault; the service manager is to find the last good one, though.
            with suppress(FileError):
                move_over(self._paths.last_good, self._paths.live)
                self._keep_if_good(generation_of(self.live_text()))
            raise ApplyError(step, cause, last_good_serves=False) from cause
        except AgentError as cause:
            raise ApplyError(step, cause, last_good_serves=self._roll_back(served)) from cause
        with suppress(FileError):  # it is live all the same; the next install tries again
            self._keep_if_good(rendered.generation)
        return Proof(rendered.generation, master, time.monotonic() - began)

    def _test(self, rendered: Rendered, master: Process | None) -> None:
        write_beside(self._paths.candidate, rendered.text, spare=self._paths.spare)
        self._nginx.test(self._paths.candidate, master)

    def _orphans(self, master: Process | None) -> list[Process]:
        """Return the workers that a killed master has left, and that a start will retire."""
        return [] if master else find_orphans(self._paths.generation_socket, self._paths.nginx)

    def _install(self, served: str | None) -> None:
        with suppress(FileError):  # no room for a copy: then the way back is by rendering again
            self._keep_if_good(served)
        move_over(self._paths.candidate, self._paths.live, spare=self._paths.spare)

    def _keep_if_good(self, served: str | None) -> None:
        """Remember the live config as the last good one, if it is what nginx serves.

        A copy, not a second name: who edits the live config in place would edit both.
        """
        text = read_text(self._paths.live)
        if text and generation_of(text) == served and text != read_text(self._paths.last_good):
            replace_file(self._paths.last_good, text)

    def _renew_socket(self, rendered: Rendered, master: Process) -> None:
        """Have nginx let go of a generation socket whose name somebody has removed.

        It would keep it over any reload in which the config has it: so here is one that has not.
        """
        old = serving(master)
        replace_file(self._paths.live, without_generation_socket(rendered, self._paths))
        _tell_to_reload(master)
        if not wait_until(lambda: not old & serving(master), limits.SOCKET_RENEWAL):
            raise NginxError("nginx does not let go of its lost generation socket")

    def _activate(self, wanted: str, master: Process | None) -> Process:
        if master:
            self._reload(wanted, master)
            return master
        master = self._supervisor.start()
        self._prove(wanted, master, old_workers=(), mark=self._log.mark())
        return master

    def _reload(self, wanted: str, master: Process) -> None:
        old = serving(master)
        mark = self._log.mark()
        _tell_to_reload(master)
        self._prove(wanted, master, old, mark)

    def _prove(
        self, wanted: str, master: Process, old_workers: Collection[Process], mark: int
    ) -> None:
        """Wait until nginx serves ``wanted``, and nothing else does.

        The answer alone proves too little: for 100 ms after it old workers still accept, up to
        10 % of the connections. So every earlier worker must be gone, or on its way out.
        """
        complaints: list[LogMessage] = []

        def is_decided() -> bool:
            served, lingering = self.served_generation(), serving(master) & set(old_workers)
            if served == wanted and not lingering:
                return True
            complaints[:] = self._complaints(master, mark)
            if any(_is_final(message) for message in complaints):
                raise NginxError(_words(complaints))
            if not is_alive(master):
                raise NginxError(f"nginx (pid {master.pid}) ended", hint=_words(complaints))
            if is_retiring(master):
                raise NginxError(f"nginx (pid {master.pid}) was told to quit")
            return False

        if not wait_until(is_decided, limits.PROOF):
            lingering = serving(master) & set(old_workers)
            raise _silence(master, self.served_generation(), lingering, complaints)

    def _complaints(self, master: Process, mark: int) -> list[LogMessage]:
        return [
            message
            for message in self._log.since(mark)
            if message.level == "emerg" and message.pid == master.pid
        ]

    def check_data_path(self, desired: Desired) -> None:
        """Raise NginxError when clients reach no apiserver through nginx, but one directly."""
        # Where none answers, each try would only take its time, and the loop waits for it.
        takers = [s.address for s in desired.servers if not s.down and not desired.none_passes]
        fault = canary.find_fault(desired.listen, takers, desired.server_name)
        if fault:
            raise NginxError(f"clients would not be served: {fault}")

    def _roll_back(self, served: str | None) -> bool:
        """Put the last good config back in and prove it; tell whether it is served now.

        Where nothing was served before, because nginx did not run, it is what served last.
        """
        good = self.last_good()
        before = served or (good and good.generation)
        if good and good.generation == before:
            with suppress(AgentError):
                self._return_to(good.generation)
        return before is not None and self.served_generation() == before

    def _return_to(self, good: str) -> None:
        move_over(self._paths.last_good, self._paths.live)  # needs no room on the disk
        with suppress(FileError):
            self._keep_if_good(good)
        master = self._supervisor.master()
        # A stopped master has the reload that it was told to do still before it, of this file.
        if master is None or not is_stopped(master):
            self._activate(good, master)


def _tell_to_reload(master: Process) -> None:
    try:
        send_signal(master, signal.SIGHUP)
    except ProcessGoneError as error:
        raise NginxError("nginx ended before it could be told to reload") from error
    except PermissionError as error:
        raise NginxError(
            f"this user may not signal nginx (pid {master.pid})",
            hint="run the agent as the user that runs nginx",
        ) from error


def _is_final(message: LogMessage) -> bool:
    """Tell a refusal from one of the five tries that nginx makes to bind an address."""
    return not message.text.startswith("bind() to ")


def _words(messages: Iterable[LogMessage]) -> str:
    return "; ".join(dict.fromkeys(message.text for message in messages))


def _silence(
    master: Process,
    served: str | None,
    lingering: AbstractSet[Process],
    complaints: list[LogMessage],
) -> NginxError:
    """Say as well as can be known why a reload was not done in time."""
    if is_stopped(master):
        return NginxError(
            f"nginx's master process {master.pid} is stopped and does not reload",
            hint=f"`kill -CONT {master.pid}` lets it go on",
        )
    does = f"it serves generation {served}" if served else "it does not answer"
    if lingering:
        pids = ", ".join(str(worker.pid) for worker in lingering)
        does += f", and its old worker {pids} does not retire"
    words = _words(complaints)
    return NginxError(
        f"nginx did not finish the reload within {limits.PROOF:g} s: {does}"
        + (f"; {words}" if words else "")
    )
