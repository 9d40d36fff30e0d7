"""Fields: a lazy view of one event's values, by the names that declarations use.

`properties` and `context` stay bytes until the first field of theirs is asked for, and are parsed once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Callable, Final, Mapping

import msgspec

from hetki.events.catalogue import MEMBER
from hetki.events.event import Event, instant

_DECODE: Final = msgspec.json.decode


class Fields:
    """What conditions read of an event: built-ins first, then `properties`. An absent field is `None`.

    >>> event = Event("web", "m1", "web", "Help Searched", 0, 0, {}, b'{"n_results": 0}')
    >>> fields = Fields(event)
    >>> fields.get("n_results"), fields.get("channel"), fields.get("colour")
    (0, 'web', None)
    """

    __slots__ = ("_context", "_event", "_properties")

    def __init__(self, event: Event) -> None:
        self._event = event
        self._properties: dict[str, object] | None = None
        self._context: dict[str, object] | None = None

    def get(self, name: str) -> object:
        """The value of a field as it was sent (a built-in `occurred_at` is an instant)."""
        built_in = _BUILT_IN.get(name)
        if built_in is not None:
            return built_in(self)
        properties = self._properties
        if properties is None:
            properties = self._properties = json_object(self._event.properties)
        return properties.get(name)

    def of_context(self, *path: str) -> object:
        """The value under `path` in the event's context, `None` if anything on the way is missing."""
        value: object = self._context
        if value is None:
            value = self._context = json_object(self._event.context)
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def event(self) -> Event:
        """The event that is viewed."""
        return self._event


class MemberFields(Fields):
    """The fields of an event of one of several people; `member` says whose it is.

    >>> MemberFields(Event("web", "m1", "web", "Signed In", 0, 0, {}), "00ff").get("member")
    '00ff'
    """

    __slots__ = ("_member",)

    def __init__(self, event: Event, member: str) -> None:
        super().__init__(event)
        self._member = member

    def get(self, name: str) -> object:
        """The value of a field, or who the member is."""
        return self._member if name == MEMBER else super().get(name)


_BUILT_IN: Final[dict[str, Callable[[Fields], object]]] = {
    "channel": lambda fields: fields.event.channel,
    "source": lambda fields: fields.event.source,
    "device": lambda fields: fields.of_context("device", "type"),
    "locale": lambda fields: fields.of_context("locale"),
    "page_path": lambda fields: fields.of_context("page", "path"),
    "occurred_at": lambda fields: fields.event.occurred_at,
}


def json_object(raw: bytes) -> dict[str, object]:
    """A JSON object; anything else reads as an object without fields."""
    try:
        value = _DECODE(raw)
    except msgspec.DecodeError:
        return {}
    return value if type(value) is dict else {}


def part_of(values: Mapping[str, object], name: str) -> object:
    """A value by its name; one with a dot may be a part of an object. `None` if it is not there.

    >>> part_of({"address": {"street": "Katu 1"}}, "address.street"), part_of({"a.b": 1}, "a.b")
    ('Katu 1', 1)
    """
    head, dot, rest = name.partition(".")
    if name in values or not dot:
        return values.get(name)
    inner = values.get(head)
    return part_of(inner, rest) if isinstance(inner, dict) else None


def instant_of(value: object) -> int | None:
    """A time as it stands in a field (ISO 8601 text, UTC if it names no zone) as an instant, else `None`.

    >>> instant_of("1970-01-01T00:00:01Z"), instant_of("1970-01-01T02:00+02:00"), instant_of("soon")
    (1000000, 0, None)
    """
    if type(value) is not str or len(value) > 40:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
