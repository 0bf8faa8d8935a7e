"""The command line: help, exit codes, and one line for whatever is in the way."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from kube_nginx_agent import __version__
from support.address import Address
from support.agent_process import LIVE, AgentProcess, command, environment, for_all_to_read, run_cli

VERBS = ("run", "check", "render", "status", "reload", "version")
NOBODY = 65534
STRANGER = 61234
"""Not nobody, whom nginx's workers run as."""

Apis = tuple[str, ...]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


def only_line(text: str) -> str:
    """Return the one line that is there."""
    assert "Traceback" not in text
    assert text.count("\n") == 1, text
    return text.rstrip("\n")


# Where the answer goes


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("text", "code"), [("backends: [127.0.0.1:6443]", 0), ("nonsense", 1)])
def test_answer_to_nobody_is_its_exit_code(
    folder: Path, listen: Address, nginx_binary: Path, closed: str, text: str, code: int
) -> None:
    file = folder / "backends.yaml"
    file.write_text(f"listen: {listen}\n{text}\n")
    words = command("check", file, "--nginx", nginx_binary)

    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code
    assert "Traceback" not in done.stderr


# Help and usage


def test_help_lists_every_verb() -> None:
    helped = run_cli("--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert all(re.search(rf"^ +{verb} +\w", helped.stdout, re.MULTILINE) for verb in VERBS)
    assert "/etc/kube-nginx/backends.yaml" in helped.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_says_what_it_does_and_its_exit_codes(verb: str) -> None:
    helped = run_cli(verb, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith(f"usage: kube-nginx-agent {verb} ")
    assert re.search(r"Exit code:\s+0", helped.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("start",),
        ("--verbose",),
        ("run", "--standalon"),
        ("run", "file"),
        ("check", "a", "b"),
        ("render", "--json"),
        ("status", "--run-dir"),
        ("reload", "now"),
        ("version", "--nginx"),
    ],
    ids=" ".join,
)
def test_wrong_options_are_answered_with_usage_and_2(arguments: tuple[str, ...]) -> None:
    answer = run_cli(*arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("usage: kube-nginx-agent")
    assert re.search(r"^kube-nginx-agent.*: error: ", answer.stderr.splitlines()[-1])


# version


def test_version_tells_the_agents_and_nginxs(nginx_binary: Path) -> None:
    answer = run_cli("version", f"--nginx={nginx_binary}")
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[0] == f"kube-nginx-agent {__version__}"
    assert re.match(r"nginx/1\.\d+\.\d+ .*\(/", answer.stdout.splitlines()[1])


def test_version_without_nginx_says_so_and_is_no_failure(folder: Path) -> None:
    answer = run_cli("version", f"--nginx={folder}/nginx")
    assert answer.returncode == 0
    assert "there is no nginx" in answer.stdout


# check and render


@pytest.fixture
def good(folder: Path, listen: Address) -> Path:
    path = folder / "good.yaml"
    path.write_text(f"listen: {listen}\nbackends: [127.0.0.1:7001, 127.0.0.1:7002]\n")
    return path


def test_check_of_a_good_list_says_what_would_be_live(
    good: Path, folder: Path, nginx_binary: Path, listen: Address
) -> None:
    before = sorted(folder.rglob("*"))
    answer = run_cli("check", good, f"--nginx={nginx_binary}", f"--run-dir={folder}/run")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == f"{good}: valid: 2 servers behind {listen}\n"
    assert sorted(folder.rglob("*")) == before


def test_check_under_a_running_agent_disturbs_nothing(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:2])
    workers, generation = agent.worker_pids(), agent.generation()
    assert agent.check().returncode == 0
    assert (agent.worker_pids(), agent.generation()) == (workers, generation)
    agent.wait_for_applies(1)


def test_check_of_a_bad_list_says_every_error_with_its_place(
    folder: Path, nginx_binary: Path
) -> None:
    path = folder / "bad.yaml"
    path.write_text("backends:\n  - 1.2.3.4:99999\n  - a b\nlistne: 127.0.0.1:1\n")
    answer = run_cli("check", path, f"--nginx={nginx_binary}", f"--run-dir={folder}")
    assert (answer.returncode, answer.stdout) == (1, "")
    places = [line.removeprefix(f"{path}:").split(": ")[0] for line in answer.stderr.splitlines()]
    assert places == ["2:5", "3:5", "4:1"]
    assert 'did you mean "listen"?' in answer.stderr


def test_check_names_who_holds_the_port(
    good: Path, folder: Path, nginx_binary: Path, listen: Address
) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(listen)
        held.listen()
        answer = run_cli("check", good, f"--nginx={nginx_binary}", f"--run-dir={folder}")
    assert answer.returncode == 1
    line = only_line(answer.stderr)
    assert re.search(rf"{listen}: it is held by \S+ \(pid {os.getpid()}, user \w+\); ", line)
    assert "end that process or change listen" in line


def test_check_warns_of_what_is_allowed_but_unwise(
    folder: Path, nginx_binary: Path, listen: Address
) -> None:
    path = folder / "unwise.yaml"
    path.write_text(f"listen: {listen}\nbackends: [127.0.0.1:7001]\nproxy: {{idle_timeout: 30s}}\n")
    answer = run_cli("check", path, f"--nginx={nginx_binary}", f"--run-dir={folder}")
    assert answer.returncode == 0
    assert only_line(answer.stderr).startswith(f"warning: {path}:3:")


def test_render_prints_what_would_be_live(good: Path, listen: Address) -> None:
    answer = run_cli("render", good)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"listen {listen}" in answer.stdout
    assert set(re.findall(r"server (127\S+)", answer.stdout)) == {
        "127.0.0.1:7001",
        "127.0.0.1:7002",
    }


def test_render_is_the_same_as_the_live_config(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:3])
    answer = run_cli("render", agent.config, f"--run-dir={agent.run_dir}")
    assert answer.stdout == (agent.state_dir / "kube-nginx.conf").read_text()


