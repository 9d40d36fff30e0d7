"""Threads: all are started with the first request, so that none must be when memory is short.

Python waits for ever for a thread that dies of want before it has begun; who would wait here is the event
loop, and nobody would be answered again. Whatever is not done in the event loop goes through
`run_in_threadpool`: pages and forms; large bodies through `beside`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Barrier
from typing import TypeVar

from anyio import to_thread
from anyio._backends._asyncio import WorkerThread

#: What is done beside the event loop at once; more waits for its turn.
N_THREADS = 16
#: A thread that has nothing to do is kept for so long.
FOR_EVER_S = 10**9

T = TypeVar("T")


async def start_threads() -> None:
    """Start every thread of the running loop. Raises `RuntimeError` where there is no room for all; then
    those that were started wait for no other, and a repeat starts the rest."""
    WorkerThread.MAX_IDLE_TIME = FOR_EVER_S
    to_thread.current_default_thread_limiter().total_tokens = N_THREADS
    all_here = Barrier(N_THREADS)
    started = (to_thread.run_sync(all_here.wait) for _ in range(N_THREADS))
    try:
        await asyncio.gather(*started)
    finally:
        all_here.abort()


async def beside(work: Callable[[], T]) -> T:
    """Do work in a thread, and return what it returns or raise what it raises.

    An error comes back as a value: a future that holds one is held by it in turn, with everything that the
    work has touched, until the collector of cycles comes.
    """
    done, error = await to_thread.run_sync(_ended, work)
    if error is None:
        return done[0]
    try:
        raise error
    finally:
        del error


def _ended(work: Callable[[], T]) -> tuple[list[T], Exception | None]:
    """How work has ended: what it returned, or its error."""
    try:
        return [work()], None
    except Exception as error:
        return [], error
