"""What is decided of the names outlives DNS, and the agent."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.intake.names import Names
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Fields
from unit.making import ips

LONG = 40
"""Answers, 30 s apart: enough for an address that is missing to leave."""


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return tmp_path / "names.json"


class Said(list[tuple[str, str]]):
    """Keeps what is said."""

    def __call__(self, kind: kinds.Kind, message: str, fields: Fields) -> None:
        assert fields["NAME"] in message
        self.append((kind.name, message))


def names_of(file: Path, *wanted: str, said: Said | None = None) -> Names:
    names = Names(file, Said() if said is None else said)
    names.keep_only(wanted or ["a.b"])
    return names


def answer(name: str, *addresses: str, error: str = "") -> NameAnswered:
    return NameAnswered(name, ips(addresses), error)


def tell(names: Names, *answers: NameAnswered) -> None:
    for n, one in enumerate(answers):
        names.note(one, n * 30.0)


def problems_of(names: Names) -> list[str]:
    return [str(problem.error) for problem in names.problems()]


def test_nothing_is_known_without_a_file(file: Path) -> None:
    assert names_of(file).addresses == {}


def test_answer_is_known(file: Path) -> None:
    names = names_of(file)

    tell(names, answer("a.b", "10.0.0.1", "2001:db8::1"))

    assert names.addresses == {"a.b": ips(["10.0.0.1", "2001:db8::1"])}


def test_answer_outlives_the_agent(file: Path) -> None:
    tell(names_of(file), answer("a.b", "10.0.0.1"))

    assert names_of(file).addresses == {"a.b": ips(["10.0.0.1"])}


def test_address_leaves_after_many_answers_and_is_known_as_retired_from_then_on(file: Path) -> None:
    said = Said()
    names = names_of(file, said=said)

    tell(names, answer("a.b", "10.0.0.1", "10.0.0.2"), *[answer("a.b", "10.0.0.2")] * LONG)

    for known in (names, names_of(file)):
        assert known.addresses == {"a.b": ips(["10.0.0.2"])}
        assert known.retired == {"a.b": ips(["10.0.0.1"])}
    assert said[1:] == [("name resolved", "a.b is now 10.0.0.2; 10.0.0.1 left it")]


def test_nothing_is_retired_of_a_name_that_has_left_the_list(file: Path) -> None:
    names = names_of(file)
    tell(names, answer("a.b", "10.0.0.1", "10.0.0.2"), *[answer("a.b", "10.0.0.2")] * LONG)

    names.keep_only([])
    names.keep_only(["a.b"])

    assert (names.addresses, names.retired) == ({}, {})


def test_varying_answers_are_said_once(file: Path) -> None:
    said = Said()
    turns = [answer("a.b", "10.0.0.1", "10.0.0.2"), answer("a.b", "10.0.0.1")]

    tell(names_of(file, said=said), *turns * LONG)

    assert [kind for kind, _ in said] == ["name resolved", "name varies"]


@pytest.mark.parametrize("failure", [answer("a.b", error="timed out"), answer("a.b")])
def test_failure_leaves_the_last_addresses(file: Path, failure: NameAnswered) -> None:
    names = names_of(file)

    tell(names, answer("a.b", "10.0.0.1"), *[failure] * LONG)

    assert names.addresses == {"a.b": ips(["10.0.0.1"])}
    assert problems_of(names)[0].endswith("; its last addresses go on serving")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (answer("a.b", error="timed out"), "timed out"),
        (answer("a.b"), "the name has no address"),
        (answer("a.b", error="\x1b[31mred\n"), "?[31mred?"),
        (answer("a.b", error="x" * 1000), "x" * 200),
    ],
)
def test_failure_is_told_until_the_next_answer(
    file: Path, failure: NameAnswered, reason: str
) -> None:
    names = names_of(file)

    names.note(failure, 0.0)
    told = problems_of(names)
    names.note(answer("a.b", "10.0.0.1"), 5.0)

    assert told == [f"a.b: it can't be resolved: {reason}; check the node's DNS"]
    assert problems_of(names) == []


def test_answer_for_a_name_that_has_left_is_dropped(file: Path) -> None:
    said = Said()
    names = names_of(file, "a.b", said=said)
    names.keep_only(["c.d"])

    tell(names, answer("a.b", error="timed out"), answer("a.b", "10.0.0.1"))
    dropped = (names.addresses, problems_of(names), said)
    names.keep_only(["a.b"])

    assert dropped == ({}, [], [])
    assert names.unknown(["a.b"]) == {"a.b"}


def test_failure_of_a_name_that_leaves_is_no_problem_any_more(file: Path) -> None:
    names = names_of(file)
    tell(names, answer("a.b", error="timed out"))

    names.keep_only([])

    assert problems_of(names) == []


def test_name_is_unknown_until_a_try_has_ended(file: Path) -> None:
    names = names_of(file, "answered", "failed", "asked")
    tell(names, answer("answered", "10.0.0.1"), answer("failed", error="timed out"))

    assert names.unknown(["answered", "failed", "asked"]) == {"asked"}


def test_name_of_the_file_is_known_before_it_is_asked_for(file: Path) -> None:
    tell(names_of(file), answer("a.b", "10.0.0.1"))

    assert names_of(file).unknown(["a.b"]) == set()


def test_unwanted_names_are_forgotten_for_good(file: Path) -> None:
    names = names_of(file, "a.b", "c.d")
    tell(names, answer("a.b", "10.0.0.1"), answer("c.d", "10.0.0.1"))

    names.keep_only(["a.b"])

    assert list(names.addresses) == list(names_of(file, "a.b", "c.d").addresses) == ["a.b"]


def test_only_what_is_new_is_written(file: Path) -> None:
    names = names_of(file)
    tell(names, answer("a.b", "10.0.0.1", "10.0.0.2"))
    file.unlink()

    tell(names, answer("a.b", "10.0.0.1", "10.0.0.2"), answer("a.b", "10.0.0.1"))
    tell(names, answer("a.b", error="timed out"))
    names.keep_only(["a.b"])

    assert not file.exists()


def test_full_disk_does_not_matter(tmp_path: Path) -> None:
    names = names_of(tmp_path / "missing" / "names.json")

    tell(names, answer("a.b", "10.0.0.1"))

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
        b'{"version": 2}',
        b'{"version": 2, "names": []}',
        b'{"version": 2, "names": {"a.b": []}}',
        b'{"version": 2, "names": {"a.b": {}}}',
        b'{"version": 2, "names": {"a.b": {"addresses": 7}}}',
        b'{"version": 2, "names": {"a.b": {"addresses": ["10.0.0.1"], "retired": 7}}}',
        b"[" * 100_000,
    ],
)
def test_damaged_file_is_taken_for_an_empty_one(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    assert names_of(file).addresses == {}


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=9) | st.sampled_from(["10.0.0.1", "::1", "a.b"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["version", "names", "a.b", "addresses", "retired", "x"]), inner, max_size=4
    ),
)


@given(JSON)
def test_whatever_the_file_holds_the_agent_starts(content: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "names.json"
        file.write_text(json.dumps(content))

        names = names_of(file)
        tell(names, answer("a.b", "10.0.0.1"))

    assert ips(["10.0.0.1"]) <= names.addresses["a.b"]


def test_file_of_an_earlier_version_is_read(file: Path) -> None:
    file.write_text('{"a.b": ["10.0.0.2", "10.0.0.1"]}')

    assert names_of(file).addresses == {"a.b": ips(["10.0.0.1", "10.0.0.2"])}


def test_file_of_a_later_version_is_read_as_far_as_it_is_known(file: Path) -> None:
    known = {"addresses": ["10.0.0.1"], "retired": [], "since": 7}
    file.write_text(json.dumps({"version": 3, "names": {"a.b": known}, "more": 1}))

    assert names_of(file).addresses == {"a.b": ips(["10.0.0.1"])}


def test_file_can_be_read_by_people(file: Path) -> None:
    tell(names_of(file), answer("a.b", "10.0.0.10", "10.0.0.2"))

    assert json.loads(file.read_text()) == {
        "version": 2,
        "names": {"a.b": {"addresses": ["10.0.0.2", "10.0.0.10"], "retired": []}},
    }
