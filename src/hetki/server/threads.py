"""Threads: all are started with the first request, so that none must be when memory is short.

Python waits for ever for a thread that dies of want before it has begun; who would wait here is the event
loop, and nobody would be answered again. Whatever is not done in the event loop goes through
`run_in_threadpool`: large bodies, pages, forms.
"""

from __future__ import annotations

import asyncio
from threading import Barrier

from anyio import to_thread
from anyio._backends._asyncio import WorkerThread

#: What is done beside the event loop at once; more waits for its turn.
N_THREADS = 16
#: A thread that has nothing to do is kept for so long.
FOR_EVER_S = 10**9


async def start_threads() -> None:
    """Start every thread of the running loop."""
    WorkerThread.MAX_IDLE_TIME = FOR_EVER_S
    to_thread.current_default_thread_limiter().total_tokens = N_THREADS
    all_here = Barrier(N_THREADS)
    await asyncio.gather(*(to_thread.run_sync(all_here.wait) for _ in range(N_THREADS)))
