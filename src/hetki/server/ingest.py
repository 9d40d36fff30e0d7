"""The way in: the Segment tracking API and CloudEvents over HTTP, as one ASGI callable.

It says 200 only after the commit (law 1), bounds every body in bytes, inflated bytes and time (law 9), and
knows nothing of what becomes of an event. Start at `Ingest.__call__`; the formats are in `hetki.events`.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import zlib
from base64 import b64decode
from collections.abc import Mapping
from functools import partial

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from hetki.consent.source import KEY_CHARS_MAX, Admitted, digest_of
from hetki.errors import Exhausted, Fault, Forbidden, HetkiError, Invalid, NotFound, Unavailable, shown
from hetki.events import cloudevents, segment
from hetki.events.event import utc
from hetki.events.wire import UNREADABLE, Parsed
from hetki.server.committer import Committer
from hetki.server.status import status_of
from hetki.settings import Limits
from hetki.store.ports import Clock
from hetki.store.shortage import NO_MEMORY, shortage

#: The paths under /v1/ and how their bodies are read; browsers' SDKs use the short ones.
KINDS = {
    "batch": "batch",
    "b": "batch",
    "import": "batch",
    "identify": "identify",
    "i": "identify",
    "track": "track",
    "t": "track",
    "page": "page",
    "p": "page",
    "screen": "screen",
    "s": "screen",
    "group": "group",
    "g": "group",
    "alias": "alias",
    "a": "alias",
    "cloudevents": cloudevents.KIND,
}
#: A body may take this long to arrive.
BODY_S = 30.0
#: Bodies that are arriving may hold this much memory together.
ARRIVING_BYTES_MAX = 128 * 1024 * 1024
#: A larger body is read in a thread of its own, so that no sender can hold up the others.
INLINE_BYTES_MAX = 256 * 1024
RETRY_AFTER_S = 1
CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding, x-retry-count"),
    (b"access-control-max-age", b"86400"),
]


_WRITE_KEY = re.compile(rb'"writeKey"\s*:\s*"([A-Za-z0-9_.~+/=-]{1,200})"')


class Answer(msgspec.Struct, frozen=True):
    """The body of a 200."""

    success: bool
    n_rejected: int


class Refusal(msgspec.Struct, frozen=True):
    """The body of anything else, as the SDKs expect it."""

    code: str
    message: str


class WriteKey(msgspec.Struct, rename="camel"):
    """The one member of a body that says whose it is."""

    write_key: str


class SenderGone(Exception):
    """The sender left before its body was complete: nothing is stored, nobody is there to be told."""


class Ingest:
    """An ASGI callable for `/v1/*`. `keys` holds what is admitted by the digests of write keys."""

    def __init__(
        self, keys: Mapping[str, Admitted], committer: Committer, clock: Clock, limits: Limits
    ) -> None:
        self._keys = keys
        self._committer = committer
        self._clock = clock
        self._limits = limits
        self._n_arriving = 0
        self.body_s = BODY_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "the server's lifespan is not ours"
        path = scope["path"].removeprefix("/v1/").rstrip("/")
        method = scope["method"]
        if method == "OPTIONS":
            await _send(send, 204)
            return
        if path == "health" and method == "GET":
            await _send(send, 200, b'{"success":true}')
            return
        try:
            if path not in KINDS:
                raise NotFound(
                    Fault("path", shown(scope["path"]), "/v1/batch, /v1/track, ... or /v1/cloudevents")
                )
            if method != "POST":
                fault = Fault("method", shown(method), "POST")
                await _refuse(send, Invalid(fault), 405)
                return
            parsed, n_bytes = await self._parsed(KINDS[path], _headers(scope), receive)
        except SenderGone:
            return
        except TimeoutError:
            slow = Fault("body", f"no end within {self.body_s:g} seconds", "faster, or shorter")
            await _refuse(send, Exhausted(slow), 408)
            return
        except HetkiError as error:
            await _refuse(send, error, status_of(error))
            return
        except (MemoryError, RuntimeError) as error:
            if (short := shortage(error)) is None:
                raise
            await _refuse(send, short, status_of(short))
            return
        try:
            await self._committer.commit(parsed, n_bytes)
        except HetkiError as error:
            await _refuse(send, error, 429 if error.code == "exhausted" else 503)
            return
        except MemoryError:
            await _refuse(send, Unavailable(NO_MEMORY), 503)
            return
        await _send(send, 200, msgspec.json.encode(Answer(True, len(parsed.rejected))))

    async def _parsed(self, kind: str, headers: dict[str, str], receive: Receive) -> tuple[Parsed, int]:
        """The request's events, and how many bytes they came in."""
        received_at = self._clock.now()
        key = _key(headers)
        admitted = self._admitted(key, received_at) if key else None
        body = await self._body(headers, receive)
        body = _inflated(body, headers.get("content-encoding", ""), self._limits)
        admitted = admitted or self._admitted(_key_in(body), received_at)
        read = partial(self._read, body, kind, headers, admitted, received_at)
        return (await run_in_threadpool(read) if len(body) > INLINE_BYTES_MAX else read()), len(body)

    def _read(
        self, body: bytes, kind: str, headers: dict[str, str], admitted: Admitted, received_at: int
    ) -> Parsed:
        gpc = headers.get("sec-gpc", "").strip() == "1"
        name, channel, limits = admitted.source.source, admitted.source.channel, self._limits
        if kind != cloudevents.KIND:
            return segment.parse(body, kind, name, channel, received_at, limits, gpc, scope=admitted.events)
        media = headers.get("content-type", "")
        return cloudevents.parse(
            body, media, headers, name, channel, received_at, limits, gpc, admitted.events
        )

    def _admitted(self, key: str, now: int) -> Admitted:
        """What a write key opens. Raises `Forbidden`; the key itself is never said back.

        It is looked up by its digest, so how long that takes tells nothing of any key.
        """
        found = self._keys.get(digest_of(key)) if 0 < len(key) <= KEY_CHARS_MAX else None
        if found is None:
            got = "no write key" if not key else "an unknown write key"
            hint = "Basic auth with the key as the user, or writeKey in the body"
            raise Forbidden(Fault("write key", got, "one of a source of this project", hint))
        if found.expires_at is not None and now >= found.expires_at:
            got = f"one that expired at {utc(found.expires_at):%Y-%m-%dT%H:%M:%SZ}"
            raise Forbidden(Fault("write key", got, "one that is in force", "hetki key makes another"))
        return found

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The whole body. Raises `Exhausted`, `Unavailable`, `SenderGone`, `TimeoutError`."""
        bytes_max = self._limits.body_bytes_max
        told = headers.get("content-length", "")
        if told.isdigit() and int(told[:19]) > bytes_max:
            raise Exhausted(
                Fault("body", f"{told[:19]} bytes", f"at most {bytes_max} bytes", "send it in parts")
            )
        chunks: list[bytes] = []
        n_bytes = 0
        try:
            async with asyncio.timeout(self.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise SenderGone
                    chunk: bytes = message.get("body", b"")
                    n_bytes += len(chunk)
                    self._n_arriving += len(chunk)
                    if n_bytes > bytes_max:
                        got = f"more than {bytes_max} bytes"
                        raise Exhausted(Fault("body", got, f"at most {bytes_max} bytes", "send it in parts"))
                    if self._n_arriving > ARRIVING_BYTES_MAX:
                        got = f"{self._n_arriving} bytes arriving at once"
                        raise Unavailable(Fault("server", got, f"at most {ARRIVING_BYTES_MAX}"))
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        finally:
            self._n_arriving -= n_bytes


def _headers(scope: Scope) -> dict[str, str]:
    """Header names in lower case; of a repeated one the last."""
    return {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in scope["headers"]}


def _key(headers: dict[str, str]) -> str:
    """The write key in the Authorization header: the user of Basic, or the token of Bearer; else ""."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(rest.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        raise Forbidden(Fault("authorization", "a header that is not base64", "Basic base64(KEY:)")) from None


