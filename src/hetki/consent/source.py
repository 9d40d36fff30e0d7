"""Source: a system that sends events, and the contract under which its data may be used."""

from __future__ import annotations

import msgspec


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `sources/*.yaml`.

    `purposes` lists what this source's data may be used for; anything else is closed. `retention` is the
    class under which its data is encrypted and later expires. A write key lets a sender append as this
    source and read nothing.
    """

    source: str
    channel: str
    purposes: list[str]
    title: str = ""
    write_keys: list[str] = []
    retention: str = "24 months"
