"""Folders that nginx and the kernel can't take are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.paths import Paths


@pytest.mark.parametrize(
    "folder", ["relative", "/a b", "/a;b", "/a$b", "/a\n", "/caf\u00e9", "/a{"]
)
@pytest.mark.parametrize("kind", ["state_dir", "run_dir"])
def test_folder_that_needs_quotes_in_a_config_is_refused(kind: str, folder: str) -> None:
    with pytest.raises(AgentError, match="characters that nginx's config does not take"):
        Paths(**{kind: Path(folder)})


def test_folder_that_makes_the_name_of_a_socket_too_long_is_refused() -> None:
    with pytest.raises(AgentError, match="would pass 107 bytes; use a shorter --run-dir"):
        Paths(run_dir=Path("/" + "x" * 100))


def test_longest_folder_that_a_socket_can_have_is_accepted() -> None:
    paths = Paths(run_dir=Path("/" + "x" * (106 - len("/generation.sock"))))

    assert len(str(paths.generation_socket)) == 107


def test_everything_lies_in_the_folders_that_were_chosen() -> None:
    paths = Paths(state_dir=Path("/s"), run_dir=Path("/r"))

    kept = [paths.live, paths.candidate, paths.last_good, paths.accepted, paths.names]
    shared = [paths.pid_file, paths.generation_socket, paths.log_socket]
    own = [paths.status, paths.status_spare, paths.private_dir]
    assert {path.parent for path in kept} == {Path("/s")}
    assert {path.parent for path in shared} == {Path("/r")}
    assert {path.parent for path in own} == {Path("/r/agent")}
    assert paths.lock.parent == paths.private_dir


def test_units_have_a_folder_that_nginx_does_not_see() -> None:
    assert Paths().agent_dir == Path("/run/kube-nginx-agent")
