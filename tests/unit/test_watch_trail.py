"""Everything that is looked at on the way to a file, links and their targets included."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

import pytest

from kube_nginx_agent.intake import trail as trail_module
from kube_nginx_agent.intake.trail import folders_of, trail


def below(folder: Path, path: Path) -> set[str]:
    return {str(step.relative_to(folder)) for step in trail(path) if folder in step.parents}


def test_plain_file_and_all_its_folders_are_on_the_trail(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "file"
    file.parent.mkdir()
    file.touch()

    assert below(tmp_path, file) == {"etc", "etc/file"}
    assert Path("/") in trail(file)


def test_missing_file_is_on_the_trail(tmp_path: Path) -> None:
    assert below(tmp_path, tmp_path / "a" / "b") == {"a", "a/b"}


def test_link_leads_to_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")

    assert below(tmp_path, tmp_path / "link") == {"link", "target"}


def test_relative_link_is_followed_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("../b/target")

    assert below(tmp_path, tmp_path / "a" / "link") == {"a", "a/link", "b", "b/target"}


def test_links_of_a_config_map_are_followed(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "file").touch()
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "file").symlink_to("..data/file")

    assert below(tmp_path, tmp_path / "file") == {
        "file",
        "..data",
        "..data/file",
        "..2026",
        "..2026/file",
    }


def test_link_in_the_middle_of_a_path_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")

    assert "real/file" in below(tmp_path, tmp_path / "folder" / "file")


@pytest.mark.parametrize("target", ["loop", "loop/deeper", "."])
def test_links_that_lead_in_a_circle_end(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop").symlink_to(target)

    assert "loop" in below(tmp_path, tmp_path / "loop")


def test_relative_path_starts_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert below(tmp_path, Path("file")) == {"file"}


def test_link_that_is_swapped_while_it_is_looked_at_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pathlib's own two looks, is it a link and where does it lead, may meet two things."""
    targets: Callable[[], Optional[str]] = iter([None, "a", None, "b"] * 99).__next__
    monkeypatch.setattr(trail_module, "link_target", lambda _path: targets())

    assert tmp_path / "file" in trail(tmp_path / "file")


def test_two_folders_above_a_file_and_above_its_target_are_watched(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c" / "d").mkdir(parents=True)
    (tmp_path / "a" / "b" / "link").symlink_to(tmp_path / "c" / "d" / "file")

    folders = set(folders_of(trail(tmp_path / "a" / "b" / "link")))

    assert folders == {tmp_path / "a", tmp_path / "a/b", tmp_path / "c", tmp_path / "c/d"}


def test_above_a_missing_folder_the_nearest_that_are_there_are_watched(tmp_path: Path) -> None:
    folders = set(folders_of(trail(tmp_path / "a" / "b" / "c" / "file")))

    assert {tmp_path, tmp_path.parent} <= folders
