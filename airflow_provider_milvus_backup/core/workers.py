"""Workers that share an event loop and their work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any


async def run_workers(workers: Iterable[Coroutine[Any, Any, None]], look: Callable[[], None]) -> None:
    """Run workers until all have ended or one has raised; then the others are cancelled, waited for, and what it raised is raised.

    :param look: called four times a second, so that a store that does not answer keeps nobody from stopping; may raise, too
    """
    tasks = [asyncio.ensure_future(worker) for worker in workers]
    running = set(tasks)
    try:
        while running:
            done, running = await asyncio.wait(running, timeout=0.25, return_when=asyncio.FIRST_EXCEPTION)
            await asyncio.gather(*done)
            look()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
