"""The way in: the Segment tracking API and CloudEvents over HTTP, as one ASGI callable.

It says 200 only after the commit (law 1), bounds every body in bytes and inflated bytes (law 9; time is the
door's affair), and knows nothing of what becomes of an event. Start at `Ingest.__call__`; the formats are in
`hetki.events`.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from anyio import CapacityLimiter
from starlette.types import Receive, Scope, Send

from hetki.consent.source import KEY_CHARS_MAX, Admitted, digest_of
from hetki.errors import Exhausted, Fault, Forbidden, HetkiError, Invalid, NotFound, Unavailable, shown
from hetki.events import cloudevents, segment
from hetki.events.event import utc
from hetki.events.wire import UNREADABLE, Parsed
from hetki.server.arrivals import SLOW, Arrivals, Arriving
from hetki.server.committer import Committer
from hetki.server.rates import Rates
from hetki.server.site import Site
from hetki.server.status import AGAIN, Busy, Refusal, retry_after_s, status_of
from hetki.server.threads import N_BODIES, beside
from hetki.settings import Limits, Server
from hetki.store.ports import Clock
from hetki.store.shortage import shortage

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
#: A larger body is read in a thread of its own, so that no sender can hold up the others.
INLINE_BYTES_MAX = 256 * 1024
HEALTHY = {"success": True}
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


class WriteKey(msgspec.Struct, rename="camel"):
    """The one member of a body that says whose it is."""

    write_key: str

    def __repr__(self) -> str:
        return "WriteKey(...)"


@dataclass(slots=True)
class Asked:
    """One request without its body. `admitted` is what its key opens, None until a valid one was found."""

    kind: str
    headers: dict[str, str]
    received_at: int
    admitted: Admitted | None = None


class SenderGone(Exception):
    """The sender left before its body was complete: nothing is stored, nobody is there to be told."""


class Ingest:
    """An ASGI callable for `/v1/*`. `keys` holds what is admitted by the digests of write keys."""

    def __init__(
        self,
        keys: Mapping[str, Admitted],
        committer: Committer,
        clock: Clock,
        limits: Limits,
        rates: Rates | None = None,
        site: Site | None = None,
    ) -> None:
        self._keys = keys
        self._committer = committer
        self._clock = clock
        self._limits = limits
        self._rates = rates or Rates(Server())
        self._site = site or Site(Server())
        self._arrivals = Arrivals(self._site)
        self._large = CapacityLimiter(N_BODIES)  # each may become many times as large in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "the server's lifespan is not ours"
        path = scope["path"].removeprefix("/v1/").rstrip("/")
        method = scope["method"]
        if method == "OPTIONS":
            await _send(send, 204)
            return
        allowed = "GET" if path == "health" else "POST"
        address = self._site.address(scope)
        asked: Asked | None = None
        try:
            if path not in KINDS and path != "health":
                raise NotFound(
                    Fault("path", shown(scope["path"]), "/v1/batch, /v1/track, ... or /v1/cloudevents")
                )
            if method != allowed:
                fault = Fault("method", shown(method), allowed)
                await _refuse(send, Invalid(fault), 405, [(b"allow", f"{allowed}, OPTIONS".encode())])
                return
            if path == "health":
                await _send(send, 200, msgspec.json.encode(HEALTHY))
                return
            asked = Asked(KINDS[path], _headers(scope), self._clock.now())
            key, parsed, n_bytes = await self._parsed(asked, receive, address)
            self._rates.take(key, address, len(parsed.events) + len(parsed.rejected), n_bytes)
            await self._committer.commit(parsed, n_bytes)
        except SenderGone:
            return
        except HetkiError as error:
            # Not kept under a name of this frame, which the error holds, and with it the whole body.
            await _refuse(send, self._counted(error, asked, address))
            return
        except asyncio.CancelledError:  # the server stops, and has waited long enough for what is under way
            await _refuse(send, Unavailable(Fault("server", "a request while it stops", "sent again")))
            return
        except (MemoryError, RuntimeError) as error:
            if (short := shortage(error)) is None:
                raise
            await _refuse(send, short)
            return
        await _send(send, 200, msgspec.json.encode(Answer(True, len(parsed.rejected))))

    def _counted(self, error: HetkiError, asked: Asked | None, address: str) -> HetkiError:
        """What to answer a request with that is refused, and counted if it is its own fault and it has shown
        no valid key: whoever has none can have no more looked at than that."""
        is_own = isinstance(error, Forbidden | Invalid | Exhausted) and not isinstance(error, Busy)
        is_strange = asked is not None and asked.admitted is None
        return self._rates.refused(address, error) if is_own and is_strange else error

    async def _parsed(self, asked: Asked, receive: Receive, address: str) -> tuple[str, Parsed, int]:
        """The digest of the request's key, its events, and how many bytes they came in."""
        key = _key(asked.headers)
        if key:
            asked.admitted = self._admitted(key, asked.received_at)
            self._rates.check_key(asked.admitted.digest, address)
        else:
            self._rates.check_address(address)
        arriving = self._arrivals.begin(address)
        try:
            body = await self._body(asked.headers, receive, arriving)
            self._committer.check_room()  # before any work that would be for nothing
            packed = Packed(body, asked.headers.get("content-encoding", ""))
            at_once = min(INLINE_BYTES_MAX, self._limits.inflated_bytes_max)
            plain = packed.up_to(at_once) if len(body) <= INLINE_BYTES_MAX else None
            if plain is not None:
                return self._taken(asked, plain)
            return await beside(partial(self._large_taken, asked, packed), self._large)
        finally:
            self._arrivals.end(arriving)

    def _taken(self, asked: Asked, body: bytes) -> tuple[str, Parsed, int]:
        admitted = asked.admitted or self._admitted(_key_in(body), asked.received_at)
        asked.admitted = admitted
        return admitted.digest, self._read(body, asked, admitted), len(body)

    def _large_taken(self, asked: Asked, packed: Packed) -> tuple[str, Parsed, int]:
        bytes_max = self._limits.inflated_bytes_max
        plain = packed.up_to(bytes_max)
        if plain is None:
            got, must = f"more than {bytes_max} bytes inflated", f"at most {bytes_max} bytes"
            raise Exhausted(Fault("body", got, must))
        return self._taken(asked, plain)

    def _read(self, body: bytes, asked: Asked, admitted: Admitted) -> Parsed:
        headers, limits = asked.headers, self._limits
        gpc = headers.get("sec-gpc", "").strip() == "1"
        name, channel, at = admitted.source.source, admitted.source.channel, asked.received_at
        if asked.kind != cloudevents.KIND:
            return segment.parse(body, asked.kind, name, channel, at, limits, gpc, scope=admitted.events)
        media = headers.get("content-type", "")
        return cloudevents.parse(body, media, headers, name, channel, at, limits, gpc, admitted.events)

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

    async def _body(self, headers: dict[str, str], receive: Receive, arriving: Arriving) -> bytes:
        """The whole body. Raises `Exhausted`, `Unavailable`, `SenderGone`.

        How long it may take is the door's affair.
        """
        bytes_max = self._limits.body_bytes_max
        told = headers.get("content-length", "")
        if told.isascii() and told.isdigit() and int(told[:19]) > bytes_max:
            raise Exhausted(
                Fault("body", f"{told[:19]} bytes", f"at most {bytes_max} bytes", "send it in parts")
            )
        chunks: list[bytes] = []
        while True:
            try:
                message = await receive()
            except asyncio.CancelledError:
                if not arriving.has_left or arriving.task is None:
                    raise
                arriving.task.uncancel()
                raise Unavailable(SLOW) from None
            if message["type"] == "http.disconnect":
                raise SenderGone
            chunks.append(message.get("body", b""))
            self._arrivals.grow(arriving, len(chunks[-1]))
            if arriving.n_bytes > bytes_max:
                got = f"more than {bytes_max} bytes"
                raise Exhausted(Fault("body", got, f"at most {bytes_max} bytes", "send it in parts"))
            if not message.get("more_body", False):
                arriving.task = None
                return b"".join(chunks)


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
    except ValueError:  # no base64, no ASCII, or no UTF-8 in it
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


