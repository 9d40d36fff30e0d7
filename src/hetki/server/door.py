"""The door: one connection of the server, held to deadlines and bounds before our own code sees a request.

uvicorn waits for a request's headers for ever, keeps as many bytes of them as come, queues as many requests
as one sender sends at once, and holds an answer for whoever does not read it. Here each of these has a
bound from `Connections` and a refusal that says so, where HTTP still allows one; else the connection ends.
Who all is here, and who must leave, `doorkeeper.py` knows. Start at `Door.data_received`.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, Protocol, cast

import httptools
import msgspec
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from hetki.errors import Exhausted, Fault, HetkiError, Invalid
from hetki.server.status import AGAIN, RETRY_AFTER_S, Refusal
from hetki.settings import Connections

#: How long a sender that was refused may go on sending, so that it comes to read why.
LINGER_S = 2.0
#: Senders that are waited for so at once; beyond them a refusal may go unread.
LINGERING_MAX = 200
#: Who reads fewer bytes than this within `answer_s` holds its answer up.
SLOWEST_BYTES = 16 * 1024


class Stage(Enum):
    """What of a request is still to come from its sender."""

    NOTHING = 0
    HEAD = 1
    BODY = 2
    NEVER = 3  # nothing more is read: it was refused, or ends


class Keeper(Protocol):
    """What a door asks of whoever keeps all of them."""

    bounds: Connections
    n_lingering: int

    def enter(self, door: Door) -> None:
        """The door has opened: it may be refused, or another may have to leave for it."""

    def leave(self, door: Door) -> None:
        """The door has closed. A repeat does nothing."""

    def note(self, why: str) -> None:
        """Something was refused."""


class _Line:
    """A transport as a request's answer sees it: to close it is the door's affair."""

    def __init__(self, door: Door, transport: asyncio.Transport) -> None:
        self._door = door
        self._transport = transport
        self.write = transport.write

    def is_closing(self) -> bool:
        return self._door.is_over or self._transport.is_closing()

    def close(self) -> None:
        self._door.hang_up()


class Door(HttpToolsProtocol):
    """One connection. `since` is when the present stage began, by the loop's clock."""

    def __init__(
        self,
        keeper: Keeper,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.keeper = keeper
        self.bounds = keeper.bounds
        self.stage = Stage.NOTHING
        self.since = self.loop.time()
        self.is_over = False  # nothing more is written
        self.address = ""
        self.unread: tuple[int, float] | None = None  # bytes of answers nobody read, and since when so many
        self._raw: asyncio.Transport
        self._running: RequestResponseCycle | None = None
        self._fault: tuple[int, HetkiError] | None = None  # what the parser's callbacks found
        self._n_headers = self._n_head = self._n_framing = self._n_body = self._n_body_now = 0
        self._begins_now = False
        self._lingering: asyncio.TimerHandle | None = None

    # -- connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let the connection in, or refuse it."""
        super().connection_made(transport)
        self._raw = transport
        self.transport = cast(asyncio.Transport, _Line(self, transport))
        self.address = self.client[0] if self.client else ""
        self.keeper.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, whoever ended it."""
        self.stage, self.is_over = Stage.NEVER, True
        self.keeper.leave(self)
        if self._lingering is not None:
            self._lingering.cancel()
            self.keeper.n_lingering -= 1
        self.pipeline.clear()
        self._abandon()
        super().connection_lost(exc)
        self._let_go()

    def _let_go(self) -> None:
        """Hold nothing any longer that holds this door: both would wait for the collector of cycles, with the
        request's body, and under load that comes to much."""
        self._unset_keepalive_if_required()
        self.transport = self._raw
        self.cycle = cast(RequestResponseCycle, None)
        self._running = self._fault = None

    def data_received(self, data: bytes) -> None:
        """Bytes from the sender; those that come after a refusal are dropped."""
        if self.stage is Stage.NEVER:
            return
        self._unset_keepalive_if_required()
        if self.stage is Stage.NOTHING:
            self._await(Stage.HEAD)
        self._begins_now, self._n_body_now = False, 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._listen_no_more()
        except httptools.HttpParserError:
            found = self._fault or (400, Invalid(Fault("request", "bytes that are not HTTP", "HTTP/1.1")))
            self.refuse(*found)
        else:
            if not self._begins_now:
                self._count(len(data) - self._n_body_now)

    def _count(self, n_bytes: int) -> None:
        """Bytes that were no body: of the head, of what follows a body, or of the frames of its chunks.

        Headers are counted when they are whole, these as they come: a header that never ends has a bound.
        """
        self._n_framing += n_bytes
        if self._n_framing > self.bounds.head_bytes_max + self._n_body:
            got = f"{self._n_framing} bytes beside a body of {self._n_body}"
            must = f"at most {self.bounds.head_bytes_max} more than its body"
            self.refuse(431, Exhausted(Fault("headers and chunks", got, must)))

    # -- what the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begins_now = True
        self._n_headers = self._n_head = self._n_framing = self._n_body = self._n_body_now = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.bounds.address_bytes_max:
            must = f"at most {self.bounds.address_bytes_max} bytes"
            self._stop(414, Exhausted(Fault("address", f"{len(self.url)} bytes", must)))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._n_head += len(name) + len(value)
        self._n_headers += 1
        n_max, bytes_max = self.bounds.headers_max, self.bounds.head_bytes_max
        if self._n_headers > n_max:
            self._stop(431, Exhausted(Fault("headers", "more of them", f"at most {n_max}")))
        if self._n_head > bytes_max:
            got = f"{self._n_head} bytes"
            self._stop(431, Exhausted(Fault("headers", got, f"at most {bytes_max} bytes")))
        if self.stage is not Stage.BODY:  # what follows a body is none: no proxy has looked at it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= self.bounds.pipelined_max:
            must = f"at most {self.bounds.pipelined_max} waiting for their answers"
            self._stop(429, Exhausted(Fault("requests of one connection", "more", must)))
        super().on_headers_complete()
        self._await(Stage.BODY)

    def on_body(self, body: bytes) -> None:
        self._n_body += len(body)
        self._n_body_now += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._await(Stage.NOTHING)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.stage is Stage.NOTHING:
            self._await(Stage.NOTHING)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _await(self, stage: Stage) -> None:
        self.stage = stage
        self.since = self.loop.time()

    def _stop(self, status: int, error: HetkiError) -> None:
        """Stop the parser, which takes any exception of a callback for a broken request."""
        self._fault = status, error
        raise httptools.HttpParserError  # and not what this frame holds: that would hold the frame in turn

    # -- how it ends

    @property
    def is_answering(self) -> bool:
        """Whether an answer is owed to a request that has come in, or is coming in."""
        return self._running is not None and not self._running.response_complete

    @property
    def asked_for(self) -> int:
        """How much its sender has asked for: nothing, half a head, a body or an answer that it reads."""
        return Stage.BODY.value if self.unread is not None else self.stage.value

    def waits_since(self) -> float | None:
        """Since when nothing but its sender holds this connection up; None if it is we who do, or it ends."""
        if self.unread is not None:
            return self.unread[1]
        if self.stage is Stage.NEVER or (self.stage is Stage.NOTHING and self.is_answering):
            return None
        return self.since

    def look(self, now: float) -> None:
        """End what has waited for its sender for too long."""
        self._look_at_reader(now)
        waited_s = now - self.since
        if self.stage is Stage.HEAD and waited_s > self.bounds.head_s:
            self._time_out("headers", self.bounds.head_s)
        elif self.stage is Stage.BODY and waited_s > self.bounds.body_s:
            self._time_out("body", self.bounds.body_s)
        elif self.stage is Stage.NOTHING and not self.is_answering:
            # One that has never asked for anything is not kept for its next request.
            if waited_s > (self.bounds.head_s if self._running is None else self.bounds.idle_s):
                self.hang_up()

    def _look_at_reader(self, now: float) -> None:
        n_bytes = self._raw.get_write_buffer_size()
        if not n_bytes:
            self.unread = None
        elif self.unread is None or n_bytes <= self.unread[0] - SLOWEST_BYTES:
            self.unread = n_bytes, now
        elif now - self.unread[1] > self.bounds.answer_s:
            self.keeper.note("answer not read")
            self.break_off()

    def _time_out(self, what: str, seconds: int) -> None:
        self.keeper.note(f"{what} too slow")
        slow = Exhausted(Fault(what, f"no end within {seconds} seconds", "faster, or shorter"))
        self.refuse(408, slow)

    def refuse(self, status: int, error: HetkiError) -> None:
        """Say why and hang up; without a word where the answer to another request is under way.

        Requests that have come in whole are still answered.
        """
        if self.stage is Stage.NEVER:
            return
        is_own = self.stage is Stage.BODY and self._running is self.cycle
        if self.is_answering and not is_own:
            self._listen_no_more()
        elif is_own and self.cycle.response_started:
            self.hang_up()
        else:
            self._raw.write(_refusal(status, error))
            self._abandon()
            self._linger()

    def _listen_no_more(self) -> None:
        """Read nothing more, answer what is whole, and end."""
        if self.stage is Stage.BODY and self.pipeline:  # the newest, which never becomes whole
            self.pipeline.popleft()
        self.stage = Stage.NEVER
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is None or last.response_complete:
            self.hang_up()
        else:
            last.keep_alive = False

    def _abandon(self) -> None:
        """Tell the handler of a request that nobody waits for its answer."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def give_way(self, error: HetkiError) -> None:
        """End this connection for the sake of another, with a word if it has asked for anything."""
        if self._raw.get_write_buffer_size():
            self.break_off()
        elif self.stage is Stage.NOTHING:
            self.hang_up()
        else:
            self.refuse(503, error)

    def hang_up(self) -> None:
        """End the connection; who is still sending may read the answer first."""
        if self.stage is Stage.BODY:
            self._linger()
        elif self._lingering is None:
            self.stage, self.is_over = Stage.NEVER, True
            self._raw.close()

    def break_off(self) -> None:
        """End the connection at once, and drop what was not read."""
        self.stage, self.is_over = Stage.NEVER, True
        self._raw.abort()

    def _linger(self) -> None:
        """Close our half, and drop what still comes: to close at once would take the answer back."""
        self.stage, self.is_over = Stage.NEVER, True
        self._unset_keepalive_if_required()
        if self._raw.is_closing() or self.keeper.n_lingering >= LINGERING_MAX:
            self._raw.close()
            return
        self.keeper.n_lingering += 1
        self._lingering = self.loop.call_later(LINGER_S, self._raw.abort)
        self.flow.resume_reading()
        self._raw.write_eof()


def _refusal(status: int, error: HetkiError) -> bytes:
    """A whole answer, in the form of those of `/v1/`."""
    body = msgspec.json.encode(Refusal(error.code, str(error.faults[0])))
    again = f"retry-after: {RETRY_AFTER_S}\r\n" if status in AGAIN else ""
    head = (
        f"access-control-allow-origin: *\r\ncontent-type: application/json\r\n{again}"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return STATUS_LINE[status] + head.encode() + body
