"""Read: the text of a declaration -> its typed value, or every fault in it with its place. Start here.

`read` takes YAML, `read_toml` takes TOML; both check the same way and never raise on bad text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Generic, TypeVar

import msgspec

from hetki.declarations.toml import parse_toml
from hetki.declarations.tree import Node, Parsed, in_order, place
from hetki.declarations.walk import FAULTS_MAX, walk
from hetki.declarations.yaml import parse_yaml
from hetki.errors import Fault

FILE_BYTES_MAX = 256 * 1024

T = TypeVar("T")
#: What a spec holds: it is asked for each file, and takes as long to find as a file to check.
_type_of: Callable[[type], msgspec.inspect.Type] = cache(msgspec.inspect.type_info)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Declared(Generic[T]):
    """A file as it was read: `value` is `None` exactly when there are `faults`."""

    path: str
    text: str = field(repr=False)  # it may hold a destination's secret, as the nodes may
    value: T | None
    faults: list[Fault]
    root: Node | None = field(default=None, repr=False)

    def where(self, *keys: str | int, offset: int = 0) -> str:
        """The place of the value under `keys`, `offset` characters into it: `moments/late.yaml:8:7`.

        A key that is not in the file gives the place of what should hold it.
        """
        node = self.root
        for key in keys:
            child = node.child(key) if node else None
            if child is None:
                return node.where if node else self.path
            node = child
        if node is None:
            return self.path
        if node.index < 0 or not isinstance(node.scalar, str):
            return node.where
        return place(self.path, self.text, _index_within(self.text, node.index, node.scalar, offset))

    def key(self, *keys: str | int) -> str:
        """The place of the last of `keys` itself, where `where` gives that of its value."""
        node = self.root
        for key in keys:
            node = node.child(key) if node else None
        return node.key_where if node and node.key_where else self.where(*keys)


def read(text: str, path: str, spec: type[T]) -> Declared[T]:
    """One YAML declaration as a `spec`, with all faults at once."""
    return _read(text, path, spec, parse_yaml(text, path) if _fits(text) else None)


def read_toml(text: str, path: str, spec: type[T]) -> Declared[T]:
    """One TOML file as a `spec`, with all faults at once."""
    return _read(text, path, spec, parse_toml(text, path) if _fits(text) else None)


def _fits(text: str) -> bool:
    return len(text) <= FILE_BYTES_MAX


def _read(text: str, path: str, spec: type[T], parsed: Parsed | None) -> Declared[T]:
    if parsed is None:
        must = f"a file of at most {FILE_BYTES_MAX} characters"
        return Declared(path, "", None, [Fault(path, f"{len(text)} characters", must)])
    if parsed.root is None:
        return Declared(path, text, None, parsed.faults)
    faults = list(parsed.faults)
    values = walk(parsed.root, _type_of(spec), faults)
    if len(faults) >= FAULTS_MAX:
        more = Fault(path, f"{FAULTS_MAX} faults or more", "repaired first", "later faults are not shown")
        faults = [*faults[:FAULTS_MAX], more]
    declared: Declared[T] = Declared(path, text, None, in_order(faults), parsed.root)
    if faults:
        return declared
    try:
        return Declared(path, text, msgspec.convert(values, spec), [], parsed.root)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        keys = [int(number) if number else key for key, number in _STEP.findall(at.rstrip("`"))]
        faults = [Fault(declared.where(*keys), "another value", message)]
        return Declared(path, text, None, faults, parsed.root)


def _index_within(text: str, start: int, value: str, offset: int) -> int:
    """Where the character `value[offset]` stands in the file.

    White space is folded by YAML, so the characters that are not white space are counted instead.
    """
    if offset <= 0 or start >= len(text):
        return start
    wanted = sum(1 for character in value[:offset] if not character.isspace())
    quote = text[start] if text[start] in ("'", '"') else ""
    index = start + 1 if quote else start
    if text[start] in ("|", ">"):
        index = text.find("\n", start) + 1
    while index < len(text):
        length, counts = _unit(text, index, quote)
        if counts and wanted == 0:
            return index
        wanted -= counts
        index += length
    return start


def _unit(text: str, index: int, quote: str) -> tuple[int, bool]:
    """How many characters of the file stand for the next one of the value, and whether it is visible."""
    if quote == "'" and text.startswith("''", index):
        return 2, True
    if quote == '"' and text[index] == "\\":
        letter = text[index + 1 : index + 2]
        return {"x": 4, "u": 6, "U": 10}.get(letter, 2), letter not in (*"ntr \n\r", "_")
    return 1, not text[index].isspace()
