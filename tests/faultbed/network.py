"""Network namespaces: a node, apiserver hosts, and the switch between them, where faults are made.

A namespace lives as long as a process that holds it, which ends with us even if we are killed: so
nothing is left behind, neither addresses nor rules.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from faultbed.relay import Way
from support.address import Address
from support.process import Closing, first_line, forget, spawn

NODE_IPS = ("10.99.0.1", "10.99.0.2")
HOST_IPS = ("10.99.0.11", "10.99.0.12", "10.99.0.13", "10.99.0.14")
PORT = 6443

_RELAY_SECONDS = 10.0
_TOOLS = ("ip", "nft", "nsenter", "unshare")
_ESTABLISHED, _LISTENING = "01", "0A"  # the kernel's Documentation/networking/proc_net_tcp.rst


def missing() -> str:
    """Return why no network can be made here, "" if one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"no command {', '.join(absent)}: run packaging/setup bench" if absent else ""


class Namespace:
    """One network namespace, held by a process that does nothing else."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, who then take it down in order
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()

    @property
    def pid(self) -> int:
        return self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """What a command is begun with to run in there."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *command: str, stdin: Optional[str] = None) -> str:
        """Run a command in there to its end and return its output."""
        done = subprocess.run(
            [*self.prefix, *command], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def is_listening(self, address: Address) -> bool:
        """Tell whether an IPv4 address is listened on in there."""
        wanted = _packed(address)
        return any(row[1] == wanted and row[3] == _LISTENING for row in self._tcp())

    def ports_to(self, address: Address) -> list[int]:
        """Return the local ports of the open connections to an IPv4 address."""
        wanted = _packed(address)
        found = (row[1] for row in self._tcp() if row[2] == wanted and row[3] == _ESTABLISHED)
        return [int(local.partition(":")[2], 16) for local in found]

    def _tcp(self) -> list[list[str]]:
        rows = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        return [row.split() for row in rows]

    def clear(self) -> None:
        """End whatever still runs in there, a worker that was forked a moment ago as well."""
        while found := self._processes():
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def close(self) -> None:
        self.clear()
        self._holder.kill()
        self._holder.communicate()

    def _processes(self) -> list[int]:
        """Return what lives in there beside the holder; a zombie is in no namespace any more."""
        own = os.readlink(f"/proc/{self.pid}/ns/net")
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError):
                if pid != self.pid and os.readlink(f"/proc/{pid}/ns/net") == own:
                    found.append(pid)
        return found


@dataclass(frozen=True)
class Host:
    """A machine beside the node."""

    ip: str
    namespace: Namespace
    port: str
    """The switch's port that its cable is in."""

    @property
    def address(self) -> Address:
        return Address(self.ip, PORT)


