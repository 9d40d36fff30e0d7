"""Tables into the journal: the rows of a customer table as events, under the rules of all events.

Each row is a `Customer Identified` of a declared source. Its record is called by the row's id, and rows that
say nothing new are passed over, so that a table can be linked again every night. Start at `roles_of`, then
`rows_as_events`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events import wire
from hetki.events.event import IDENTIFIED, Event
from hetki.events.mapping import ROW
from hetki.events.wire import Parsed, Rejected
from hetki.identity.columns import COLUMNS_MAX, DATE, MOST
from hetki.identity.identifier import normalised
from hetki.settings import Limits
from hetki.store.tables import Table

#: Rows in one batch, which is one row of the journal and one commit.
BATCH_ROWS = 1_000
#: Values of a column that are looked at to find out what it holds.
SAMPLE = 5_000
#: So much of a rejected row is kept.
TEXT_KEPT = 32 * 1024
#: A column that was not named is taken for the id only if nearly every row has one of its own.
OWN_MIN = 0.99
ID_NAME = re.compile(r"(.*[^a-z])?(id|key|nr|no|number|uuid|guid|code)|.*_id|[a-z]+id")
PHONE_NAME = re.compile(r".*(phone|mobile|telef|gsm|puhelin).*|tel|tel[._ ].*")
#: What a telephone number looks like that no other number does: an international or trunk prefix, or groups
#: of 3, 3 and 4 digits.
PHONE_FORM = re.compile(r"(\+|00?)[1-9][0-9 ().\-/]{5,20}|(1[ .-])?\(?[0-9]{3}\)?[ .-]?[0-9]{3}[ .-][0-9]{4}")

Contact = Literal["email", "phone"]
REPAIR = "repair the row in its table and link the table again"


class Roles(msgspec.Struct, frozen=True):
    """What the columns of a table are: `names` maps those that are taken to the names they are kept under.

    `row_id` is the column of the row's id; without one a record is called by a hash of what it says.
    """

    row_id: str | None
    names: dict[str, str]
    contacts: dict[Contact, list[str]]
    left_out: dict[str, str]


class Wishes(msgspec.Struct, frozen=True):
    """What a person said of a table's columns: the id, other names, what is not to be taken."""

    row_id: str = ""
    names: dict[str, str] = {}
    ignored: list[str] = []


class Known(msgspec.Struct, frozen=True, gc=False):
    """What a record said last: the event's id by its sender, what identifies it, and what it says."""

    message_id: str
    identifiers: dict[str, str]
    properties: bytes


class Rows(msgspec.Struct, frozen=True):
    """A part of a table as events and rejected rows; `n_same` rows say what was known."""

    parsed: Parsed
    faults: list[Fault]
    n_new: int
    n_changed: int
    n_same: int


def roles_of(table: Table, wishes: Wishes) -> Roles:
    """What each column is. Raises `Invalid` for a wish that names no column, or two columns of one name."""
    names = table.texts.column_names
    faults = [
        Fault(table.name, f"no column {shown(name)}", "a column of the table", nearest(name, names))
        for name in (*filter(None, [wishes.row_id]), *wishes.names, *wishes.ignored)
        if name not in names and name not in table.left_out
    ]
    if len(names) > COLUMNS_MAX:
        faults.append(Fault(table.name, f"{len(names)} columns", f"{COLUMNS_MAX} at most"))
    if faults:
        raise Invalid(*faults)
    left_out = {
        **dict.fromkeys(table.left_out, "not_plain_values"),
        **dict.fromkeys(wishes.ignored, "as asked"),
    }
    taken = [name for name in names if name not in left_out]
    contacts: dict[Contact, list[str]] = {"email": [], "phone": []}
    for name in taken:
        kind = _contact(table.texts[name], name, wishes)
        if kind and name != wishes.row_id:
            contacts[kind].append(name)
    reached = {name for each in contacts.values() for name in each}
    row_id = wishes.row_id or _row_id(table, [name for name in taken if name not in reached])
    kept = {name: plain(name) for name in taken if name != row_id}
    for kind, columns in contacts.items():
        columns.sort(key=lambda name: table.texts[name].null_count)
        if columns and kind not in kept.values():
            kept[columns[0]] = kind
    kept |= {name: plain(wish) for name, wish in wishes.names.items() if name in kept}
    for name, n in Counter(kept.values()).items():
        if n > 1:
            both = " and ".join(shown(each) for each in kept if kept[each] == name)
            hint = "name one of them otherwise, or leave it out"
            faults.append(Fault(table.name, f"the columns {both}, both {name}", "named apart", hint))
    if faults:
        raise Invalid(*faults)
    return Roles(row_id, kept, contacts, left_out)


