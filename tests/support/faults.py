"""What can be wrong with a stand-in apiserver, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

MODES = {
    "none": "answers well",
    "garbage": "answers bytes that are not HTTP",
    "trickle": "answers one byte a second",
    "huge": "answers a body of 1 GiB",
    "redirect": "answers 302 to /redirected",
    "plain": "sends bytes that are not TLS, on every connection",
    "reset": "resets every connection once the client's first handshake bytes are in",
}


@dataclass(frozen=True)
class Faults:
    """A healthy apiserver, but for the fields that say otherwise."""

    readyz: int = 200  # HTTP status of /readyz alone
    latency: float = 0.0  # seconds before each answer
    mode: str = "none"  # one of MODES
    path: str = "/"  # latency and mode hold for the paths that begin so (plain, reset: for all)
    tick: float = (
        0.0  # seconds between two lines of a watch, also an open one; 0: as it was started
    )

    def changed(self, changes: Mapping[str, object]) -> Faults:
        """Return the faults with some fields replaced; raise ValueError for a wrong one."""
        for field, value in changes.items():
            wanted = _TYPES.get(field)
            if wanted is None:
                raise ValueError(f"no fault {field!r}; there are {', '.join(_TYPES)}")
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ValueError(f"{field}: {value!r} is of the wrong type")
        new = replace(self, **changes)  # type: ignore[arg-type]
        if new.mode not in MODES:
            raise ValueError(f"no mode {new.mode!r}; there are {', '.join(MODES)}")
        if not 100 <= new.readyz <= 599 or min(new.latency, new.tick) < 0:
            raise ValueError("readyz is an HTTP status, latency and tick are not negative")
        return new


_TYPES: dict[str, tuple[type, ...]] = {
    "readyz": (int,),
    "latency": (int, float),
    "mode": (str,),
    "path": (str,),
    "tick": (int, float),
}


@dataclass(frozen=True)
class Report:
    """A stand-in's own account; counts are since it started."""

    name: str
    pid: int
    faults: Faults
    requests: dict[str, int]  # by path without query
    connections: int  # accepted
    handshakes_failed: int
    open: int  # connections now, watches included
    watches: int  # open now
    stopping: bool
    cpu: float  # seconds

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> Report:
        faults = fields["faults"]
        assert isinstance(faults, dict)
        return cls(**{**fields, "faults": Faults(**faults)})  # type: ignore[arg-type]
