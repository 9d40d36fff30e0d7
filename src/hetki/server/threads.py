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

from anyio import CapacityLimiter, to_thread
from anyio._backends._asyncio import WorkerThread

#: Pages and forms that are worked on at once, and large bodies; more wait for their turn, so that no crowd
#: of those who read holds up those who send.
N_PAGES, N_BODIES = 16, 4
#: A thread that has nothing to do is kept for so long.
FOR_EVER_S = 10**9

T = TypeVar("T")


async def start_threads() -> None:
    """Start every thread of the running loop. Raises `RuntimeError` where there is no room for all; then
    those that were started wait for no other, and a repeat starts the rest."""
    WorkerThread.MAX_IDLE_TIME = FOR_EVER_S
    n_threads, pages = N_PAGES + N_BODIES, to_thread.current_default_thread_limiter()
    pages.total_tokens = n_threads
    all_here = Barrier(n_threads)
    started = (to_thread.run_sync(all_here.wait) for _ in range(n_threads))
    try:
        await asyncio.gather(*started)
    finally:
        all_here.abort()
        pages.total_tokens = N_PAGES


async def beside(work: Callable[[], T], places: CapacityLimiter) -> T:
    """Do work in a thread once there is a place, and return what it returns or raise what it raises.

    An error comes back as a value: a future that holds one is held by it in turn, with everything that the
    work has touched, until the collector of cycles comes.
    """
    done, error = await to_thread.run_sync(_ended, work, limiter=places)
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
