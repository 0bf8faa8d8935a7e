"""How each kind of trouble befalls the world, and how it is over."""

from __future__ import annotations

import errno
import signal
from functools import partial
from pathlib import Path
from typing import Any, Callable, Protocol

from kube_nginx_agent.node.paths import Paths
from simulation.administrator import Administrator
from simulation.backends import address_of
from simulation.clock import Clock
from simulation.hooks import Hooks
from simulation.nginx import SimNginx
from simulation.plan import Trouble
from simulation.process import SimProcess
from simulation.sessions import Sessions

_METHODS = {
    "nginx -t hangs": "tests_hang",
    "nginx stopped by the administrator": "unit_stopped",
    "disk read-only": "disk_read_only",
}


class World(Protocol):
    """What there is to break."""

    clock: Clock
    hooks: Hooks
    sessions: Sessions
    nginx: SimNginx
    administrator: Administrator
    paths: Paths
    dice: Any
    process: SimProcess | None
    restart_after: float


class Troubles:
    """Begins each, and ends those that last. What befalls the backends is in their arithmetic."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self, trouble: Trouble) -> None:
        if trouble.whom:
            if trouble.kind in ("killed", "leaving"):
                self._close_sessions(trouble)
            return
        begin = getattr(self, "_" + _METHODS.get(trouble.kind, trouble.kind.replace(" ", "_")))
        end: Callable[[], None] | None = begin(trouble)
        if end:
            self._world.clock.after(trouble.lasts, end)

    def _close_sessions(self, trouble: Trouble) -> None:
        """A killed process's kernel closes its sessions at once, a leaving one's at its end."""
        later = 0.0 if trouble.kind == "killed" else trouble.lasts
        for number in trouble.whom:
            backend = address_of(number)
            self._world.clock.after(later, partial(self._world.sessions.end_all, backend))

    def _signal_masters(self, signum: int) -> None:
        if self._world.nginx.master:
            self._world.nginx.signal(self._world.nginx.master.process, signum)

    def _nginx_killed(self, _: Trouble) -> None:
        self._signal_masters(signal.SIGKILL)

    def _nginx_told_to_quit(self, _: Trouble) -> None:
        self._signal_masters(signal.SIGQUIT)

    def _nginx_stopped(self, _: Trouble) -> Callable[[], None]:
        self._signal_masters(signal.SIGSTOP)
        return lambda: self._signal_masters(signal.SIGCONT)

    def _worker_killed(self, _: Trouble) -> None:
        workers = self._world.nginx.accepting()
        if workers and self._world.nginx.master:
            self._world.nginx.kill_worker(
                self._world.nginx.master, self._world.dice.choice(workers)
            )

    def _worker_stopped(self, _: Trouble) -> Callable[[], None] | None:
        workers = self._world.nginx.accepting()
        if not workers:
            return None
        worker = self._world.dice.choice(workers)
        worker.is_stopped = True

        def go_on() -> None:
            worker.is_stopped = False

        return go_on

    def _worker_hung(self, trouble: Trouble) -> None:
        for worker in self._world.nginx.accepting()[-1:]:
            worker.hung_until = self._world.clock.now + trouble.lasts

    def _all_workers_hung(self, trouble: Trouble) -> None:
        for worker in self._world.nginx.accepting():
            worker.hung_until = self._world.clock.now + trouble.lasts

    def _unit_stopped(self, _: Trouble) -> Callable[[], None]:
        self._world.nginx.stop_unit()
        return self._world.nginx.start_unit

    def _set(self, owner: object, name: str, value: Any) -> Callable[[], None]:
        before = getattr(owner, name)
        setattr(owner, name, value)
        return lambda: setattr(owner, name, type(before)())

    def _nginx_reads_slowly(self, trouble: Trouble) -> Callable[[], None]:
        return self._set(self._world.nginx, "reads_late", trouble.by)

    def _tests_hang(self, _: Trouble) -> Callable[[], None]:
        return self._set(self._world.nginx, "tests_hang", value=True)

    def _nginx_does_not_start(self, _: Trouble) -> Callable[[], None]:
        return self._set(self._world.nginx, "does_not_start", value=True)

    def _port_held(self, _: Trouble) -> Callable[[], None]:
        return self._set(self._world.nginx, "port_is_held", value=True)

    def _sessions_unseen(self, _: Trouble) -> Callable[[], None]:
        return self._set(self._world.sessions, "is_unseen", value=True)

    def _cuts_fail(self, _: Trouble) -> Callable[[], None]:
        return self._set(self._world.sessions, "cuts_fail", value=True)

    def _flow_lost(self, _: Trouble) -> None:
        lasting = [session for session in self._world.sessions.open if session.asks < 60.0]
        if lasting:
            self._world.dice.choice(lasting).flow_lost_at = self._world.clock.now

    def _agent_killed(self, trouble: Trouble) -> None:
        if self._world.process:
            self._world.restart_after = trouble.lasts
            self._world.process.kill()

    def _agent_stopped(self, trouble: Trouble) -> None:
        if self._world.process:
            until = self._world.clock.now + trouble.lasts
            self._world.process.stopped_until = max(self._world.process.stopped_until, until)

    def _all_stopped(self, trouble: Trouble) -> Callable[[], None]:
        self._agent_stopped(trouble)
        workers = self._world.nginx.accepting()
        for worker in workers:
            worker.is_stopped = True
        self._signal_masters(signal.SIGSTOP)

        def go_on() -> None:
            for worker in workers:
                worker.is_stopped = False
            self._signal_masters(signal.SIGCONT)

        return go_on

    def _clock_jumps(self, trouble: Trouble) -> None:
        self._world.clock.jump(trouble.by)

    def _disk_full(self, _: Trouble) -> Callable[[], None]:
        return self._fail(self._world.paths.state_dir, errno.ENOSPC)

    def _disk_read_only(self, _: Trouble) -> Callable[[], None]:
        return self._fail(self._world.paths.state_dir, errno.EROFS)

    def _run_folder_full(self, _: Trouble) -> Callable[[], None]:
        return self._fail(self._world.paths.agent_dir, errno.ENOSPC)

    def _fail(self, folder: Any, number: int) -> Callable[[], None]:
        self._world.hooks.trouble[folder] = number

        def mend() -> None:
            self._world.hooks.trouble.pop(folder, None)

        return mend

    def _inotify_lost(self, _: Trouble) -> Callable[[], None] | None:
        return (
            self._set(self._world.process, "is_inotify_lost", value=True)
            if self._world.process
            else None
        )

    def _live_config_edited(self, trouble: Trouble) -> None:
        text = self._world.hooks.data(self._world.paths.live) or b""
        changed = text[: len(text) // 2] if trouble.by else text + b"# by hand\n"
        self._world.hooks.put(self._world.paths.live, changed)
        self._touch(self._world.paths.live)

    def _live_config_gone(self, _: Trouble) -> None:
        self._world.hooks.take_away(self._world.paths.live)
        self._touch(self._world.paths.live)

    def _last_good_gone(self, _: Trouble) -> None:
        self._world.hooks.take_away(self._world.paths.last_good)

    def _touch(self, file: Path) -> None:
        if self._world.process:
            self._world.process.touch(file)

    def _list_edited(self, trouble: Trouble) -> None:
        self._world.administrator.edit(int(trouble.by))

    def _list_invalid(self, _: Trouble) -> Callable[[], None]:
        return self._world.administrator.break_it()

    def _list_gone(self, _: Trouble) -> Callable[[], None]:
        return self._world.administrator.remove_it()

    def _list_closed(self, _: Trouble) -> Callable[[], None]:
        return self._world.administrator.close_it()
