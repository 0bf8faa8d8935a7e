"""The nginx binary as a program: test a config with it, start it, ask its version."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Sequence

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.nginx import limits
from kube_nginx_agent.nginx.process import Process
from kube_nginx_agent.node.command import Outcome, run, start_daemon
from kube_nginx_agent.node.files import is_regular, is_runnable

_LOG_PREFIX = re.compile(
    r"^(?:nginx: |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )(?=\[)|\d+#\d+: ", re.MULTILINE
)


class NginxError(AgentError):
    """nginx refuses a config or does not start; ``what`` has nginx's own words."""


class Nginx:
    """The binary at ``path``."""

    def __init__(self, path: Path) -> None:
        """Take the path; nothing is run yet."""
        self.path = path

    def check_usable(self) -> None:
        """Raise NginxError unless there is a program that may be run."""
        if not is_regular(self.path):
            raise NginxError(
                "there is no nginx",
                where=str(self.path),
                hint="install the package again, or name another with --nginx",
            )
        if not is_runnable(self.path):
            raise NginxError(
                "this user may not run it", where=str(self.path), hint="chmod 755 the file"
            )

    def test(self, config: Path, master: Process | None = None) -> None:
        """Have nginx read ``config`` as a start would; raise NginxError with its words if it fails.

        With a ``master`` its own binary is asked, for that is what reads the config at a reload,
        also when the installed one is newer, broken or gone.
        Passes where only a start or reload can fail: a port in use is ignored under ``-t``
        (src/core/ngx_connection.c, ngx_open_listening_sockets()).
        """
        binary = Path(f"/proc/{master.pid}/exe") if master else self.path
        if master is None or not is_runnable(binary):
            self.check_usable()
            binary = self.path
        outcome = self._run(binary, ["-t", "-q", "-c", str(config)], limits.TEST)
        if outcome.code:
            raise NginxError(f"nginx -t refuses the config: {_words(outcome)}")

    def start(self, config: Path) -> None:
        """Start a master in the background; raise NginxError with its words if it does not start.

        Returns when nginx has bound its addresses and written its pid file.
        """
        self.check_usable()
        # In a container nobody but PID 1 could show what nginx logs; elsewhere it would be noise.
        run_it = start_daemon if os.getpid() == 1 else run
        outcome = run_it([str(self.path), "-c", str(config)], limits.START)
        if outcome.code:
            raise NginxError(f"nginx does not start: {_words(outcome)}")

    def version(self) -> str:
        """Return ``nginx/1.26.3``, as ``nginx -v`` says it. Raise NginxError."""
        self.check_usable()
        outcome = self._run(self.path, ["-v"], limits.TEST)
        return outcome.stderr.partition("nginx version: ")[2].strip()

    def _run(self, binary: Path, arguments: Sequence[str], timeout: float) -> Outcome:
        return run([str(binary), *arguments], timeout, name=str(self.path))


def _words(outcome: Outcome) -> str:
    """Reduce what nginx printed to its complaints, without the times and the pids."""
    lines = _LOG_PREFIX.sub("", outcome.stderr).splitlines()
    serious = [line for line in lines if re.match(r"\[(emerg|alert|crit|error)\]", line)]
    words = "; ".join(dict.fromkeys(serious or lines))
    return words or f"it ended with exit code {outcome.code} and said nothing"
