"""DNS names in the list: the last addresses outlive DNS and the agent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.address import Address
from support.agent_process import SECONDS, AgentProcess
from support.apiserver import StandIn
from support.process import wait_until

ENTER = """
set -e
for file in hosts nsswitch.conf; do mount --bind "$0/$file" "/etc/$file"; done
exec "$@"
"""


@pytest.fixture(scope="module")
def port(certs: Path) -> Iterator[int]:
    """A port at which apiservers answer on 127.0.0.11, .12, .13 and .14."""
    with ExitStack() as stack:
        first = stack.enter_context(StandIn("api1", certs, listen=Address("127.0.0.11", 0)))
        port = first.address.port
        for number in (2, 3, 4):
            listen = Address(f"127.0.0.1{number}", port)
            stack.enter_context(StandIn(f"api{number}", certs, listen=listen))
        yield port


@pytest.fixture
def hosts(folder: Path) -> Path:
    """The /etc/hosts of this test's agent: all that it can resolve with."""
    (folder / "nsswitch.conf").write_text("hosts: files\n")
    path = folder / "hosts"
    path.write_text("")
    return path


@pytest.fixture
def agent(folder: Path, nginx_binary: Path, listen: Address, hosts: Path) -> Iterator[AgentProcess]:
    """An agent in a mount namespace of its own, with this test's /etc/hosts."""
    prefix = ("unshare", "--mount", "sh", "-c", ENTER, str(folder))
    if os.geteuid() != 0 or not shutil.which("unshare") or not may_mount(prefix):
        pytest.skip("makes a mount namespace")
    with AgentProcess(folder, nginx_binary, listen, prefix=prefix) as agent:
        yield agent


def may_mount(prefix: tuple[str, ...]) -> bool:
    return subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_all_addresses_of_a_name_are_used(agent: AgentProcess, port: int, hosts: Path) -> None:
    hosts.write_text("127.0.0.11 api.test\n127.0.0.12 api.test\n")
    agent.start([f"api.test:{port}", f"127.0.0.13:{port}"])
    agent.wait_for_servers([f"127.0.0.11:{port}", f"127.0.0.12:{port}", f"127.0.0.13:{port}"])
    assert agent.lines("api.test is now 127.0.0.11, 127.0.0.12")
    pattern = rf"127.0.0.11:{port} \(api.test:{port}\) +up "
    wait_until(lambda: re.search(pattern, agent.cli("status").stdout), SECONDS, "it is up")
    assert agent.cli("status").returncode == 0


def test_last_addresses_survive_dns_and_the_agent(
    agent: AgentProcess, port: int, hosts: Path
) -> None:
    hosts.write_text("127.0.0.11 api.test\n")
    agent.start([f"api.test:{port}"])
    workers = agent.worker_pids()

    hosts.write_text("")
    agent.restart()
    pattern = "warning: api.test: .*its last addresses go on serving"
    agent.wait_for_line(pattern, seconds=2 * SECONDS)  # Said at the third try, 5 s apart.

    assert agent.servers() == {f"127.0.0.11:{port}"}
    assert agent.worker_pids() == workers
    assert wait_until(lambda: agent.cli("status").returncode, SECONDS, "it is degraded") == 1

    hosts.write_text("127.0.0.12 api.test\n")
    agent.wait_for_line("api.test is now 127.0.0.11, 127.0.0.12", seconds=15)
    agent.wait_for_servers([f"127.0.0.11:{port}", f"127.0.0.12:{port}"])
    agent.wait_for_line("over after .* api.test: it can't be resolved")
    wait_until(lambda: agent.cli("status").returncode == 0, SECONDS, "it is well again")


def test_a_name_without_address_does_not_keep_the_others_from_serving(
    agent: AgentProcess,
    port: int,
) -> None:
    agent.start([f"nowhere.test:{port}", f"127.0.0.13:{port}"])
    agent.wait_for_servers([f"127.0.0.13:{port}"])
    assert agent.lines("warning: nowhere.test: it can't be resolved: .*; check the node's DNS")
    status = agent.cli("status")
    assert status.returncode == 1
    assert "nowhere.test: it can't be resolved" in status.stdout.splitlines()[0]


def test_only_names_without_address_leave_the_last_good_list(
    agent: AgentProcess, port: int
) -> None:
    agent.start([f"127.0.0.13:{port}"])
    agent.write([f"nowhere.test:{port}"])
    agent.wait_for_line(f"no usable address is known for nowhere.test:{port}")
    assert agent.servers() == {f"127.0.0.13:{port}"}
    assert agent.cli("status").returncode == 1

    agent.write([f"127.0.0.14:{port}"])
    agent.wait_for_servers([f"127.0.0.14:{port}"])
    wait_until(lambda: agent.cli("status").returncode == 0, SECONDS, "it is well again")


def test_a_name_that_appears_joins_by_itself(agent: AgentProcess, port: int, hosts: Path) -> None:
    agent.start([f"api.test:{port}", f"127.0.0.13:{port}"])
    hosts.write_text("127.0.0.11 api.test\n")
    agent.wait_for_line("api.test is now 127.0.0.11", seconds=15)
    agent.wait_for_servers([f"127.0.0.11:{port}", f"127.0.0.13:{port}"])


def test_an_answer_for_a_name_that_has_left_leaves_no_problem_behind(
    agent: AgentProcess, port: int
) -> None:
    agent.start([f"nowhere.test:{port}", f"127.0.0.13:{port}"])
    agent.wait_for_line("warning: nowhere.test: it can't be resolved")

    agent.write([f"127.0.0.13:{port}"])

    wait_until(lambda: agent.cli("status").returncode == 0, SECONDS, "it is well again")
