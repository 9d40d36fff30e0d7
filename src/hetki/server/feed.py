"""Feed: what is new on the first page, by server-sent events, as rows of HTML that the page takes in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from hetki.errors import HetkiError
from hetki.server.console import LIVE_ROWS, counted, newest_lines
from hetki.server.desk import Desk
from hetki.store.shortage import SHORT
from hetki.store.views import Views

#: Browsers that listen at once; more are told to come back later.
LISTENERS_MAX = 20
#: How often the stores are asked, in seconds, and after how many times counts and a sign of life are sent.
POLL_S = 0.5
POLLS_PER_COUNTS, POLLS_PER_SIGN = 6, 30
#: How long the browser waits before it comes back, in milliseconds.
RETRY_MS = 2_000


class Feed:
    """An ASGI callable for `/feed`. A stream ends when `is_allowed` no longer holds of its request."""

    def __init__(self, desk: Desk, is_allowed: Callable[[Request], bool]) -> None:
        self._desk = desk
        self._is_allowed = is_allowed
        self._n_listeners = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell one listener what is new until it leaves."""
        if self._n_listeners >= LISTENERS_MAX:
            full = self._desk.pages.failure(
                503, [f"{LISTENERS_MAX} browsers are listening, which is the most."]
            )
            full.headers["retry-after"] = "10"
            await full(scope, receive, send)
            return
        self._n_listeners += 1
        try:
            await self._tell(Request(scope), receive, send)
        finally:
            self._n_listeners -= 1

    async def _tell(self, request: Request, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        news = await run_in_threadpool(News, self._desk, _after(request))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(_left(receive))
        text = f"retry: {RETRY_MS}\n\n"
        try:
            while self._is_allowed(request):
                text += await run_in_threadpool(news.text)
                if text:
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                text = ""
                left, _ = await asyncio.wait({gone}, timeout=POLL_S)
                if left:
                    return
        except (HetkiError, *SHORT):
            pass  # the stores cannot be read just now: the browser comes back, and is told
        finally:
            gone.cancel()
            news.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class News:
    """What one listener has not seen yet."""

    def __init__(self, desk: Desk, after: int) -> None:
        self._desk = desk
        self._views = Views(desk.engine.disk)
        self._since = after + 1
        self._seen: set[str] = set()
        self._version = -1
        self._n_polls = 0
        self._owes_counts = False

    def close(self) -> None:
        """Give the connection back."""
        self._views.close()

    def text(self) -> str:
        """Events for what has happened since the last call; empty if nothing has."""
        self._n_polls += 1
        text = self._lines()
        if self._owes_counts and self._n_polls % POLLS_PER_COUNTS == 0:
            self._owes_counts = False
            text += self._event("counts", "_counts.html", counts=counted(self._desk, self._views))
        if not text and self._n_polls % POLLS_PER_SIGN == 0:
            text = ": still here\n\n"
        return text

    def _lines(self) -> str:
        version = self._views.version()
        if version == self._version:
            return ""
        self._version = version
        found = newest_lines(self._desk, self._views, self._since, LIVE_ROWS)
        new = [line for line in found if line.occurrence_id not in self._seen]
        if not new:
            return ""
        latest = max(line.handled_at or 0 for line in new)
        if latest > self._since:
            self._seen.clear()
        self._since = latest
        self._seen.update(line.occurrence_id for line in new if line.handled_at == latest)
        self._owes_counts = True
        return f"id: {latest}\n" + self._event("lines", "_lines.html", newest=new, is_new=True)

    def _event(self, name: str, template: str, **values: object) -> str:
        data = self._desk.pages.render(template, values)
        return "\n".join([f"event: {name}", *(f"data: {line}" for line in data.splitlines()), "", ""])


async def _left(receive: Receive) -> None:
    """Return when the listener has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _after(request: Request) -> int:
    """Up to when the listener knows everything: what it got last, else what its page was made with."""
    for text in (request.headers.get("last-event-id", ""), request.query_params.get("after", "")):
        if text.isascii() and text.isdigit() and len(text) < 19:
            return int(text)
    return 0
