"""The columns of a table of records, typed by what they hold, cleaned, and ready to be compared.

Nobody says which column is a name: what the values look like says enough for choosing comparison levels and
blocking rules. Columns that cannot help are left out, each with its reason. Start at `typed`; then `clean`.
"""

from __future__ import annotations

from typing import Literal, Sequence

import duckdb
import msgspec
import pyarrow as pa

from hetki.errors import Fault, Invalid, shown

Kind = Literal["text", "date", "code", "email", "category"]
#: A table with more columns than this is no table of people.
COLUMNS_MAX = 200
#: A value longer than this is cut: nobody's name, and comparing costs the product of two lengths.
LENGTH_MAX = 100
#: What systems write where they have nothing.
NOTHING = ("", "null", "none", "nil", "undefined", "nan", "unknown", "n/a")
#: A column is of a form when this share of its values is.
MOST = 0.8
#: One column holds another (a full name, a surname) when this share of its values contains the other's.
HOLDS = 0.6
#: Two random values that agree more often than this say too little to be more than a category.
CATEGORY_AGREEMENT = 0.03
CATEGORY_VALUES = 20
#: The share of pairs that agree, from values and their numbers. Where values are many, the most common one is
#: left out: it may be what somebody writes who does not know, or one person's thousand records.
AGREEMENT = (
    "case when count(*) <= {0} then sum(n * n) / (sum(n) * sum(n)) "
    "else (sum(n * n) - max(n) * max(n)) / ((sum(n) - max(n)) * (sum(n) - max(n))) end"
)
#: Rows on which one column is searched for in another.
SAMPLE = 5000
DATE = r"-?[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}( .*)?|(1[89]|20)[0-9]{2}(0[1-9]|1[0-2])[0-3][0-9]"


class Column(msgspec.Struct, frozen=True):
    """A column that is compared: `name` in the table, `key` in the cleaned one.

    `agreement` is the share of pairs of random records that agree on it (`coarse_agreement`: on its coarse
    form), `known_share` the share of records that have it, `length` the mean length of its values. `spaced`
    says that most values have two parts, and `holds` has the keys of the columns that it contains, as a full
    name contains a surname.
    """

    name: str
    key: str
    kind: Kind
    agreement: float
    known_share: float
    length: float
    spaced: bool
    coarse_agreement: float = 1.0
    holds: tuple[str, ...] = ()

    @property
    def coarse(self) -> str | None:
        """The key of its coarse form: the year of a date, the first part of a code, the start of a text."""
        is_short = self.kind == "code" and self.length < 4
        return None if self.kind == "category" or is_short else f"part_of_{self.key}"

    @property
    def coarse_sql(self) -> str:
        """SQL of its coarse form."""
        if self.kind == "date":
            return f"nullif(regexp_extract({self.key}, '[0-9]{{4}}'), '')"
        if self.kind == "code" and self.spaced:
            return f"split_part({self.key}, ' ', 1)"
        return f"left({self.key}, {round(self.length) // 2 if self.kind == 'code' else 4})"


class Ignored(msgspec.Struct, frozen=True):
    """A column that is not compared, and why."""

    name: str
    reason: Literal["empty", "one_value", "an_id_of_the_record", "not_plain_values", "not_in_the_model"]


