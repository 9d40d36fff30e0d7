"""Proposals: what linkage found, cut to what is worth saying, each pair with its weight by field.

`probable` pairs hold a cluster together: a spanning tree of the strongest, so that taking one back really
parts. `possible` pairs are the grey zone between clusters, for a person to answer. Start at `proposed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Literal, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from splink import block_on

from hetki.identity.clusters import Rows
from hetki.identity.columns import units
from hetki.identity.linkage import PRIOR, Linkage, Model, Settings, scorer, surplus

#: Bits; a pair with less evidence than this (one in five) is not worth a person's time.
POSSIBLE_MIN = -2.0
#: One customer comes in so many questions at once at most, and a run asks so many.
POSSIBLE_OF_ONE_MAX = 3
POSSIBLE_MAX = 10_000

Kind = Literal["probable", "possible"]
Told = tuple[tuple[str, float], ...]


class Proposal(NamedTuple):
    """Two rows, the match weight in bits, and its parts by field: `prior`, then columns; in sum."""

    kind: Kind
    left: int
    right: int
    weight: float
    told: Told


@dataclass(frozen=True, slots=True)
class Proposals:
    """What is worth saying; `n_unasked` pairs of the grey zone were weaker than the bounds leave room for."""

    pairs: list[Proposal]
    n_unasked: int


class _Groups:
    """Rows that grow together from the customers that are there, and which of them a person has parted."""

    def __init__(self, customer: Rows, apart: Iterable[tuple[int, int]]) -> None:
        _, first, inverse = np.unique(customer, return_index=True, return_inverse=True)
        self._parent: list[int] = first[inverse].tolist()
        self._apart: dict[int, set[int]] = {}
        for pair in apart:
            a, b = self.top(pair[0]), self.top(pair[1])
            if a != b:
                self._apart.setdefault(a, set()).add(b)
                self._apart.setdefault(b, set()).add(a)

    def top(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def are_apart(self, a: int, b: int) -> bool:
        return b in self._apart.get(a, ())

    def join(self, a: int, b: int) -> None:
        self._parent[b] = a
        for other in self._apart.pop(b, set()):
            self._apart[other].discard(b)
            self._apart[other].add(a)
            self._apart.setdefault(a, set()).add(other)


def proposed(
    con: duckdb.DuckDBPyConnection,
    found: Linkage,
    customer: Rows | None = None,
    apart: Iterable[tuple[int, int]] = (),
) -> Proposals:
    """The pairs that are worth saying, probable ones first, each kind with the strongest first.

    `con` is the scratch database in which `found` was made. What belongs to one `customer` already needs no
    pair, and rows that a person put `apart` are not brought together, by way of others neither.
    """
    own = np.arange(len(found.clusters.cluster)) if customer is None else customer
    groups = _Groups(own, apart)
    probable = _trees(found, groups)
    possible, n_unasked = _grey(found, groups)
    rows = np.array([*probable, *possible], np.int64)
    left, right = found.pairs.left[rows], found.pairs.right[rows]
    told = explained(con, found.settings, found.model, left, right)
    kinds: list[Kind] = ["probable" if place < len(probable) else "possible" for place in range(len(rows))]
    return Proposals(
        [
            Proposal(kind, a, b, sum(bits for _, bits in parts), parts)
            for kind, a, b, parts in zip(kinds, left.tolist(), right.tolist(), told, strict=True)
        ],
        n_unasked,
    )


def _strongest(found: Linkage, places: Rows) -> list[tuple[int, int, int]]:
    """Pairs in order of strength: place, left, right."""
    left, right = found.pairs.left[places], found.pairs.right[places]
    order = np.lexsort((right, left, -found.pairs.weight[places]))
    return list(zip(places[order].tolist(), left[order].tolist(), right[order].tolist(), strict=True))


def _trees(found: Linkage, groups: _Groups) -> list[int]:
    """The strongest pairs that hold each cluster together; `groups` grow by them."""
    cluster = found.clusters.cluster
    within = np.flatnonzero(cluster[found.pairs.left] == cluster[found.pairs.right])
    chosen: list[int] = []
    for place, left, right in _strongest(found, within):
        a, b = groups.top(left), groups.top(right)
        if a != b and not groups.are_apart(a, b):
            groups.join(a, b)
            chosen.append(place)
    return chosen


def _grey(found: Linkage, groups: _Groups) -> tuple[list[int], int]:
    """The strongest pair between each two groups, bounded for each group and in all; how many were left."""
    pairs = found.pairs
    is_out = np.zeros(len(found.clusters.cluster), bool)
    for each in found.quarantined:
        is_out[each.rows] = True
    asked = (pairs.weight >= POSSIBLE_MIN) & ~is_out[pairs.left] & ~is_out[pairs.right]
    asked &= found.clusters.cluster[pairs.left] != found.clusters.cluster[pairs.right]
    chosen: list[int] = []
    seen: set[tuple[int, int]] = set()
    n_of: dict[int, int] = {}
    for place, left, right in _strongest(found, np.flatnonzero(asked)):
        a, b = sorted((groups.top(left), groups.top(right)))
        if a == b or (a, b) in seen or groups.are_apart(a, b):
            continue
        seen.add((a, b))
        if max(n_of.get(a, 0), n_of.get(b, 0)) < POSSIBLE_OF_ONE_MAX and len(chosen) < POSSIBLE_MAX:
            n_of[a], n_of[b] = n_of.get(a, 0) + 1, n_of.get(b, 0) + 1
            chosen.append(place)
    return chosen, len(seen) - len(chosen)


def explained(
    con: duckdb.DuckDBPyConnection, settings: Settings, model: Model, left: Rows, right: Rows
) -> list[Told]:
    """The weight of each pair by field, in bits, with what the rarity of a value adds to its field.

    Where the model knows of relatives, `related` is what the pair's weight loses because they are alike, too.
    """
    if not len(left):
        return []
    columns = {unit[0].key: unit[0].name for unit in units(model.columns)}
    rows = _scored(con, settings, ", ".join(f"mw_{key} + mw_tf_adj_{key}" for key in columns), left, right)
    share = settings[PRIOR]
    assert isinstance(share, float) and len(rows) == len(left), "every pair is told"
    prior = ("prior", float(np.log2(share / (1 - share))))
    told = [(prior, *zip(columns.values(), bits, strict=True)) for bits in rows]
    if model.related is None:
        return told
    against = np.array(_scored(con, model.related, "match_weight", left, right)).reshape(-1)
    return [(*each, ("related", -lost)) for each, lost in zip(told, surplus(against).tolist(), strict=True)]


def _scored(
    con: duckdb.DuckDBPyConnection, settings: Settings, parts: str, left: Rows, right: Rows
) -> list[tuple[float, ...]]:
    """Parts of the weight of each pair."""
    linker = scorer(con, "blocked", settings | {"retain_intermediate_calculation_columns": True})
    con.register("pairs_told", pa.table({"pair": np.arange(len(left)), "left": left, "right": right}))
    sides = []
    for side in ("left", "right"):
        con.sql(
            f"""create or replace table told_{side} as select pair as row_id, pair, blocked.* exclude (row_id)
            from pairs_told join blocked on blocked.row_id = pairs_told."{side}" order by pair"""
        )
        sides.append(linker._db_api.register(f"told_{side}", table_name=f"told_{side}s"))
    con.unregister("pairs_told")
    scored = linker.inference.predict_between(
        *sides, blocking_rules_to_generate_predictions=[block_on("pair")], warning_mode="never"
    )
    rows: list[tuple[float, ...]] = con.sql(
        f"select {parts} from {scored.physical_name} order by row_id_l"
    ).fetchall()
    linker.table_management.delete_tables_created_by_splink_from_db()  # type: ignore[no-untyped-call]
    return rows
