"""The node gets and loses addresses: the kernel's word is heard, that of a link is not news."""

from __future__ import annotations

import os
import subprocess
import textwrap

import pytest

from support.agent_process import PYTHON, environment

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network of its own")

_IN_A_NETWORK_OF_ITS_OWN = """
    import queue, subprocess, sys
    from kube_nginx_agent.intake.address_watch import AddressWatch

    told = queue.SimpleQueue()
    AddressWatch(told.put).start()
    for change in sys.argv[1:]:
        subprocess.run(["ip", *change.split()], check=True)
    # Its address is the last word: whatever was told before it has been told by now.
    subprocess.run(["ip", "address", "add", "192.0.2.99/32", "dev", "lo"], check=True)
    count = 0
    while True:
        try:
            told.get(timeout=2.0 if count == 0 else 0.3)
        except queue.Empty:
            break
        count += 1
    print(count - 1)
"""


def told_of(*changes: str) -> int:
    """Return how often the agent would have been woken by these."""
    script = textwrap.dedent(_IN_A_NETWORK_OF_ITS_OWN)
    done = subprocess.run(
        ["unshare", "--net", str(PYTHON), "-c", script, *changes],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@needs_root
@pytest.mark.parametrize("address", ["192.0.2.7/24", "2001:db8::7/64"])
def test_address_that_comes_and_goes_is_told_both_times(address: str) -> None:
    add = f"address add {address} dev lo"
    come = told_of(add)  # twice with IPv6, which looks for others that have it
    assert come >= 1
    assert told_of(add, f"address del {address} dev lo") > come


@needs_root
def test_addresses_of_a_link_wake_nobody() -> None:
    assert told_of("address add 169.254.7.7/32 dev lo scope link", "link set lo up") == 0
