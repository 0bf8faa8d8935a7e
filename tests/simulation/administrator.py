"""Who edits the list, breaks it, and puts it right again."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterable

from kube_nginx_agent.model import SocketAddress
from simulation.checker import Checker, ListFile
from simulation.clock import Clock
from simulation.disk import Disk


class Administrator:
    """Owns backends.yaml; the checker is told of what stands in it."""

    def __init__(
        self,
        clock: Clock,
        disk: Disk,
        file: Path,
        checker: Checker,
        every: list[SocketAddress],
        on_touch: Callable[[Path], None],
    ) -> None:
        self._clock = clock
        self._disk = disk
        self._file = file
        self._checker = checker
        self._every = every
        self._on_touch = on_touch
        self._valid = b""

    def begin(self) -> None:
        """Write the first list, of all backends."""
        self._write(_text(self._every, frozenset(), 0))

    def edit(self, number: int) -> None:
        """Write the list that a number stands for: who of all is in it, and who is drained."""
        mask = number % (2 ** len(self._every) - 1) + 1
        chosen = [backend for bit, backend in enumerate(self._every) if mask >> bit & 1]
        drained = frozenset(chosen[:1] if number & 0x4000 and len(chosen) > 1 else [])
        now, removed_at = self._clock.now, self._checker.removed_at
        for backend in self._every:
            if backend in chosen:
                removed_at.pop(backend, None)
            else:
                removed_at.setdefault(backend, now)
        self._checker.wanted = ListFile(frozenset(chosen), drained, now)
        self._write(_text(chosen, drained, number))

    def break_it(self) -> Callable[[], None]:
        """Write half a list; return what puts the last valid one back."""
        self._disk.put(self._file, b"backends: [")
        self._on_touch(self._file)
        return self._put_back

    def remove_it(self) -> Callable[[], None]:
        self._disk.take_away(self._file)
        self._on_touch(self._file)
        return self._put_back

    def close_it(self) -> Callable[[], None]:
        """Let the agent not read it."""
        self._disk.closed.add(self._file)
        self._on_touch(self._file)
        return self._put_back

    def _put_back(self) -> None:
        self._disk.closed.discard(self._file)
        known = self._checker.wanted
        self._checker.wanted = ListFile(known.backends, known.drained, self._clock.now)
        self._write(self._valid)

    def _write(self, text: bytes) -> None:
        self._valid = text
        self._disk.put(self._file, text)
        self._on_touch(self._file)


def _text(backends: Iterable[SocketAddress], drained: frozenset[SocketAddress], edit: int) -> bytes:
    lines = [f"# edit {edit}", "backends:"]
    for backend in sorted(backends, key=str):
        drain = ", drain: true" if backend in drained else ""
        lines.append(f"  - {{address: '{backend}'{drain}}}")
    return ("\n".join(lines) + "\n").encode()
