"""Keys: the write keys of a project's sources, checked, made and listed.

A key is shown once, when it is made; what is kept of it is an entry in its source's file. Start at `add_key`.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

import msgspec

from hetki.consent.source import Source, WriteKey, digest_of, expiry, is_digest
from hetki.declarations.read import Declared, read
from hetki.engine.files import Files
from hetki.errors import Conflict, Fault, Invalid, NotFound, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.store.ports import Chance, Disk

#: By this a key is told from other random texts, where somebody looks for keys that got out.
PREFIX = "hetki_"
KEY_BYTES = 32
_EMPTY = re.compile(r"\[\s*\]")


@dataclass(frozen=True, slots=True)
class Made:
    """A new key, the file that its entry was written into, and the entry."""

    key: str = field(repr=False)
    path: str
    entry: WriteKey


def check_keys(files: Files, catalogue: Catalogue) -> list[Fault]:
    """What is wrong with the write keys of all sources."""
    faults: list[Fault] = []
    first: dict[str, str] = {}
    for source, declared in files.sources.read():
        for number, key in enumerate(source.write_keys):
            where = declared.where("write_keys", number, "digest")
            if not is_digest(key.digest):
                must = "the SHA-256 of a key, as 64 hexadecimal digits"
                got = f"{len(key.digest)} characters"  # perhaps the key itself, so it is not said again
                faults.append(Fault(where, got, must, "hetki key makes one"))
            elif key.digest in first:
                hint = f"the other is {first[key.digest]}"
                faults.append(Fault(where, "a key that is declared already", "a key of its own", hint))
            first.setdefault(key.digest, declared.path)
            try:
                expiry(key.expires, declared.where("write_keys", number, "expires"))
            except Invalid as error:
                faults.extend(error.faults)
            for place, name in enumerate(key.events):
                where = declared.where("write_keys", number, "events", place)
                faults.extend(_unknown(name, where, catalogue))
    return faults


def add_key(
    disk: Disk, files: Files, catalogue: Catalogue, source: str, wanted: WriteKey, chance: Chance
) -> Made:
    """Make a key of a source and write its entry into the source's file; nothing else in it is touched.

    `wanted` has all but the digest. Raises `NotFound`, `Invalid` for a file with faults or an event that the
    catalogue does not have, and `Conflict` where the entry finds no place.
    """
    if faults := [fault for name in wanted.events for fault in _unknown(name, "event", catalogue)]:
        raise Invalid(*faults)
    declared = _file_of(files, source)
    assert declared.value is not None, "a file without faults has a value"
    key = PREFIX + urlsafe_b64encode(chance.bytes(KEY_BYTES)).rstrip(b"=").decode()
    entry = msgspec.structs.replace(wanted, digest=digest_of(key))
    text = _with_entry(declared, entry)
    wished = msgspec.structs.replace(declared.value, write_keys=[entry, *declared.value.write_keys])
    if read(text, declared.path, Source).value != wished:
        hint = "write 'write_keys:' on a line of its own, with its entries below"
        raise Conflict(Fault(declared.path, "no place for another key", "a list in lines", hint))
    disk.write(declared.path, text.encode())
    return Made(key, declared.path, entry)


def _unknown(name: str, where: str, catalogue: Catalogue) -> list[Fault]:
    if name in catalogue.events:
        return []
    return [Fault(where, shown(name), "an event of the catalogue", nearest(name, catalogue.events))]


def _file_of(files: Files, source: str) -> Declared[Source]:
    """The file of a source. Raises `NotFound`, or `Invalid` with its faults."""
    declared = files.sources.files.get(f"sources/{source}.yaml")
    if declared is None:
        hint = nearest(source, files.sources.names)
        raise NotFound(Fault("source", shown(source), "a source of this project", hint))
    if declared.value is None:
        raise Invalid(*(declared.faults or files.faults))
    return declared


def _with_entry(declared: Declared[Source], entry: WriteKey) -> str:
    """The text of a source's file with an entry before the keys that it has."""
    text = declared.text
    keys = declared.root.child("write_keys") if declared.root else None
    if keys is None:
        return text + ("" if text.endswith("\n") else "\n") + "write_keys:\n" + _lines(entry, "  ")
    if text[keys.index] == "-":
        indent = text[text.rfind("\n", 0, keys.index) + 1 : keys.index]
        line = int(keys.key_where.split(":")[1])  # above the comments of the first entry
        begins = re.compile(rf"(?:[^\n]*\n){{{line}}}").match(text)
        assert begins, "the list begins below the name of its field"
        return text[: begins.end()] + _lines(entry, indent) + text[begins.end() :]
    if found := _EMPTY.match(text, keys.index):
        ends = text.find("\n", found.end())
        ends = len(text) if ends < 0 else ends
        rest = text[found.end() : ends]
        return text[: keys.index].rstrip() + rest + "\n" + _lines(entry, "  ") + text[ends + 1 :]
    opens = keys.index + 1
    return text[:opens] + "{" + ", ".join(_fields(entry)) + "}, " + text[opens:]


def _lines(entry: WriteKey, indent: str) -> str:
    return f"{indent}- " + f"\n{indent}  ".join(_fields(entry)) + "\n"


def _fields(entry: WriteKey) -> list[str]:
    """The fields of an entry that have a value, as YAML reads them back: JSON is YAML."""
    given = {key: value for key, value in msgspec.structs.asdict(entry).items() if value}
    return [f"{key}: {msgspec.json.encode(value).decode()}" for key, value in given.items()]
