"""A file is the old one or the new one, whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kube_nginx_agent.node import files
from kube_nginx_agent.node.files import (
    FileError,
    make_folder,
    move_over,
    read_text,
    replace_file,
    write_beside,
)


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


def test_replaced_name_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
    )

    replace_file(tmp_path / "file", "new")

    assert synced == [False, True]  # first the bytes, then the folder that names them


def test_text_fits_into_the_room_of_a_spare_where_there_is_none_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, spare = tmp_path / "file", tmp_path / "spare"
    for text in ("first", "second"):
        replace_file(file, text, spare=spare)
    real_write = files._write

    def full(path: Path, text: str, *, within: bool = False) -> None:
        if not within:
            fail()
        real_write(path, text, within=within)

    monkeypatch.setattr(files, "_write", full)
    for text in ("third, which is longer", "4"):
        replace_file(file, text, spare=spare)
        assert file.read_text() == text
    assert {path.name for path in tmp_path.iterdir()} == {"file", "spare"}


def test_who_is_reading_sees_one_text_to_its_end(tmp_path: Path) -> None:
    file, spare = tmp_path / "file", tmp_path / "spare"
    replace_file(file, "first", spare=spare)

    with file.open() as reading:
        for text in ("second", "third"):
            replace_file(file, text, spare=spare)
        assert reading.read() == "first"


def test_room_is_reserved_again_once_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, spare = tmp_path / "file", tmp_path / "spare"
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "posix_fallocate", fail)
        for text in ("first", "second"):
            replace_file(file, text, spare=spare)
        assert {path.name for path in tmp_path.iterdir()} == {"file", "spare"}

    replace_file(file, "third", spare=spare)

    assert spare.stat().st_size >= 16 * 1024
    assert file.read_text() == "third"


def test_spare_that_is_still_the_live_file_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, spare = tmp_path / "file", tmp_path / "spare"
    file.write_text("live")
    os.link(file, spare)
    monkeypatch.setattr(files, "_write", fail)

    with pytest.raises(FileError):
        replace_file(file, "new", spare=spare)

    assert file.read_text() == "live"


def test_file_gets_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "file", "text")
        make_folder(tmp_path / "one" / "two")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o755


def test_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    """Who else may write the folder could have put one there."""
    precious, planted = tmp_path / "precious", tmp_path / "file.new"
    precious.write_text("kept")
    planted.symlink_to(precious)

    with pytest.raises(FileError, match="it can't be written"):
        replace_file(tmp_path / "file", "text")

    assert precious.read_text() == "kept"
    assert not planted.is_symlink()
    replace_file(tmp_path / "file", "text")


def test_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(FileError, match="it is not a regular file"):
        files.read_bytes(tmp_path / "pipe")


def test_names_of_strangers_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "unix").write_bytes(b"@\xff\x80 name\n")

    assert os.fsencode(files.read_proc(tmp_path / "unix")) == b"@\xff\x80 name\n"


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
