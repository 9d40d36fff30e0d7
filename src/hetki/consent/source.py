"""Source: a system that sends events, the contract under which its data may be used, and its write keys.

Of a write key only the digest is declared, so a project can lie open under version control.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from hetki.errors import Fault, Invalid, shown
from hetki.events.wire import instant_of

#: What is longer is no key of ours, and is not hashed.
KEY_CHARS_MAX = 200
_DIGEST = re.compile(r"[0-9a-f]{64}")


class WriteKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key of a source, as its SHA-256 in hex: it lets a sender append as this source and read nothing.

    `expires` is a date or an instant in ISO 8601, from which on it is refused (UTC where no zone is told);
    empty: never. `events` are the names that it may send; none listed: any. `note` is for people.
    """

    digest: str
    expires: str = ""
    events: list[str] = []
    note: str = ""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `sources/*.yaml`.

    `purposes` lists what this source's data may be used for; anything else is closed. `retention` is how long
    its events are kept, `retention_of` how long those of some names are. Keys may overlap, so that a sender
    can change from one to the next.
    """

    source: str
    channel: str
    purposes: list[str]
    title: str = ""
    write_keys: list[WriteKey] = []
    retention: str = "24 months"
    retention_of: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a write key opens: the source it appends as, until when (None: for ever), and which events.

    By `digest` it is told from others.
    """

    digest: str
    source: Source
    expires_at: int | None
    events: frozenset[str]


def digest_of(key: str) -> str:
    """What is declared of a key. A fast hash without salt will do: a key is 256 random bits, no password."""
    return sha256(key.encode("utf-8", "replace")).hexdigest()


def admitted(sources: Iterable[Source]) -> dict[str, Admitted]:
    """All keys of checked sources by their digests."""
    return {
        key.digest: Admitted(key.digest, source, expiry(key.expires), frozenset(key.events))
        for source in sources
        for key in source.write_keys
    }


def expiry(text: str, where: str = "expires") -> int | None:
    """The instant from which on a key is refused; None for never. Raises `Invalid`."""
    if not text:
        return None
    try:
        return instant_of(text, where)
    except Invalid:
        must = "a date or a time in ISO 8601"
        raise Invalid(Fault(where, shown(text), must, "write 2027-03-31")) from None


def is_digest(text: str) -> bool:
    """Whether a text has the form of a key's digest."""
    return _DIGEST.fullmatch(text) is not None
