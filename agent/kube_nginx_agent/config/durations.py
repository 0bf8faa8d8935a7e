"""Durations as nginx writes them: ``500ms``, ``2s``, ``10m``, ``1h30m``.

nginx also takes a bare number for seconds (https://nginx.org/en/docs/syntax.html); we don't,
because ``interval: 500`` is far more often meant as milliseconds than as eight minutes.
"""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(?:[0-9]{1,6}(?:ms|[smhd])){1,5}")
_PART = re.compile(r"([0-9]+)(ms|[smhd])")


def parse_duration(text: str) -> timedelta:
    """Return the length of time that ``text`` says; raise ValueError if it says none."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration")
    milliseconds = sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text))
    return timedelta(milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """Return the shortest single-unit text that nginx reads as exactly this long."""
    milliseconds = duration // timedelta(milliseconds=1)
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _UNITS_MS[unit] == 0:
            return f"{milliseconds // _UNITS_MS[unit]}{unit}"
    return f"{milliseconds}ms"