class Packed:
    """A body as it came, unpacked as far as it is asked for; what was unpacked once is not unpacked again."""

    def __init__(self, body: bytes, encoding: str) -> None:
        """Raises `Invalid` for an encoding that nobody here reads."""
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise Invalid(Fault("content-encoding", shown(encoding), "gzip or identity"))
        self._packed = body
        self._plain = b""
        self._inflater = zlib.decompressobj(wbits=31) if encoding.endswith("gzip") else None

    def up_to(self, bytes_max: int) -> bytes | None:
        """The body as it was before compression; None if it is longer than so many bytes.

        Little more than that is ever unpacked. Raises `Invalid` for what is no gzip.
        """
        if self._inflater is None:
            return self._packed if len(self._packed) <= bytes_max else None
        if len(self._plain) > bytes_max:
            return None
        try:
            self._plain += self._inflater.decompress(self._packed, bytes_max + 1 - len(self._plain))
        except zlib.error:
            raise Invalid(
                Fault("body", "bytes that are not gzip", "gzip, as content-encoding says")
            ) from None
        self._packed = self._inflater.unconsumed_tail
        if len(self._plain) > bytes_max:
            return None
        if not self._inflater.eof:
            raise Invalid(Fault("body", "gzip that ends too early", "a whole gzip stream"))
        if self._inflater.unused_data:
            raise Invalid(Fault("body", "bytes after the end of gzip", "one gzip stream"))
        return self._plain


async def _refuse(
    send: Send, error: HetkiError, status: int = 0, also: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Say why in the form that the SDKs read, with the status of the error unless there is another; when to
    come back, where that helps."""
    status, text = status or status_of(error), str(error.faults[0])
    more = [(b"retry-after", str(retry_after_s(error)).encode())] if status in AGAIN else [*also]
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
