"""How long each step may block the loop, in seconds; docs/decisions/0015 has the whole table.

While the loop is blocked nobody hears of a dead apiserver and systemd's watchdog hears nothing of
us, so a unit test holds the sum of a pass below the unit's WatchdogSec.
"""

from __future__ import annotations

TEST = 5.0
"""``nginx -t``; it takes 5 ms."""
START = 5.0
"""nginx until it has gone to the background; 30 ms, or 2.5 s where a port is held."""
PID_FILE = 5.0
"""From there to its pid file; at once."""
ADOPTION = 2.0
"""systemd until it has restarted nginx; 100 ms."""
PROOF = 10.0
"""A reload; 110 ms, or 2.6 s where nginx tries in vain to bind an address."""
SOCKET_RENEWAL = 5.0
"""nginx until it has let go of a generation socket whose name is gone; 110 ms."""
CANARY = 4.0
"""All connections of ours through the listen addresses, and to the apiservers directly."""
TAKEOVER = 10.0
"""A new binary until it answers, and again the old one until it has retired; 30 ms each."""
END = 1.0
"""A killed process until it is gone."""
HELPER = 3.0
"""The helper that ends sessions; 0.1 s to start it, 30 ms to end 500 sessions."""

APPLY = TEST + SOCKET_RENEWAL + PROOF + CANARY + PROOF
"""The longest apply under systemd: every step takes its time, the last one fails, and the way back
as well. Where systemd has to start nginx, twice ``ADOPTION`` stands in for the socket's renewal.
Standalone, where nobody watches, ``START`` and ``PID_FILE`` come on top, twice."""
UPGRADE = TEST + 2 * TAKEOVER + 2 * END
BLOCK = max(APPLY, UPGRADE) + END + HELPER
"""The longest time between two chances to speak to systemd's watchdog. There is one before each
step, taken when the last word is a third of its interval old."""