def plain(name: str) -> str:
    """The name that a column is kept under, so that tables that differ in case and spaces agree.

    >>> plain(" First  Name")
    'first_name'
    """
    return "_".join(name.casefold().split())


def _contact(column: pa.ChunkedArray, name: str, wishes: Wishes) -> Contact | None:
    """Whether a column holds e-mail addresses or telephone numbers, by most of its values."""
    wish = wishes.names.get(name)
    if wish is not None:
        return "email" if wish == "email" else "phone" if wish == "phone" else None
    values = [text.strip() for text in column.drop_null().slice(0, SAMPLE).to_pylist() if text.strip()]
    if not values:
        return None
    if sum(normalised("email", text) is not None for text in values) > MOST * len(values):
        return "email"
    is_named = PHONE_NAME.fullmatch(name.casefold()) is not None
    n_phones = sum(
        (is_named or PHONE_FORM.fullmatch(text) is not None)
        and re.fullmatch(DATE, text) is None
        and normalised("phone", text) is not None
        for text in values
    )
    return "phone" if n_phones > MOST * len(values) else None


def _row_id(table: Table, names: Sequence[str]) -> str | None:
    """The column of the row's id: each row has its own, and its name or its place and form say so."""
    n_rows = table.texts.num_rows
    for name in sorted(names, key=lambda name: not ID_NAME.fullmatch(name.casefold())):
        column = table.texts[name]
        is_named = ID_NAME.fullmatch(name.casefold()) is not None
        is_first_code = name == table.texts.column_names[0] and _is_code(column)
        own = pc.count_distinct(column, mode="only_valid").as_py()
        if (is_named or is_first_code) and n_rows and own >= OWN_MIN * n_rows:
            return name
    return None


def _is_code(column: pa.ChunkedArray) -> bool:
    """Whether values look like numbers that somebody gives out: digits, and no spaces."""
    values = column.drop_null().slice(0, SAMPLE).to_pylist()
    return all(any(c.isdigit() for c in text) and " " not in text.strip() for text in values)


@dataclass(frozen=True, slots=True)
class Taking:
    """A table that is being taken in, as a source, at one instant.

    `known` is what each record said last, by its id, and grows with the rows; `told` is where a record was
    told in this run: a second row of one id is rejected, unless it says the same.
    """

    table: Table
    roles: Roles
    source: str
    channel: str
    now: int
    limits: Limits
    known: dict[str, Known]
    told: dict[str, str]


def rows_as_events(taking: Taking) -> Iterator[Rows]:
    """The rows of a table in batches, the rejected ones first that could not be read at all."""
    table = taking.table
    broken = [(row.fault, _rejected(taking, row.text, row.fault)) for row in table.broken if row.fault]
    yield Rows(Parsed([], [each for _, each in broken]), [fault for fault, _ in broken], 0, 0, 0)
    number = 0
    for start in range(0, table.texts.num_rows, BATCH_ROWS):
        parsed, faults, n_changed = Parsed([], []), [], 0
        columns = [column.to_pylist() for column in table.texts.slice(start, BATCH_ROWS).columns]
        for values in zip(*columns, strict=True):
            cells = dict(zip(table.texts.column_names, values, strict=True))
            try:
                event, is_changed = _event(taking, cells, number)
            except Invalid as error:
                fault = error.faults[0]
                faults.append(
                    Fault(f"{table.places[number]}, column {fault.where}", fault.got, fault.must, fault.hint)
                )
                text = msgspec.json.encode(cells).decode()
                parsed.rejected.append(_rejected(taking, text, faults[-1]))
            else:
                parsed.events.extend([event] if event else [])
                n_changed += is_changed
            number += 1
        n_events, n_rows = len(parsed.events), len(parsed.events) + len(faults)
        n_same = min(BATCH_ROWS, table.texts.num_rows - start) - n_rows
        yield Rows(parsed, faults, n_events - n_changed, n_changed, n_same)


