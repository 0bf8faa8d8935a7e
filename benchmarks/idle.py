"""`make bench-idle`: what the agent costs while it has nothing to do but wait, in each such state.

    python3 benchmarks/idle.py --nginx PATH [--seconds 30]

The states are waited in side by side, each by an agent of its own, so the figures hold for a node
that has other work. They are the process's CPU time by the kernel's count, in percent of one core.
Needs root, for a name server that never answers and for a full disk.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from support.address import Address
from support.agent_process import AgentProcess
from support.apiserver import StandIn

TARGET = 0.5
SETTLE = 75.0
"""Seconds after the start: looks in doubt are over by then, and tries at what fails are rare."""

_NO_DNS = """
mount --bind "$0/resolv.conf" /etc/resolv.conf
mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf
exec "$@"
"""
_SMALL_DISK = 'mount -t tmpfs -o size=400k tmpfs "$0/state"; exec "$@"'


@dataclass
class World:
    """One agent, and what it lives in."""

    agent: AgentProcess
    apis: list[StandIn]
    stack: ExitStack
    folder: Path

    def start(self, *more: object, text: str = "") -> None:
        """Start the agent with the apiservers and others, and have it serve."""
        self.agent.write_text(self.agent.text([*(api.address for api in self.apis), *more]) + text)
        os.utime(self.agent.config, (0, 0))
        self.agent.start()

    def fault(self, *numbers: int, **changes: object) -> None:
        """Have some of the apiservers misbehave."""
        for number in numbers:
            self.apis[number].fault(**changes)

    def full_backlog(self, host: str) -> Address:
        """Return an address of the host at which every packet of a new connection is dropped."""
        listener = self.stack.enter_context(socket.socket())
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(3):
            filling = self.stack.enter_context(socket.socket())
            filling.settimeout(0.0)
            filling.connect_ex(listener.getsockname())
        return Address(*listener.getsockname())


def _one_refused(world: World) -> None:
    world.apis.pop()
    world.start("127.1.255.1:6443")


def _one_silent(world: World) -> None:
    address = world.apis.pop().address
    world.start(world.full_backlog(address.host))


def _one_frozen(world: World) -> None:
    world.start()
    world.fault(0, latency=1000.0)


def _none_passes(world: World) -> None:
    world.start()
    for api in world.apis:
        api.close()


def _all_slow(world: World) -> None:
    world.start()
    world.fault(0, 1, 2, latency=0.8)


def _no_name_server(world: World) -> None:
    name_server = world.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    name_server.bind(("127.0.0.53", 53))
    world.start("nobody.test:6443")


def _port_held(world: World) -> None:
    world.start()
    holder = world.stack.enter_context(socket.socket())
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    world.agent.write_text(
        world.agent.text([api.address for api in world.apis]).replace(
            str(world.agent.listen), f"127.0.0.1:{holder.getsockname()[1]}"
        )
    )


def _refused_list(world: World) -> None:
    world.start()
    world.agent.write_text("backends: nonsense\n")


def _list_gone(world: World) -> None:
    world.start()
    world.agent.config.unlink()


def _list_of_a_closed_folder(world: World) -> None:
    world.start()
    world.agent.config.unlink()
    world.agent.config.symlink_to("/proc/1/cwd/nothing/backends.yaml")


def _broken_binary(world: World) -> None:
    binary = world.folder / "nginx"
    binary.write_bytes(world.agent.nginx.read_bytes())
    binary.chmod(0o755)
    world.agent.nginx = binary
    world.start()
    binary.unlink()
    world.agent.write([world.apis[0].address])


def _full_disk(world: World) -> None:
    world.start()
    state = Path(f"/proc/{world.agent.pid}/root{world.agent.state_dir}")
    with (state / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    world.agent.write([world.apis[0].address])


STATES: dict[str, tuple[Callable[[World], None], str]] = {
    "all is well": (World.start, ""),
    "one apiserver refuses": (_one_refused, ""),
    "one apiserver is silent": (_one_silent, ""),
    "one apiserver is frozen": (_one_frozen, ""),
    "every answer takes 0.8 s": (_all_slow, ""),
    "none passes": (_none_passes, ""),
    "a name server that is silent": (_no_name_server, _NO_DNS),
    "the port of an edit is held": (_port_held, ""),
    "the list is refused": (_refused_list, ""),
    "the list is gone": (_list_gone, ""),
    "the list leads nowhere": (_list_of_a_closed_folder, ""),
    "the nginx binary is gone": (_broken_binary, ""),
    "the disk is full": (_full_disk, _SMALL_DISK),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nginx", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with ExitStack() as stack:
        root = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="idle-", dir="/var/tmp"))
        )
        root.chmod(0o755)  # nginx's workers are another user when this is root
        worlds = {
            name: _make(stack, root / f"state-{number}", number, options.nginx.absolute(), enter)
            for number, (name, (_, enter)) in enumerate(STATES.items())
        }
        for name, world in worlds.items():
            STATES[name][0](world)
        time.sleep(SETTLE)
        before = {name: _cpu(world.agent.pid) for name, world in worlds.items()}
        began = time.monotonic()
        time.sleep(options.seconds)
        lasted = time.monotonic() - began
        used = {n: 100 * (_cpu(w.agent.pid) - before[n]) / lasted for n, w in worlds.items()}
        said = {
            name: (world.agent.status() or {}).get("problems", []) for name, world in worlds.items()
        }
    width = max(map(len, STATES))
    for name, percent in used.items():
        problems = ", ".join(sorted({problem["kind"] for problem in said[name]})) or "no problem"
        print(f"{name:{width}}  {percent:5.2f} %  {problems}")
    missed = [name for name, percent in used.items() if percent >= TARGET]
    print(f"missed (target {TARGET} %): {', '.join(missed)}" if missed else "no target missed")
    return 0


def _make(stack: ExitStack, folder: Path, number: int, nginx: Path, enter: str) -> World:
    (folder / "state").mkdir(parents=True)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")
    own = stack.enter_context(ExitStack())
    # One port on addresses of their own, as the apiservers of a cluster have it.
    addresses = [Address(f"127.1.{number}.{i}", 6443) for i in (1, 2, 3)]
    apis = [
        own.enter_context(StandIn(f"api{i}", folder / "certs", listen=address))
        for i, address in enumerate(addresses, 1)
    ]
    prefix = ("unshare", "--mount", "sh", "-c", enter, str(folder)) if enter else ()
    listen = Address("127.0.0.1", 18500 + number)
    agent = own.enter_context(AgentProcess(folder, nginx, listen, prefix=prefix))
    return World(agent, apis, own, folder)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