class Typed(msgspec.Struct, frozen=True):
    """What a table's columns are."""

    columns: tuple[Column, ...]
    ignored: tuple[Ignored, ...]


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def checked(records: pa.Table, where: str) -> None:
    """Raise `Invalid` if this is no table of records: too small, columns twice, texts that are no UTF-8."""
    faults: list[Fault] = []
    if records.num_rows < 2:
        hint = "one record has nothing to be linked with"
        faults.append(Fault(where, f"{records.num_rows} records", "2 or more", hint))
    if records.num_columns > COLUMNS_MAX:
        faults.append(Fault(where, f"{records.num_columns} columns", f"{COLUMNS_MAX} at most"))
    names = [name.casefold() for name in records.column_names]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.append(
            Fault(where, f"two columns {shown(name)}", "named apart", "case does not tell them apart")
        )
    for name, column in zip(records.column_names, records.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            hint = "it may have been written as Latin-1; convert it to UTF-8"
            faults.append(Fault(f"{where}: {name}", shown(str(error)), "text in UTF-8", hint))
    if faults:
        raise Invalid(*faults)


def typed(con: duckdb.DuckDBPyConnection, records: pa.Table, where: str) -> Typed:
    """Type the columns of a table by their values.

    Leaves the cleaned values behind as the temporary table `cleaned`. Raises `Invalid` if fewer than two
    columns are left that say something about a person independently of each other.
    """
    checked(records, where)
    plain = [
        name for name, field in zip(records.column_names, records.schema, strict=True) if is_plain(field.type)
    ]
    ignored = [Ignored(name, "not_plain_values") for name in records.column_names if name not in plain]
    keys = {f"c{number}": name for number, name in enumerate(plain)}
    clean(con, records, keys)
    columns: list[Column] = []
    for key, name in keys.items():
        seen = _looked_at(con, key, name, records.num_rows)
        if isinstance(seen, Ignored):
            ignored.append(seen)
        else:
            columns.append(seen)
    found = _with_holders(con, columns)
    if len(units(found)) < 2:
        left = ", ".join(f"{each.name} ({each.reason})" for each in ignored) or "none"
        got = f"{len(found)} columns that tell people apart"
        raise Invalid(Fault(where, got, "2 or more that are independent", f"left out: {left}"))
    return Typed(tuple(found), tuple(ignored))


def is_plain(kind: pa.DataType) -> bool:
    """Whether values of this type can be read as one short text each."""
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def clean(con: duckdb.DuckDBPyConnection, records: pa.Table, keys: dict[str, str]) -> None:
    """Make the temporary table `cleaned`: `row_id` from 0, and each column as comparable text or null."""
    nothing = ", ".join(f"'{each}'" for each in NOTHING)
    values = "".join(f""", case when v{key} not in ({nothing}) then v{key} end as {key}""" for key in keys)
    texts = "".join(
        f", trim(regexp_replace(lower(nfc_normalize(left({quoted(name)}::varchar, {LENGTH_MAX}))), "
        f"'[\\s\\x00]+', ' ', 'g')) as v{key}"
        for key, name in keys.items()
    )
    numbered = records.append_column("hetki row", pa.array(range(records.num_rows), pa.int64()))
    con.register("given_records", numbered)
    con.sql(
        f"""create or replace temporary table cleaned as select row_id{values} from
        (select "hetki row" as row_id{texts} from given_records) order by row_id"""
    )
    con.unregister("given_records")


def _looked_at(con: duckdb.DuckDBPyConnection, key: str, name: str, n_records: int) -> Column | Ignored:
    """What one column holds."""
    n_known, n_values, length, agreement, dated, mailed, numbered, spaced = con.sql(
        f"""with counted as (
            select {key} as v, count(*)::double as n from cleaned where {key} is not null group by 1)
        select sum(n), count(*), sum(n * length(v)) / sum(n), {AGREEMENT.format(CATEGORY_VALUES)},
        sum(n * regexp_full_match(v, '{DATE}')::int) / sum(n), sum(n * contains(v, '@')::int) / sum(n),
        sum(n * regexp_matches(v, '[0-9]')::int) / sum(n), sum(n * contains(v, ' ')::int) / sum(n)
        from counted"""
    ).fetchall()[0]
    if not n_known:
        return Ignored(name, "empty")
    if n_values == 1:
        return Ignored(name, "one_value")
    kind: Kind = "text"
    if dated > MOST:
        kind = "date"
    elif mailed > MOST:
        kind = "email"
    elif n_values <= CATEGORY_VALUES or agreement > CATEGORY_AGREEMENT:
        kind = "category"
    elif numbered > MOST:
        kind = "code"
    if n_values == n_known == n_records and kind not in ("text", "email"):  # of names each may be mistyped
        return Ignored(name, "an_id_of_the_record")
    # Rounded, as the last digits of sums over several threads differ from run to run.
    shares = round(agreement, 12), round(n_known / n_records, 12), round(length, 6)
    column = Column(name, key, kind, *shares, spaced > MOST)
    return msgspec.structs.replace(column, coarse_agreement=round(_coarse_agreement(con, column), 12))


def _coarse_agreement(con: duckdb.DuckDBPyConnection, column: Column) -> float:
    """The share of pairs of random records that agree on the coarse form."""
    return float(
        con.sql(
            f"""select coalesce({AGREEMENT.format(CATEGORY_VALUES)}, 1) from (select count(*)::double as n
            from cleaned where {column.coarse_sql} is not null group by {column.coarse_sql})"""
        ).fetchall()[0][0]
    )


def _with_holders(con: duckdb.DuckDBPyConnection, columns: Sequence[Column]) -> list[Column]:
    """The columns, each with those that it contains."""
    texts = [column for column in columns if column.kind == "text"]
    pairs = [(a, b) for a in texts for b in texts if a is not b]
    if not pairs:
        return list(columns)
    shares = ", ".join(f"avg(contains({a.key}, {b.key})::int) filter (length({b.key}) > 1)" for a, b in pairs)
    found = con.sql(
        f"select {shares} from (select * from cleaned order by hash(row_id) limit {SAMPLE})"
    ).fetchall()
    held: dict[str, list[str]] = {}
    for (a, b), share in zip(pairs, found[0], strict=True):
        if (share or 0) >= HOLDS:
            held.setdefault(a.key, []).append(b.key)
    return [msgspec.structs.replace(each, holds=tuple(held.get(each.key, ()))) for each in columns]


def units(columns: Sequence[Column]) -> list[list[Column]]:
    """Columns that say the same thing together: first the one that contains the others, then those.

    Comparisons must be independent of each other, so a full name and its surname are one comparison.
    """
    by_key = {column.key: column for column in columns}
    placed: set[str] = set()
    found: list[list[Column]] = []
    for column in sorted(columns, key=lambda column: -len(column.holds)):
        if column.key in placed:
            continue
        unit = [column, *(by_key[key] for key in column.holds if key not in placed)]
        placed.update(each.key for each in unit)
        found.append(unit)
    order = {column.key: place for place, column in enumerate(columns)}
    return sorted(found, key=lambda unit: order[unit[0].key])
