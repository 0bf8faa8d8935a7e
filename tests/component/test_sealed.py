"""What others on the node can reach of a running agent, and of its folders."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from support.address import Address
from support.agent_process import PYTHON, AgentProcess

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
AGENTS_USER, STRANGER = 54321, 54322

_OPEN_MEMORY = "import sys; open(f'/proc/{sys.argv[1]}/mem', 'r+b')"
_LIST_DESCRIPTORS = "import os, sys; os.listdir(f'/proc/{sys.argv[1]}/fd')"
_LOCK = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH)"


def refused(uid: int, program: str, argument: object) -> str:
    """Run a Python program as another user; return the last line of its complaint, "" if none."""
    done = subprocess.run(
        [str(PYTHON), "-c", program, str(argument)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=[],
    )
    return done.stderr.splitlines()[-1] if done.returncode else ""


@needs_root
def test_memory_and_descriptors_are_closed_to_its_own_user(
    folder: Path, nginx_binary: Path, listen: Address, apis: tuple[str, ...]
) -> None:
    with AgentProcess(folder, nginx_binary, listen, uid=AGENTS_USER) as agent:
        agent.start(apis[:1])

        for program in (_OPEN_MEMORY, _LIST_DESCRIPTORS):
            assert "PermissionError" in refused(AGENTS_USER, program, agent.pid)
            # It is no other rule that keeps this user off.
            assert refused(AGENTS_USER, program, agent.master_pid()) == ""
        agent.write(apis[1:2])
        agent.wait_for_servers(apis[1:2])
        assert agent.cli("reload").returncode == 0


@needs_root
def test_lock_is_out_of_strangers_reach(
    folder: Path, nginx_binary: Path, listen: Address, apis: tuple[str, ...]
) -> None:
    with AgentProcess(folder, nginx_binary, listen, uid=AGENTS_USER) as agent:
        agent.start(apis[:1])

        assert "PermissionError" in refused(STRANGER, _LOCK, agent.lock)
        assert "PermissionError" in refused(STRANGER, _LOCK, agent.run_dir / "nginx.pid")
        # The units' folder for what everybody may read is another: this one was chosen.
        assert agent.cli("status", uid=STRANGER).returncode == 4


def test_folder_of_an_earlier_agent_is_closed_and_rid_of_what_nobody_reads(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent.run_dir.mkdir(mode=0o777)
    agent.run_dir.chmod(0o777)
    for name in ("status.json", "status.spare", "agent.lock"):
        (agent.run_dir / name).write_text("of 0.1")

    agent.start(apis[:1])

    left = {path.name for path in agent.run_dir.iterdir()}
    assert left == {"nginx.pid", "generation.sock", "log.sock", "agent"}
    # As root its workers are nobody's, and have to pass to the log socket.
    assert agent.run_dir.stat().st_mode & 0o777 == (0o700 if os.geteuid() else 0o711)
    assert agent.lock.parent.stat().st_mode & 0o777 == 0o700
    with agent.lock.open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
