"""A file is the old one or the new one, whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kube_nginx_agent.node.files import FileError, move_over, read_text, replace_file, write_beside


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_replaced_file_has_the_new_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    replace_file(file, "new \u00e9")

    assert file.read_text(encoding="utf-8") == "new \u00e9"


def test_replacing_leaves_no_other_file(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(FileError, match="No space left"):
        replace_file(file, "new")

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old"}


def test_failed_write_in_a_missing_folder_says_where(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="missing/file: it can.t be written: No such file"):
        write_beside(tmp_path / "missing" / "file", "text")


def test_moved_file_replaces_its_target(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")

    move_over(source, target)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"target": "new"}


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_missing_or_binary_file_has_no_text(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)

    assert read_text(file) is None


def test_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("caf\u00e9", encoding="utf-8")

    assert read_text(tmp_path / "file") == "caf\u00e9"