def _key_in(body: bytes) -> str:
    """The write key in a body; "" when there is none to be read.

    In a body that is not strict JSON (one event of it may be broken) it is looked for by its spelling.
    """
    try:
        return msgspec.json.decode(body, type=WriteKey).write_key
    except UNREADABLE:
        found = _WRITE_KEY.search(body)
        return found[1].decode() if found else ""


def _inflated(body: bytes, encoding: str, limits: Limits) -> bytes:
    """The body as it was before compression; never more than the bound is inflated."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Invalid(Fault("content-encoding", shown(encoding), "gzip or identity"))
    bytes_max = limits.inflated_bytes_max
    inflater = zlib.decompressobj(wbits=31)
    try:
        whole = inflater.decompress(body, bytes_max + 1)
    except zlib.error:
        raise Invalid(Fault("body", "bytes that are not gzip", "gzip, as content-encoding says")) from None
    if len(whole) > bytes_max:
        raise Exhausted(Fault("body", f"more than {bytes_max} bytes inflated", f"at most {bytes_max} bytes"))
    if not inflater.eof:
        raise Invalid(Fault("body", "gzip that ends too early", "a whole gzip stream"))
    if inflater.unused_data:
        raise Invalid(Fault("body", "bytes after the end of gzip", "one gzip stream"))
    return whole


async def _refuse(send: Send, error: HetkiError, status: int) -> None:
    """Say why in the form that the SDKs read; when to come back, where that helps."""
    text = str(error.faults[0])
    more = [(b"retry-after", str(RETRY_AFTER_S).encode())] if status in (429, 503) else []
    if status in (408, 413):
        more.append((b"connection", b"close"))
    await _send(send, status, msgspec.json.encode(Refusal(error.code, text)), more)


async def _send(
    send: Send, status: int, body: bytes = b"", more: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [*CORS, *(more or [])]
    if body:
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
