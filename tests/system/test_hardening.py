"""The sandbox of nginx ends at nginx: an attacker with just its unit's directives gets nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

from system.machine import Machine, wait_until
from system.network import Fleet
from system.node import Node

_ATTACK = (Path(__file__).parent / "attack.py").read_text(encoding="utf-8")
_SCRIPT = "/usr/local/lib/attack.py"
_OTHER = "kube-nginx-other.service"
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
