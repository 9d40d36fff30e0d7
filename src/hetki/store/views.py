"""Views: what the console and `hetki explain` read of `state.db`. Queries only; nothing here writes.

Each struct is one row of a page. Customers are given as they are now: a deed keeps the leaf it was done
for, and that leaf may have become part of another customer since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from hetki.decisions.question import Decision
from hetki.dialogues.message import Message
from hetki.errors import Fault
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId
from hetki.store.identity_views import IdentityViews
from hetki.store.ledger import Ledger
from hetki.store.ports import Disk
from hetki.store.shortage import shortage
from hetki.store.sqlite import chunks
from hetki.store.state import FILE, State

_decisions = msgspec.json.Decoder(Decision)


class Handled(msgspec.Struct, frozen=True):
    """An occurrence and what became of it. `status`: caught, missed, revised or retracted.

    `customer` is the present one. `handled_at` is when it was decided, missed or retracted; None while
    neither has happened."""

    occurrence_id: str
    moment: str
    customer: LeafId
    occurred_at: int
    status: str
    handled_at: int | None = None
    decision: Decision | None = None


class Revision(msgspec.Struct, frozen=True):
    """What repaired history did to an occurrence: `found`, `revised` or `retracted`, and why."""

    occurrence_id: str
    revised_at: int
    kind: str
    cause: str
    moment: str
    customer: LeafId
    detail: str


class RejectedRow(msgspec.Struct, frozen=True):
    """A rejected body: why, and where in the journal it lies. `replayed_at`: repaired and accepted."""

    rejected_id: str
    source: str
    received_at: int
    place: str
    got: str
    must: str
    hint: str
    position: int
    frame_offset: int
    replayed_at: int | None

    @property
    def fault(self) -> Fault:
        """The rule that was broken."""
        return Fault(self.place, self.got, self.must, self.hint)


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to send a message; `status` is HTTP's or SMTP's, 0 when no answer came. `ok` is 0 or 1."""

    message_id: str
    n_attempt: int
    attempted_at: int
    ok: int
    status: int
    detail: str


class Passed(msgspec.Struct, frozen=True):
    """A candidate of a recorded decision, as the funnel counts it."""

    action: str
    dropped_by: str


class Funneled(msgspec.Struct, frozen=True):
    """The part of a decision's record that the funnel counts."""

    weighed: list[Passed]
    arm: str
    chosen: str


_funneled = msgspec.json.Decoder(Funneled)


