"""A booted Debian of its own: real systemd, real packages, a network that leads nowhere.

``systemd-nspawn`` boots a throw-away copy (overlayfs) of a root in about a second, also where
systemd does not run itself. All that belongs to a machine (mounts, network, cgroup) hangs on one
process and ends with it.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Mapping, TypeVar

T = TypeVar("T")

_BOOT_TIMEOUT = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_numbers = itertools.count(1)

# Exit code 133 of systemd-nspawn with --keep-unit: the machine asks to be booted again.
_HOLDER = """
echo $$ >"$CGROUP/cgroup.procs"
mount -t tmpfs -o mode=755 tmpfs "$WORK"
mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
mount -t overlay -o "lowerdir=$LOWER,upperdir=$WORK/upper,workdir=$WORK/work" overlay "$WORK/root"
while :; do
    code=0
    systemd-nspawn --quiet --boot --directory="$WORK/root" --machine="$NAME" \\
        --register=no --keep-unit --console=pipe --link-journal=no \\
        --timezone=off --resolv-conf=off \\
        --network-namespace-path="/proc/$$/ns/net" --capability=CAP_NET_ADMIN "$@" \\
        </dev/null || code=$?
    [ $code = 133 ] || exit $code
done
"""


class CommandError(AssertionError):
    """A command in the machine failed; the message has all that it said."""


class Machine:
    """One booted copy of ``root``; use as a context manager."""

    def __init__(self, root: Path, name: str, binds: Mapping[Path, str] | None = None) -> None:
        """Take the root, a name, and folders of the host to be seen (read-only) inside."""
        self.root = root
        self.name = f"{name}-{os.getpid()}-{next(_numbers)}"
        self._binds = [f"--bind-ro={host}:{inside}" for host, inside in (binds or {}).items()]
        self._work = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._cgroup = _cgroup2() / self.name
        self.console = self._work.with_suffix(".console")
        self._holder: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Machine:
        try:
            self.start()
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error and self._leader:
            print(self.journal())
        self.destroy()

    def start(self) -> None:
        """Boot, and wait until systemd has started everything."""
        self._cgroup.mkdir()
        environment = {
            "PATH": _PATH,
            "LOWER": str(self.root),
            "WORK": str(self._work),
            "NAME": self.name,
            "CGROUP": str(self._cgroup),
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        with self.console.open("wb") as console:
            self._holder = subprocess.Popen(
                ["unshare", "--mount", "--net", "sh", "-euc", _HOLDER, "sh", *self._binds],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_for_boot(former_leader=0)

    def reboot(self) -> None:
        """Reboot as an administrator would, and wait until everything is up again."""
        former = self._leader
        self.run("systemctl", "reboot")
        self._wait_for_boot(former)

    def destroy(self) -> None:
        """End the machine as a power cut would."""
        if self._leader:
            with suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
        if self._holder:
            with suppress(ProcessLookupError):
                os.killpg(self._holder.pid, signal.SIGKILL)
            self._holder.wait()
        _remove_cgroup(self._cgroup)
        with suppress(OSError):
            self._work.rmdir()
        self.console.unlink(missing_ok=True)

    @property
    def netns(self) -> Path:
        """The network namespace, which outlives a reboot."""
        assert self._holder
        return Path(f"/proc/{self._holder.pid}/ns/net")

    def run(
        self,
        *command: str,
        check: bool = True,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside; raise CommandError with its output when it fails."""
        done = subprocess.run(
            [*self._enter(), *command],
            input=stdin,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        if check and done.returncode:
            raise CommandError(
                f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def output(self, *command: str) -> str:
        """Return what a command printed."""
        return self.run(*command).stdout.strip()

    def shell(self, script: str) -> str:
        """Run a shell script, ended by its first failure, and return what it printed."""
        return self.output("sh", "-euc", script)

    def write(self, path: str, text: str) -> None:
        """Give a file a new content in place, as an editor does that truncates and writes."""
        self.run("sh", "-euc", 'cat >"$1"', "sh", path, stdin=text)

    def succeeds(self, *command: str) -> bool:
        """Tell whether a command ends well."""
        return not self.run(*command, check=False).returncode

    def unit(self, name: str) -> dict[str, str]:
        """Return the properties of a unit, as ``systemctl show`` has them."""
        lines = self.output("systemctl", "show", name).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, *arguments: str) -> str:
        """Return lines of the journal."""
        return self.output("journalctl", "--no-pager", "-o", "short-precise", *arguments)

    def entries(self, *arguments: str) -> list[dict[str, Any]]:
        """Return entries of the journal with all their fields."""
        lines = self.output("journalctl", "--no-pager", "-o", "json", *arguments).splitlines()
        return [json.loads(line) for line in lines]

    def popen(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside that goes on while the test does something else."""
        return subprocess.Popen(
            [*self._enter(), *command],
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._leader}", "--all", "--wdns=/", "--"]

    def _wait_for_boot(self, former_leader: int) -> None:
        deadline = time.monotonic() + _BOOT_TIMEOUT
        while time.monotonic() < deadline:
            assert self._holder
            if self._holder.poll() is not None:
                raise CommandError(f"systemd-nspawn ended:\n{self.console.read_text()}")
            leader = _leader_of(self._holder.pid)
            if leader and leader != former_leader:
                self._leader = leader
                state = self.run("systemctl", "is-system-running", "--wait", check=False)
                if state.stdout.strip() in ("running", "degraded"):
                    return
            time.sleep(0.05)
        raise CommandError(f"it does not boot:\n{self.console.read_text()}")


def wait_until(condition: Callable[[], T], timeout: float, what: str = "") -> T:
    """Return the first true value of ``condition``; fail when there is none within ``timeout``."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}; last: {value!r}")
        time.sleep(0.05)


def _leader_of(holder: int) -> int:
    """Return the host's pid of the machine's systemd, 0 when there is none."""
    todo = [holder]
    while todo:
        pid = todo.pop()
        with suppress(OSError):
            if _is_init_of_a_container(pid):
                return pid
            todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return 0


def _is_init_of_a_container(pid: int) -> bool:
    """Tell whether it is pid 1 in a namespace of its own, and systemd already."""
    status = Path(f"/proc/{pid}/status").read_text()
    pids = status.partition("NSpid:")[2].partition("\n")[0].split()
    program = os.readlink(f"/proc/{pid}/exe")
    return len(pids) > 1 and pids[-1] == "1" and program.endswith("/systemd/systemd")


def _cgroup2() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("no cgroup2 is mounted here")


def _remove_cgroup(cgroup: Path) -> None:
    """Kill what is left in it and remove it with all below it."""
    with suppress(OSError):
        (cgroup / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + 10
    while cgroup.exists() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        time.sleep(0.02)
