"""Group commit: many requests share one durable transaction, and each learns how it ended.

While one group is being committed the next one gathers, so the group grows with the load by itself. The
queue has a bound in requests and in bytes (law 9); beyond it a request is refused, never kept waiting.
What a commit is, the engine says (`hetki.engine.accept`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from hetki.errors import Fault, HetkiError, Unavailable
from hetki.events.wire import Parsed
from hetki.server.logs import without_values
from hetki.server.status import Busy
from hetki.server.trouble import Trouble
from hetki.store.shortage import NO_MEMORY

#: Nothing more is queued while the oldest request has waited longer: beyond that a sender gives up, and what
#: is committed then is told to nobody.
QUEUE_S = 1.0
#: What an event weighs in the queue beside its bytes: small ones take more memory than they have bytes.
EVENT_BYTES = 1_024

log = logging.getLogger("hetki.server")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request in the queue; `done` belongs to the event loop that `loop` is."""

    parsed: Parsed
    n_bytes: int
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    queued_at: float


class Committer:
    """One thread that commits what is queued. `commit` blocks and is durable when it returns."""

    def __init__(
        self,
        commit: Callable[[list[Parsed]], object],
        n_requests_max: int = 2_000,
        n_bytes_max: int = 64 * 1024 * 1024,
        n_events_max: int = 10_000,
        queue_s: float = QUEUE_S,
    ) -> None:
        self._commit = commit
        self._n_requests_max = n_requests_max
        self._n_bytes_max = n_bytes_max
        self._n_events_max = n_events_max
        self._queue_s = queue_s
        self._queue: deque[Waiting] = deque()
        self._n_bytes = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="hetki-committer", daemon=True)

    def start(self) -> None:
        """Start the thread. A repeat is an error."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse new requests, commit what is queued, and end. Blocks; a repeat does nothing."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def check_room(self) -> None:
        """Raises `Busy` when the queue is full, or too slow: what would be read now would be refused."""
        now = asyncio.get_running_loop().time()
        with self._changed:
            self._check_room(0, now)

    async def commit(self, parsed: Parsed, n_bytes: int) -> None:
        """Return when `parsed` is durable. `n_bytes` is the length of the body that it was.

        Raises `Busy` when the queue is full, `Unavailable` when its group could not be committed; then
        nothing of it is kept and the sender may send it again.
        """
        # Under no name here: an error holds this frame, which must not hold the future that holds the error.
        await self._queued(parsed, n_bytes)

    def _queued(self, parsed: Parsed, n_bytes: int) -> asyncio.Future[None]:
        """What is done when `parsed` is durable. Raises `Busy`, or `Unavailable` when stopping."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        weight = n_bytes + EVENT_BYTES * (len(parsed.events) + len(parsed.rejected))
        waiting = Waiting(parsed, weight, loop, loop.create_future(), now)
        with self._changed:
            if self._stopping:
                raise Unavailable(Fault("server", "a request while it stops", "sent again in a moment"))
            self._check_room(weight, now)
            self._queue.append(waiting)
            self._n_bytes += weight
            self._changed.notify()
        return waiting.done

    def _check_room(self, weight: int, now: float) -> None:
        if not self._queue and self._n_requests_max:
            return
        waited_s = now - self._queue[0].queued_at if self._queue else 0.0
        if (
            len(self._queue) >= self._n_requests_max
            or self._n_bytes + weight > self._n_bytes_max
            or waited_s > self._queue_s
        ):
            full = f"{len(self._queue)} requests, {self._n_bytes} bytes, {waited_s:.1f} s"
            raise Busy(Fault("queue", full, "shorter", "send it again in a moment"))

    def _run(self) -> None:
        """Without memory this thread must not die: nobody would be answered ever again."""
        trouble, no_memory = Trouble(log, "commit"), Unavailable(NO_MEMORY)
        group: list[Waiting] = []
        while True:
            error: HetkiError | None = no_memory
            try:
                self._take(group)
                if not group:
                    return
                error = self._committed(group, trouble)
            except MemoryError:
                pass  # as much as can be said is said by `error`
            while group:
                try:
                    _answer(group, error)
                    group.clear()
                except MemoryError:
                    continue  # what was answered already is left alone

    def _committed(self, group: list[Waiting], trouble: Trouble) -> HetkiError | None:
        """Commit a group; why it failed, if it did."""
        try:
            self._commit([waiting.parsed for waiting in group])
        except Unavailable as cause:
            trouble.tell(f"unavailable={without_values(cause)}")
            return cause
        except MemoryError:
            trouble.tell(f"unavailable={without_values(Unavailable(NO_MEMORY))}")
            return Unavailable(NO_MEMORY)
        except Exception:
            log.exception("commit failed n_requests=%d", len(group))
            return Unavailable(Fault("journal", "a commit that failed", "sent again in a moment"))
        trouble.over()
        return None

    def _take(self, group: list[Waiting]) -> None:
        """Fill in the next group, waiting for one; nothing when stopped and drained."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            n_events = 0
            while self._queue and n_events < self._n_events_max:
                waiting = self._queue[0]
                group.append(waiting)  # before it leaves the queue: who is in neither is never answered
                self._queue.popleft()
                self._n_bytes -= waiting.n_bytes
                n_events += len(waiting.parsed.events) + len(waiting.parsed.rejected)


def _answer(group: list[Waiting], error: HetkiError | None) -> None:
    """Have the loop of each request tell it how its group ended."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiting in group:
        by_loop.setdefault(waiting.loop, []).append(waiting.done)
    for loop, futures in by_loop.items():
        with suppress(RuntimeError):  # a loop that has ended has nobody left who waits
            loop.call_soon_threadsafe(_resolve, futures, error)


def _resolve(futures: list[asyncio.Future[None]], error: HetkiError | None) -> None:
    """Tell each request of a group how it ended; one whose sender went away is cancelled by then."""
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(Unavailable(*error.faults))