@pytest.mark.parametrize("verb", ["check", "render"])
def test_a_missing_list_is_one_line(verb: str, folder: Path) -> None:
    answer = run_cli(verb, folder / "none.yaml")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert f"{folder}/none.yaml: it can't be read: No such file" in only_line(answer.stderr)


@pytest.mark.parametrize("verb", ["render", "version", "status"])
def test_a_reader_that_has_seen_enough_is_no_error(
    verb: str, agent: AgentProcess, apis: Apis
) -> None:
    """As `| head -0` does it."""
    agent.start(apis[:1])
    options: dict[str, list[object]] = {"render": [agent.config], "version": []}
    arguments = options.get(verb, [f"--run-dir={agent.run_dir}"])
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        command(verb, *arguments),
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert b"Traceback" not in ended.stderr
    assert b"Exception" not in ended.stderr


# Who may not, and what is missing


def test_run_without_nginx_says_so_and_serves_when_it_comes(
    agent: AgentProcess, apis: Apis, folder: Path
) -> None:
    agent.write(apis[:1])
    program = agent.nginx
    agent.nginx = folder / "later" / "nginx"
    agent.spawn()
    agent.wait_for_line(f"{agent.nginx}: there is no nginx; install the package again")
    agent.nginx.parent.mkdir()
    shutil.copy(program, agent.nginx)
    agent.wait_for_line(LIVE, seconds=20)


def test_run_with_an_nginx_that_may_not_be_run_says_so(
    agent: AgentProcess, apis: Apis, folder: Path
) -> None:
    agent.write(apis[:1])
    agent.nginx = folder / "nginx"
    agent.nginx.write_text("#!/bin/sh\n")
    agent.spawn()
    agent.wait_for_line(f"{agent.nginx}: this user may not run it; chmod 755")


def test_run_on_a_path_that_is_a_file_is_one_line(agent: AgentProcess, folder: Path) -> None:
    (folder / "file").write_text("")
    answer = run_cli(
        "run", "--standalone", f"--config={agent.config}", f"--nginx={agent.nginx}",
        f"--state-dir={folder}/file", f"--run-dir={folder}/run",
    )  # fmt: skip
    assert answer.returncode == 1
    assert f"{folder}/file: it is not a folder; see --state-dir" in only_line(answer.stderr)


