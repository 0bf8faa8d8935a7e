"""A report as the agent writes it, altered here and there: what random bytes seldom come to."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Iterable, Iterator

_WELL = Path(__file__).parent / "seeds/status/well"
_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0.5,
    10**400,
    float("inf"),
    float("nan"),
    "",
    "ok",
    "\x1b[2J\x9b",
    "\ud800\u2028\n",
    [],
    [None],
    {},
    [{}],
    {"a": [["\r"]]},
)


def altered(data: bytes) -> bytes:
    """Return the report with changes: each two bytes say what is replaced, and by what."""
    content: Any = json.loads(_WELL.read_bytes())
    for where, value in zip(data[::2], data[1::2]):
        places = list(_places(content))
        if not places:
            break
        holder, key = places[where % len(places)]
        if value == 255:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(_ODD[value % len(_ODD)])
    return json.dumps(content).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, (dict, list)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield value, key
        yield from _places(part)
