"""Where the lines go and how they look: one for each change of state, none for a poll."""

from __future__ import annotations

import io
import os
import re
import syslog
import time
from collections import Counter
from pathlib import Path

import pytest

from kube_nginx_agent.loop.agent import POLL
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import choose_sink, prefix_sink, terminal_sink
from support.address import Address
from support.agent_process import AgentProcess

Apis = tuple[str, ...]


# Kinds


def test_every_kind_has_an_id_of_its_own() -> None:
    ids = Counter(kind.message_id for kind in kinds.ALL)
    assert [kind for kind, number in ids.items() if number > 1] == []
    assert all(re.fullmatch("[0-9a-f]{32}", message_id) for message_id in ids)


def test_every_kind_has_a_name_of_its_own_and_a_priority_of_syslog() -> None:
    assert len({kind.name for kind in kinds.ALL}) == len(kinds.ALL)
    assert all(syslog.LOG_CRIT <= kind.priority <= syslog.LOG_INFO for kind in kinds.ALL)


def test_all_has_every_kind() -> None:
    named = [value for value in vars(kinds).values() if isinstance(value, kinds.Kind)]
    assert list(kinds.ALL) == named
    assert named


# Forms


def test_on_a_terminal_a_line_has_the_time_and_the_level() -> None:
    stream = io.StringIO()
    terminal_sink(stream)(kinds.CONFIG_REFUSED, "no good", {"REASON": "x"})
    terminal_sink(stream)(kinds.AGENT_STARTED, "hello", {})
    assert re.fullmatch(r"\d\d:\d\d:\d\d error: no good\n\d\d:\d\d:\d\d hello\n", stream.getvalue())


def test_for_journald_each_line_has_its_priority() -> None:
    stream = io.StringIO()
    prefix_sink(stream)(kinds.LIVE_RESTORED, "changed\n-a\n+b", {})
    assert stream.getvalue() == "<4>changed\n<4>-a\n<4>+b\n"


def test_a_log_that_can_not_be_written_ends_nothing() -> None:
    with open("/dev/full", "w") as full:
        terminal_sink(full)(kinds.AGENT_STARTED, "hello", {})
        with pytest.raises(OSError, match="No space"):
            full.close()


def test_the_journal_is_known_by_the_stream_that_systemd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        choose_sink(stream)(kinds.AGENT_STARTED, "to a terminal", {})
        stream.seek(0)
        assert re.match(r"\d\d:\d\d:\d\d to a terminal", stream.read())


def test_a_stream_of_journald_has_priorities(
    folder: Path, nginx_binary: Path, listen: Address, apis: Apis
) -> None:
    """Where python3-systemd is missing; with it the lines go to the journal's own socket."""
    blocker = folder / "blocker"
    blocker.mkdir()
    (blocker / "systemd.py").write_text("raise ImportError\n")
    log = folder / "agent.log"
    log.touch()
    status = log.stat()
    variables = {
        "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
        "PYTHONPATH": f"{blocker}:{Path(__file__).resolve().parents[2] / 'agent'}",
    }
    with AgentProcess(folder, nginx_binary, listen, extra=variables) as agent:
        agent.start(apis[:1])
        agent.wait_for_line("^<5>generation [0-9a-f]{7} is live on")
        agent.write_text("oops")
        agent.wait_for_line("^<3>.*backends.yaml:1:1: ")
        assert all(re.match("<[2-6]>", line) for line in agent.lines())


# What is said


def test_an_edit_is_two_lines_and_idling_is_none(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:2])
    agent.write(apis[:1])
    agent.wait_for_applies(2)
    until = time.monotonic() + POLL + 1
    said = agent.lines()
    while time.monotonic() < until:
        agent.servers()
        time.sleep(0.5)
    assert agent.lines() == said
    words = [re.sub(r"^\S+ ", "", line) for line in said if "no CA file" not in line]
    assert re.fullmatch("kube-nginx-agent .* starts", words[0])
    assert [bool(re.match("generation", word)) for word in words[1:]] == [False, True] * 2


def test_a_touch_without_change_is_no_line(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    said = agent.lines()
    for _ in range(3):
        agent.config.touch()
        agent.write(apis[:1])
    assert agent.cli("reload").returncode == 0
    assert agent.lines() == said


def test_a_users_mistake_is_never_a_traceback(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    for text in ("\0", "{", "[]", "1", "backends: 1", "&a [*a]", "!!python/object:os.x {}"):
        agent.write_text(text)
        assert agent.cli("reload").returncode == 1
    assert agent.lines("Traceback|Error") == []
    agent.write(apis[1:2])
    agent.wait_for_servers(apis[1:2])
