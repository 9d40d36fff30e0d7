"""Rights: what staff enter for a customer by GDPR articles 16, 18 and 21, as events in the journal.

Each leaf of the customer gets the event, so that an unmerge leaves every part what was asked for it. The
events lie under the keys of these leaves: a replay needs no more, and an erasure takes them along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Final

import msgspec

from hetki.consent.purpose import Purpose
from hetki.consent.statements import LIFTED, OBJECTED, RESTRICTED
from hetki.engine.project import Project
from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events.event import IDENTIFIED, OWN_SOURCE, Event, LeafId
from hetki.events.fields import instant_of
from hetki.events.wire import Parsed
from hetki.identity.survival import CHARS_MAX, REACH, Scalar, plain
from hetki.store.identity_views import Named
from hetki.store.ports import Chance, Clock
from hetki.store.staff import checked_name
from hetki.store.views import Views

#: By what an event names a leaf of each namespace, best known first.
NAMES: Final = {"user_id": "user_id", "anonymous_id": "anonymous_id", "record": "record_id", "event": "event"}
REASON_CHARS_MAX: Final = 500

_encode = msgspec.json.Encoder().encode


class Entered(msgspec.Struct, frozen=True):
    """One thing that is entered for a customer: the event's name, and its properties."""

    name: str
    properties: dict[str, object]
    is_for_all: bool = True


def restriction(said_by: str, reason: str = "", lifts: bool = False) -> Entered:
    """All processing but storing is to end (article 18), or may go on again."""
    return Entered(LIFTED if lifts else RESTRICTED, _said(said_by, reason))


def objection(purposes: Mapping[str, Purpose], purpose: str, said_by: str, reason: str = "") -> Entered:
    """The customer objects to a purpose, or ("") to all that may be objected to (article 21).

    Raises `Invalid` for a purpose that is not declared, or that may not be objected to, and where none may.
    """
    said = _said(said_by, reason)
    if not purpose:
        if not any(each.may_be_objected_to for each in purposes.values()):
            must = "one that may be objected to: of legitimate interests, public task or marketing"
            raise Invalid(Fault("purpose", "none", must, "name one, or hetki restrict ends all processing"))
        return Entered(OBJECTED, said)
    given = purposes.get(purpose)
    if given is None:
        raise Invalid(Fault("purpose", shown(purpose), "a declared purpose", nearest(purpose, purposes)))
    if given.basis != "consent" and not given.may_be_objected_to:
        got = f"{shown(purpose)}, whose basis is {given.basis.replace('_', ' ')}"
        must = "a purpose of legitimate interests, public task, consent or marketing"
        raise Invalid(Fault("purpose", got, must, "hetki restrict ends all processing"))
    return Entered(OBJECTED, {"purpose": purpose, **said})


def correction(project: Project, trait: str, text: str | None, said_by: str) -> Entered:
    """A trait is to be what a text says, whatever sources tell (article 16); None takes corrections back.

    Raises `Invalid` for a trait that the catalogue does not know, or a text that is not of its type.
    """
    fields = {**dict.fromkeys(sorted(REACH), "text"), **project.catalogue.events[IDENTIFIED].fields}
    head, dot, _ = trait.partition(".")
    kind = fields.get(trait) or ("text" if dot and fields.get(head) == "object" else None)
    said = {"rectified_by": checked_name(said_by, "--by"), "method": "staff"}
    if kind is None or kind in ("list", "object") or trait in said:
        must = "a trait of the catalogue with one plain value"
        raise Invalid(Fault("trait", shown(trait), must, nearest(trait, fields)))
    value = None if text is None else _value(trait, kind, text)
    return Entered(IDENTIFIED, {trait: value, **said}, is_for_all=text is None)


def leaves_of(views: Views, customer: LeafId) -> list[Named]:
    """The identifiers of a customer, as `enter` takes them."""
    return list(views.identities.nodes(views.state.members([customer]).get(customer, {})).values())


def enter(
    accept: Callable[[Sequence[Parsed]], int],
    clock: Clock,
    chance: Chance,
    leaves: Sequence[Named],
    entered: Entered,
) -> int:
    """Make it durable for these leaves of a customer; return the position in the journal.

    A correction is told once, to the leaf that is known best: after an unmerge it stays there.
    """
    known = sorted(
        (each for each in leaves if each.namespace in NAMES),
        key=lambda each: (list(NAMES).index(each.namespace), each.value),
    )
    now = clock.now()
    events = [
        Event(
            source=OWN_SOURCE,
            message_id=chance.bytes(16).hex(),
            channel=OWN_SOURCE,
            name=entered.name,
            occurred_at=now,
            received_at=now,
            identifiers={NAMES[each.namespace]: each.value},
            properties=_encode(entered.properties),
        )
        for each in (known if entered.is_for_all else known[:1])
    ]
    return accept([Parsed(events, [])])


def _said(said_by: str, reason: str) -> dict[str, object]:
    name, why = checked_name(said_by, "--by"), " ".join(reason.split())
    if len(why) > REASON_CHARS_MAX:
        raise Invalid(Fault("reason", f"{len(why)} characters", f"at most {REASON_CHARS_MAX}"))
    return {"said_by": name, "method": "staff", **({"reason": why} if why else {})}


def _value(trait: str, kind: str, text: str) -> Scalar:
    """A text as a value of a type. Raises `Invalid`."""
    value: object = text
    if kind in ("number", "integer", "boolean"):
        try:
            value = msgspec.convert(
                text, {"number": float, "integer": int, "boolean": bool}[kind], strict=False
            )
        except msgspec.ValidationError:
            value = None
        if isinstance(value, float) and not isfinite(value):
            value = None  # as JSON it would be null, which takes corrections back
    elif kind == "time" and instant_of(text) is None:
        value = None
    found = plain(value)
    if found is None or found == "":
        must = f"a value of type {kind}, of at most {CHARS_MAX} characters"
        raise Invalid(Fault(trait, shown(text), must))
    return found
