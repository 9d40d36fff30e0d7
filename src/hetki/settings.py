"""Bounds and defaults that every room may read: law 9 in one place.

What a project sets for itself (`hetki.toml`) is read by `hetki.engine.project`; here are only values.
"""

from __future__ import annotations

import msgspec

#: One second in the unit of every instant: instants are whole microseconds since 1970-01-01 UTC.
SECOND = 1_000_000
DAY = 86_400 * SECOND
#: Bodies that are being taken in may hold this much memory together.
ARRIVING_BYTES_MAX = 128 * 1024 * 1024
#: What those of one address may hold, but of this machine and of proxies; no body may be larger.
ADDRESS_BYTES_MAX = ARRIVING_BYTES_MAX // 4
#: What has a rate per second may come at once for this many seconds of it.
BURST_S = 5


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The largest input that is accepted; anything beyond is refused with a reason (bytes, counts)."""

    body_bytes_max: int = 4 * 1024 * 1024
    inflated_bytes_max: int = 16 * 1024 * 1024
    batch_events_max: int = 5_000
    event_bytes_max: int = 32 * 1024
    depth_max: int = 16
    keys_max: int = 1_000
    id_chars_max: int = 100
    text_chars_max: int = 512
    ahead_s_max: int = 86_400


class Connections(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the server bears of those that connect to it (counts, seconds, bytes).

    `connections_max` in all and `per_address_max` of one address, but of this machine and of the server's
    proxies as many as there are: those speak for others.
    A request has `head_s` from its first byte until its headers are complete, `body_s` from then until its
    body is. A connection without a request is kept `idle_s`, and one whose sender reads hardly anything of
    its answer (`SLOWEST_BYTES`) is given up after `answer_s`.
    """

    connections_max: int = 1_000
    per_address_max: int = 200
    head_s: int = 10
    body_s: int = 30
    idle_s: int = 30
    answer_s: int = 30
    head_bytes_max: int = 32 * 1024
    address_bytes_max: int = 8 * 1024
    headers_max: int = 100
    pipelined_max: int = 16


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[hetki]` table of `hetki.toml`.

    `lateness_s`: how long an absence waits after its deadline for events that are still under way.
    `time_zone`: the zone of a customer whose own is not known (IANA name).
    """

    name: str
    data: str = "data"
    lateness_s: int = 10
    time_zone: str = "UTC"
    holdout_salt: str = "hetki"
    limits: Limits = Limits()
    connections: Connections = Connections()


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[server]` table of `hetki.toml`: how the server is reached.

    `origin` is what browsers call it, such as `https://cx.example.com`; empty: plain HTTP on this machine.
    `proxies` are the addresses and networks whose word on a sender's address is believed. The rates are of
    one key and of one address; `refused_per_s` is how many requests without a valid key one address may send.
    """

    origin: str = ""
    proxies: list[str] = []
    key_events_per_s: int = 100_000
    key_bytes_per_s: int = 128 * 1024 * 1024
    address_events_per_s: int = 200_000
    address_bytes_per_s: int = 256 * 1024 * 1024
    refused_per_s: int = 10
