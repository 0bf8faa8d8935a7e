"""nginx and the systemd that keeps it: processes that obey signals, and a config that they read."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from kube_nginx_agent.nginx.log import LogMessage
from kube_nginx_agent.nginx.process import Process, Worker
from simulation.clock import Clock
from simulation.conf import Conf, read_conf
from simulation.disk import Disk
from simulation.sessions import Open, Sessions

_RESTART = 0.1
_STARTS_WITHIN = 0.06
_READS_WITHIN = 0.03
_RETIRES_AFTER = 0.1
"""Seconds after the new workers that the old ones still accept (docs/decisions/0002)."""


@dataclass(eq=False)
class Servant:
    """A worker."""

    process: Process
    conf: Conf
    is_retiring: bool = False
    is_stopped: bool = False
    hung_until: float = 0.0
    sessions: dict[Open, None] = field(default_factory=dict)
    """In the order in which they began: a set would have them in any."""
    connecting: int = 0
    """Clients for whom it still looks for a server."""


@dataclass(eq=False)
class Master:
    process: Process
    workers: list[Servant] = field(default_factory=list)
    is_stopped: bool = False
    has_hup: bool = False
    was_told_to_quit: bool = False


class SimNginx:
    """The unit kube-nginx.service."""

    def __init__(
        self, clock: Clock, disk: Disk, live: Path, sessions: Sessions, dice: random.Random
    ) -> None:
        self.master: Master | None = None
        self.messages: list[LogMessage] = []
        self.reloads: list[float] = []
        self.disturbed_at = clock.now
        """When something last befell it, or was last over."""
        self.is_wanted = True
        """Whether the administrator has not stopped it."""
        self.reads_late = 0.0
        self.tests_hang = False
        self.does_not_start = False
        self.port_is_held = False
        self.on_kill: Callable[[Master], None] = lambda _: None
        self.on_quit: Callable[[], None] = lambda: None
        """It removes its unix socket when it is told to quit, which the agent watches."""
        self._clock = clock
        self._disk = disk
        self._live = live
        self._sessions = sessions
        self._dice = dice
        self._pids = 100
        self._all: dict[int, tuple[Process, Master, Servant | None]] = {}
        self._waits_for_start = False

    @property
    def conf(self) -> Conf | None:
        """What new clients are served by: the newest accepting workers' config."""
        accepting = self.accepting()
        return accepting[-1].conf if accepting else None

    def accepting(self) -> list[Servant]:
        """Return the workers that listen, whether they run or not."""
        workers = self.master.workers if self.master else []
        return [worker for worker in workers if not worker.is_retiring]

    def running(self) -> list[Servant]:
        """Return those that would accept a client now."""
        return [w for w in self.accepting() if not w.is_stopped and not self.is_hung(w)]

    def is_hung(self, worker: Servant) -> bool:
        return self._clock.now < worker.hung_until

    # systemd.

    def start_soon(self) -> None:
        """Have systemd start it, if it is wanted and nobody has begun to."""
        if self.is_wanted and not self._waits_for_start and self.master is None:
            self._waits_for_start = True
            self._clock.after(_RESTART + _STARTS_WITHIN, self._start)

    def stop_unit(self) -> None:
        self.is_wanted = False
        if self.master:
            self._end(self.master)

    def start_unit(self) -> None:
        self.is_wanted = True
        self.start_soon()

    def _start(self) -> None:
        self._waits_for_start = False
        conf = read_conf(self._disk.read_text(self._live) or "")
        if not self.is_wanted or self.master:
            return
        if conf is None or self.does_not_start or self.port_is_held:
            self.start_soon()
            return
        self.master = Master(self._process())
        self._all[self.master.process.pid] = (self.master.process, self.master, None)
        self._fork(self.master, conf)
        self.disturbed_at = self._clock.now

    def _fork(self, master: Master, conf: Conf) -> None:
        for _ in range(2):
            worker = Servant(self._process(), conf)
            master.workers.append(worker)
            self._all[worker.process.pid] = (worker.process, master, worker)

    def _process(self) -> Process:
        self._pids += 1
        return Process(self._pids, int(self._clock.now * 100))

    # Signals.

    def signal(self, process: Process, signum: int) -> bool:
        """Take a signal; tell whether there is such a process."""
        known = self._all.get(process.pid)
        if known is None or known[0] != process:
            return False
        _, master, worker = known
        if worker:
            self._signal_worker(master, worker, signum)
        else:
            self._signal_master(master, signum)
        return True

    def _signal_master(self, master: Master, signum: int) -> None:
        """Take it; what a stopped process is told it does when it goes on."""
        if signum == signal.SIGKILL:
            self._end(master)
            return
        if signum in (signal.SIGSTOP, signal.SIGCONT):
            master.is_stopped = signum == signal.SIGSTOP
        master.has_hup = master.has_hup or signum == signal.SIGHUP
        master.was_told_to_quit = master.was_told_to_quit or signum == signal.SIGQUIT
        if master.is_stopped:
            return
        if master.has_hup:
            self._reload_soon(master)
        if master.was_told_to_quit:
            self._quit(master)

    def _signal_worker(self, master: Master, worker: Servant, signum: int) -> None:
        if signum in (signal.SIGKILL, signal.SIGTERM):
            self.kill_worker(master, worker)
        elif signum in (signal.SIGSTOP, signal.SIGCONT):
            worker.is_stopped = signum == signal.SIGSTOP

    def kill_worker(self, master: Master, worker: Servant) -> None:
        self._bury(master, worker)
        if self.master is master and not worker.is_retiring and not master.was_told_to_quit:
            again = Servant(self._process(), worker.conf)
            master.workers.append(again)
            self._all[again.process.pid] = (again.process, master, again)

    def _bury(self, master: Master, worker: Servant) -> None:
        if worker in master.workers:
            master.workers.remove(worker)
        self._all.pop(worker.process.pid, None)
        for session in list(worker.sessions):
            self._sessions.end(session)

    def _end(self, master: Master) -> None:
        """End the master, and with it, as KillMode=mixed has it, all that is left of the unit."""
        self._all.pop(master.process.pid, None)
        if self.master is master:
            self.master = None
        self.disturbed_at = self._clock.now
        for worker in list(master.workers):
            self._bury(master, worker)
        self.on_kill(master)
        self.start_soon()

    def _quit(self, master: Master) -> None:
        self.disturbed_at = self._clock.now
        self.on_quit()
        for worker in list(master.workers):
            self._retire(master, worker)
        if not master.workers and self.master is master:
            self._end(master)

    def _reload_soon(self, master: Master) -> None:
        self._clock.after(_READS_WITHIN + self.reads_late, lambda: self._reload(master))

    def _reload(self, master: Master) -> None:
        if self.master is not master or master.is_stopped or not master.has_hup:
            return
        master.has_hup = False
        if master.was_told_to_quit:
            return
        self.reloads.append(self._clock.now)
        conf = read_conf(self._disk.read_text(self._live) or "")
        if conf is None:
            message = f"unexpected end of file in {self._live}"
            self.messages.append(LogMessage("emerg", master.process.pid, message))
            return
        old = [worker for worker in master.workers if not worker.is_retiring]
        self._fork(master, conf)

        def retire() -> None:
            for worker in old:
                self._retire(master, worker)

        self._clock.after(_RETIRES_AFTER, retire)

    def _retire(self, master: Master, worker: Servant) -> None:
        """Have it accept nobody any more; one that does not run hears of it later."""
        if worker not in master.workers:
            return
        if worker.is_stopped or self.is_hung(worker):
            self._clock.after(0.1, lambda: self._retire(master, worker))
            return
        worker.is_retiring = True
        self.end_if_idle(master, worker)

    def end_if_idle(self, master: Master, worker: Servant) -> None:
        if (
            worker.is_retiring
            and not worker.sessions
            and not worker.connecting
            and worker in master.workers
        ):
            self._bury(master, worker)
            if master.was_told_to_quit and not master.workers and self.master is master:
                self._end(master)

    def master_of(self, worker: Servant) -> Master | None:
        known = self._all.get(worker.process.pid)
        return known[1] if known else None

    # What the agent sees of processes; the names are those of ``nginx.process``.

    def identify(self, pid: int) -> Process | None:
        known = self._all.get(pid)
        return known[0] if known else None

    def is_alive(self, process: Process) -> bool:
        return self.identify(process.pid) == process

    def is_stopped(self, process: Process) -> bool:
        known = self._all.get(process.pid)
        if known is None or known[0] != process:
            return False
        return known[2].is_stopped if known[2] else known[1].is_stopped

    def workers(self, master: Process) -> list[Worker]:
        known = self._all.get(master.pid)
        found = known[1].workers if known else []
        return [Worker(worker.process, worker.is_retiring) for worker in found]

    def serving(self, master: Process) -> frozenset[Process]:
        return frozenset(w.process for w in self.workers(master) if not w.retiring)

    def is_retiring(self, master: Process) -> bool:
        workers = self.workers(master)
        return bool(workers) and all(worker.retiring for worker in workers)

    def turns_of(self, process: Process) -> int:
        """Count the rounds of its loop: a hung worker has none."""
        known = self._all.get(process.pid)
        if known is None or known[2] is None or known[2].is_stopped or self.is_hung(known[2]):
            return 0
        return round(self._clock.now * 1000)

    def found_master(self) -> Process | None:
        return self.master.process if self.master else None
