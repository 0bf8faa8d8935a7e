"""The agent as a real process, with folders and a listen address of its own, for a test to hold."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from support.address import Address
from support.process import Closing, StartError, wait_until

AGENT = Path(__file__).resolve().parents[2] / "agent"
PYTHON = Path(os.environ.get("KUBE_NGINX_TEST_PYTHON") or Path(sys.executable).resolve())
"""The distribution's, which the daemon runs on, and not that of a virtual environment; but that of
`make test-versions` where it asks for it."""

LIVE = r"generation [0-9a-f]+ is live on"
SECONDS = 8.0
"""Deadline of a wait; shorter than the agent's poll, so that what inotify should tell is told."""

_SERVER = re.compile(r"^ +server (\S+?)[ ;]", re.MULTILINE)
_GENERATION = re.compile(r'return "([0-9a-f]+) ')


def command(*arguments: object) -> list[str]:
    """Return the command line `kube-nginx-agent ARGUMENTS`, run from this tree."""
    return [str(PYTHON), "-m", "kube_nginx_agent", *map(str, arguments)]


def environment(extra: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """Return the environment for `command`."""
    # Strict: a part that asks to be woken in the past is a fault that is said.
    strict = {"KUBE_NGINX_AGENT_STRICT": "1"}
    # A user's Python keeps what it prints until there is enough of it, or the end.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**own, "PYTHONPATH": str(AGENT), **strict, **(extra or {})}


def run_cli(
    *arguments: object, uid: Optional[int] = None, extra: Optional[Mapping[str, str]] = None
) -> subprocess.CompletedProcess[str]:
    """Run one verb to its end, as another user if one is given."""
    return subprocess.run(
        command(*arguments),
        env=environment(extra),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


def for_all_to_read(folder: Path, nginx: Path) -> tuple[Path, dict[str, str]]:
    """Copy nginx and the agent to where other users may go; return the nginx, and the variables."""
    copies = folder / "copies"
    if not copies.exists():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(AGENT, copies, ignore=ignored)
        shutil.copy2(nginx, copies / "nginx")
    return copies / "nginx", {"PYTHONPATH": str(copies), "PYTHONDONTWRITEBYTECODE": "1"}


class AgentProcess(Closing):
    """`kube-nginx-agent run --standalone`; as a context, ended with its nginx whatever happens.

    Started over and over on the same folders, its log is one: all lines since the first start.
    """

    def __init__(
        self,
        folder: Path,
        nginx: Path,
        listen: Address,
        *,
        config: Optional[Path] = None,
        prefix: Sequence[str] = (),
        uid: Optional[int] = None,
        extra: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.listen = listen
        self.nginx = nginx
        self.config = config or folder / "etc" / "backends.yaml"
        self.state_dir = folder / "state"
        self.run_dir = folder / "run"
        self.agent_dir = folder / "run" / "agent"
        self.log = folder / "agent.log"
        self.settings = ""
        """What else stands in its backends.yaml: whole lines."""
        self._prefix = prefix
        self._uid = uid
        self.variables = extra
        """What else stands in its environment."""
        self._child: Optional[subprocess.Popen[bytes]] = None
        self.config.parent.mkdir(exist_ok=True)
        if uid is not None:
            self.nginx, variables = for_all_to_read(folder, nginx)
            self.variables = {**variables, **(extra or {})}
            for owned in (folder, self.config.parent):
                os.chown(owned, uid, uid)

    @property
    def pid(self) -> int:
        assert self._child is not None, "the agent has not been started"
        return self._child.pid

    @property
    def lock(self) -> Path:
        """What the agent locks against others."""
        return self.agent_dir / "private" / "agent.lock"

    @property
    def folders(self) -> list[str]:
        """The options that name its folders."""
        return [f"--state-dir={self.state_dir}", f"--run-dir={self.run_dir}"]

    # The list

    def text(self, backends: Iterable[object]) -> str:
        """Return a backends.yaml with this agent's listen address."""
        items = "".join(f"  - {backend}\n" for backend in backends)
        return (
            f"listen: {self.listen}\n{self.settings}backends:{' []' if not items else ''}\n{items}"
        )

    def write(self, backends: Iterable[object]) -> None:
        """Replace the list by a rename, as careful writers do."""
        self.write_text(self.text(backends))

    def write_text(self, text: str) -> None:
        beside = self.config.with_name("beside")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self.config)

    # Its life

    def spawn(self) -> None:
        """Start it and don't wait."""
        assert self._child is None or self._child.poll() is not None, "it runs already"
        arguments = ["run", "--standalone", f"--config={self.config}", f"--nginx={self.nginx}"]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self._prefix, *command(*arguments, *self.folders)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self.variables),
                cwd="/",
                user=self._uid,
                group=self._uid,
                extra_groups=None if self._uid is None else [],
                start_new_session=True,
            )

    def start(self, backends: Optional[Iterable[object]] = None) -> None:
        """Write the list, if one is given, start, and wait until it is live and reported."""
        if backends is not None:
            self.write(backends)
            # Not just written: the agent need not wait whether more comes.
            os.utime(self.config, (0, 0))
        self.spawn()
        self.wait_until_reported()

    def wait_until_reported(self) -> dict[str, Any]:
        """Wait for a status of this process that says that something is served."""

        def reported() -> Optional[dict[str, Any]]:
            if self._child is None or self._child.poll() is not None:
                raise StartError(f"the agent ended:\n{self.log.read_text()}")
            status = self.status()
            served = status and status["pid"] == self.pid and status["generation"]
            return status if served else None

        return wait_until(reported, SECONDS * 2, "a first status")

    def kill(self) -> None:
        """End it with SIGKILL: nginx goes on."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def restart(self) -> None:
        """Kill it, and start it again over the nginx that it leaves."""
        self.kill()
        self.start()

    def send(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        assert self._child is not None
        self._child.terminate()
        return self._child.wait(SECONDS * 2)

    def wait(self) -> int:
        """Wait for its own end and return its exit code."""
        assert self._child is not None
        return self._child.wait(SECONDS * 2)

    def close(self) -> None:
        """End it and its nginx, in whatever state they are."""
        if self._child is not None:
            if self._child.poll() is None:
                self._child.kill()
            self._child.wait()
        masters = self._master_pids()
        for master in masters:  # a stopped one starts no worker while its workers are looked for
            _kill(master, signal.SIGSTOP)
        workers = {worker for master in masters for worker in _children(master)}
        for pid in (*masters, *workers):
            _kill(pid, signal.SIGKILL)

    # What it does

    def lines(self, pattern: str = "") -> list[str]:
        """Return the lines of its log in which the pattern is found."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if re.search(pattern, line)]

    def wait_for_applies(self, count: int) -> None:
        """Wait until so many configs have gone live since the first start, and no more have."""
        self.wait_for_line(LIVE, count=count)
        assert len(self.lines(LIVE)) == count, self.lines()

    def wait_for_line(self, pattern: str, seconds: float = SECONDS, count: int = 1) -> str:
        """Return the `count`-th line of its log in which the pattern is found."""
        try:
            return wait_until(
                lambda: self.lines(pattern)[count - 1 : count], seconds, f"{count} x {pattern!r}"
            )[0]
        except TimeoutError as error:
            raise TimeoutError(f"{error}, but:\n" + "\n".join(self.lines())) from None

    def status(self) -> Optional[dict[str, Any]]:
        """Return its status file, or None when there is none."""
        try:
            content: dict[str, Any] = json.loads((self.agent_dir / "status.json").read_text())
        except FileNotFoundError:
            return None
        return content

    def cli(
        self, verb: str, *arguments: object, uid: Optional[int] = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb on this agent's folders."""
        extra = self.variables if uid is not None else None
        if uid is not None and self._uid is None:
            # This tree may lie where others may not go.
            _, extra = for_all_to_read(self.state_dir.parent, self.nginx)
        return run_cli(verb, f"--run-dir={self.run_dir}", *arguments, uid=uid, extra=extra)

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run `check` on its list."""
        return self.cli("check", self.config, f"--nginx={self.nginx}", uid=self._uid)

    # What its nginx does

    def generation(self) -> Optional[str]:
        """Ask nginx which generation it serves; None when it does not answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(2.0)
            try:
                asking.connect(str(self.run_dir / "generation.sock"))
                return asking.recv(64).decode().split()[0]
            except (OSError, IndexError):
                return None

    def live_text(self) -> Optional[str]:
        """Return the config that nginx serves; None where the file is not that."""
        try:
            text = (self.state_dir / "kube-nginx.conf").read_text()
        except FileNotFoundError:
            return None
        found = _GENERATION.search(text)
        return text if found and found[1] == self.generation() else None

    def servers(self) -> Optional[set[str]]:
        """Return the servers that nginx serves; None where the file is not what it serves."""
        text = self.live_text()
        return None if text is None else set(_SERVER.findall(text))

    def wait_for_servers(self, backends: Iterable[object], seconds: float = SECONDS) -> None:
        """Wait until nginx serves just these."""
        wanted = set(map(str, backends))
        try:
            wait_until(lambda: self.servers() == wanted, seconds, f"{wanted} are live")
        except TimeoutError as error:
            raise TimeoutError(f"{error}, but:\n" + "\n".join(self.lines())) from None

    def master_pid(self) -> int:
        return int((self.run_dir / "nginx.pid").read_text())

    def worker_pids(self) -> set[int]:
        return set(_children(self.master_pid()))

    def nginx_pids(self) -> set[int]:
        """Return the masters, and their workers, that run on this agent's config."""
        masters = self._master_pids()
        return masters.union(*map(_children, masters))

    def _master_pids(self) -> set[int]:
        return {int(entry.name) for entry in Path("/proc").iterdir() if self._is_master(entry)}

    def _is_master(self, entry: Path) -> bool:
        try:
            title = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            return False
        words = title.replace(b"\0", b" ").split()
        own = os.fsencode(self.state_dir / "kube-nginx.conf")
        return words[:2] == [b"nginx:", b"master"] and own in words


def _kill(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []
