"""Identities: what people ask of identifiers and links in `state.db`. Queries only; nothing here writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from hetki.events.event import LeafId
from hetki.identity.identifier import KNOWN_BY, NodeId
from hetki.identity.joining import LOOKS, Judged
from hetki.identity.link import Link
from hetki.store.accounts import groups_of
from hetki.store.sqlite import chunks

NAMED = "node, namespace, value, customer, quarantine, set_aside"
LINK = (
    "link_id, kind, node_a, node_b, linked_at, cause, weight, rule, said_by, told,"
    " refusal, revoked_at, coalesce(revoked_by, ''), unsure_at"
)
#: What waits for a person: nobody has answered, and the two are not one customer by other evidence.
_REVIEW = (
    "FROM links AS l WHERE refusal = 'needs_review' AND revoked_at IS NULL"
    " AND (SELECT customer FROM nodes WHERE node = node_a)"
    " <> (SELECT customer FROM nodes WHERE node = node_b)"
    " AND NOT EXISTS (SELECT 1 FROM links AS x WHERE x.node_a = l.node_a AND x.node_b = l.node_b"
    " AND x.kind IN ('merge', 'cannot') AND x.revoked_at IS NULL)"
)
_TURN = "coalesce(unsure_at, 0), -weight, link_id"
_told = msgspec.msgpack.Decoder(tuple[tuple[str, float], ...]).decode
#: Links at one customer that are looked at.
LINKS_MAX = 2_000
#: What two customers have in common is told up to this many.
SHARED_MAX = 20


class Named(msgspec.Struct, frozen=True):
    """One identifier of a customer: its node, where it is from and its value.

    `quarantine` is why it joins nobody, `set_aside` why linkage set it aside; both are mostly empty.
    """

    node: NodeId
    namespace: str
    value: str
    customer: LeafId
    quarantine: str = ""
    set_aside: str = ""


class IdentityViews:
    """Identifiers by customer and by node, and the links at them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def of(self, customers: Iterable[LeafId]) -> list[Named]:
        """Every identifier of customers, best known first; events that stand alone are left out.

        A value that is an anonymous id too names nobody well, whatever else it was called.
        """
        found: list[Named] = []
        for marks, part in chunks(set(customers)):
            rows = self._db.execute(
                f"SELECT {NAMED} FROM nodes WHERE customer IN ({marks}) AND namespace <> 'event'",
                part,
            )
            found += [Named(*row) for row in rows]
        unnamed = {each.value for each in found if each.namespace == "anonymous_id"}
        return sorted(found, key=lambda each: (each.value in unnamed, best_known(each.namespace), each.value))

    def names(self, customers: Iterable[LeafId]) -> dict[LeafId, str]:
        """By what name each customer or account is best known; one without identifiers is left out."""
        asked = set(customers)
        names: dict[LeafId, str] = groups_of(self._db, asked)
        for each in self.of(asked):
            names.setdefault(each.customer, each.value)
        return names

    def nodes(self, nodes: Iterable[NodeId]) -> dict[NodeId, Named]:
        """Identifiers by their nodes; unknown ones are left out."""
        found: dict[NodeId, Named] = {}
        for marks, part in chunks(set(nodes)):
            rows = self._db.execute(f"SELECT {NAMED} FROM nodes WHERE node IN ({marks})", part)
            found.update((NodeId(row[0]), Named(*row)) for row in rows)
        return found

    def links(self, nodes: Iterable[NodeId], n_max: int = LINKS_MAX) -> list[Judged]:
        """Every link at these nodes, refused and revoked ones included, in order of time.

        A value that very many share has very many links: then those that stand come first, up to `n_max`.
        """
        found: dict[bytes, Judged] = {}
        for marks, part in chunks(set(nodes)):
            for side in ("node_a", "node_b"):
                rows = self._db.execute(
                    f"SELECT {LINK} FROM links WHERE {side} IN ({marks})"
                    " ORDER BY revoked_at IS NOT NULL, refusal <> '', linked_at, link_id LIMIT ?",
                    [*part, n_max],
                )
                found.update((row[0], _judged(row)) for row in rows)
        kept = sorted(found.values(), key=lambda each: (LOOKS.index(each.look), each.link.linked_at))[:n_max]
        return sorted(kept, key=lambda each: (each.link.linked_at, each.link.link_id))

    def link(self, link_id: bytes) -> Judged | None:
        """One link by its id."""
        row = self._db.execute(f"SELECT {LINK} FROM links WHERE link_id = ?", (link_id,)).fetchone()
        return _judged(row) if row else None

    def links_between(self, ours: set[NodeId], theirs: set[NodeId]) -> list[Judged]:
        """The links from one set of nodes to another, and those of both to nodes of neither.

        Of the nodes of neither the first 20 count: a value that very many share has very many links.
        """
        shared = sorted((self._neighbours(ours) & self._neighbours(theirs)) - ours - theirs)[:SHARED_MAX]
        return self._among(ours, theirs | set(shared)) + self._among(theirs, set(shared))

    def review(self, n_max: int, n_skipped: int = 0) -> list[Judged]:
        """The links that wait for a person, strongest first; those of whom somebody was unsure at the end."""
        rows = self._db.execute(
            f"SELECT {LINK} {_REVIEW} ORDER BY {_TURN} LIMIT ? OFFSET ?", (n_max, n_skipped)
        )
        return [_judged(row) for row in rows]

    def n_review(self) -> tuple[int, int]:
        """How many links wait for a person, and of how many of them somebody was unsure."""
        row = self._db.execute(f"SELECT count(*), count(unsure_at) {_REVIEW}").fetchone()
        return row[0], row[1]

    def review_after(self, link_id: bytes) -> bytes | None:
        """The link whose turn comes after another one's, which may be answered by now."""
        row = self._db.execute(
            f"SELECT link_id {_REVIEW} AND ({_TURN}) > (SELECT {_TURN} FROM links WHERE link_id = ?)"
            f" ORDER BY {_TURN} LIMIT 1",
            (link_id,),
        ).fetchone()
        return row[0] if row else None

    def links_of_pair(self, a: NodeId, b: NodeId) -> list[Judged]:
        """Every link between two identifiers, in order of time."""
        return sorted(self._among({a}, {b}), key=lambda each: (each.link.linked_at, each.link.link_id))

    def _neighbours(self, nodes: set[NodeId]) -> set[NodeId]:
        found: set[NodeId] = set()
        for marks, part in chunks(nodes):
            for side, far in (("node_a", "node_b"), ("node_b", "node_a")):
                rows = self._db.execute(f"SELECT {far} FROM links WHERE {side} IN ({marks})", part)
                found.update(NodeId(row[0]) for row in rows)
        return found

    def _among(self, ours: set[NodeId], theirs: set[NodeId]) -> list[Judged]:
        found: dict[bytes, Judged] = {}
        for marks, part in chunks(ours):
            for far_marks, far_part in chunks(theirs):
                for side, far in (("node_a", "node_b"), ("node_b", "node_a")):
                    rows = self._db.execute(
                        f"SELECT {LINK} FROM links WHERE {side} IN ({marks}) AND {far} IN ({far_marks})",
                        [*part, *far_part],
                    )
                    found.update((row[0], _judged(row)) for row in rows)
        return list(found.values())


def best_known(namespace: str) -> int:
    """The place of a namespace among those by which people know a customer."""
    return KNOWN_BY.index(namespace) if namespace in KNOWN_BY else len(KNOWN_BY)


def _judged(row: tuple[Any, ...]) -> Judged:
    """A row of `LINK` as a judged link."""
    link_id, kind, a, b, linked_at, cause, weight, rule, said_by, told, *judged = row
    read = _told(told) if told else ()
    return Judged(Link(link_id, kind, a, b, linked_at, cause, weight, rule, said_by, read), *judged)
