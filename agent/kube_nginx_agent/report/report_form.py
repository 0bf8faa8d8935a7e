"""The bytes of status.json -> what ``status`` may rely on: keys that are there, of their types.

Others read it than its writer, root among them, and nginx's user may be able to write it. So an
odd form is an error to be told and not a traceback, and no text is one that a terminal would obey.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Mapping

from kube_nginx_agent.errors import printable

LONGEST = 1024 * 1024
"""Bytes; 64 backends and as many problems take 60 KB."""

_LONGEST_TEXT = 4096
_VERDICTS = ("ok", "degraded", "down", "not_running", "unknown")
_LARGEST = 1e12
"""More than any number in it: seconds since the epoch, ticks since boot, pids, counts."""

_Check = Callable[[Any], bool]


def parse_report(data: bytes) -> dict[str, Any]:
    """Return the content. Raise ValueError that says what is wrong with it."""
    try:
        content = _shown(json.loads(data))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not _fits(content, _FORM):
        raise ValueError("its form is another")
    return dict(content)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, longest=_LONGEST_TEXT)
    if isinstance(value, list):
        return list(map(_shown, value))
    if isinstance(value, dict):
        return {_shown(key): _shown(part) for key, part in value.items()}
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_number(value: Any) -> bool:
    # Not true of "not a number" either, as no comparison is.
    return _is_whole(value) or (isinstance(value, float) and abs(value) < _LARGEST)


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _list_of(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _fits(value: Any, form: Mapping[str, _Check]) -> bool:
    if not isinstance(value, dict):
        return False
    return all(key in value and check(value[key]) for key, check in form.items())


_BACKEND: Mapping[str, _Check] = {
    **dict.fromkeys(("address", "name", "state", "cause"), _is_text),
    **dict.fromkeys(("sessions", "sessions_cut", "weight"), _is_whole),
    **dict.fromkeys(("takes_connections", "backup"), _is_flag),
    "since": _is_number,
    "rtt_ms": _or_none(_is_number),
}
_PROBLEM: Mapping[str, _Check] = {
    **dict.fromkeys(("what", "where", "hint"), _is_text),
    "since": _is_number,
}
_FORM: Mapping[str, _Check] = {
    **dict.fromkeys(("pid", "start_time", "draining_generations"), _is_whole),
    **dict.fromkeys(("reloads_requested", "reloads_done"), _is_whole),
    **dict.fromkeys(("is_list_live", "is_anybody_served"), _is_flag),
    **dict.fromkeys(("started_at", "updated_at"), _is_number),
    **dict.fromkeys(("version", "config_file", "nginx_version", "summary"), _is_text),
    **dict.fromkeys(("generation", "wanted_generation"), _or_none(_is_text)),
    "live_since": _or_none(_is_number),
    "nginx_pid": _or_none(_is_whole),
    "listen": _list_of(_is_text),
    "verdict": lambda value: value in _VERDICTS,
    "backends": _list_of(lambda value: _fits(value, _BACKEND)),
    "problems": _list_of(lambda value: _fits(value, _PROBLEM)),
}
