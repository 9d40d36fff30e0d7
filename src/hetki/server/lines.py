"""Lines: rows as pages show them: occurrences with what became of them, and one customer's story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from hetki.consent.purpose import Purpose
from hetki.consent.statements import Why, whole, why
from hetki.dialogues.explaining import chosen_words
from hetki.dialogues.message import Message
from hetki.dialogues.wording import Titles, reason_words, standing_words
from hetki.events.event import DELIVERED, OWN_SOURCE, Event
from hetki.events.fields import json_object
from hetki.moments.fold import Fact, Folded
from hetki.store.views import Handled, Views

#: Properties of an event that fit one line.
PROPERTIES_MAX = 6


class Line(msgspec.Struct, frozen=True):
    """An occurrence in one line. `why` and `chosen` are empty unless it was decided."""

    occurrence_id: str
    moment: str
    title: str
    customer: str
    name: str
    occurred_at: int
    handled_at: int | None
    status: str
    chosen: str
    is_answered: bool
    why: str
    decision_id: str


class Told(msgspec.Struct, frozen=True):
    """One entry of a customer's story: an event, an occurrence or a message."""

    occurred_at: int
    kind: str
    title: str
    channel: str = ""
    source: str = ""
    properties: list[tuple[str, object]] = []
    line: Line | None = None
    message: Message | None = None


class Standing(msgspec.Struct, frozen=True):
    """What a customer's word on a purpose is at present, and whether the purpose is in force."""

    purpose: str
    title: str
    basis: str
    is_open: bool
    because: Why
    said: str
    stated_at: int | None
    until: int | None
    categories: list[str] | None = None


def lines(views: Views, titles: Titles, handled: Sequence[Handled]) -> list[Line]:
    """Occurrences as lines, with the best known name of each customer."""
    names = views.identities.names(each.customer for each in handled)
    return [_line(titles, each, names.get(each.customer, "")) for each in handled]


def _line(titles: Titles, handled: Handled, name: str) -> Line:
    decision = handled.decision
    chosen = why = decision_id = ""
    is_answered = False
    if decision is not None:
        chosen = chosen_words(decision, titles)
        is_answered = decision.send_at is not None
        why = reason_words(decision.reasons[0], titles)
        decision_id = decision.decision_id
    elif handled.status == "missed":
        why = "found when it had expired, so nothing was sent"
    return Line(
        handled.occurrence_id,
        handled.moment,
        titles.moments.get(handled.moment, handled.moment),
        handled.customer.hex(),
        name,
        handled.occurred_at,
        handled.handled_at,
        handled.status,
        chosen,
        is_answered,
        why,
        decision_id,
    )


def story(
    facts: Sequence[Fact], happened: Sequence[Line], messages: Sequence[Message], titles: Titles
) -> list[Told]:
    """Everything of a customer, newest first. Messages stand for the events that tell of them; what was
    entered for all identifiers of a customer at once is told once."""
    once = {_entered(fact.event) or fact.event_id: fact.event for fact in facts}
    events = sorted(once.values(), key=lambda event: event.order_key, reverse=True)
    told = [_event(event, titles) for event in events if event.name not in DELIVERED]
    told += [Told(line.occurred_at, "moment", line.title, line=line) for line in happened]
    told += [
        Told(
            each.sent_at or each.created_at,
            "message",
            titles.actions.get(each.action, each.action),
            channel=each.destination,
            message=each,
        )
        for each in messages
    ]
    return sorted(told, key=lambda each: -each.occurred_at)


def _entered(event: Event) -> object:
    """What was entered, and when; None of an event that a source sent."""
    return (event.name, event.occurred_at, event.properties) if event.source == OWN_SOURCE else None


def _event(event: Event, titles: Titles) -> Told:
    properties: list[tuple[str, object]] = [
        (name, value)
        for name, value in json_object(event.properties).items()
        if isinstance(value, str | int | float | bool)
    ]
    return Told(
        event.occurred_at,
        "event",
        event.name,
        channel=event.channel,
        source=titles.sources.get(event.source, event.source),
        properties=properties[:PROPERTIES_MAX],
    )


def standing(purposes: Mapping[str, Purpose], folded: Folded, now: int) -> list[Standing]:
    """The grants of a customer now: of joined identifiers the strictest word counts."""
    said = whole(folded.statements)
    found = []
    for name, purpose in purposes.items():
        because, statement = why(name, purpose, said, now), said.get(name)
        basis = purpose.basis.replace("_", " ")
        found.append(
            Standing(
                name,
                purpose.title,
                basis,
                because in ("granted", "basis"),
                because,
                standing_words(because, basis),
                statement.stated_at if statement else None,
                statement.until if statement else None,
                list(statement.categories) if statement and statement.categories is not None else None,
            )
        )
    return found
