"""One local user who takes every connection that is to be had, as a program.

    python3 -m support.greedy --to 127.0.0.1:8443 --connections 400 --uid 54321

It holds plain TCP connections and says nothing on them; one that is closed is tried for again. Says
a line once it has tried for all, and ends with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Optional

from support.address import Address, address_argument

MOST_CONNECTIONS = 900  # below the usual limit of open files
RETRY = 0.5  # seconds
FIRST_TRIES = 2.0  # seconds for them


def main(arguments: Optional[Sequence[str]] = None) -> int:
    options = _parser().parse_args(arguments)
    if not 0 < options.connections <= MOST_CONNECTIONS:
        print(f"greedy: at most {MOST_CONNECTIONS} connections", file=sys.stderr)
        return 2
    os.setgid(options.uid)
    os.setuid(options.uid)
    asyncio.run(_take(options.to, options.connections))
    return 0


async def _take(to: Address, connections: int) -> None:
    tried = asyncio.Semaphore(0)
    tasks = [asyncio.ensure_future(_hold(to, tried)) for _ in range(connections)]
    # A full queue lets connections hang.
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_all(tried, connections), FIRST_TRIES)
    print(f"greedy: {connections} connections to {to} (pid {os.getpid()})", flush=True)
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    await over.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _all(tried: asyncio.Semaphore, connections: int) -> None:
    for _ in range(connections):
        await tried.acquire()


async def _hold(to: Address, tried: asyncio.Semaphore) -> None:
    """Hold one connection, and open it again whenever it is closed."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(*to)
            tried.release()
            try:
                await reader.read()
            finally:
                writer.close()
        except OSError:
            tried.release()
        await asyncio.sleep(RETRY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m support.greedy")
    add = parser.add_argument
    add("--to", required=True, type=address_argument, metavar="HOST:PORT")
    add("--connections", required=True, type=int, metavar="COUNT")
    add("--uid", required=True, type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