def test_run_in_a_folder_too_deep_for_a_socket_is_one_line(
    agent: AgentProcess, folder: Path
) -> None:
    deep = folder / ("x" * 100)
    answer = run_cli(
        "run", "--standalone", f"--config={agent.config}", f"--nginx={agent.nginx}",
        f"--state-dir={folder}/state", f"--run-dir={deep}",
    )  # fmt: skip
    assert answer.returncode == 1
    assert "use a shorter --run-dir" in only_line(answer.stderr)


@needs_root
def test_run_without_rights_to_the_folders_is_one_line(agent: AgentProcess, folder: Path) -> None:
    agent.write(())
    nginx, extra = for_all_to_read(folder, agent.nginx)
    answer = run_cli(
        "run", "--standalone", f"--config={agent.config}", f"--nginx={nginx}", *agent.folders,
        uid=NOBODY, extra=extra,
    )  # fmt: skip
    assert answer.returncode == 1
    line = only_line(answer.stderr)
    assert f"{agent.run_dir}: the folder can't be made: Permission denied; run as the user" in line


@needs_root
def test_another_user_may_look_but_not_reload(
    agent: AgentProcess, apis: Apis, folder: Path
) -> None:
    agent.start(apis[:1])
    nginx, extra = for_all_to_read(folder, agent.nginx)
    where = f"--run-dir={agent.run_dir}"

    assert run_cli("status", where, uid=STRANGER, extra=extra).returncode == 0
    checked = run_cli("check", agent.config, where, f"--nginx={nginx}", uid=STRANGER, extra=extra)
    asked = run_cli("reload", where, uid=STRANGER, extra=extra)

    assert asked.returncode == 1
    assert f"{agent.lock}: this user may not read it" in only_line(asked.stderr)
    # This user can't look into nginx, but knows its address from the status.
    assert checked.returncode == 0, checked.stderr


@needs_root
def test_check_by_root_sees_with_the_eyes_of_the_agents_user(
    agent: AgentProcess, apis: Apis, folder: Path
) -> None:
    nginx, extra = for_all_to_read(folder, agent.nginx)
    agent.run_dir.mkdir()
    os.chown(agent.run_dir, NOBODY, NOBODY)
    agent.write_text(f"listen: 127.0.0.1:443\nbackends: [{apis[0]}]\n")
    agent.config.chmod(0o600)  # a draft of root's may be
    where = (f"--run-dir={agent.run_dir}", f"--nginx={nginx}")

    checked = run_cli("check", agent.config, *where, extra=extra)

    if "can't be listened on" not in checked.stderr:  # where the node lets everybody have the port
        limit = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
        assert int(limit) <= 443, checked.stderr
        return
    assert checked.returncode == 1
    assert "ip_unprivileged_port_start to 443" in only_line(checked.stderr)


def test_a_port_held_by_another_process_is_said_by_the_daemon_and_taken_when_free(
    agent: AgentProcess, apis: Apis
) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(agent.listen)
        held.listen()
        agent.write(apis[:1])
        agent.spawn()
        agent.wait_for_line(rf"error: {agent.listen}: it is held by \S+ \(pid {os.getpid()}, ")
        assert agent.cli("status").returncode == 2
    agent.wait_until_reported()
    agent.wait_for_line(f"over after .* {agent.listen}: it is held by")


# status


def test_status_without_an_agent_is_3_and_one_line(folder: Path) -> None:
    answer = run_cli("status", f"--run-dir={folder}")
    assert (answer.returncode, answer.stdout) == (3, "")
    assert "the agent is not running" in only_line(answer.stderr)


def test_status_in_a_folder_that_is_not_there_is_3(folder: Path) -> None:
    answer = run_cli("status", f"--run-dir={folder}/none")
    assert answer.returncode == 3
    assert "the agent is not running" in only_line(answer.stderr)
