"""The agent before three apiservers in network namespaces, under load, while something fails."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import pytest

from faultbed import network, rows
from faultbed.figures import Figures, measure
from faultbed.network import HOST_IPS, Network
from faultbed.peers import Agent
from faultbed.stage import USUAL, Course, Stage
from support.certs import make_certs
from support.results import Result

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parents[1]
_WARM_UP = 0.5  # seconds of load before the fault
_TERMS = {fault.play: fault.terms for fault in rows.FAULTS}
_STARTING = 0.5  # seconds that /readyz of an apiserver is red after its start


@dataclass(frozen=True)
class Seen:
    """What a scenario led to."""

    figures: Figures
    result: Result
    course: Course
    log: str
    address: str
    """That of the apiserver that the fault was made at."""


Play = Callable[..., Seen]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder; where no network can be made it is skipped, and says why."""
    ours = [item for item in items if _HERE in item.path.parents]
    reason = network.missing() if ours else ""
    for item in ours:
        item.add_marker(pytest.mark.faults)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def nginx() -> Path:
    """The project's own nginx: the one that KUBE_NGINX_TEST_NGINX names, else `make nginx`'s."""
    if named := os.environ.get("KUBE_NGINX_TEST_NGINX"):
        return Path(named).resolve()
    subprocess.run(["make", "-s", "nginx"], cwd=_CHECKOUT, check=True, timeout=600)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "kube-nginx-agent" / "nginx" / "nginx"


@pytest.fixture(scope="session")
def bed() -> Iterator[Network]:
    """A node and its hosts; each test process has its own."""
    with Network() as made:
        yield made


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins' certificates, made once."""
    folder = tmp_path_factory.mktemp("certs")
    for ip in HOST_IPS:
        make_certs(folder, [ip])
    return folder


@pytest.fixture
def play(bed: Network, certs: Path, nginx: Path) -> Iterator[Play]:
    """Return a function that plays a scenario to the agent, with the times that it is given.

    The terms are those of the bench's row; `like` names the scenario whose terms they are.
    """
    logs = []

    def play_one(
        scenario: Callable[..., None],
        *,
        like: Optional[Callable[..., None]] = None,
        peer: type[Agent] = Agent,
        **times: float,
    ) -> Seen:
        make_peer = functools.partial(peer, node=bed.node, nginx=nginx)
        terms = _TERMS.get(like or scenario, USUAL)
        stage = Stage(bed, certs, make_peer, _WARM_UP, _STARTING, terms)
        try:
            with stage:
                scenario(stage, **times)
                result = stage.finish()
        finally:
            logs.append(stage.log)
        figures, address = measure(result, stage.course), str(stage.victim.address)
        return Seen(figures, result, stage.course, stage.log, address)

    yield play_one
    # pytest shows it with a failure.
    print("The agent's log:", *logs, sep="\n")
