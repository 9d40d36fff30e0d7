"""Threads: all are started with the first request, so that none must be when memory is short.

Python waits for ever for a thread that dies of want before it has begun; who would wait here is the event
loop, and nobody would be answered again. Bodies are read in asyncio's own threads, pages made in anyio's.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from anyio import to_thread
from anyio._backends._asyncio import WorkerThread

#: Bodies that are read, and pages that are made, at once; more wait for their turn.
N_BODIES, N_PAGES = 4, 16


async def start_threads() -> None:
    """Start every thread of the running loop, for as long as it runs."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(N_BODIES, "hetki-body")
    loop.set_default_executor(executor)
    bodies, pages = Barrier(N_BODIES), Barrier(N_PAGES)
    WorkerThread.MAX_IDLE_TIME = sys.maxsize
    to_thread.current_default_thread_limiter().total_tokens = N_PAGES
    await asyncio.gather(
        *(loop.run_in_executor(executor, bodies.wait) for _ in range(N_BODIES)),
        *(to_thread.run_sync(pages.wait) for _ in range(N_PAGES)),
    )
