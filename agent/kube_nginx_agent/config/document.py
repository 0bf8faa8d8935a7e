"""YAML text -> plain values, with the position of each.

A small composer over PyYAML's event stream instead of ``safe_load``: it keeps positions, refuses
what a list of servers never needs (anchors and aliases, tags, duplicate keys, deep nesting) and
so takes time and memory that are linear in a file that is itself limited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator

import yaml

from kube_nginx_agent.config.flaws import Path, Position, Problem
from kube_nginx_agent.errors import printable

MAX_BYTES = 256 * 1024
"""64 backends, the most there may be, with every key given have 8 KiB."""

_MAX_DEPTH = 8  # the schema needs 3
_MAX_EVENTS = 5000  # 64 backends with every key given need 900
_FEW_LINES = "a list of apiservers is a few lines long"
QUOTE_IPV6 = 'put quotes around an IPv6 address: "[2001:db8::1]:6443"'
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
# No octal, hexadecimal or base 60 numbers: YAML 1.1 has them, and each is a trap here.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,17}\.[0-9]{1,17}")


@dataclass
class Document:
    """The value of a YAML document, the positions in it, and what was refused on the way."""

    value: Any = None
    values: dict[Path, Position] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    quoted: set[Path] = field(default_factory=set)
    """Where text stands in quotes, so that it is no number and no truth value."""
    void: set[Path] = field(default_factory=set)
    """Where something was refused whose value says nothing."""
    problems: list[Problem] = field(default_factory=list)


def load_document(data: bytes) -> Document:
    """Read one YAML document; whatever is wrong with it stands in ``problems``."""
    text, problem = _decode(data)
    if problem:
        return Document(problems=[problem])
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    composer = _Composer(_limited(yaml.parse(text, Loader=loader)))
    try:
        return composer.compose()
    except _TooMuchError as error:
        problem = Problem(error.position, (), str(error), _FEW_LINES)
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: PyYAML without libyaml, from "\U00110000", which is no character.
        problem = _syntax_problem(error, text)
    return Document(problems=[*composer.document.problems, problem])


def _decode(data: bytes) -> tuple[str, Problem | None]:
    top = Position(1, 1)
    if len(data) > MAX_BYTES:
        what = f"the file is larger than {MAX_BYTES // 1024} KiB"
        return "", Problem(top, (), what, _FEW_LINES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        what = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        return "", Problem(_end_of(before), (), what, "save the file as UTF-8 text")
    bad = _UNPRINTABLE.search(text)
    if bad:
        what = f"the file has a control character, U+{ord(bad[0]):04X}"
        return "", Problem(_end_of(text[: bad.start()]), (), what, "save it as plain UTF-8 text")
    if not text.strip():
        return "", Problem(top, (), "the file is empty", 'an empty list is written "backends: []"')
    return text, None


def _end_of(text: str) -> Position:
    lines = f"{text}|".splitlines()
    return Position(len(lines), len(lines[-1]))


class _TooMuchError(Exception):
    def __init__(self, position: Position, what: str) -> None:
        super().__init__(what)
        self.position = position


def _limited(events: Iterable[yaml.Event]) -> Iterator[yaml.Event]:
    """Pass the events on; raise _TooMuchError where there are too many, or too deep."""
    depth = 0
    for count, event in enumerate(events):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _TooMuchError(_start(event), f"nested more than {_MAX_DEPTH} levels deep")
        if count > _MAX_EVENTS:
            raise _TooMuchError(_start(event), f"more than {_MAX_EVENTS} keys and values")
        yield event


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
        if isinstance(event, yaml.AliasEvent):
            self._refuse(position, path, "YAML aliases are not accepted", "write the value out")
            self.document.void.add(path)
            return None
        self._check_properties(event, position, path)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _scalar(self, event: Any, path: Path) -> Any:
        if event.implicit[0]:
            return _plain_value(event.value)
        self.document.quoted.add(path)
        return event.value

    def _check_properties(self, event: Any, position: Position, path: Path) -> None:
        if event.anchor is not None:
            self._refuse(position, path, "YAML anchors are not accepted", "write the value out")
        elif event.tag is not None:
            tag = printable(event.tag)
            self._refuse(position, path, f'the YAML tag "{tag}" is not accepted', "remove it")
            self.document.void.add(path)

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, position = self._key(event, path)
            entry_path = (*path, key)
            if key in entries:
                first = self.document.keys[entry_path]
                what = f"the key stands a second time (first on line {first.line})"
                self._refuse(position, entry_path, what, "keep one of them")
                _Composer(self.events)._value(next(self.events), entry_path)  # to skip it
                continue
            self.document.keys[entry_path] = position
            entries[key] = self._value(next(self.events), entry_path)
        return entries

    def _key(self, event: yaml.Event, path: Path) -> tuple[str, Position]:
        position = _start(event)
        if isinstance(event, yaml.ScalarEvent):
            key = str(event.value)
            self._check_properties(event, position, (*path, key))
            return key, position
        self._refuse(position, path, "a key must be a plain word", "put quotes around a value")
        self.document.void.add((*path, "?"))
        _Composer(self.events)._value(event, path)  # to skip it
        return "?", position

    def _refuse(self, position: Position, path: Path, what: str, hint: str) -> None:
        self.document.problems.append(Problem(position, path, what, hint))


def _start(event: yaml.Event) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def _plain_value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


_BARE_IPV6 = re.compile(r"(^|[\s\[,])\[[0-9a-fA-F:]*:[0-9a-fA-F:.]*\]")
_SPECIAL_FIRST = re.compile(r"(^|[:,\[{-]\s*)[*&!%@`]")
_UNFINISHED = re.compile(r"simple key|quoted scalar|flow (sequence|mapping)")


def _syntax_problem(error: Exception, text: str) -> Problem:
    context, words = getattr(error, "context", None), getattr(error, "problem", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    if mark is None or _UNFINISHED.search(context or ""):
        # What is not finished is best looked for where it begins, not where the parser gave up.
        mark = getattr(error, "context_mark", None) or mark
    position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
    lines = text.splitlines()
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    what = f"not valid YAML: {context or ''} {words.splitlines()[0]}".replace("  ", " ")
    return Problem(position, (), what, _syntax_hint(line))


def _syntax_hint(line: str) -> str:
    if _BARE_IPV6.search(line):
        return QUOTE_IPV6
    if "\t" in line:
        return "YAML wants spaces here, not a tab"
    if _SPECIAL_FIRST.search(line):
        return "put quotes around a value that begins with * & ! % @ or `"
    return "check indentation, colons and quotes on this line and around it"