class Network(Closing):
    """One node and four hosts on a switch; as a context, made and taken down."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Network:
        with self._stack as stack:
            self._switch = self._namespace()
            self._switch.run("ip", "link", "add", "lan", "type", "bridge")
            self._switch.run("ip", "link", "set", "lan", "up")
            self.node = self._namespace()
            self._join(self.node, NODE_IPS, "port0")
            promotion = "/proc/sys/net/ipv4/conf/all/promote_secondaries"
            self.node.run("tee", promotion, stdin="1")
            self.hosts = [self._host(number, ip) for number, ip in enumerate(HOST_IPS, 1)]
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        self._stack.close()

    @contextmanager
    def silent(self, host: Host) -> Iterator[None]:
        """Drop everything to and from a host, as a dead machine behind a router does."""
        rules = (f'oifname "{host.port}"', f'iifname "{host.port}"')
        with self._filter(host, (f"{rule} meta protocol ip drop" for rule in rules)):
            yield

    @contextmanager
    def lossy(self, host: Host, percent: int) -> Iterator[None]:
        """Drop that part of the packets to a host, at random."""
        dice = f"numgen random mod 100 < {percent}"
        with self._filter(host, [f'oifname "{host.port}" meta protocol ip {dice} drop']):
            yield

    @contextmanager
    def losing_syns(self, host: Host) -> Iterator[None]:
        """Drop what opens connections to a host, as a full accept queue or conntrack table does."""
        rule = f'oifname "{host.port}" tcp flags & (syn | ack) == syn drop'
        with self._filter(host, [f"ether type ip {rule}"]):
            yield

    @contextmanager
    def losing_large(self, host: Host) -> Iterator[None]:
        """Drop the large packets that a host sends, as behind a hole of the path's MTU."""
        with self._filter(host, [f'iifname "{host.port}" meta protocol ip ip length > 500 drop']):
            yield

    @contextmanager
    def losing_flows(self, host: Host) -> Iterator[None]:
        """Drop what belongs to the connections that the node has open to a host now."""
        ports = f"{{ {', '.join(map(str, self.node.ports_to(host.address)))} }}"
        rules = (f"ip daddr {host.ip} tcp sport {ports}", f"ip saddr {host.ip} tcp dport {ports}")
        with self._filter(host, (f"{rule} drop" for rule in rules)):
            yield

    @contextmanager
    def renumbered(self) -> Iterator[None]:
        """Take from the node the address that its connections come from; it has a second one.

        At the end it is back, as the second one: nobody uses it then.
        """
        addresses = self.node.run("ip", "-4", "-oneline", "address", "show", "dev", "lan")
        first = addresses.split()[3]
        self.node.run("ip", "address", "delete", first, "dev", "lan")
        try:
            yield
        finally:
            self.node.run("ip", "address", "add", first, "dev", "lan")

    @contextmanager
    def far(self, way: Way) -> Iterator[None]:
        """Have all between the node and the hosts take its time."""
        ends = {"near": "relay-near", "far": "relay-far"}
        options = {**ends, **{name.replace("_", "-"): value for name, value in vars(way).items()}}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        prefix = self._switch.prefix
        child = spawn("faultbed.relay", arguments, errors=None, prefix=prefix)
        try:
            first_line(child, _RELAY_SECONDS)
            self._switch.run("ip", "link", "add", "node", "type", "bridge")
            self._switch.run("ip", "link", "set", "node", "up")
            self._switch.run("ip", "link", "set", ends["near"], "master", "node")
            self._switch.run("ip", "link", "set", ends["far"], "master", "lan")
            self._switch.run("ip", "link", "set", "port0", "master", "node")
            yield
        finally:
            self._switch.run("ip", "link", "set", "port0", "master", "lan")
            forget(child)
            self._switch.run("ip", "link", "delete", "node")

    @contextmanager
    def rejecting(self, host: Host) -> Iterator[None]:
        """Have a host's firewall answer new and old connections with an ICMP prohibition."""
        rule = "meta l4proto tcp reject with icmp type admin-prohibited"
        _nft(host.namespace, _table("inet", "input", [rule]))
        try:
            yield
        finally:
            _nft(host.namespace, "delete table inet fault")

    @contextmanager
    def unplugged(self, host: Host) -> Iterator[None]:
        """Pull a host's cable: not even ARP is answered."""
        self._switch.run("ip", "link", "set", host.port, "down")
        try:
            yield
        finally:
            self._switch.run("ip", "link", "set", host.port, "up")

    @contextmanager
    def _filter(self, host: Host, rules: Iterable[str]) -> Iterator[None]:
        _nft(self._switch, _table("bridge", "forward", rules, host.port))
        try:
            yield
        finally:
            _nft(self._switch, f"delete table bridge {host.port}")

    def _namespace(self) -> Namespace:
        namespace = Namespace()
        self._stack.callback(namespace.close)
        return namespace

    def _host(self, number: int, ip: str) -> Host:
        host = Host(ip, self._namespace(), f"port{number}")
        self._join(host.namespace, [ip], host.port)
        return host

    def _join(self, member: Namespace, ips: Iterable[str], port: str) -> None:
        far = ["peer", "name", port, "netns", str(self._switch.pid)]
        member.run("ip", "link", "add", "lan", "type", "veth", *far)
        self._switch.run("ip", "link", "set", port, "master", "lan", "up")
        for ip in ips:
            member.run("ip", "address", "add", f"{ip}/24", "dev", "lan")
        member.run("ip", "link", "set", "lan", "up")


def _packed(address: Address) -> str:
    """Return an IPv4 address as /proc/net/tcp has it."""
    packed = bytes(int(part) for part in reversed(address.host.split(".")))
    return f"{packed.hex().upper()}:{address.port:04X}"


def _table(family: str, hook: str, rules: Iterable[str], name: str = "fault") -> str:
    head = f"table {family} {name} {{\nchain faults {{\ntype filter hook {hook} priority 0\n"
    return head + "".join(f"{rule}\n" for rule in rules) + "}\n}\n"


def _nft(namespace: Namespace, ruleset: str) -> None:
    namespace.run("nft", "-f", "-", stdin=ruleset)
