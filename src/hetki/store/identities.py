"""Identities: the identifiers and the links between them, as projections in `state.db`.

`links.refusal` is why a link joins nothing at present, and `links.joins` says whether groups grew together
by it. Nothing here judges: `engine.stitching` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from hetki.events.event import LeafId
from hetki.identity.identifier import Identifier, Namespace, NodeId
from hetki.identity.link import TOLD, Link
from hetki.identity.resolve import LOCAL, Node, Quarantine, Refusal
from hetki.store.sqlite import chunks

IDENTITIES = """
CREATE TABLE IF NOT EXISTS nodes(
    node BLOB PRIMARY KEY, namespace TEXT NOT NULL, value TEXT NOT NULL, customer BLOB NOT NULL,
    first_at INTEGER NOT NULL, quarantine TEXT NOT NULL, set_aside TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nodes_customer ON nodes(customer);
CREATE INDEX IF NOT EXISTS nodes_quarantine ON nodes(quarantine) WHERE quarantine <> '';
CREATE TABLE IF NOT EXISTS links(
    link_id BLOB PRIMARY KEY, kind TEXT NOT NULL, node_a BLOB NOT NULL, node_b BLOB NOT NULL,
    linked_at INTEGER NOT NULL, cause BLOB NOT NULL, weight REAL NOT NULL, rule TEXT NOT NULL,
    said_by TEXT NOT NULL, told BLOB NOT NULL, refusal TEXT NOT NULL DEFAULT '',
    joins INTEGER NOT NULL DEFAULT 0, revoked_at INTEGER, revoked_by TEXT, unsure_at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_a ON links(node_a);
CREATE INDEX IF NOT EXISTS links_b ON links(node_b);
CREATE INDEX IF NOT EXISTS links_refused ON links(refusal) WHERE refusal <> '';
"""

_COLUMNS: Final = "link_id, kind, node_a, node_b, linked_at, cause, weight, rule, said_by, told"
_LOCAL: Final = ", ".join(f"'{reason}'" for reason in LOCAL)
_TOLD: Final = ", ".join(f"'{kind}'" for kind in TOLD)
_Row = tuple[bytes, str, bytes, bytes, int, bytes, float, str, str, bytes]
_Told = tuple[tuple[str, float], ...]
_encode = msgspec.msgpack.Encoder().encode
_decode_told = msgspec.msgpack.Decoder(_Told).decode


class Known(msgspec.Struct, frozen=True, gc=False):
    """An identifier that is known: its present customer, and all by which it is resolved."""

    customer: LeafId
    node: Node


class Around(msgspec.Struct, frozen=True):
    """The evidence around some identifiers: `judged` says how links stand that were read: refusal, and
    whether they join groups at present."""

    nodes: dict[NodeId, Known]
    links: list[Link]
    judged: dict[bytes, tuple[str, bool]]


class Identities:
    """Identifiers and links. Every method runs inside the caller's transaction on `db`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def customers_of(self, nodes: Iterable[NodeId]) -> dict[NodeId, LeafId]:
        """The present customer of each known node."""
        found: dict[NodeId, LeafId] = {}
        for marks, part in chunks(nodes):
            rows = self.db.execute(f"SELECT node, customer FROM nodes WHERE node IN ({marks})", part)
            found.update((NodeId(node), LeafId(customer)) for node, customer in rows)
        return found

    def known(self, nodes: Iterable[NodeId]) -> dict[NodeId, Known]:
        """Those of the nodes that are known."""
        found: dict[NodeId, Known] = {}
        for marks, part in chunks(nodes):
            rows = self.db.execute(
                f"SELECT node, customer, namespace, first_at, quarantine FROM nodes WHERE node IN ({marks})",
                part,
            )
            found.update((NodeId(row[0]), Known(LeafId(row[1]), Node(*row[2:]))) for row in rows)
        return found

    def add_nodes(self, rows: Iterable[tuple[Identifier, int, Quarantine]]) -> None:
        """Add identifiers, each a customer of its own: (identifier, first_at, quarantine)."""
        self.db.executemany(
            "INSERT INTO nodes(node, namespace, value, customer, first_at, quarantine)"
            " VALUES (?1, ?2, ?3, ?1, ?4, ?5)",
            [(each.node, each.namespace, each.value, at, why) for each, at, why in rows],
        )

    def set_first_at(self, first_at: Mapping[NodeId, int]) -> None:
        """Set when known identifiers were first seen."""
        self.db.executemany(
            "UPDATE nodes SET first_at = ? WHERE node = ?", [(at, node) for node, at in first_at.items()]
        )

    def drop_nodes(self, nodes: Iterable[NodeId]) -> None:
        """Delete identifiers that nobody tells any more."""
        self.db.executemany("DELETE FROM nodes WHERE node = ?", [(node,) for node in nodes])

    def drop_links(self, link_ids: Iterable[bytes]) -> None:
        """Delete links that nobody tells any more."""
        self.db.executemany("DELETE FROM links WHERE link_id = ?", [(each,) for each in link_ids])

    def set_told(self, links: Iterable[Link]) -> None:
        """Set when links were first seen, and by which event, as is still told of them."""
        self.db.executemany(
            "UPDATE links SET linked_at = ?, cause = ? WHERE link_id = ?",
            [(each.linked_at, each.cause, each.link_id) for each in links],
        )

    def quarantine(self, reasons: Mapping[NodeId, Quarantine]) -> None:
        """Set why identifiers join nobody."""
        self.db.executemany(
            "UPDATE nodes SET quarantine = ? WHERE node = ?", [(why, node) for node, why in reasons.items()]
        )

    def set_aside(self, nodes: Iterable[NodeId], reason: str) -> None:
        """Note which records linkage has set aside, and why."""
        self.db.executemany("UPDATE nodes SET set_aside = ? WHERE node = ?", [(reason, n) for n in nodes])

    def move_nodes(self, roots: Mapping[NodeId, LeafId]) -> None:
        """Set the customer of nodes."""
        self.db.executemany(
            "UPDATE nodes SET customer = ? WHERE node = ?", [(root, node) for node, root in roots.items()]
        )

    def members(self, customers: Iterable[LeafId]) -> dict[LeafId, dict[NodeId, Namespace]]:
        """The nodes of each customer, with their namespaces."""
        found: dict[LeafId, dict[NodeId, Namespace]] = {}
        for marks, part in chunks(customers):
            rows = self.db.execute(
                f"SELECT customer, node, namespace FROM nodes WHERE customer IN ({marks})", part
            )
            for customer, node, namespace in rows:
                found.setdefault(LeafId(customer), {})[NodeId(node)] = namespace
        return found

    def values(self, nodes: Iterable[NodeId]) -> set[str]:
        """The values of nodes that are known."""
        found: set[str] = set()
        for marks, part in chunks(nodes):
            rows = self.db.execute(f"SELECT value FROM nodes WHERE node IN ({marks})", part)
            found.update(row[0] for row in rows)
        return found

    def values_of(self, nodes: Iterable[NodeId]) -> dict[str, str]:
        """One value for each namespace that a customer's nodes have: the first in order of value."""
        found: dict[str, str] = {}
        for marks, part in chunks(nodes):
            rows = self.db.execute(f"SELECT namespace, value FROM nodes WHERE node IN ({marks})", part)
            for namespace, value in rows:
                found[namespace] = min(value, found.get(namespace, value))
        return found

    def all_nodes(self) -> list[tuple[NodeId, Namespace, LeafId]]:
        """Every identifier with its namespace and customer, in order of nodes."""
        rows = self.db.execute("SELECT node, namespace, customer FROM nodes ORDER BY node")
        return [(NodeId(node), namespace, LeafId(customer)) for node, namespace, customer in rows]

    def all_values(self) -> list[tuple[NodeId, Namespace, str, Quarantine]]:
        """Every identifier with its value and quarantine, in order of nodes."""
        return self.db.execute(
            "SELECT node, namespace, value, quarantine FROM nodes ORDER BY node"
        ).fetchall()

    def refusals(self) -> dict[str, int]:
        """How many links are refused, by reason."""
        return dict(
            self.db.execute(
                "SELECT refusal, count(*) FROM links WHERE refusal <> '' AND revoked_at IS NULL GROUP BY 1"
            )
        )

    def refused_links(self, reason: str, n_max: int) -> list[Link]:
        """Links that are refused for a reason, newest first."""
        rows = self.db.execute(
            f"SELECT {_COLUMNS} FROM links WHERE refusal = ? AND revoked_at IS NULL"
            " ORDER BY linked_at DESC, link_id LIMIT ?",
            (reason, n_max),
        )
        return [_link(row) for row in rows]

    def quarantined(self, n_max: int) -> list[tuple[Namespace, str, Quarantine, int]]:
        """Identifiers that join nobody: namespace, value, reason, number of links; most links first."""
        rows = self.db.execute(
            "SELECT namespace, value, quarantine, (SELECT count(*) FROM links WHERE node_a = node)"
            " + (SELECT count(*) FROM links WHERE node_b = node) AS n FROM nodes WHERE quarantine <> ''"
            " ORDER BY n DESC, namespace, value LIMIT ?",
            (n_max,),
        )
        return rows.fetchall()

    def sights(self, link_ids: Iterable[bytes]) -> dict[bytes, tuple[int, bytes]]:
        """When known links were first seen, and in what."""
        found: dict[bytes, tuple[int, bytes]] = {}
        for marks, part in chunks(link_ids):
            rows = self.db.execute(
                f"SELECT link_id, linked_at, cause FROM links WHERE link_id IN ({marks})", part
            )
            found.update((row[0], (row[1], row[2])) for row in rows)
        return found

    def save_links(self, links: Iterable[Link]) -> None:
        """Add links; of a known one the earlier sight and the later weight stand, and a revoked one stays
        revoked."""
        self.db.executemany(
            f"INSERT INTO links({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT(link_id) DO UPDATE SET"
            " cause = iif((excluded.linked_at, excluded.cause) < (linked_at, cause), excluded.cause, cause),"
            " linked_at = min(linked_at, excluded.linked_at),"
            " weight = excluded.weight, rule = excluded.rule, told = excluded.told",
            [
                (
                    *(x.link_id, x.kind, x.node_a, x.node_b, x.linked_at, x.cause),
                    *(x.weight, x.rule, x.said_by, _encode(x.told) if x.told else b""),
                )
                for x in links
            ],
        )

    def revoke(self, link_id: bytes, revoked_at: int, revoked_by: str) -> bool:
        """Take a link back; False when there is none, or it was taken back before."""
        done = self.db.execute(
            "UPDATE links SET revoked_at = ?, revoked_by = ?, refusal = '', joins = 0"
            " WHERE link_id = ? AND revoked_at IS NULL",
            (revoked_at, revoked_by, link_id),
        )
        return done.rowcount == 1

    def mark_unsure(self, link_id: bytes, said_at: int) -> None:
        """Note that a person could not say whether a link holds."""
        self.db.execute("UPDATE links SET unsure_at = ? WHERE link_id = ?", (said_at, link_id))

    def link(self, link_id: bytes) -> Link | None:
        """A link by its id, whatever its standing."""
        row = self.db.execute(f"SELECT {_COLUMNS} FROM links WHERE link_id = ?", (link_id,)).fetchone()
        return _link(row) if row else None

    def refusal_of(self, kind: str, a: bytes, b: bytes, linked_at: int) -> str:
        """Why a link of this kind between two nodes was refused; empty if it was not."""
        row = self.db.execute(
            "SELECT refusal FROM links WHERE kind = ? AND node_a = ? AND node_b = ? AND linked_at = ?",
            (kind, min(a, b), max(a, b), linked_at),
        ).fetchone()
        return row[0] if row else ""

    def links_after(self, link_id: bytes, n_max: int) -> list[tuple[Link, bool]]:
        """The next links that are not revoked, in order of id, and whether each joins groups."""
        rows = self.db.execute(
            f"SELECT {_COLUMNS}, joins FROM links WHERE link_id > ? AND revoked_at IS NULL"
            " ORDER BY link_id LIMIT ?",
            (link_id, n_max),
        )
        return [(_link(row[:10]), bool(row[10])) for row in rows]

    def revoked(self, link_ids: Iterable[bytes]) -> set[bytes]:
        """Those of the links that were taken back."""
        found: set[bytes] = set()
        for marks, part in chunks(link_ids):
            rows = self.db.execute(
                f"SELECT link_id FROM links WHERE link_id IN ({marks}) AND revoked_at IS NOT NULL", part
            )
            found.update(row[0] for row in rows)
        return found

    def links_at(
        self, nodes: Iterable[NodeId], only: Refusal | None = None
    ) -> dict[bytes, tuple[Link, bool]]:
        """The links at nodes that are not revoked, and whether each joins groups; with one refusal only, if
        it is given."""
        condition = "true" if only is None else f"refusal = '{only}'"
        read = ((_link(row[:10]), bool(row[10])) for row in self._rows_at(nodes, condition))
        return {link.link_id: (link, joins) for link, joins in read}

    def links_ever(self, nodes: Iterable[NodeId]) -> list[tuple[Link, int | None]]:
        """Every link at nodes, and when it was revoked, if it was."""
        found: dict[bytes, tuple[Link, int | None]] = {}
        for marks, part in chunks(nodes):
            for side in ("node_a", "node_b"):
                rows = self.db.execute(
                    f"SELECT {_COLUMNS}, revoked_at FROM links WHERE {side} IN ({marks})", part
                )
                found.update((row[0], (_link(row[:10]), row[10])) for row in rows)
        return list(found.values())

    def beside(self, nodes: Collection[NodeId]) -> dict[NodeId, dict[Namespace, int]]:
        """How many others events tell beside each node, by their namespace."""
        found: dict[NodeId, dict[Namespace, int]] = {node: {} for node in nodes}
        for marks, part in chunks(nodes):
            for one, other in (("node_a", "node_b"), ("node_b", "node_a")):
                rows = self.db.execute(
                    f"SELECT {one}, namespace, count(DISTINCT node) FROM links JOIN nodes ON node = {other}"
                    f" WHERE {one} IN ({marks}) AND revoked_at IS NULL AND kind IN ({_TOLD}) GROUP BY 1, 2",
                    part,
                )
                for node, namespace, n in rows:
                    counted = found[NodeId(node)]
                    counted[namespace] = counted.get(namespace, 0) + n
        return found

    def evidence_around(
        self, nodes: Collection[NodeId], told: Iterable[Link] = (), through_crowds: bool = False
    ) -> Around:
        """Every node and link reachable from the nodes over links that carry, refused links included.

        Of a node in a crowd only the merges of a person lead further, unless `through_crowds`; `told` are
        the links that are to be judged, whether they lead further or not.
        """
        reached: dict[NodeId, Known] = {}
        links: dict[bytes, Link] = {link.link_id: link for link in told}
        judged: dict[bytes, tuple[str, bool]] = {}
        edge = asked = set(nodes)
        while edge:
            new = self.known(edge)
            reached.update(new)
            crowd = {
                node for node, each in new.items() if each.node.quarantine == "crowd" and not through_crowds
            }
            next_edge: set[NodeId] = set()
            rows = self._rows_at(new.keys() - crowd, f"refusal NOT IN ({_LOCAL})")
            for row in rows + self._rows_at(crowd, "kind IN ('merge', 'cannot')"):
                link = _link(row[:10])
                links[link.link_id] = link
                judged[link.link_id] = (str(row[11]), bool(row[10]))
                if link.kind != "cannot":
                    next_edge |= {link.node_a, link.node_b}
            edge = next_edge - asked
            asked = asked | edge
        inside = [link for link in links.values() if link.node_a in reached and link.node_b in reached]
        return Around(reached, inside, judged)

    def _rows_at(self, nodes: Iterable[NodeId], condition: str) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for marks, part in chunks(nodes):
            for side in ("node_a", "node_b"):
                found += self.db.execute(
                    f"SELECT {_COLUMNS}, joins, refusal FROM links"
                    f" WHERE revoked_at IS NULL AND {condition} AND {side} IN ({marks})",
                    part,
                )
        return found

    def carry(self, link_ids: Iterable[bytes]) -> None:
        """Links that their ends refused, and refuse no more, lead further again until they are judged."""
        self.db.executemany(
            f"UPDATE links SET refusal = '' WHERE link_id = ? AND refusal IN ({_LOCAL})",
            [(link_id,) for link_id in link_ids],
        )

    def judge_links(
        self, links: Iterable[Link], refused: Mapping[bytes, str], joining: AbstractSet[bytes]
    ) -> None:
        """Write which of these links were refused, with the reason, and which joined groups (ids)."""
        self.db.executemany(
            "UPDATE links SET refusal = ?1, joins = ?2 WHERE link_id = ?3 AND (refusal <> ?1 OR joins <> ?2)",
            [(refused.get(each.link_id, ""), each.link_id in joining, each.link_id) for each in links],
        )

    def joining_links(self, nodes: Iterable[NodeId]) -> list[Link]:
        """The links by which these nodes grew together, by time."""
        found: dict[bytes, Link] = {}
        for marks, part in chunks(nodes):
            rows = self.db.execute(
                f"SELECT {_COLUMNS} FROM links"
                f" WHERE revoked_at IS NULL AND joins = 1 AND node_a IN ({marks})",
                part,
            )
            found.update((row[0], _link(row)) for row in rows)
        return sorted(found.values(), key=lambda link: (link.linked_at, link.link_id))


def copied(db: sqlite3.Connection) -> Identities:
    """The identifiers and links in memory, to be tried upon. `db` must be a connection of one's own: from
    here on its tables of this name are the copies, which hide those of the file until it is closed."""
    db.execute("PRAGMA temp_store = MEMORY")
    script = IDENTITIES.replace("CREATE TABLE IF NOT EXISTS ", "CREATE TEMP TABLE ")
    db.executescript(script.replace("CREATE INDEX IF NOT EXISTS ", "CREATE INDEX temp."))
    for table in ("nodes", "links"):
        db.execute(f"INSERT INTO temp.{table} SELECT * FROM main.{table}")
    return Identities(db)


def _link(row: tuple[object, ...]) -> Link:
    """A row as a link; SQLite gives it the types that were put in."""
    read = _decode_told(row[9]) if row[9] else ()  # type: ignore[arg-type]
    return Link(*row[:9], read)  # type: ignore[arg-type, call-arg]