def _event(taking: Taking, cells: dict[str, str | None], number: int) -> tuple[Event | None, bool]:
    """A row as an event, and whether its record was known; None if it says what was known.

    Raises `Invalid`, with the column as its place.
    """
    roles, limits = taking.roles, taking.limits
    said = {name: cells[column] for column, name in roles.names.items()}
    properties = _properties(said, roles, taking.table.literal)
    _check(cells, properties, limits)
    row_id = _id_of(cells, roles, properties, limits)
    record = f"{taking.source}:{row_id}"
    identifiers = {"record_id": record, **_contacts(cells, roles, limits)}
    before = taking.known.get(record)
    is_same = before is not None and (before.identifiers, before.properties) == (identifiers, properties)
    if record in taking.told and not is_same:
        got = f"{shown(row_id)} again, with other values than at {taking.told[record]}"
        raise Invalid(Fault(roles.row_id or "", got, "an id of one row", REPAIR))
    taking.told.setdefault(record, taking.table.places[number])
    if is_same:
        return None, False
    message = _message_id(record, identifiers, properties, before)
    taking.known[record] = Known(message, identifiers, properties)
    now = taking.now
    event = Event(
        taking.source,
        message,
        taking.channel,
        IDENTIFIED,
        now,
        now,
        identifiers,
        properties,
        b"{}",
        number + 1,
    )
    return event, before is not None


def _properties(said: Mapping[str, str | None], roles: Roles, literal: frozenset[str]) -> bytes:
    """What a row says, in the order of the names; numbers and truth values as such."""
    as_literal = {name for column, name in roles.names.items() if column in literal}
    return msgspec.json.encode(
        {
            name: msgspec.Raw(text.encode()) if name in as_literal else text
            for name, text in sorted(said.items())
            if text is not None and text.strip()
        }
    )


def _id_of(cells: Mapping[str, str | None], roles: Roles, properties: bytes, limits: Limits) -> str:
    """The row's id; without a column of ids a hash of what the row says. Raises `Invalid` if it has none."""
    if roles.row_id is None:
        return blake2b(properties, digest_size=12).hexdigest()
    row_id = wire.identifier((cells[roles.row_id] or "").strip(), roles.row_id, limits.id_chars_max)
    if not row_id:
        raise Invalid(Fault(roles.row_id, "no id", "an id of the row", REPAIR))
    return row_id


def _contacts(cells: Mapping[str, str | None], roles: Roles, limits: Limits) -> dict[str, str]:
    """The first e-mail address and telephone number of a row that are such."""
    found: dict[str, str] = {}
    for kind, columns in roles.contacts.items():
        for column in columns:
            text = cells[column]
            if text and len(text) <= limits.text_chars_max and normalised(kind, text) is not None:
                found[kind] = text.strip()
                break
    return found


def _check(cells: Mapping[str, str | None], properties: bytes, limits: Limits) -> None:
    """Raises `Invalid` for a row that no event may be."""
    if len(properties) > limits.event_bytes_max:
        got, must = f"{len(properties)} bytes in one row", f"at most {limits.event_bytes_max} bytes"
        longest = max(cells, key=lambda name: len(cells[name] or ""))
        raise Invalid(Fault(longest, got, must, "leave the column out with --ignore, or cut its values"))
    for name, text in cells.items():
        if text and "\x00" in text:
            raise Invalid(Fault(name, "a text with NUL (\\u0000)", "text without NUL", REPAIR))


def _message_id(record: str, identifiers: dict[str, str], properties: bytes, before: Known | None) -> str:
    """What a row says now, after what it said before: a record that goes back to old values says so again."""
    said = msgspec.json.encode([record, sorted(identifiers.items()), before.message_id if before else ""])
    return blake2b(said + properties, digest_size=16).hexdigest()


def _rejected(taking: Taking, text: str, fault: Fault) -> Rejected:
    body = msgspec.json.encode({"type": ROW, "context": {"row": text[:TEXT_KEPT]}})
    return Rejected(taking.source, taking.now, body, fault, channel=taking.channel)
