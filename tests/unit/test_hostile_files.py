"""Files that are no list of servers at all: refused at once, in little time and memory."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import suppress

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from kube_nginx_agent.config.document import MAX_BYTES
from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.config.load import load_config
from unit.making import complaints_of

MEGABYTE = 1_000_000

BILLION_LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefgh", "bcdefghi")
)

HOSTILE = {
    "100 MB": (b"a" * (100 * MEGABYTE), "1:1: the file is larger than 256 KiB"),
    "just too large": (b"#" * (MAX_BYTES + 1), "1:1: the file is larger than 256 KiB"),
    "empty": (b"", '1:1: the file is empty; an empty list is written "backends: []"'),
    "blank": (b" \n\n", "1:1: the file is empty"),
    "binary": (b"\x7fELF\x02\x01\x01\x00\x00\xff", "1:10: byte 0xff is not UTF-8"),
    "UTF-16": ("backends: []\n".encode("utf-16"), "1:1: byte 0xff is not UTF-8"),
    "Latin-1": (b"backends: []\n# caf\xe9\n", "2:6: byte 0xe9 is not UTF-8"),
    "not UTF-8 after a BOM": (b"\xef\xbb\xbfa: \xfe\n", "1:4: byte 0xfe is not UTF-8"),
    "NUL": (b"backends: []\x00\n", "1:13: the file has a control character, U+0000"),
    "escape sequence": (b"a: 1\r# \x1b[31m\n", "2:3: the file has a control character, U+001B"),
    "deep lists": (b"backends: " + b"[" * 100_000, "1:18: nested more than 8 levels deep"),
    "deep mappings": (b"{a: " * 20 + b"}" * 20, "1:33: nested more than 8 levels deep"),
    "deep value of a repeated key": (b"a: 1\na: " + b"[" * 9, "2:11: nested more than 8 levels"),
    "deep key": (b"? " + b"[" * 100_000, "1:10: nested more than 8 levels deep"),
    "many entries": (b"backends: [" + b"a," * 120_000 + b"]", "more than 5000 keys and values"),
    "many keys": (
        b"".join(b"k%d: 1\n" % number for number in range(20_000)),
        "more than 5000 keys and values",
    ),
    "one key many times": (b"k: 1\n" * 20_000, "more than 5000 keys and values"),
    "billion laughs": (BILLION_LAUGHS.encode(), "1:4: a: YAML anchors are not accepted"),
    "alias of itself": (b"backends: &a [*a]", "1:15: backends[0]: YAML aliases are not accepted"),
    "Python tag": (
        b'backends: !!python/object/apply:os.system ["id"]\n',
        '1:11: backends: the YAML tag "tag:yaml.org,2002:python/object/apply:os.system" is not',
    ),
    "tag on a key": (b"!!python/name:os.system x: 1\n", "1:1: x: the YAML tag"),
    "long tag": (b"backends: !" + b"t" * 5000 + b" x\n", "1:11: backends: the YAML tag"),
    "long text": (b"backends: ['" + b"x:" * 100_000 + b"']", "has more than one colon"),
    "long key": (b'? "' + b"k" * 200_000 + b'"\n: 1\n', "unknown key"),
    "long number": (b"backends: []\nworkers: " + b"9" * 200_000, "2:10: workers: 9999"),
    "long quoted word": (b"error_log_level: '" + b"warn" * 50_000 + b"'", "warnwarn"),
    "duplicate key": (
        b"backends: []\nbackends: []\n",
        "2:1: backends: the key stands a second time (first on line 1); keep one of them",
    ),
    "duplicate key below": (
        b"backends:\n- address: 10.0.0.1\n  address: 10.0.0.2\n",
        "3:3: backends[0].address: the key stands a second time (first on line 2)",
    ),
    "list as a key": (b"? [a]\n: b\n", "1:3: a key must be a plain word"),
    "mapping as a key": (b"{{a: b}: c, backends: []}", "1:2: a key must be a plain word"),
}


@pytest.fixture(params=["libyaml", "pure Python"])
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with each of PyYAML's two parsers: a machine may lack libyaml."""
    if request.param == "pure Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_with_the_reason(name: str) -> None:
    content, complaint = HOSTILE[name]

    lines = complaints_of(content)

    assert any(complaint in line for line in lines), lines[:5]


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_costs_no_time(name: str) -> None:
    content, _ = HOSTILE[name]
    start = time.process_time()

    complaints_of(content)

    assert time.process_time() - start < 2


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_costs_no_memory(name: str) -> None:
    content, _ = HOSTILE[name]
    tracemalloc.start()

    complaints_of(content)

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * MEGABYTE


