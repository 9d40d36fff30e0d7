"""Record: each statement of a customer as a record of consent, in the field names of ISO/IEC TS 27560:2023.

Records are made of the customer's events whenever they are asked for, one for each statement and purpose;
nothing is ever overwritten. docs/trust.md says field by field what is filled and what is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from hetki.consent.purpose import Basis, Controller, Purpose
from hetki.consent.statements import (
    ALL,
    GRANTED,
    SPOKEN,
    WITHDRAWN,
    NoEffect,
    Said,
    Statement,
    Statements,
    spoken,
    told_by,
)
from hetki.consent.vocabulary import DPV
from hetki.events.event import Event, utc
from hetki.events.fields import json_object

SCHEMA: Final = "ISO/IEC TS 27560:2023"
#: What speaks where no event of consent does.
SIGNAL: Final = "Sec-GPC"


class Record(msgspec.Struct, frozen=True):
    """One statement about one purpose. Down to `event_state` the names are the standard's; `said`, `source`,
    `received_at` and `no_effect` (why it changes nothing, "" if it counts) are ours."""

    schema_version: str
    record_id: str
    pii_principal_id: str
    privacy_notice: str
    purpose: str
    purpose_type: str
    lawful_basis: Basis | None
    pii_information: list[dict[str, str]]
    pii_controllers: list[dict[str, str]]
    collection_method: str
    event_time: str
    validity_duration: str
    entity_id: str
    event_type: str
    event_state: str
    said: str
    source: str
    received_at: str
    no_effect: NoEffect


class Declared(msgspec.Struct, frozen=True):
    """What the project declares: its purposes, and who answers for the data."""

    purposes: Mapping[str, Purpose]
    controller: Controller


def records(told: Iterable[tuple[str, str, Event]], declared: Declared) -> list[Record]:
    """The records of events in order, each with the words for its leaf and its id (hex).

    A header that repeats what it said is one record: whoever sends it sends it with every request.
    """
    found: list[Record] = []
    standing: dict[str, Statements] = {}
    for principal, event_id, event in told:
        if event.name not in SPOKEN and not event.gpc:
            continue
        before = {
            name: each
            for name, each in standing.get(principal, {}).items()
            if each.until is None or each.until > event.occurred_at  # what has ended stands no more
        }
        changed = spoken(event, declared.purposes, before)
        own = told_by(event, declared.purposes)
        named = {each.purpose for each in own if each.statement is not None}
        signalled = [Said(name, each) for name, each in changed.items() if name not in named]
        for said in signalled:
            found.append(_record(principal, event_id, event, said, SIGNAL, declared))
        for said in own:
            found.append(_record(principal, event_id, event, said, event.name, declared))
        standing[principal] = {**before, **changed}
    return found


def _record(principal: str, event_id: str, event: Event, said: Said, name: str, declared: Declared) -> Record:
    words = json_object(event.properties) if name != SIGNAL else {}
    purpose = declared.purposes.get(said.purpose)
    label = said.purpose or _text(words.get("purpose"))
    controller = declared.controller
    return Record(
        SCHEMA,
        _id(event_id, label, name),
        principal,
        _text(words.get("notice_version")),
        label,
        f"dpv:{purpose.dpv} (DPV {DPV})" if purpose and purpose.dpv else "",
        purpose.basis if purpose else None,
        [{"pii_type": each} for each in _categories(purpose, said.statement)],
        [
            {
                "party_name": controller.name,
                "party_role": "controller",
                "party_contact": controller.contact,
            }
        ],
        _text(words.get("method")) or ("signal" if name == SIGNAL else event.channel),
        utc(event.occurred_at).isoformat(),
        _validity(event, said.statement),
        _text(words.get("said_by")) or principal,
        _text(words.get("consent_type")),
        _state(name, said),
        name,
        event.source,
        utc(event.received_at).isoformat(),
        said.no_effect,
    )


def _id(event_id: str, label: str, name: str) -> str:
    """The event, the purpose, and whether it was the header: an event with one may say more of the same."""
    parts = [event_id, *([label] if label != ALL else []), *([name] if name == SIGNAL else [])]
    return ":".join(parts)


def _categories(purpose: Purpose | None, statement: Statement | None) -> list[str]:
    """The kinds of data that are opened, or that the purpose uses; none listed: any."""
    uses = purpose.categories if purpose else []
    if statement is None or statement.categories is None:
        return uses
    return [each for each in statement.categories if not uses or each in uses]


def _validity(event: Event, statement: Statement | None) -> str:
    """From when to when a grant holds, as an interval of ISO 8601; "" without an end."""
    if statement is None or statement.until is None:
        return ""
    return f"{utc(event.occurred_at).isoformat()}/{utc(statement.until).isoformat()}"


def _state(name: str, said: Said) -> str:
    if said.purpose == ALL:
        return ""  # a restriction is no word about consent
    if said.no_effect:
        return "dpv:ConsentInvalidated"
    if name == GRANTED:
        return "dpv:ConsentGiven"
    return "dpv:ConsentWithdrawn" if name == WITHDRAWN else "dpv:ConsentRefused"


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value)
