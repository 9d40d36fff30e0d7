"""Free: of an event's values those that may be shown to anybody. All others are personal data.

What is not declared is personal: an event that no catalogue knows, a field that nobody called free, what is
inside lists and objects, a value of another type than the declared one, and whatever repeats an identifier.
"""

from __future__ import annotations

from collections.abc import Collection

from hetki.events.catalogue import Catalogue, FieldType
from hetki.events.fields import instant_of, json_object

_KINDS: dict[FieldType, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
}


def free_fields(
    catalogue: Catalogue, event: str, properties: bytes, identifiers: Collection[str]
) -> dict[str, object] | None:
    """The free fields of an event by name; None if the catalogue does not know the event, so that not even
    its name may be shown.

    `properties` are JSON as received, `identifiers` the names of whom it is about. A text in which one of
    them stands is not free, whatever its field is: senders put addresses where they do not belong.
    """
    if event not in catalogue.events:
        return None
    names = [each.casefold() for each in identifiers if each]
    found: dict[str, object] = {}
    for field, value in json_object(properties).items():
        kind = catalogue.field_type(event, field)
        if kind is not None and catalogue.is_free(event, field) and _is(value, kind):
            if not _repeats(value, names):
                found[field] = value
    return found


def _is(value: object, kind: FieldType) -> bool:
    if kind == "time":
        return isinstance(value, str) and instant_of(value) is not None
    return isinstance(value, _KINDS.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool))


def _repeats(value: object, names: Collection[str]) -> bool:
    if isinstance(value, str):
        text = value.casefold()
        return any(name in text for name in names)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    is_whole = isinstance(value, float) and value.is_integer()  # 4711.0 is the name 4711, too
    digits = f"{value:.0f}" if is_whole else str(value)
    return digits in names or f"+{digits}" in names