@pytest.mark.parametrize("name", HOSTILE)
def test_complaint_is_one_short_line_that_a_terminal_can_show(name: str) -> None:
    content, _ = HOSTILE[name]

    lines = complaints_of(content)

    assert all(line.isprintable() and len(line) < 300 for line in lines)


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize(
    "text",
    [
        '"\\e[31m": 1\nbackends: ["\\e[31mx"]\n',
        'backends: ["a\\nb:c:d"]\nworkers: "\\u202e"\n',
        'backends: ["\\u2028"]\nlisten: "\\x07"\n',
        'backends: ["\\ud800"]\n',
        'backends: ["\\U00110000"]\n',
    ],
)
def test_escaped_control_characters_do_not_reach_the_terminal(text: str) -> None:
    lines = complaints_of(text)

    assert lines
    assert all(line.isprintable() for line in lines)


FRAGMENTS = st.sampled_from(
    [
        *("backends", "listen", "balance", "proxy", "workers", "address", "weight", "fail_timeout"),
        *("idle_timeout", "method", "salt", "hash", "auto", "10.0.0.1", "10.0.0.1:6443", "a.b:1"),
        *("[::1]:8443", '"[2001:db8::1]"', "5s", "0s", "3", "-1", "1.5", "true", "null", "~", "''"),
        *(
            ": ",
            ":",
            "- ",
            "-",
            "? ",
            "\n",
            "\n  ",
            "\n    ",
            ", ",
            "[",
            "]",
            "{",
            "}",
            " #",
            "|\n",
        ),
        *("&a ", "*a", "!!str ", "!x ", "<<: ", "---\n", "...\n", "%YAML 1.1\n", '"', "'", "\t"),
        *("\\", "\ufeff", "\x85", "\u2028", "\U0001f600", "\r", "\0"),
    ]
)


def only_config_errors(data: bytes) -> None:
    with suppress(ConfigError):
        load_config(data, "fuzz.yaml")


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"\xef\xbb\xbf\xef\xbb\xbfbackends: []")
def test_any_bytes_are_loaded_or_refused(data: bytes) -> None:
    only_config_errors(data)


@given(st.text(max_size=200))
def test_any_text_is_loaded_or_refused(text: str) -> None:
    only_config_errors(text.encode("utf-8", "surrogatepass"))


@given(st.lists(FRAGMENTS, max_size=30))
def test_anything_like_yaml_is_loaded_or_refused(fragments: list[str]) -> None:
    only_config_errors("".join(fragments).encode())


@pytest.mark.filterwarnings("ignore")
@given(st.lists(FRAGMENTS, max_size=30))
def test_anything_like_yaml_is_loaded_or_refused_without_libyaml(fragments: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(yaml, "CSafeLoader", raising=False)

        only_config_errors("".join(fragments).encode())


KEYS = ["backends", "listen", "balance", "proxy", "workers", "address", "weight", "salt", "method"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["10.0.0.1", "[::1]:8443", "a.b", "auto", "hash", "5s", "5s\n", "1d", "0ms"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_any_values_under_known_keys_are_loaded_or_refused(content: dict[str, object]) -> None:
    only_config_errors(yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "replace"))
