"""Tables: a customer table read whole, from CSV or Parquet, every value as the text that it is compared by.

Rows come through `rows`, so that a broken row is a row with a fault and its neighbours are read. A CSV file's
delimiter is found by itself. Tables of PostgreSQL are read in `postgres`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from hetki.errors import Exhausted, Fault, Invalid, shown
from hetki.store.ports import Disk
from hetki.store.rows import Layout, Row, column_names, form_of, read_rows

#: A table with more rows than this is no table of customers for one machine's memory.
ROWS_MAX = 5_000_000
ROWS_AT_ONCE = 10_000
DELIMITERS = ",;\t|"
ENCODINGS = ("utf-8", "windows-1252")


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text: `texts` has the columns that hold plain values, null where there is nothing.

    `places` says where each row stands. Texts of columns that are `literal` are numbers or truth values as
    JSON writes them. `left_out` are columns of nested or binary values, `broken` the rows with a fault.
    """

    name: str
    texts: pa.Table
    places: list[str]
    literal: frozenset[str]
    left_out: list[str]
    broken: list[Row]


def read_table(disk: Disk, name: str, encoding: str) -> Table:
    """A CSV or Parquet file. Raises `NotFound`, and `Invalid` where it cannot be cut into rows."""
    form = form_of(disk, name)
    if encoding not in ENCODINGS:
        raise Invalid(Fault("--encoding", shown(encoding), " or ".join(ENCODINGS)))
    if form == "json_lines":
        raise Invalid(Fault(name, "JSON Lines", "CSV or Parquet", "hetki import takes JSON Lines"))
    if form == "csv":
        layout = Layout(_delimiter(disk, name, encoding), encoding)
        names = column_names(disk, name, layout)
        assert names is not None, "a CSV file declares its columns"
        return gathered(name, names, frozenset(), [], map(_hinted, read_rows(disk, name, layout)))
    # What cannot be opened at all is told by `read_rows`, in our words.
    rows = read_rows(disk, name, Layout(), frozenset())
    next(rows, None)
    schema = pq.ParquetFile(disk.path(name)).schema_arrow
    plain, literal, left_out = plain_columns(schema)
    return gathered(name, plain, literal, left_out, read_rows(disk, name, Layout(), frozenset(plain)))


def _hinted(row: Row) -> Row:
    """A row whose fault names the option where a map would have a field."""
    if row.fault is None or "encoding" not in row.fault.hint:
        return row
    fault = Fault(row.fault.where, row.fault.got, row.fault.must, f"is it --encoding {ENCODINGS[1]}")
    return msgspec.structs.replace(row, fault=fault)


def plain_columns(schema: pa.Schema) -> tuple[list[str], frozenset[str], list[str]]:
    """Columns that hold plain values, those of them that are numbers or truth values, and the others."""
    kinds = {field.name: field.type for field in schema}
    left_out = [name for name, kind in kinds.items() if not _is_plain(kind)]
    literal = frozenset(name for name, kind in kinds.items() if _is_literal(kind))
    return [name for name in kinds if name not in left_out], literal, left_out


def gathered(
    name: str, names: list[str], literal: frozenset[str], left_out: list[str], rows: Iterable[Row]
) -> Table:
    """Rows as one table of texts. Raises `Invalid` if there are none, `Exhausted` if there are too many."""
    schema = pa.schema([(each, pa.string()) for each in names])
    places: list[str] = []
    broken: list[Row] = []

    def batches() -> Iterator[pa.RecordBatch]:
        held: list[list[str | None]] = [[] for _ in names]
        for row in rows:
            if row.fault is not None:
                broken.append(row)
                continue
            places.append(row.where)
            if len(places) > ROWS_MAX:
                raise Exhausted(Fault(name, f"more than {ROWS_MAX} rows", f"at most {ROWS_MAX} rows"))
            for column, each in zip(held, names, strict=True):
                column.append(as_text(row.values.get(each)))
            if len(places) % ROWS_AT_ONCE == 0:
                yield pa.record_batch(held, schema)
                held = [[] for _ in names]
        yield pa.record_batch(held, schema)

    texts = pa.Table.from_batches(batches(), schema)
    if not places and not broken:
        raise Invalid(Fault(name, "no rows", "a table with at least one row"))
    return Table(name, texts, places, literal, left_out, broken)


def as_text(value: object) -> str | None:
    """A value as the text that it is compared by: dates in ISO 8601, whole numbers without a fraction.

    >>> as_text(5.0), as_text(True), as_text(date(2026, 3, 1)), as_text(float("nan")), as_text("")
    ('5', 'true', '2026-03-01', None, None)
    """
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else None
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value)


def as_rows(batches: Iterable[pa.RecordBatch], name: str) -> Iterator[Row]:
    """Rows of Arrow batches, numbered from 1."""
    number = 0
    for batch in batches:
        for values in batch.to_pylist():
            number += 1
            found: Mapping[str, object] = values
            yield Row(number, f"{name}: row {number}", dict(found))


def _delimiter(disk: Disk, name: str, encoding: str) -> str:
    """The delimiter that cuts the header into most columns; a comma where none does.

    One that cuts it, though not into columns that can be, is kept: what is wrong with them is told.
    """
    n_columns: dict[str, int] = {}
    for delimiter in DELIMITERS:
        try:
            n_columns[delimiter] = len(column_names(disk, name, Layout(delimiter, encoding)) or [])
        except Invalid:
            n_columns[delimiter] = 2
    return max(DELIMITERS, key=lambda delimiter: n_columns[delimiter])


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of this type are one short text each. Of the types that other systems have added, a uuid
    is, and what comes as text without being JSON."""
    if isinstance(kind, pa.BaseExtensionType):
        is_text = pa.types.is_string(kind.storage_type) or pa.types.is_large_string(kind.storage_type)
        return bool(kind.extension_name == "arrow.uuid" or (is_text and kind.extension_name != "arrow.json"))
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    is_other = pa.types.is_nested(kind) or pa.types.is_interval(kind)
    return not (is_other or any(is_bytes(kind) for is_bytes in of_bytes))


def _is_literal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
