"""Apiservers on a network of their own, one cable away from a machine, and nothing else there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from support.address import Address
from support.apiserver import StandIn
from system.machine import Machine

NODE_IP = "10.99.0.1"
_IPS = ("10.99.0.11", "10.99.0.12", "10.99.0.13")


class Fleet:
    """Three stand-in apiservers behind a veth pair; use as a context manager."""

    def __init__(self, machine: Machine, certs: Path) -> None:
        """Take the machine that they are joined to, and where their certificates are kept."""
        self._machine = machine
        # A process that does nothing holds the namespace, which ends with it.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout
        self._holder.stdout.readline()
        netns = f"/proc/{self._holder.pid}/ns/net"
        self.apiservers = [
            StandIn(
                f"api{i}", certs, listen=Address(ip, 6443), prefix=["nsenter", f"--net={netns}"]
            )
            for i, ip in enumerate(_IPS, 1)
        ]

    def __enter__(self) -> Fleet:
        self._lay_cable()
        for apiserver in self.apiservers:
            apiserver.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for apiserver in self.apiservers:
            apiserver.close()
        self._holder.kill()
        self._holder.communicate()

    @property
    def addresses(self) -> list[str]:
        """``IP:PORT`` of each."""
        return [str(apiserver.address) for apiserver in self.apiservers]

    def backends_yaml(self) -> str:
        """Return the file that lists them."""
        return "backends:\n" + "".join(f"  - {address}\n" for address in self.addresses)

    def _lay_cable(self) -> None:
        pid = self._holder.pid
        node = ["nsenter", f"--net={self._machine.netns}", "ip"]
        far = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"]
        for command in (
            [*node, "link", "add", "apiservers", "type", "veth", "peer", "node", "netns", str(pid)],
            [*node, "address", "add", f"{NODE_IP}/24", "dev", "apiservers"],
            [*node, "link", "set", "apiservers", "up"],
            *([*far, "address", "add", f"{ip}/24", "dev", "node"] for ip in _IPS),
            [*far, "link", "set", "node", "up"],
            [*far, "link", "set", "lo", "up"],
        ):
            subprocess.run(command, check=True)
