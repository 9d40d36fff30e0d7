"""Parts: rows of a backup as files of bounded size, each known by its SHA-256.

A part is a MessagePack list of rows, a row a list of plain values. Nothing here knows what rows mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

import msgspec

from hetki.errors import Fault, Invalid, NotFound
from hetki.store.ports import Disk

#: A part is closed once it is at least this large.
PART_BYTES = 4 * 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode


class Part(msgspec.Struct, frozen=True):
    """One file: its name inside the backup, and what it holds."""

    name: str
    sha256: str
    n_bytes: int
    n_rows: int


def write_parts(disk: Disk, folder: str, rows: Iterable[Sequence[object]]) -> list[Part]:
    """Write rows as `folder/000001.part` and so on, each durable when the next is begun."""
    written: list[Part] = []
    held: list[bytes] = []
    n_bytes = 0
    for row in rows:
        held.append(_encode(row))
        n_bytes += len(held[-1])
        if n_bytes >= PART_BYTES:
            written.append(_write(disk, folder, len(written) + 1, held))
            held, n_bytes = [], 0
    if held:
        written.append(_write(disk, folder, len(written) + 1, held))
    return written


def read_parts(disk: Disk, folder: str, parts: Iterable[Part]) -> Iterator[Sequence[object]]:
    """The rows of parts in `folder`. Raises `Invalid` at a part that is not what was written."""
    for part in parts:
        name = f"{folder}/{part.name}"
        try:
            data = disk.read(name)
        except NotFound as error:
            raise Invalid(Fault(name, "no such file", "a part of the backup")) from error
        if sha256(data).hexdigest() != part.sha256:
            hint = "take another backup; this one is broken"
            raise Invalid(Fault(name, "bytes with another hash", "what was once written", hint))
        rows: list[list[object]] = msgspec.msgpack.decode(data)
        yield from rows


def _write(disk: Disk, folder: str, number: int, rows: list[bytes]) -> Part:
    data = b"\xdd" + len(rows).to_bytes(4) + b"".join(rows)  # a list of 32 bits of length
    name = f"{folder}/{number:06}.part"
    disk.write(name, data)
    return Part(name.partition("/")[2], sha256(data).hexdigest(), len(data), len(rows))
