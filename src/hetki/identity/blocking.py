"""Blocking: which records of a table are compared at all, so that work grows with records, not their square.

A blocking rule brings together the records that agree on some columns, whole or coarse. Start at
`blocking_rules`, then `block`.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Sequence

import duckdb
import msgspec
import numpy as np

from hetki.errors import Fault, Invalid
from hetki.identity.columns import Column, units

#: A blocking rule may bring together this many random pairs for each record.
PAIRS_PER_RECORD = 40
#: A value shared by more records than this brings none of them together by itself.
BLOCK_MAX = 300
#: All rules together may bring this many real pairs to each record: columns may vary together.
COMPARED_PER_RECORD = 250
#: Blocking rules are made of the columns that tell most, and there are no more of them than this.
RULE_UNITS_MAX = 12
RULES_MAX = 40


class Rule(msgspec.Struct, frozen=True):
    """A blocking rule: records that agree on all of these keys, of columns or coarse forms, are compared."""

    keys: tuple[str, ...]


def blocking_rules(columns: Sequence[Column], n_records: int) -> tuple[Rule, ...]:
    """Rules that bring few random pairs together, the widest first.

    A rule takes one, two or three columns, whole or coarse; it is left out if one that is already there
    brings all of its pairs. Within a unit only the innermost columns are combined with others.
    """
    agreement = {column.key: column.agreement for column in columns}
    wholes = {column.coarse: column.key for column in columns if column.coarse}
    agreement |= {column.coarse: column.coarse_agreement for column in columns if column.coarse}
    wide = sorted(units(columns), key=lambda unit: unit[0].agreement / unit[0].known_share)[:RULE_UNITS_MAX]
    inner = [[key for column in unit if not column.holds for key in forms(column)] for unit in wide]
    found: list[tuple[str, ...]] = [(key,) for unit in wide for column in unit for key in forms(column)]
    for n_columns in (2, 3):
        for some in itertools.combinations(inner, n_columns):
            found.extend(itertools.product(*some))
    share = {keys: float(np.prod([agreement[key] for key in keys])) for keys in found}
    allowed = [keys for keys in found if share[keys] * n_records / 2 <= PAIRS_PER_RECORD]
    allowed.sort(key=lambda keys: (len(keys), -sum(key in wholes for key in keys), share[keys], keys))
    kept: list[tuple[str, ...]] = []
    for keys in allowed:
        said = {*keys, *(coarse for coarse, whole in wholes.items() if whole in keys)}
        if not any(said.issuperset(wider) for wider in kept):
            kept.append(keys)
    return tuple(Rule(keys) for keys in kept[:RULES_MAX])


def forms(column: Column) -> list[str]:
    """The keys of a column: whole, and coarse if it has such a form."""
    return [column.key, column.coarse] if column.coarse else [column.key]


class Blocked(NamedTuple):
    """The table `blocked`: how many records are in it, and the rows that are not, being like too many.

    `idle` are the numbers of rules that would bring too many pairs of this table together and bring none.
    """

    n_records: int
    alike: list[int]
    idle: list[int]


def block(
    con: duckdb.DuckDBPyConnection, columns: Sequence[Column], rules: Sequence[Rule], where: str
) -> Blocked:
    """Make the table `blocked`: the cleaned columns, their coarse forms, a key `block0` ... for each rule.

    A key is null where a value is missing, and where more than BLOCK_MAX records share it: then it says
    little, and the pairs would be the square of their number. Records most of whose keys are so are left
    out. Raises `Invalid` if fewer than two are left.
    """
    coarse = "".join(f", {column.coarse_sql} as {column.coarse}" for column in columns if column.coarse)
    keys, counts, blocks, large, known_keys = "", "", "", "0", "0"
    for number, rule in enumerate(rules):
        known = " and ".join(f"{key} is not null" for key in rule.keys)
        keys += f", case when {known} then hash({', '.join(rule.keys)}) end as key{number}"
        counts += f", count(*) over (partition by key{number}) as n{number}"
        blocks += f", case when n{number} <= {BLOCK_MAX} then key{number} end as block{number}"
        known_keys += f" + (key{number} is not null)::int"
        large += f" + (key{number} is not null and n{number} > {BLOCK_MAX})::int"
    shown = ", ".join(name for column in columns for name in forms(column))
    con.sql(
        f"""create or replace table blocked as
        with coarsened as (select *{coarse} from cleaned),
        keyed as (select *{keys} from coarsened),
        counted as (select *{counts} from keyed)
        select row_id, {shown}{blocks}, 2 * ({large}) > {known_keys} as is_alike
        from counted order by row_id"""
    )
    alike = [row for (row,) in con.sql("select row_id from blocked where is_alike order by 1").fetchall()]
    con.sql("delete from blocked where is_alike")
    n_left = int(con.sql("select count(*) from blocked").fetchall()[0][0])
    if n_left < 2:
        hint = "is it one person, or a table of test data?"
        raise Invalid(
            Fault(where, f"{n_left} records that are not like {BLOCK_MAX} others", "2 or more", hint)
        )
    return Blocked(n_left, alike, _idle(con, len(rules), n_left))


def _idle(con: duckdb.DuckDBPyConnection, n_rules: int, n_records: int) -> list[int]:
    """Empty the keys of rules that are too much work, as columns vary together or the table has grown.

    Rules are taken with the fewest pairs first; at least one is left.
    """
    n_pairs = [
        con.sql(
            f"""select coalesce(sum(n * (n - 1) / 2), 0) from (select count(*)::double as n from blocked
            where block{number} is not null group by block{number})"""
        ).fetchall()[0][0]
        for number in range(n_rules)
    ]
    order = sorted(range(n_rules), key=lambda number: (n_pairs[number], number))
    totals = itertools.accumulate(n_pairs[number] for number in order)
    idle = [
        number
        for number, total in zip(order, totals, strict=True)
        if number != order[0] and total > COMPARED_PER_RECORD * n_records
    ]
    for number in idle:
        con.sql(f"update blocked set block{number} = null")
    return sorted(idle)