class Views:
    """The stores as pages read them, on a connection of its own that refuses to write and blocks no writer.
    Use it in one thread at a time and `close` it."""

    def __init__(self, disk: Disk) -> None:
        self.db: sqlite3.Connection = disk.connect(FILE)
        try:
            self.state = State(self.db)
            self.ledger = Ledger(self.db)
            self.identities = IdentityViews(self.db)
            self.db.execute("PRAGMA query_only = ON")
        except BaseException:
            self.db.close()
            raise

    def close(self) -> None:
        """Give the connection back."""
        self.db.close()

    def version(self) -> int:
        """A number that changes whenever another connection has changed the data."""
        row: tuple[int] = self.db.execute("PRAGMA data_version").fetchone()
        return row[0]

    def n_occurrences(self, moment: str, since: int) -> int:
        """How often a moment has occurred since an instant."""
        return self._number(
            "SELECT count(*) FROM occurrences WHERE moment = ? AND occurred_at >= ?", (moment, since)
        )

    def n_chosen(self, moment: str, since: int) -> dict[tuple[str, str], int]:
        """The decisions about a moment since an instant: (arm, chosen) -> count."""
        rows = self.db.execute(
            "SELECT arm, chosen, count(*) FROM decisions WHERE moment = ? AND decided_at >= ?"
            " GROUP BY arm, chosen",
            (moment, since),
        )
        return {(arm, chosen): n for arm, chosen, n in rows}

    def last_occurred_at(self, moment: str) -> int | None:
        """When a moment occurred last."""
        row = self.db.execute("SELECT max(occurred_at) FROM occurrences WHERE moment = ?", (moment,))
        last: int | None = row.fetchone()[0]
        return last

    def occurred_at(self, moment: str, since: int, n_max: int = 100_000) -> list[int]:
        """When a moment has occurred since an instant, newest first."""
        rows = self.db.execute(
            "SELECT occurred_at FROM occurrences WHERE moment = ? AND occurred_at >= ?"
            " ORDER BY occurred_at DESC LIMIT ?",
            (moment, since, n_max),
        )
        return [row[0] for row in rows]

    def n_events(self) -> int:
        """How many different events have been folded."""
        return self._number("SELECT coalesce(sum(n), 0) FROM counts WHERE name = 'events'", ())

    def n_customers(self) -> int:
        """How many customers there are at present."""
        return self._number("SELECT count(*) FROM customers WHERE NOT is_account", ())

    def handled_since(self, moments: Iterable[str], since: int, n_max: int) -> list[Handled]:
        """What was decided or missed at an instant or later, newest first, the newest `n_max`."""
        found: list[tuple[str, str, bytes, int, int, bytes | None]] = []
        for moment in moments:
            found += self.db.execute(
                "SELECT occurrence_id, moment, customer, occurred_at, decided_at, record FROM decisions"
                " WHERE moment = ? AND decided_at >= ? ORDER BY decided_at DESC LIMIT ?",
                (moment, since, n_max),
            )
        found += self.db.execute(
            "SELECT occurrence_id, moment, customer, occurred_at, missed_at, NULL FROM missed"
            " WHERE missed_at >= ? ORDER BY missed_at DESC LIMIT ?",
            (since, n_max),
        )
        found.sort(key=lambda row: (row[4], row[3], row[0]), reverse=True)
        present = self.present_customers(LeafId(row[2]) for row in found[:n_max])
        return [
            Handled(
                row[0],
                row[1],
                present[LeafId(row[2])],
                row[3],
                "missed" if row[5] is None else "caught",
                row[4],
                None if row[5] is None else _decisions.decode(row[5]),
            )
            for row in found[:n_max]
        ]

    def of_moment(self, moment: str, n_max: int, n_skipped: int = 0) -> list[Handled]:
        """The occurrences of a moment that stand, newest first."""
        return self._standing("o.moment = ?", [moment], n_max, n_skipped)

    def of_customer(self, customer: LeafId, leaves: Collection[LeafId], n_max: int) -> list[Handled]:
        """The occurrences of a customer, newest first, those included that no longer stand and those of an
        account that the customer was answered for."""
        found = self._standing("o.customer = ?", [customer], n_max, 0)
        standing = {each.occurrence_id for each in found}
        for marks, part in chunks(leaves):
            rows = self.db.execute(
                "SELECT occurrence_id, moment, occurred_at, decided_at, record, EXISTS (SELECT 1 FROM"
                " occurrences o WHERE o.occurrence_id = d.occurrence_id AND d.account IS NOT NULL) AS stands"
                f" FROM decisions d WHERE customer IN ({marks}) ORDER BY decided_at DESC LIMIT ?",
                [*part, n_max],
            )
            for each, moment, at, decided_at, record, stands in rows:
                if each not in standing:
                    decision, status = _decisions.decode(record), "caught" if stands else "retracted"
                    found.append(Handled(each, moment, customer, at, status, decided_at, decision))
        return sorted(found, key=lambda each: (-each.occurred_at, each.occurrence_id))[:n_max]

    def _standing(self, where: str, values: Sequence[object], n_max: int, n_skipped: int) -> list[Handled]:
        rows = self.db.execute(
            "SELECT o.occurrence_id, o.moment, o.customer, o.occurred_at,"
            " CASE WHEN m.occurrence_id IS NOT NULL THEN 'missed'"
            " WHEN EXISTS (SELECT 1 FROM revisions r WHERE r.occurrence_id = o.occurrence_id"
            " AND r.kind = 'revised') THEN 'revised' ELSE 'caught' END,"
            " coalesce(d.decided_at, m.missed_at), d.record FROM occurrences o"
            " LEFT JOIN missed m USING (occurrence_id) LEFT JOIN decisions d USING (occurrence_id)"
            f" WHERE {where} ORDER BY o.occurred_at DESC, o.occurrence_id LIMIT ? OFFSET ?",
            [*values, n_max, n_skipped],
        )
        return [Handled(*row[0:6], *map(_decisions.decode, row[6:7] if row[6] else ())) for row in rows]

    def n_missed(self, moment: str) -> int:
        """How many occurrences of a moment were found too late to be answered."""
        return self._number("SELECT count(*) FROM missed WHERE moment = ?", (moment,))

    def revisions(self, moment: str, n_max: int) -> list[Revision]:
        """What repaired history changed about a moment, newest first."""
        rows = self.db.execute(
            "SELECT * FROM revisions WHERE moment = ? ORDER BY revised_at DESC LIMIT ?", (moment, n_max)
        )
        return [Revision(*row) for row in rows]

    def revisions_of(self, occurrence_id: str) -> list[Revision]:
        """What repaired history changed about an occurrence, in order."""
        rows = self.db.execute(
            "SELECT * FROM revisions WHERE occurrence_id = ? ORDER BY revised_at", (occurrence_id,)
        )
        return [Revision(*row) for row in rows]

    def funneled(self, moment: str, n_max: int) -> list[Funneled]:
        """The newest decisions about a moment, as the funnel of gates counts them."""
        rows = self.db.execute(
            "SELECT record FROM decisions WHERE moment = ? ORDER BY decided_at DESC LIMIT ?", (moment, n_max)
        )
        return [_funneled.decode(row[0]) for row in rows]

    def present_customers(self, leaves: Iterable[LeafId]) -> dict[LeafId, LeafId]:
        """The customer that each leaf belongs to now; an unknown leaf stays itself."""
        asked = dict.fromkeys(leaves)
        now = self.state.customers_of(NodeId(leaf) for leaf in asked)
        return {leaf: now.get(NodeId(leaf), leaf) for leaf in asked}

    def n_rejected(self) -> int:
        """How many bodies were rejected."""
        return self._number("SELECT count(*) FROM rejected", ())

    def rejected(self, n_max: int, n_skipped: int = 0) -> list[RejectedRow]:
        """Rejected bodies, newest first."""
        rows = self.db.execute(
            "SELECT * FROM rejected ORDER BY received_at DESC, rejected_id LIMIT ? OFFSET ?",
            (n_max, n_skipped),
        )
        return [RejectedRow(*row) for row in rows]

    def n_messages(self) -> dict[str, int]:
        """How many messages there are of each status."""
        return dict(self.db.execute("SELECT status, count(*) FROM outbox GROUP BY status"))

    def messages(self, status: str, n_max: int, n_skipped: int = 0) -> list[Message]:
        """Messages of a status (all if it is empty), newest first."""
        rows = self.db.execute(
            "SELECT * FROM outbox WHERE ?1 = '' OR status = ?1 ORDER BY created_at DESC, message_id"
            " LIMIT ?2 OFFSET ?3",
            (status, n_max, n_skipped),
        )
        return [Message(*row) for row in rows]

    def messages_of(self, leaves: Iterable[LeafId], n_max: int) -> list[Message]:
        """The messages made for a customer's leaves, newest first."""
        found: list[Message] = []
        for marks, part in chunks(leaves):
            rows = self.db.execute(
                f"SELECT * FROM outbox WHERE customer IN ({marks}) ORDER BY created_at DESC LIMIT ?",
                [*part, n_max],
            )
            found += [Message(*row) for row in rows]
        return sorted(found, key=lambda each: (-each.created_at, each.message_id))[:n_max]

    def message_of(self, decision_id: str, leaf: LeafId) -> Message | None:
        """The message of a decision about a leaf, if there is one."""
        row = self.db.execute(
            "SELECT * FROM outbox WHERE customer = ? AND decision_id = ?", (leaf, decision_id)
        ).fetchone()
        return Message(*row) if row else None

    def attempts(self, message_ids: Iterable[str]) -> dict[str, list[Attempt]]:
        """The attempts to send each message, in order."""
        found: dict[str, list[Attempt]] = {}
        for marks, part in chunks(message_ids):
            rows = self.db.execute(
                f"SELECT * FROM attempts WHERE message_id IN ({marks}) ORDER BY message_id, n_attempt", part
            )
            for row in rows:
                found.setdefault(row[0], []).append(Attempt(*row))
        return found

    def _number(self, query: str, values: tuple[object, ...]) -> int:
        n: int = self.db.execute(query, values).fetchone()[0]
        return n


@contextmanager
def reading(disk: Disk) -> Iterator[Views]:
    """The stores for the length of a block. Raises `Unavailable` when they cannot be read just now."""
    views = Views(disk)
    try:
        yield views
    except (sqlite3.OperationalError, MemoryError) as error:
        raise shortage(error) or error from error
    finally:
        views.close()
