"""Mapping: a declaration that turns the rows of a file into calls of the tracking API.

A row becomes one `track` call, read by `segment.py` like any that arrives by the wire: one set of rules. Here
are only values; files are read in `hetki.store.rows`, and `hetki.engine.importing` puts the two together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from hetki.declarations.read import Declared
from hetki.declarations.tree import in_order
from hetki.errors import Fault, nearest, shown
from hetki.events.catalogue import Catalogue, FieldType
from hetki.events.event import IDENTIFIED
from hetki.events.mapping_values import FORMATS, TimeColumn, read_identifier, read_time, read_value, value_of

#: The `type` of a kept row that is no event yet: so it is not replayed by chance before it is repaired.
ROW: Final = "row"
REPAIR_HINT: Final = 'repair the value, set "type" to "track", then replay it'

_IMPORT: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


class EventColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The event's name from a column; `names` are the catalogue's names for the values in it."""

    column: str
    names: dict[str, str] = {}


class TypedColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A property from a column, with a type of its own instead of the catalogue's."""

    column: str
    type: FieldType


class MapSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One map of `hetki import FILE --map MAP`: which columns are what.

    `event` is a name or a column. Without `message_id` an event is known by the file's content and its
    row's number; with it, by these columns in every file. `import` is part of that identity: two maps may
    make two events of one row. A column `a.b` is the member `b` of the object `a`.
    """

    name: str = msgspec.field(name="import")
    source: str
    event: str | EventColumn
    occurred_at: str | TimeColumn
    message_id: list[str] = []
    user_id: str = ""
    anonymous_id: str = ""
    email: str = ""
    phone: str = ""
    properties: dict[str, str | TypedColumn] = {}
    context: dict[str, str] = {}
    delimiter: str = ","
    encoding: Literal["utf-8", "windows-1252"] = "utf-8"


@dataclass(frozen=True, slots=True)
class Plan:
    """A map that passed its checks. `properties` are (name, column, type); `columns` all that it reads."""

    spec: MapSpec
    event: EventColumn | None
    time: TimeColumn
    properties: tuple[tuple[str, str, FieldType | None], ...]
    columns: frozenset[str]
    declared: Declared[MapSpec]


def compile_map(
    declared: Declared[MapSpec], catalogue: Catalogue, sources: Collection[str]
) -> tuple[Plan | None, list[Fault]]:
    """A map as it was read, checked against the project: the plan, or every fault with its place."""
    spec = declared.value
    if spec is None:
        return None, list(declared.faults)
    faults: list[Fault] = []
    where = declared.where
    if not _IMPORT.fullmatch(spec.name):
        must = "a name of small letters, digits and _, such as old_orders"
        faults.append(Fault(where("import"), shown(spec.name), must))
    if spec.source not in sources:
        hint = nearest(spec.source, sources)
        faults.append(Fault(where("source"), shown(spec.source), "a declared source", hint))
    if len(spec.delimiter) != 1 or spec.delimiter in '"\r\n':
        faults.append(Fault(where("delimiter"), shown(spec.delimiter), "one character, such as ';'"))
    if not spec.user_id and not spec.anonymous_id:
        hint = "every event says whose it is"
        faults.append(Fault(where(), "neither user_id nor anonymous_id", "the column of at least one", hint))
    event = spec.event if isinstance(spec.event, EventColumn) else None
    named: dict[str, str] = {}
    if isinstance(spec.event, str):
        named[spec.event] = where("event")
    else:
        named.update((name, where("event", "names", value)) for value, name in spec.event.names.items())
    for name, place in named.items():
        if name not in catalogue.events:
            hint = nearest(name, catalogue.events) or "add it in events/"
            faults.append(Fault(place, shown(name), "an event of the catalogue", hint))
    at = spec.occurred_at if isinstance(spec.occurred_at, TimeColumn) else TimeColumn(spec.occurred_at)
    faults.extend(_time_faults(at, lambda key: where("occurred_at", key)))
    properties = tuple(
        (name, each.column, each.type)
        if isinstance(each, TypedColumn)
        else (name, each, _type_of(catalogue, named, name))
        for name, each in spec.properties.items()
    )
    columns = {column for column, _ in _used(spec)}
    plan = Plan(spec, event, at, properties, frozenset(columns), declared)
    return (None if faults else plan), in_order(faults)


def missing_columns(plan: Plan, known: Collection[str]) -> list[Fault]:
    """A fault for each column that the map names and the file does not have."""
    faults = []
    for column, keys in _used(plan.spec):
        if column not in known and column.partition(".")[0] not in known:
            where = plan.declared.where(*keys)
            faults.append(Fault(where, shown(column), "a column of the file", nearest(column, known)))
    return faults


def call(plan: Plan, values: Mapping[str, object], row_id: str, faults: list[Fault]) -> dict[str, object]:
    """The row as a `track` call. What breaks a rule is added to `faults` and stands in the call as it was.

    `row_id` is the message id where the map names none. A fault's `where` is `column NAME`.
    """
    spec = plan.spec
    n_before = len(faults)
    name = spec.event if isinstance(spec.event, str) else _name(spec.event, values, faults)
    made: dict[str, object] = {
        "type": "track",
        "messageId": _message_id(spec.message_id, values, faults) if spec.message_id else row_id,
        "event": name,
        "timestamp": read_time(plan.time, values, faults),
    }
    for key, column in (("userId", spec.user_id), ("anonymousId", spec.anonymous_id)):
        if column and (text := read_identifier(column, values, faults)):
            made[key] = text
    properties: dict[str, object] = {}
    for target, column, kind in plan.properties:
        value = read_value(column, kind, values, faults)
        if value is not None:
            properties[target] = value
    context = _context(spec.context, values, faults)
    for key, column in (("email", spec.email), ("phone", spec.phone)):
        if column and (text := read_identifier(column, values, faults)):
            if name == IDENTIFIED:
                properties.setdefault(key, text)
            else:
                traits = context.setdefault("traits", {})
                assert isinstance(traits, dict)
                traits[key] = text
    made["properties"] = properties
    if context:
        made["context"] = context
    if len(faults) > n_before:
        made["type"] = ROW
    return made


def column_of(plan: Plan, field: str) -> str:
    """The column that a field of a call comes from; "" if it is none or several."""
    spec = plan.spec
    event = spec.event.column if isinstance(spec.event, EventColumn) else ""
    of = {
        "userId": spec.user_id or spec.anonymous_id,
        "anonymousId": spec.anonymous_id,
        "messageId": ", ".join(spec.message_id),
        "event": event,
        "timestamp": plan.time.column,
    }
    return of.get(field, "")


def _used(spec: MapSpec) -> list[tuple[str, tuple[str | int, ...]]]:
    """Every column that a map names, with the keys under which it does."""
    used: list[tuple[str, tuple[str | int, ...]]] = []
    if isinstance(spec.event, EventColumn):
        used.append((spec.event.column, ("event", "column")))
    if isinstance(spec.occurred_at, TimeColumn):
        used.append((spec.occurred_at.column, ("occurred_at", "column")))
    else:
        used.append((spec.occurred_at, ("occurred_at",)))
    used += [(column, ("message_id", number)) for number, column in enumerate(spec.message_id)]
    for key in ("user_id", "anonymous_id", "email", "phone"):
        if column := getattr(spec, key):
            used.append((column, (key,)))
    for name, each in spec.properties.items():
        is_typed = isinstance(each, TypedColumn)
        keys = ("properties", name, "column") if is_typed else ("properties", name)
        used.append((each.column if isinstance(each, TypedColumn) else each, keys))
    used += [(column, ("context", path)) for path, column in spec.context.items()]
    return used


def _type_of(catalogue: Catalogue, events: Collection[str], field: str) -> FieldType | None:
    """The type that the catalogue has for a field in these events; None if it has none, or several."""
    kinds = {kind for event in events if (kind := catalogue.field_type(event, field))}
    return kinds.pop() if len(kinds) == 1 else None


def _time_faults(at: TimeColumn, where: Callable[[str], str]) -> list[Fault]:
    faults = []
    if at.format not in FORMATS:
        probe = datetime(2026, 3, 2, 10, 11, 12, tzinfo=UTC)
        try:
            datetime.strptime(probe.strftime(at.format), at.format)
        except ValueError:
            is_known = False
        else:
            is_known = "%" in at.format
        if not is_known:
            must = "iso, unix_s, unix_ms or a pattern such as %d.%m.%Y %H:%M"
            faults.append(Fault(where("format"), shown(at.format), must, nearest(at.format, FORMATS)))
    try:
        ZoneInfo(at.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        faults.append(Fault(where("zone"), shown(at.zone), "a time zone such as Europe/Helsinki"))
    return faults


def _name(event: EventColumn, values: Mapping[str, object], faults: list[Fault]) -> str:
    value = value_of(values, event.column)
    text = value if isinstance(value, str) else "" if value is None else str(value)
    if not event.names and text:
        return text
    if text not in event.names:
        got = shown(text) if text else "nothing"
        hint = nearest(text, event.names)
        faults.append(Fault(f"column {event.column}", got, "a value that the map names an event for", hint))
    return event.names.get(text, text)


def _message_id(columns: list[str], values: Mapping[str, object], faults: list[Fault]) -> str:
    parts = [read_identifier(column, values, faults) for column in columns]
    for column, part in zip(columns, parts, strict=True):
        if not part:
            faults.append(Fault(f"column {column}", "nothing", "a value that makes the message id"))
    return ":".join(parts)


def _context(
    paths: Mapping[str, str], values: Mapping[str, object], faults: list[Fault]
) -> dict[str, object]:
    """Values at dotted paths: `device.type` becomes `{"device": {"type": ...}}`."""
    context: dict[str, object] = {}
    for path, column in paths.items():
        value = read_value(column, None, values, faults)
        if value is not None:
            *above, last = path.split(".")
            place = context
            for part in above:
                inner = place.setdefault(part, {})
                if not isinstance(inner, dict):
                    inner = place[part] = {}
                place = inner
            place[last] = value
    return context
