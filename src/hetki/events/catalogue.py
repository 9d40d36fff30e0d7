"""Catalogue: the names and typed fields of events. Shipped with Segment's specs; a project may add to it.

The shipped table is in `catalogue_table`. Fields stand in an event's `properties`; the built-ins are read
from the event itself and its `context`.
"""

from __future__ import annotations

from typing import Iterable, Literal

import msgspec

from hetki.errors import Fault, Invalid, shown
from hetki.events.catalogue_table import TABLE

FieldType = Literal["text", "number", "integer", "boolean", "time", "list", "object"]

BUILT_IN: dict[str, FieldType] = {
    "channel": "text",
    "source": "text",
    "device": "text",
    "locale": "text",
    "page_path": "text",
    "occurred_at": "time",
}

#: In moments about accounts every event has this field, too: the customer whose event it is.
MEMBER = "member"

#: Types of fields with values inside that no catalogue knows: they are never free.
NESTED: tuple[FieldType, ...] = ("list", "object")

_LETTERS: dict[str, FieldType] = {
    "n": "number",
    "i": "integer",
    "b": "boolean",
    "t": "time",
    "l": "list",
    "o": "object",
}


class EventSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `events/*.yaml`: an event's name, its fields, which of them are personal data, and which are free:
    they may be shown to anybody. What neither names is personal."""

    event: str
    title: str = ""
    fields: dict[str, FieldType] = {}
    personal: list[str] = []
    free: list[str] = []

    @property
    def unsaid(self) -> list[str]:
        """The fields that are personal by default: nobody said what they are."""
        return [name for name in self.fields if name not in self.personal and name not in self.free]


class Catalogue(msgspec.Struct, frozen=True):
    """Every known event by name."""

    events: dict[str, EventSpec]

    def field_type(self, event: str, field: str) -> FieldType | None:
        """The type of a field of an event, built-ins included; `None` if either is unknown.

        >>> SHIPPED.field_type("Order Completed", "total"), SHIPPED.field_type("Order Completed", "channel")
        ('number', 'text')
        """
        spec = self.events.get(event)
        return None if spec is None else BUILT_IN.get(field) or spec.fields.get(field)

    def is_free(self, event: str, field: str) -> bool:
        """Whether a field may be shown to anybody: only what was declared so, and never built-ins.

        >>> SHIPPED.is_free("Help Searched", "n_results"), SHIPPED.is_free("Help Searched", "query")
        (True, False)
        """
        spec = self.events.get(event)
        return spec is not None and field in spec.fields and field in spec.free

    def fields(self, event: str) -> list[str]:
        """The names of an event's fields, built-ins last; empty for an unknown event."""
        spec = self.events.get(event)
        return [] if spec is None else [*spec.fields, *BUILT_IN]

    def with_members(self) -> Catalogue:
        """This catalogue for moments about accounts: every event says whose it is."""
        return Catalogue(
            {
                name: msgspec.structs.replace(spec, fields={**spec.fields, MEMBER: "text"})
                for name, spec in self.events.items()
            }
        )

    def extended(self, specs: Iterable[EventSpec]) -> Catalogue:
        """This catalogue with more events, and with more fields for the events it has.

        Raises `Invalid` with every field that would change its type or shadow a built-in.
        """
        events, faults = dict(self.events), []
        for spec in specs:
            known = events.get(spec.event, EventSpec(spec.event))
            faults.extend(clashes(known, spec))
            personal = {*known.personal, *spec.personal}
            events[spec.event] = EventSpec(
                spec.event,
                spec.title or known.title,
                {**known.fields, **spec.fields},
                sorted(personal),
                sorted({*known.free, *spec.free} - personal),
            )
        if faults:
            raise Invalid(*faults)
        return Catalogue(events)


def clashes(known: EventSpec, added: EventSpec) -> list[Fault]:
    """What forbids to add the fields of `added` to those of `known`; `where` is `Event Name.field`, and of a
    field that is said to be free `Event Name.free.field`."""
    faults = []
    for name, kind in added.fields.items():
        before = BUILT_IN.get(name) or known.fields.get(name)
        if name in BUILT_IN or name == MEMBER:
            must = "another name, as every event has a built-in field of this name"
            faults.append(Fault(f"{added.event}.{name}", shown(name), must))
        elif before is not None and before != kind:
            faults.append(Fault(f"{added.event}.{name}", kind, f"{before}, as the catalogue has it"))
    for name in added.personal:
        if name not in known.fields and name not in added.fields:
            faults.append(Fault(f"{added.event}.{name}", shown(name), "a field of this event to be personal"))
    fields = {**known.fields, **added.fields}
    for name in added.free:
        where = f"{added.event}.free.{name}"
        if name not in fields:
            faults.append(Fault(where, shown(name), "a field of this event to be free"))
        elif name in known.personal or name in added.personal:
            faults.append(Fault(where, shown(name), "a field that is not personal"))
        elif fields[name] in NESTED:
            hint = "nobody has declared what is inside"
            faults.append(Fault(where, fields[name], "a field with one value to be free", hint))
    return faults


def parse_table(table: str) -> Catalogue:
    """A table in the short form of `catalogue_table`: `Event Name: field field:n field! @group`.

    A line that starts with two spaces continues the one before.
    """
    groups: dict[str, list[str]] = {}
    events: dict[str, EventSpec] = {}
    for line in table.replace("\n  ", " ").splitlines():
        name, colon, rest = line.partition(":")
        if not colon or line.startswith("#"):
            continue
        words = [word for each in rest.split() for word in groups.get(each, [each])]
        if name.startswith("@"):
            groups[name] = words
            continue
        fields: dict[str, FieldType] = {}
        for word in words:
            field, _, letter = word.rstrip("!").partition(":")
            fields[field] = _LETTERS[letter] if letter else "text"
        personal = sorted(word.rstrip("!").partition(":")[0] for word in words if word.endswith("!"))
        free = sorted(field for field, kind in fields.items() if field not in personal and kind not in NESTED)
        events[name] = EventSpec(name, name, fields, personal, free)
    return Catalogue(events)


SHIPPED = parse_table(TABLE)
