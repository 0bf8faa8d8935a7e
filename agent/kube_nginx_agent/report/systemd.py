"""Messages to systemd (sd_notify(3)); silent when systemd has not started us."""

from __future__ import annotations

import os
import time
from typing import Any


class ServiceManager:
    """What systemd is told; nothing twice but that we are alive, and reloads."""

    def __init__(self) -> None:
        """Look at the environment; without NOTIFY_SOCKET every method does nothing."""
        self._notifier = _notifier() if "NOTIFY_SOCKET" in os.environ else None
        self._ready = False
        self._status = ""
        self.watchdog_interval = _watchdog_interval()
        """Seconds within which systemd wants to hear of us; None: it does not watch."""

    def ready(self) -> None:
        """Say that the service is up, once: the caller knows when."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")

    def status(self, line: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def reloading(self) -> None:
        """Say that a reload has begun; ``reloaded`` ends it."""
        if self._ready:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Say that the reload is over."""
        if self._ready:
            self._send("READY=1")

    def alive(self) -> None:
        """Keep the watchdog quiet; to be said by the loop itself, and only while it is well."""
        if self.watchdog_interval:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the service is going down."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._notifier:
            self._notifier.notify(message)


def _notifier() -> Any:
    import sdnotify

    return sdnotify.SystemdNotifier()


def _watchdog_interval() -> float | None:
    """Return WATCHDOG_USEC in seconds, if it is meant for this process (sd_watchdog_enabled(3))."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(usec) / 1e6 if usec.isdigit() and pid == str(os.getpid()) else None
