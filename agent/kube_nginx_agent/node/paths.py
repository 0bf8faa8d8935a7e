"""Where everything lies, derived from the few folders that can be chosen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Tuple

from kube_nginx_agent.errors import AgentError

_UNIX_PATH_MAX = 107
"""unix(7): sun_path has 108 bytes, one of them the terminating NUL."""

_PLAIN = re.compile(r"/[A-Za-z0-9._+/-]*")


@dataclass(frozen=True)
class Paths:
    """The administrator's file, the nginx binary, and the folders of both programs."""

    config: Path = Path("/etc/kube-nginx/backends.yaml")
    nginx: Path = Path("/usr/libexec/kube-nginx/nginx")
    state_dir: Path = Path("/var/lib/kube-nginx")
    run_dir: Path = Path("/run/kube-nginx")

    def __post_init__(self) -> None:
        """Refuse what nginx's config can't hold unquoted, or the kernel as a socket's name."""
        for folder in (self.state_dir, self.run_dir):
            if not _PLAIN.fullmatch(str(folder)):
                raise AgentError(
                    "the path has characters that nginx's config does not take",
                    where=str(folder),
                    hint="use an absolute path of letters, digits and . _ + -",
                )
        if len(str(self.generation_socket)) > _UNIX_PATH_MAX:
            raise AgentError(
                f"the path is too long: a socket's name in it would pass {_UNIX_PATH_MAX} bytes",
                where=str(self.run_dir),
                hint="use a shorter --run-dir",
            )

    @property
    def live(self) -> Path:
        """The config that nginx starts from."""
        return self.state_dir / "kube-nginx.conf"

    @property
    def candidate(self) -> Path:
        """The config under test, beside the live one so that it can be renamed over it."""
        return self.state_dir / "candidate.conf"

    @property
    def last_good(self) -> Path:
        """The last config that nginx was seen to serve, for a roll-back."""
        return self.state_dir / "last-good.conf"

    @property
    def spare(self) -> Path:
        """A file whose only worth is its room on the disk, for a config that finds none."""
        return self.state_dir / "spare"

    @property
    def accepted(self) -> Path:
        """The last list that was live, for an agent that starts while the file is broken."""
        return self.state_dir / "accepted-backends.yaml"

    @property
    def names(self) -> Path:
        """The addresses of each name of the list, for an agent that starts while DNS is down."""
        return self.state_dir / "resolved-names.json"

    @property
    def pid_file(self) -> Path:
        """The nginx master's."""
        return self.run_dir / "nginx.pid"

    @property
    def generation_socket(self) -> Path:
        """Where nginx says which generation it serves."""
        return self.run_dir / "generation.sock"

    @property
    def log_socket(self) -> Path:
        """Where nginx sends its errors."""
        return self.run_dir / "log.sock"

    @property
    def cut_socket(self) -> Path:
        """Where the helper that ends stuck sessions listens: systemd's, so beside our folder."""
        return self.run_dir.with_name(f"{self.run_dir.name}-cut.sock")

    @property
    def agent_dir(self) -> Path:
        """What is the agent's alone: nginx's unit may write the run folder, and not this one.

        Of the units' folder it is beside it, so that each can be closed to others by itself. In
        another one that was chosen it is inside: what is above that need not be ours.
        """
        if self.run_dir == Path("/run/kube-nginx"):
            return Path("/run/kube-nginx-agent")
        return self.run_dir / "agent"

    @property
    def status(self) -> Path:
        """What the ``status`` command reads, whoever asks it."""
        return self.agent_dir / "status.json"

    @property
    def status_spare(self) -> Path:
        """A file whose only worth is its room in the folder, for a status that finds none."""
        return self.agent_dir / "status.spare"

    @property
    def private_dir(self) -> Path:
        """What nobody else may even open: whoever can open a file can lock it."""
        return self.agent_dir / "private"

    @property
    def lock(self) -> Path:
        """Held by the one agent that may run on these folders."""
        return self.private_dir / "agent.lock"

    @property
    def former(self) -> Tuple[Path, ...]:
        """What agents up to 0.1 kept in the run folder, which nobody reads any more."""
        names = ("status.json", "status.spare", "agent.lock")
        return tuple(self.run_dir / name for name in names)
