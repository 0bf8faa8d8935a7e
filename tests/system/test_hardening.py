"""The sandbox of nginx ends at nginx: an attacker with just its unit's directives gets nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from system.machine import Machine, wait_until
from system.network import Fleet
from system.node import Node
from system.packages import HERE

_ATTACK = (Path(__file__).parent / "attack.py").read_text(encoding="utf-8")
_SCRIPT = "/usr/local/lib/attack.py"
_OTHER = "kube-nginx-other.service"
_HOLD = """
import socket, time
session = socket.create_connection(({host!r}, {port}))
try:
    print("ended by", session.recv(1), flush=True)
except OSError as error:
    print("ended by", error, flush=True)
time.sleep(600)
"""
_ASK = """
import socket, sys, time
helper = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
helper.settimeout(8)
began = time.monotonic()
helper.connect("/run/kube-nginx-cut.sock")
if sys.argv[1:]:
    helper.send(" ".join(sys.argv[1:]).encode())
print(helper.recv(100).decode(), round(time.monotonic() - began, 1))
"""
_AS_AGENT = ("setpriv", "--reuid=kube-nginx", "--regid=kube-nginx", "--groups=kube-nginx-agent")
_AS_NGINX = ("setpriv", "--reuid=kube-nginx", "--regid=kube-nginx", "--clear-groups")
_RUNTIME_UNITS = "/run/systemd/system"


def as_nginx(machine: Machine, *command: str) -> str:
    """Run a program with all directives of kube-nginx.service, and return what it printed."""
    text = machine.output("cat", "/usr/lib/systemd/system/kube-nginx.service")
    own = re.sub(r"(?m)^(Type|PIDFile|Exec\w+|Restart\w*|KillMode)=.*\n", "", text)
    own = own.replace("[Service]\n", f"[Service]\nType=oneshot\nExecStart={' '.join(command)}\n")
    machine.write(f"{_RUNTIME_UNITS}/attacker.service", f"{own}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "attacker.service")
    said = [str(entry["MESSAGE"]) for entry in machine.entries("--unit=attacker")]
    return next(words for words in said if words.startswith("{"))


def start_other(node: Node) -> int:
    """Start a process of the same user that is not sealed, as `nginx -t` is for an instant."""
    node.run(
        "systemd-run", "--quiet", f"--unit={_OTHER}", "--property=User=kube-nginx",
        "python3", "-c", "import time; time.sleep(600)",
    )  # fmt: skip
    return int(node.machine.unit(_OTHER)["MainPID"])


def stack_of(node: Node, pid: int) -> str:
    """Return an address that a process may read and write, in hexadecimal digits."""
    found = re.search(r"(?m)^(\w+)-.* \[stack\]$", node.output("cat", f"/proc/{pid}/maps"))
    assert found
    return found[1]


def test_attacker_in_the_unit_of_nginx_gets_nothing(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    agent = int(node.machine.unit("kube-nginx-agent")["MainPID"])
    other = start_other(node)
    victims = [f"{pid}:{stack_of(node, pid)}" for pid in (agent, other)]
    node.machine.write(_SCRIPT, _ATTACK)

    said = as_nginx(node.machine, "/usr/bin/python3", _SCRIPT, *victims)

    outcomes = json.loads(said)
    assert len(outcomes) > 25
    done = [name for name, outcome in outcomes.items() if outcome == "done"]
    assert not done, f"{done} of {outcomes}"
    wait_until(lambda: node.status()["exit_code"] == 0, 10, "the node to be well")


def test_strangers_see_the_status_and_can_lock_or_reach_nothing_else(node: Node) -> None:
    stranger = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    for _ in range(2):
        assert node.machine.succeeds(*stranger, "kube-nginx-agent", "status")
        for closed in (
            "/run/kube-nginx/generation.sock",
            "/run/kube-nginx-agent/private/agent.lock",
        ):
            assert not node.machine.succeeds(*stranger, "test", "-e", closed)
            assert node.machine.succeeds("test", "-e", closed)
        # systemd sets modes whenever it runs something for a unit.
        node.run("systemctl", "reload", "kube-nginx-agent")
    refused = node.run(*stranger, "kube-nginx-agent", "reload", check=False)
    assert "this user may not read it" in refused.stderr
    node.run("kube-nginx-agent", "reload")


def test_profiles_for_apparmor_can_be_loaded() -> None:
    assert shutil.which("apparmor_parser"), "it is missing; `packaging/setup test` installs it"
    profiles = sorted(map(str, (HERE / "packaging" / "apparmor").iterdir()))
    parser = ["apparmor_parser", "--skip-kernel-load", "--skip-read-cache"]
    names = subprocess.run(
        [*parser, "--names", *profiles], capture_output=True, text=True, check=True
    )
    assert sorted(names.stdout.split()) == ["kube-nginx", "kube-nginx-agent"]
    for profile in profiles:
        done = subprocess.run([*parser, profile], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def sockets_to(node: Node, address: str) -> set[str]:
    """Return the inodes of all connections to an address."""
    host, _, port = address.partition(":")
    said = node.output("ss", "-Htne", "state", "established", "dst", host, "dport", "=", port)
    return set(re.findall(r"\bino:(\d+)", said))


def test_helper_ends_sessions_of_nginx_and_no_other_process_of_its_user(
    node: Node, fleet: Fleet
) -> None:
    address = str(fleet.addresses[0])
    host, _, port = address.partition(":")
    node.configure_and_wait(f"backends: ['{address}']\n")
    hold = _HOLD.format(host=host, port=int(port))
    node.run(
        "systemd-run", "--quiet", f"--unit={_OTHER}", "--property=User=kube-nginx",
        "python3", "-c", hold,
    )  # fmt: skip
    # One may be closed while we look.
    links = f"readlink /proc/{node.machine.unit(_OTHER)['MainPID']}/fd/* || true"
    look = re.compile(r"socket:.(\d+)")
    (strangers,) = wait_until(
        lambda: sockets_to(node, address).intersection(look.findall(node.shell(links))),
        10,
        "the stranger's session",
    )
    with node.load(rate=1.0, watches=5) as load:
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        everybodys = sockets_to(node, address)
        assert len(everybodys) > 5

        said = node.output(*_AS_AGENT, "python3", "-c", _ASK, address, *everybodys)

        load.stop()
    assert int(said.split()[0]) >= 5
    assert strangers in sockets_to(node, address)
    assert node.output(*_AS_AGENT, "python3", "-c", _ASK, address, strangers).startswith("0 ")


def test_helper_is_the_agents_alone_and_waits_for_nobody_long(node: Node) -> None:
    silent = node.machine.popen(*_AS_AGENT, "python3", "-c", _ASK)
    asked = node.output(*_AS_AGENT, "python3", "-c", _ASK, "192.0.2.1:6443", "1")
    assert silent.wait(10) == 0

    answer, seconds = asked.split()
    assert answer == "0"
    assert float(seconds) < 4.0
    for who in (_AS_NGINX, ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")):
        refused = node.run(*who, "python3", "-c", _ASK, "192.0.2.1:6443", "1", check=False)
        assert "PermissionError" in refused.stderr


def test_nginx_makes_its_socket_again_after_its_folder_was_removed(
    node: Node, fleet: Fleet
) -> None:
    """It lives in mounts of its own, in which the folder has ended with the node's."""
    node.configure_and_wait(fleet.backends_yaml())
    before = node.nginx_pid()

    node.run("rm", "-r", "/run/kube-nginx", "/run/kube-nginx-agent")

    socket = ("test", "-S", "/run/kube-nginx/generation.sock")
    wait_until(lambda: node.machine.succeeds(*socket), 30, "its socket")
    wait_until(lambda: node.status()["exit_code"] == 0, 15, "the node to be well")
    one = f"backends: ['{fleet.addresses[0]}']\n"
    assert node.configure_and_wait(one)["exit_code"] == 0
    assert node.ask() == "api1"
    assert node.nginx_pid() == before
    assert node.output("stat", "--format=%a", "/run/kube-nginx") == "700"


def test_agent_finds_a_folder_that_was_made_again_behind_its_back(node: Node) -> None:
    """Only a new start gives it the mount in which it may write there."""
    node.shell("rm -r /run/kube-nginx || true; systemctl restart kube-nginx")

    listening = ("test", "-S", "/run/kube-nginx/log.sock")
    wait_until(lambda: node.machine.succeeds(*listening), 30, "the agent's socket")
    wait_until(lambda: node.status()["exit_code"] == 0, 15, "the node to be well")


def test_units_have_their_limits(node: Node) -> None:
    nginx, agent = (node.machine.unit(name) for name in ("kube-nginx", "kube-nginx-agent"))
    assert nginx["OOMPolicy"] == "continue"
    for properties in (nginx, agent):
        assert properties["LimitCORE"] == "0"
        assert int(properties["MemoryMax"]) <= 4 << 30
        assert int(properties["TasksMax"]) <= 4096
        # A weight counts among neighbours, and kubepods.slice is one only up here.
        assert properties["ControlGroup"] == f"/{properties['Id']}"
        assert int(properties["CPUWeight"]) >= 1000
