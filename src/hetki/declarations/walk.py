"""Walk: a tree against the type of a spec, collecting every fault at its place.

Types known here are those that specs use: text, numbers, booleans, literals, lists, mappings, structs,
`object` (any plain data) and unions that can be told apart by the kind of the node.
"""

from __future__ import annotations

import functools

from msgspec import inspect

from hetki.declarations.tree import Kind, Node
from hetki.errors import Fault, nearest, shown

#: More faults in one file than this help nobody.
FAULTS_MAX = 100

#: No declaration that a person writes is longer; what reads texts and lists further on may rely on it.
TEXT_CHARS_MAX = 2_000
ENTRIES_MAX = 1_000

#: Plain data, as `msgspec.convert` takes it; lists and mappings hold the same.
Plain = object


def walk(node: Node, spec: inspect.Type, faults: list[Fault], name: str = "") -> Plain:
    """Plain data of the shape `spec`; what does not fit appends faults and gives `None` instead."""
    if node.kind == "broken" or len(faults) >= FAULTS_MAX:
        return None
    n_entries = len(node.items) + len(node.entries)
    if n_entries > ENTRIES_MAX:
        faults.append(Fault(node.where, f"{n_entries} entries", f"at most {ENTRIES_MAX}"))
        return None
    if isinstance(node.scalar, str) and len(node.scalar) > TEXT_CHARS_MAX:
        got = f"{len(node.scalar)} characters"
        faults.append(Fault(node.where, got, f"a text of at most {TEXT_CHARS_MAX} characters"))
        return None
    fitting = next((each for each in _members(spec) if node.kind in _kinds(each)), None)
    if fitting is None:
        faults.append(Fault(node.where, _got(node, name), words(spec), _hint(node, spec)))
        return None
    if isinstance(fitting, inspect.StructType):
        return _struct(node, fitting, faults)
    if isinstance(fitting, inspect.DictType):
        return {key: walk(each, fitting.value_type, faults, key) for key, each in node.entries.items()}
    if isinstance(fitting, (inspect.ListType, inspect.VarTupleType)):
        return [walk(each, fitting.item_type, faults, f"{name}[{i}]") for i, each in enumerate(node.items)]
    if isinstance(fitting, (inspect.AnyType, inspect.CustomType)):
        return plain(node)
    if isinstance(fitting, inspect.LiteralType) and node.scalar not in fitting.values:
        hint = nearest(str(node.scalar), [str(each) for each in fitting.values])
        faults.append(Fault(node.where, _got(node, name), words(spec), hint))
        return None
    return node.scalar


def plain(node: Node) -> Plain:
    """Whatever stands there, as plain data."""
    if node.kind == "map":
        return {key: plain(each) for key, each in node.entries.items()}
    return [plain(each) for each in node.items] if node.kind == "list" else node.scalar


def _struct(node: Node, spec: inspect.StructType, faults: list[Fault]) -> Plain:
    fields = {each.encode_name: each for each in spec.fields}
    values = {}
    for key, child in node.entries.items():
        if key in fields:
            values[key] = walk(child, fields[key].type, faults, key)
        elif len(faults) < FAULTS_MAX:
            must = f"a field of {_article(spec.cls.__name__)}"
            hint = nearest(key, fields) or "known are " + ", ".join(repr(each) for each in sorted(fields))
            faults.append(Fault(child.key_where, f"the unknown field {shown(key)}", must, hint))
    for key, each in fields.items():
        if each.required and key not in node.entries and len(faults) < FAULTS_MAX:
            faults.append(Fault(node.where, f"no {key!r}", f"given: {words(each.type)}"))
    return values


def _members(spec: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(spec, inspect.Metadata):
        return _members(spec.type)
    return spec.types if isinstance(spec, inspect.UnionType) else (spec,)


@functools.cache
def _kind_table() -> dict[type[inspect.Type], tuple[Kind, ...]]:
    return {
        inspect.StrType: ("text",),
        inspect.IntType: ("integer",),
        inspect.FloatType: ("integer", "number"),
        inspect.BoolType: ("boolean",),
        inspect.NoneType: ("nothing",),
        inspect.ListType: ("list",),
        inspect.VarTupleType: ("list",),
        inspect.DictType: ("map",),
        inspect.StructType: ("map",),
        inspect.AnyType: ("nothing", "text", "integer", "number", "boolean", "list", "map"),
        inspect.CustomType: ("nothing", "text", "integer", "number", "boolean", "list", "map"),
    }


def _kinds(spec: inspect.Type) -> tuple[Kind, ...]:
    if isinstance(spec, inspect.LiteralType):
        return ("text",) if isinstance(spec.values[0], str) else ("integer",)
    table = _kind_table()
    assert type(spec) in table, f"{spec} is not a type that declarations use"
    return table[type(spec)]


def words(spec: inspect.Type) -> str:
    """What a spec's type must be, for a reader who knows no Python."""
    if isinstance(spec, inspect.Metadata) and "description" in (spec.extra_json_schema or {}):
        return str((spec.extra_json_schema or {})["description"])
    if isinstance(spec, inspect.LiteralType):
        return "one of " + ", ".join(repr(each) for each in spec.values)
    if isinstance(spec, (inspect.ListType, inspect.VarTupleType)):
        return f"a list of {words(spec.item_type)}"
    if isinstance(spec, inspect.DictType):
        return f"a mapping of names to {words(spec.value_type)}"
    if isinstance(spec, inspect.StructType):
        required = [each.encode_name for each in spec.fields if each.required]
        return "a mapping" + (f" with {', '.join(required)}" if required else "")
    if isinstance(spec, (inspect.UnionType, inspect.Metadata)):
        return " or ".join(words(each) for each in _members(spec) if not isinstance(each, inspect.NoneType))
    simple = {inspect.StrType: "text", inspect.IntType: "a whole number", inspect.FloatType: "a number"}
    return simple.get(type(spec), "true or false" if isinstance(spec, inspect.BoolType) else "a value")


def _article(name: str) -> str:
    word = name.removesuffix("Spec").lower()
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _got(node: Node, name: str) -> str:
    value = {"map": "a mapping", "list": "a list", "nothing": "nothing"}.get(node.kind) or shown(node.scalar)
    return f"{name}: {value}" if name else value


def _hint(node: Node, spec: inspect.Type) -> str:
    wanted = {kind for each in _members(spec) for kind in _kinds(each)}
    if "text" in wanted and node.kind in ("integer", "number", "boolean"):
        return "put it in quotes"
    if node.kind == "text" and wanted & {"integer", "number"} and str(node.scalar)[:1].isdigit():
        return "write the number alone, without quotes and unit"
    if "list" in wanted and node.kind not in ("list", "map", "nothing"):
        return f"write it as a list: [{node.scalar}]"
    if "map" in wanted and node.kind == "text" and isinstance(node.scalar, str) and ":" in node.scalar:
        return "put a space after the colon"
    return ""
