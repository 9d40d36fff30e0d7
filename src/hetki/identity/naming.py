"""Naming: the keyed hashes of everything by which an event, or a rejected body, may name somebody."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import unquote

import msgspec

from hetki.events.event import Event
from hetki.identity.identifier import BUILT_IN, NodeId, identifier, leaf_of, normalised
from hetki.identity.link import told_in_context

#: What parts the words of a text that is no JSON, as a row of a file is none.
_APART = re.compile(r"[\s,;|\"'<>]+")
#: ... and what parts them in links and in broken JSON, but may also stand in an id.
_FINER = re.compile(r"[\s,;|\"'<>=&?:/#()\[\]{}]+")
_PHONE_BEGINS = frozenset("+(0123456789")
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
    """Every identifier of a built-in namespace that any text or number in a body could be, and every external
    id that it tells as events do."""
    found = {node for text in texts_in(body) for node in nodes_called(key, text)}
    for part in _parts(body):
        if isinstance(part, dict):
            kind, value = part.get("type"), part.get("id")
            if isinstance(kind, str) and isinstance(value, str):
                named = identifier(key, kind, value)
                found |= {named.node} if named is not None else set()
    return found


def texts_in(body: bytes) -> set[str]:
    """Every text and number in a body, and names of fields that are no plain words, whole and cut into words:
    a body may be no JSON, and an address may stand in a link."""
    texts: set[str] = set()
    for part in _parts(body):
        if isinstance(part, dict):
            texts.update(name for name in part if not name.isidentifier())
        elif isinstance(part, (str, int, float)):
            texts.add(str(part))
    texts |= {unquote(text) for text in texts if "%" in text}
    return texts.union(*(apart.split(text) for apart in (_APART, _FINER) for text in texts))


def is_told(texts: Iterable[str], values: Collection[str]) -> bool:
    """Whether one of these texts is one of these values of identifiers, which are in comparable form."""
    for text in map(str.strip, texts):
        if text in values or ("@" in text and normalised("email", text) in values):
            return True
        if text[:1] in _PHONE_BEGINS and normalised("phone", text) in values:
            return True
    return False


def _parts(body: bytes) -> Iterator[object]:
    """Every value in a body; all of it as one text if it is no JSON."""
    try:
        parts = [msgspec.json.decode(body)]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        parts = [body.decode(errors="replace")]
    while parts:
        part = parts.pop()
        yield part
        if isinstance(part, dict):
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
