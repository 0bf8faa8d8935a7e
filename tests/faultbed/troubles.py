"""The faults of single apiservers and of the node's users, each as a context."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from faultbed.stage import Apiserver, Stage
from support.process import first_line, forget, spawn

FOREVER = 3600.0  # seconds
GREEDY_USER = 54321
_STOP_SECONDS = 10.0


@contextmanager
def killed_one(apiserver: Apiserver) -> Iterator[None]:
    apiserver.stand_in.kill()
    yield
    apiserver.stand_in.start()


@contextmanager
def restarted_one(stage: Stage, apiserver: Apiserver) -> Iterator[None]:
    """Stop it as SIGTERM does, and start it; ends when it is ready."""
    apiserver.stand_in.terminate()
    yield
    apiserver.stand_in.wait(_STOP_SECONDS)
    apiserver.stand_in.start()
    stage.rest(stage.starting)


@contextmanager
def frozen_one(apiserver: Apiserver) -> Iterator[None]:
    apiserver.stand_in.freeze()
    try:
        yield
    finally:
        apiserver.stand_in.thaw()


@contextmanager
def faulty(apiserver: Apiserver, **changes: object) -> Iterator[None]:
    apiserver.stand_in.fault(**changes)
    yield
    apiserver.stand_in.heal()


@contextmanager
def without_files(apiserver: Apiserver) -> Iterator[None]:
    """Have it at its limit of open files: what it has goes on, and it accepts nothing new."""
    apiserver.stand_in.use_up_files()
    yield
    apiserver.stand_in.free_files()


@contextmanager
def crowded(stage: Stage, connections: int) -> Iterator[None]:
    """Have one local user want so many connections to the peer, and take each that is free."""
    wanted = [f"--connections={connections}", f"--uid={GREEDY_USER}", f"--to={stage.listen}"]
    with (stage.folder / "greedy.log").open("wb") as errors:
        child = spawn("support.greedy", wanted, errors=errors, prefix=stage.network.node.prefix)
    try:
        first_line(child, _STOP_SECONDS)
        yield
    finally:
        forget(child)


@contextmanager
def all_of(faults: Iterable[AbstractContextManager[None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(fault)
        yield
