"""The node gets and loses addresses: the kernel's word is heard, that of a link is not news."""

from __future__ import annotations

import os
import subprocess
import textwrap

import pytest

from support.agent_process import PYTHON, environment

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a network of its own")

_IN_A_NETWORK_OF_ITS_OWN = """
    import queue, subprocess, sys
    from kube_nginx_agent.intake.address_watch import AddressWatch

    told = queue.SimpleQueue()
    AddressWatch(told.put).start()
    for change in sys.argv[1:]:
        subprocess.run(["ip", *change.split()], check=True)  # from our standard input, if any
        count = 0
        try:
            while True:
                told.get(timeout=0.7)
                count += 1
        except queue.Empty:
            print(count)
"""


def told_of(*changes: str, text: str = "") -> list[int]:
    """Return how often the agent would have been woken by each of these."""
    script = textwrap.dedent(_IN_A_NETWORK_OF_ITS_OWN)
    done = subprocess.run(
        ["unshare", "--net", str(PYTHON), "-c", script, *changes],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
        input=text,
    )
    return [int(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("address", ["192.0.2.7/24", "2001:db8::7/64"])
def test_address_that_comes_and_goes_is_told_both_times(address: str) -> None:
    come, gone = told_of(f"address add {address} dev lo", f"address del {address} dev lo")
    assert come >= 1  # IPv6 says it again when nobody else has it
    assert gone >= 1


def test_addresses_of_a_link_wake_nobody() -> None:
    link = "address add 169.254.7.7/32 dev lo scope link"
    assert told_of(link, "link set lo up", "address del 169.254.7.7/32 dev lo") == [0, 0, 0]


def test_thousand_addresses_at_once_wake_a_few_times() -> None:
    batch = "".join(f"address add 198.18.{n // 250}.{n % 250}/32 dev lo\n" for n in range(1000))
    (woken,) = told_of("-batch -", text=batch)
    assert 1 <= woken <= 30
