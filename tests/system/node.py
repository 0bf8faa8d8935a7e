"""What an administrator does to a node that has the package, and sees of it."""

from __future__ import annotations

import json
from typing import Any

from support.address import Address
from support.load import Load
from system.machine import Machine, wait_until

ENTRANCE = Address("127.0.0.1", 8443)
UNITS = ("kube-nginx", "kube-nginx-agent")

_APT = {"DEBIAN_FRONTEND": "noninteractive"}
_USE_REPOSITORY = """
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
cp "$1/kube-nginx-agent.gpg" /usr/share/keyrings/
cat >/etc/apt/sources.list.d/kube-nginx-agent.sources <<END
Types: deb
URIs: file:$1
Suites: stable
Components: main
Signed-By: /usr/share/keyrings/kube-nginx-agent.gpg
END
apt-get -qq update
"""
_GET = """
import ssl, sys, urllib.request
context = ssl._create_unverified_context()
print(urllib.request.urlopen(sys.argv[1], context=context, timeout=5).read().decode())
"""


class Node:
    """A machine, seen as the node of a cluster."""

    def __init__(self, machine: Machine) -> None:
        """Take the machine; nothing happens before ``install``."""
        self.machine = machine
        self.run = machine.run
        self.output = machine.output
        self.shell = machine.shell

    def install(self, *options: str) -> str:
        """Install the package from its repository; return what apt said."""
        return self._install_from("/srv/apt", *options)

    def upgrade(self) -> str:
        """Upgrade to the newer package."""
        return self._install_from("/srv/newer")

    def apt(self, *arguments: str) -> str:
        """Run apt-get, and return all that it and the maintainer scripts said."""
        done = self.run("apt-get", "-y", "-qq", *arguments, environment=_APT)
        return done.stdout + done.stderr

    def use_repository(self, folder: str) -> None:
        """Have apt know one repository, and no other."""
        self.run("sh", "-euc", _USE_REPOSITORY, "sh", folder)

    def version(self) -> str:
        """Return the version that is installed, as dpkg has it."""
        form = "${db:Status-Status} ${Version}"
        return self.output("dpkg-query", "--show", f"--showformat={form}", "kube-nginx-agent")

    def _install_from(self, repository: str, *options: str) -> str:
        self.use_repository(repository)
        return self.apt(*options, "install", "kube-nginx-agent")

    def configure(self, backends_yaml: str) -> None:
        """Save backends.yaml."""
        self.machine.write("/etc/kube-nginx/backends.yaml", backends_yaml)

    def configure_and_wait(self, backends_yaml: str) -> dict[str, Any]:
        """Save backends.yaml, reload, and return the status once it is live."""
        self.configure(backends_yaml)
        self.run("systemctl", "reload", "kube-nginx-agent")
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return what the agent says of itself."""
        done = self.run("kube-nginx-agent", "status", "--json", check=False)
        status: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return {**status, "exit_code": done.returncode}

    def status_line(self) -> str:
        """Return the line that ``systemctl status`` shows."""
        return self.machine.unit("kube-nginx-agent")["StatusText"]

    def nginx_pid(self) -> int:
        """Return the pid of the master, as systemd has it."""
        return int(self.machine.unit("kube-nginx")["MainPID"])

    def ask(self, entrance: Address = ENTRANCE) -> str:
        """Return the name of the apiserver that answers through the proxy."""
        answer = self.output("python3", "-c", _GET, f"https://{entrance}/")
        return str(json.loads(answer)["name"])

    def wait_for_answer(self, timeout: float = 10.0) -> str:
        """Return the name of the first apiserver that answers."""

        def answer() -> str:
            done = self.run("python3", "-c", _GET, f"https://{ENTRANCE}/", check=False)
            return str(json.loads(done.stdout)["name"]) if not done.returncode else ""

        return wait_until(answer, timeout, "an answer through the proxy")

    def load(self, *, rate: float = 100.0, watches: int = 20) -> Load:
        """Return a load of clients on this node; use as a context manager."""
        prefix = ["nsenter", f"--net={self.machine.netns}"]
        return Load(ENTRANCE, rate=rate, seconds=120.0, watches=watches, prefix=prefix)
