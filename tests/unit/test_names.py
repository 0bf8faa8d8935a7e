"""The last answers of DNS outlive DNS, and the agent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.intake.names import Names
from unit.making import ips


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return tmp_path / "names.json"


def answer(name: str, *addresses: str, error: str = "") -> NameAnswered:
    return NameAnswered(name, ips(addresses), error)


def test_nothing_is_known_without_a_file(file: Path) -> None:
    assert Names(file).addresses == {}


def test_answer_is_known_from_then_on(file: Path) -> None:
    names = Names(file)

    names.note(answer("a.b", "10.0.0.1", "2001:db8::1"))

    assert names.addresses == {"a.b": ips(["10.0.0.1", "2001:db8::1"])}


def test_answers_outlive_the_agent(file: Path) -> None:
    Names(file).note(answer("a.b", "10.0.0.1"))

    assert Names(file).addresses == {"a.b": ips(["10.0.0.1"])}


def test_new_answer_replaces_the_old_one(file: Path) -> None:
    names = Names(file)
    names.note(answer("a.b", "10.0.0.1"))

    names.note(answer("a.b", "10.0.0.2"))

    assert names.addresses == {"a.b": ips(["10.0.0.2"])}


@pytest.mark.parametrize("failure", [answer("a.b", error="timed out"), answer("a.b")])
def test_failure_leaves_the_last_answer_standing(file: Path, failure: NameAnswered) -> None:
    names = Names(file)
    names.note(answer("a.b", "10.0.0.1"))

    names.note(failure)

    assert names.addresses == {"a.b": ips(["10.0.0.1"])}


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(answer("a.b", error="timed out"), "timed out"), (answer("a.b"), "the name has no address")],
)
def test_failure_is_told_until_the_next_answer(
    file: Path, failure: NameAnswered, reason: str
) -> None:
    names = Names(file)

    names.note(failure)
    told = dict(names.errors)
    names.note(answer("a.b", "10.0.0.1"))

    assert (told, names.errors) == ({"a.b": reason}, {})


def test_name_is_unknown_until_a_try_has_ended(file: Path) -> None:
    names = Names(file)
    names.note(answer("answered", "10.0.0.1"))
    names.note(answer("failed", error="timed out"))

    assert names.unknown(["answered", "failed", "asked"]) == {"asked"}


def test_unwanted_names_are_forgotten_for_good(file: Path) -> None:
    names = Names(file)
    for name in ("a.b", "c.d"):
        names.note(answer(name, "10.0.0.1"))
    names.note(answer("e.f", error="timed out"))

    names.keep_only(["a.b"])

    assert (list(names.addresses), names.errors) == (["a.b"], {})
    assert list(Names(file).addresses) == ["a.b"]


def test_same_answer_is_not_written_again(file: Path) -> None:
    names = Names(file)
    names.note(answer("a.b", "10.0.0.1"))
    file.unlink()

    names.note(answer("a.b", "10.0.0.1"))
    names.keep_only(["a.b"])

    assert not file.exists()


def test_full_disk_does_not_matter(tmp_path: Path) -> None:
    names = Names(tmp_path / "missing" / "names.json")

    names.note(answer("a.b", "10.0.0.1"))

    assert names.addresses == {"a.b": ips(["10.0.0.1"])}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b'{"a.b": 7}',
        b'{"a.b": [7]}',
        b'{"a.b": ["x"]}',
        b'{"a.b": "10.0.0.1"}',
        b"[" * 100_000,
    ],
)
def test_damaged_file_is_taken_for_an_empty_one(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    assert Names(file).addresses == {}


def test_file_can_be_read_by_people(file: Path) -> None:
    Names(file).note(answer("a.b", "10.0.0.2", "10.0.0.1"))

    assert json.loads(file.read_text()) == {"a.b": ["10.0.0.1", "10.0.0.2"]}
