"""Naming: the keyed hashes of everything by which an event, or a rejected body, may name somebody."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from hetki.events.event import Event
from hetki.identity.identifier import BUILT_IN, NodeId, identifier, leaf_of
from hetki.identity.link import told_in_context

#: What parts the words of a text that is no JSON, as a row of a file is none.
_APART = re.compile(r"[\s,;|\"'<>]+")
#: Each name in an event: where it stands -> what it may name.
_NAMES = {
    "user_id": ("user_id",),
    "anonymous_id": ("anonymous_id",),
    "record_id": ("record",),
    "previous_id": ("user_id", "anonymous_id"),
    "email": ("email",),
    "phone": ("phone",),
}


def nodes_of(key: bytes, event: Event) -> list[NodeId]:
    """Every identifier that an event names, those included that an alias only mentions; its leaf first."""
    found = [leaf_of(key, event).node]
    for name, value in event.identifiers.items():
        for namespace in _NAMES.get(name, ()):
            named = identifier(key, namespace, value)
            if named is not None:
                found.append(named.node)
    for _, namespace, value in told_in_context(event):
        named = identifier(key, namespace, value)
        if named is not None:
            found.append(named.node)
    return found


def nodes_called(key: bytes, value: str) -> set[NodeId]:
    """Every identifier of a built-in namespace that a value could be."""
    found = (identifier(key, namespace, value) for namespace in BUILT_IN)
    return {each.node for each in found if each is not None}


def nodes_in(key: bytes, body: bytes) -> set[NodeId]:
    """Every identifier of a built-in namespace that any text or number in a body could be.

    A body that is no JSON is cut into words.
    """
    texts: set[str] = set()
    try:
        texts.update(_texts(msgspec.json.decode(body)))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        texts.add(body.decode(errors="replace"))
    texts |= {word for text in texts for word in _APART.split(text)}
    return {node for text in texts for node in nodes_called(key, text)}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, (str, int, float)):
        yield str(value)
