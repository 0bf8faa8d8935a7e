"""YAML text -> plain values, with the position of each.

A small composer over PyYAML's event stream instead of ``safe_load``: it keeps positions, refuses
what a list of servers never needs (anchors and aliases, tags, duplicate keys, deep nesting) and
so takes time and memory that are linear in a file that is itself limited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterator

import yaml

from kube_nginx_agent.config.problems import Path, Position, Problem

MAX_BYTES = 256 * 1024
"""A thousand backends with every key given fit into a fifth of it."""

_MAX_DEPTH = 8  # the schema needs 3
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
# No octal, hexadecimal or base 60 numbers: YAML 1.1 has them, and each is a trap here.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,17}\.[0-9]{1,17}")


@dataclass
class Document:
    """The value of a YAML document, the positions in it, and what was refused on the way."""

    value: Any = None
    values: dict[Path, Position] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def load_document(data: bytes) -> Document:
    """Read one YAML document; whatever is wrong with it stands in ``problems``."""
    text, problem = _decode(data)
    if problem:
        return Document(problems=[problem])
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    composer = _Composer(yaml.parse(text, Loader=loader))
    try:
        return composer.compose()
    except yaml.MarkedYAMLError as error:
        composer.document.problems.append(_syntax_problem(error, text))
    except _TooDeepError as error:
        composer.document.problems.append(
            Problem(error.position, (), f"nested more than {_MAX_DEPTH} levels deep")
        )
    return Document(problems=composer.document.problems)


def _decode(data: bytes) -> tuple[str, Problem | None]:
    top = Position(1, 1)
    if len(data) > MAX_BYTES:
        what = f"the file is larger than {MAX_BYTES // 1024} KiB"
        return "", Problem(top, (), what, "a list of apiservers is a few lines long")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        return "", Problem(_end_of(before), (), what, "save the file as UTF-8 text")
    bad = _UNPRINTABLE.search(text)
    if bad:
        what = f"the file has a control character, U+{ord(bad[0]):04X}"
        return "", Problem(_end_of(text[: bad.start()]), (), what, "save it as plain UTF-8 text")
    if not text.strip():
        return "", Problem(top, (), "the file is empty", 'an empty list is written "backends: []"')
    return text, None


def _end_of(text: str) -> Position:
    return Position(text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1)


class _TooDeepError(Exception):
    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position


class _Composer:
    """Builds a Document from parse events, one recursion a nesting level."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = events
        self.document = Document()

    def compose(self) -> Document:
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.document.value = self._value(next(self.events), ())
                break
        else:
            self._refuse(Position(1, 1), (), "the file has no content", 'write "backends: []"')
        next(self.events, None)  # the end of the document
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._refuse(
                    _start(event), (), "a second YAML document starts here", 'remove the "---"'
                )
                break
        return self.document

    def _value(self, event: yaml.Event, path: Path) -> Any:
        position = _start(event)
        self.document.values[path] = position
        if len(path) > _MAX_DEPTH:
            raise _TooDeepError(position)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(position, path, "YAML aliases are not accepted", "write the value out")
            return None
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            self._check_properties(event, position, path)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return _scalar(event) if isinstance(event, yaml.ScalarEvent) else None

    def _check_properties(
        self,
        event: yaml.ScalarEvent | yaml.CollectionStartEvent,
        position: Position,
        path: Path,
    ) -> None:
        if event.anchor is not None:
            self._refuse(position, path, "YAML anchors are not accepted", "write the value out")
        elif event.tag is not None:
            self._refuse(position, path, f'the YAML tag "{event.tag}" is not accepted', "remove it")

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key, position = self._key(event, path)
            entry_path = (*path, key)
            duplicate = key in entries
            if duplicate:
                first = self.document.keys[entry_path]
                what = f"the key stands a second time (first on line {first.line})"
                self._refuse(position, entry_path, what, "keep one of them")
            else:
                self.document.keys[entry_path] = position
            value = self._value(next(self.events), entry_path)
            if not duplicate:
                entries[key] = value
        return entries

    def _key(self, event: yaml.Event, path: Path) -> tuple[str, Position]:
        position = _start(event)
        if isinstance(event, yaml.ScalarEvent):
            self._check_properties(event, position, path)
            return str(event.value), position
        self._refuse(position, path, "a key must be a plain word", "")
        self._value(event, (*path, "?"))
        return "?", position

    def _refuse(self, position: Position, path: Path, what: str, hint: str) -> None:
        self.document.problems.append(Problem(position, path, what, hint))


def _start(event: yaml.Event) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


_BARE_IPV6 = re.compile(r"(^|\s)\[[0-9a-fA-F:]*:[0-9a-fA-F:.]*\]:")


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
    lines = text.splitlines()
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    if _BARE_IPV6.search(line):
        hint = 'put quotes around an IPv6 address: "[2001:db8::1]:6443"'
    elif "\t" in line:
        hint = "YAML wants spaces here, not a tab"
    else:
        hint = "check indentation, colons and quotes on this line and the one before"
    words = " ".join(part for part in (error.context, error.problem) if part)
    return Problem(position, (), f"not valid YAML: {words}", hint)
