"""Node: a piece of a declaration together with its place in the file. What parsers give and `walk` takes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from hetki.errors import Fault

#: `broken` is a piece that already has its fault; nothing more is said about it.
Kind = Literal["nothing", "text", "integer", "number", "boolean", "list", "map", "broken"]
Scalar = str | int | float | bool | None

_POSITION = re.compile(r"(.*?):(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Node:
    """One value. `where` is its place, `key_where` the place of the key that leads to it.

    `index` counts characters from the start of the file to the value; -1 if the format has no positions.
    """

    kind: Kind
    where: str
    key_where: str = ""
    index: int = -1
    scalar: Scalar = field(default=None, repr=False)
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)

    def child(self, key: str | int) -> Node | None:
        """The entry or item under `key`, if there is one."""
        if isinstance(key, int):
            return self.items[key] if 0 <= key < len(self.items) else None
        return self.entries.get(key)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file as a tree, or no tree and the faults that prevented it."""

    root: Node | None
    faults: list[Fault]


def in_order(faults: list[Fault]) -> list[Fault]:
    """Faults by file, line and column; those of one place stay as they were found."""

    def position(fault: Fault) -> tuple[str, int, int]:
        found = _POSITION.fullmatch(fault.where)
        return (found[1], int(found[2]), int(found[3])) if found else (fault.where.split(":")[0], 0, 0)

    return sorted(faults, key=position)


def place(path: str, text: str, index: int) -> str:
    """`path:line:column`, both counted from 1, of a character."""
    before = text[:index].replace("\r\n", "\n").replace("\r", "\n")
    line_start = before.rfind("\n") + 1
    return f"{path}:{before.count(chr(10)) + 1}:{len(before) - line_start + 1}"
