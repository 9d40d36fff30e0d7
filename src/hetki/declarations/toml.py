"""TOML to a tree. Places are table and key names: `hetki.toml:[contact].cap`."""

from __future__ import annotations

import math
import re
import tomllib

from hetki.declarations.tree import Node, Parsed
from hetki.errors import Fault, shown
from hetki.settings import Limits

#: A key of n dotted names costs the parser n * n steps and bytes.
DOTS_MAX = 64

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)$")


def parse_toml(text: str, path: str) -> Parsed:
    """The tree of a TOML file; never raises. Broken TOML gives one fault at its place."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > DOTS_MAX:
            must = f"a line with at most {DOTS_MAX} dots"
            return Parsed(None, [Fault(f"{path}:{number}:1", f"{line.count('.')} dots", must)])
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = _POSITION.search(str(error))
        where = f"{path}:{found[1]}:{found[2]}" if found else path
        problem = _POSITION.sub("", str(error))
        return Parsed(None, [Fault(where, f"broken TOML ({shown(problem)})", "well-formed TOML")])
    faults: list[Fault] = []
    return Parsed(_node(tables, path, "", 0, faults), faults)


def _node(value: object, path: str, name: str, depth: int, faults: list[Fault]) -> Node:
    where = f"{path}:{name}" if name else path
    if depth > Limits().depth_max:
        faults.append(Fault(where, "deeper nesting", f"at most {Limits().depth_max} levels deep"))
        return Node("broken", where, where)
    if isinstance(value, dict):
        entries = {}
        for raw, each in value.items():
            key = raw if _BARE.fullmatch(raw) else shown(raw)
            inner = f"{name}.{key}" if name else f"[{key}]" if isinstance(each, dict) else key
            if isinstance(each, dict) and name:
                inner = f"{name[:-1]}.{key}]" if name.endswith("]") else f"{name}.{key}"
            entries[raw] = _node(each, path, inner, depth + 1, faults)
        return Node("map", where, where, entries=entries)
    if isinstance(value, list):
        items = [_node(each, path, f"{name}[{i}]", depth + 1, faults) for i, each in enumerate(value)]
        return Node("list", where, where, items=items)
    if isinstance(value, bool):
        return Node("boolean", where, where, scalar=value)
    if isinstance(value, int) and abs(value) < 10**18:
        return Node("integer", where, where, scalar=value)
    if isinstance(value, float) and math.isfinite(value):
        return Node("number", where, where, scalar=value)
    return Node("text", where, where, scalar=value if isinstance(value, str) else str(value))
