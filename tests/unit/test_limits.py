"""How long the loop may be blocked, against what systemd allows it."""

from __future__ import annotations

import re
from pathlib import Path

from kube_nginx_agent.nginx import limits

UNIT = Path(__file__).parents[2] / "packaging/systemd/kube-nginx-agent.service"


def setting(name: str) -> float:
    found = re.search(rf"^{name}=([0-9]+)s$", UNIT.read_text(), re.MULTILINE)
    assert found, name
    return float(found[1])


def test_the_longest_block_leaves_the_watchdog_time_for_a_late_word() -> None:
    # A third of the interval may have passed since the last word before the block begins.
    assert limits.BLOCK + setting("WatchdogSec") / 3 < setting("WatchdogSec")


def test_a_stop_is_over_before_systemd_loses_patience() -> None:
    # Waits are cut short by the signal; what is not is a connection of the canary's, the helper,
    # and a program that is killed.
    assert setting("TimeoutStopSec") > limits.CANARY + limits.HELPER + limits.END


def test_every_limit_is_part_of_the_longest_block() -> None:
    single = [
        value
        for name, value in vars(limits).items()
        if name.isupper() and name not in ("APPLY", "UPGRADE", "BLOCK")
    ]
    assert max(single) < limits.BLOCK
