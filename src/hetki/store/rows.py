"""Rows: CSV, JSON Lines and Parquet files read as a stream of rows, plain or gzipped.

A row that cannot be read is a row with a fault, and its neighbours are read. Only a file that cannot be cut
into rows raises. Start at `read_rows`. What a row means is not known here.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final, Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from hetki.errors import Fault, Invalid, NotFound, nearest, shown
from hetki.events import wire
from hetki.store.ports import Disk

Form = Literal["csv", "json_lines", "parquet"]
ENDINGS: Final[dict[str, Form]] = {
    "csv": "csv",
    "tsv": "csv",
    "txt": "csv",
    "jsonl": "json_lines",
    "ndjson": "json_lines",
    "json": "json_lines",
    "parquet": "parquet",
    "pq": "parquet",
}
#: Rows that are decoded at once.
ROWS_AT_ONCE: Final = 1_000
CHUNK_BYTES: Final = 1 << 20
#: A longer line is a broken row; this much of it is kept. (A quoted text that is never closed ends at the
#: bound of Python's csv, 128 KiB.)
LINE_BYTES_MAX: Final = 1 << 20
KEPT_BYTES: Final = 32 * 1024


class Row(msgspec.Struct, frozen=True):
    """One row: its number from 1, where it stands, and its values, or a fault and what stood there."""

    number: int
    where: str
    values: dict[str, object]
    fault: Fault | None = None
    text: str = ""


class Layout(msgspec.Struct, frozen=True):
    """How the text of a CSV file is cut and read."""

    delimiter: str = ","
    encoding: str = "utf-8"


def read_rows(disk: Disk, name: str, layout: Layout, columns: frozenset[str] | None = None) -> Iterator[Row]:
    """The rows of a file, in order. Of Parquet, only these columns are read, if they are there.

    Raises `NotFound`, and `Invalid` where the file cannot be cut into rows.
    """
    form = form_of(disk, name)
    with _as_invalid(name):
        if form == "parquet":
            yield from _parquet(disk, name, columns)
        elif form == "csv":
            yield from _csv(_lines(disk, name), name, layout)
        else:
            yield from _json_lines(_lines(disk, name), name)


def column_names(disk: Disk, name: str, layout: Layout) -> list[str] | None:
    """The columns that a file declares; None for JSON Lines, where each row has its own."""
    form = form_of(disk, name)
    with _as_invalid(name):
        if form == "parquet":
            return list(pq.ParquetFile(disk.path(name)).schema_arrow.names)
        if form == "csv":
            return _header(csv.reader(_Taken(_lines(disk, name), layout), delimiter=layout.delimiter), name)
    return None


def content_hash(disk: Disk, name: str) -> str:
    """A hash of all bytes of a file (32 hex characters)."""
    form_of(disk, name)
    total = blake2b(digest_size=16)
    with _as_invalid(name), pa.OSFile(disk.path(name), "r") as file:
        while chunk := file.read(CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()


def form_of(disk: Disk, name: str) -> Form:
    """What a file's name says it is. Raises `Invalid` for an unknown ending, `NotFound`."""
    ending = name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending not in ENDINGS or (ENDINGS[ending] == "parquet" and name.lower().endswith(".gz")):
        must = "a file that ends in .csv, .tsv, .jsonl or .parquet"
        raise Invalid(Fault(name, shown(name.rpartition("/")[2]), must, nearest(ending, ENDINGS)))
    if name not in disk.names(name):
        raise NotFound(Fault(name, "no such file", "an existing file"))
    return ENDINGS[ending]


@contextmanager
def _as_invalid(name: str) -> Iterator[None]:
    """What the libraries say of a broken file, in our form."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        said = " ".join(str(error).split("\n")[0].split())
        hint = "it may have been cut on its way; fetch it again"
        raise Invalid(
            Fault(name, f"a file that breaks ({said[:160].rstrip('.')})", "a whole file", hint)
        ) from None


def _lines(disk: Disk, name: str) -> Iterator[bytes]:
    """The lines of a text file with their ends; one that is too long is cut, and still too long."""
    rest = b""
    with pa.input_stream(disk.path(name)) as file:
        while chunk := file.read(CHUNK_BYTES):
            first, *others = chunk.split(b"\n")
            rest = (rest + first)[: LINE_BYTES_MAX + 1]
            for part in others:
                yield rest + b"\n"
                rest = part
    if rest:
        yield rest


class _Taken:
    """Lines as text for csv, which remembers those that were taken for the present row."""

    def __init__(self, lines: Iterator[bytes], layout: Layout) -> None:
        self._lines = lines
        self._encoding = layout.encoding
        self._given_back: deque[bytes] = deque()
        self._taken: list[bytes] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._lines)
        self._taken.append(line)
        self.number += 1
        if len(line) > LINE_BYTES_MAX:
            raise csv.Error("long")
        return line.decode("utf-8-sig" if self.number == 1 and self._encoding == "utf-8" else self._encoding)

    def begin(self) -> int:
        """Begin a row; the number of its first line."""
        self._taken.clear()
        return self.number + 1

    def give_back(self) -> bytes:
        """Give back all but the first line that was taken for the present row, and tell that one."""
        if not self._taken:
            return b""
        self._given_back.extendleft(reversed(self._taken[1:]))
        self.number -= len(self._taken) - 1
        return self._taken[0]


def _csv(lines: Iterator[bytes], name: str, layout: Layout) -> Iterator[Row]:
    taken = _Taken(lines, layout)
    reader = csv.reader(taken, delimiter=layout.delimiter, strict=True)
    header = _header(reader, name)
    number = 0
    while True:
        where = f"{name}:{taken.begin()}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            number += 1
            line = taken.give_back()
            yield Row(number, where, {}, _csv_fault(error, where, line, layout), _kept(line))
            continue
        if not cells:
            continue
        number += 1
        if len(cells) == len(header):
            yield Row(number, where, dict(zip(header, cells, strict=True)))
        else:
            fault = Fault(where, f"{len(cells)} columns", f"{len(header)} columns as in the header")
            yield Row(number, where, {}, fault, layout.delimiter.join(cells))


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        header = next(reader)
    except StopIteration:
        raise Invalid(Fault(name, "an empty file", "a line of column names, then rows")) from None
    except (csv.Error, UnicodeDecodeError):
        got, must = "a first line that cannot be read", "column names in the encoding of the map"
        raise Invalid(Fault(f"{name}:1", got, must, "is it text at all")) from None
    twice = sorted({each for each in header if header.count(each) > 1})
    if twice or not all(each.strip() for each in header):
        got = f"the column {shown(twice[0])} twice" if twice else "a column without a name"
        raise Invalid(Fault(f"{name}:1", got, "columns that each have a name of their own"))
    return header


def _csv_fault(error: Exception, where: str, line: bytes, layout: Layout) -> Fault:
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        hint = "name the encoding in the map, such as encoding: windows-1252"
        return Fault(
            where, f"the byte 0x{byte:02x} that is not {layout.encoding}", f"text in {layout.encoding}", hint
        )
    if len(line) > LINE_BYTES_MAX:
        return Fault(where, f"a line of more than {LINE_BYTES_MAX} bytes", f"at most {LINE_BYTES_MAX} bytes")
    if "limit" in str(error) and len(line) > csv.field_size_limit():
        must = f"at most {csv.field_size_limit()} characters"
        return Fault(where, "a value that is too long", must)
    if "limit" in str(error) or "end of data" in str(error):
        return Fault(where, "a quoted text that does not end", 'text between two "', 'inside a text write ""')
    if "new-line" in str(error):
        return Fault(where, "a carriage return inside a line", "lines that end with a line feed")
    return Fault(where, 'a " inside a quoted text', 'text between two "', 'inside a text write ""')


def _json_lines(lines: Iterator[bytes], name: str) -> Iterator[Row]:
    number = 0
    for line_number, line in enumerate(lines, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if line_number == 1 else line
        if not text.strip():
            continue
        number += 1
        where = f"{name}:{line_number}"
        if len(text) > LINE_BYTES_MAX:
            must = f"at most {LINE_BYTES_MAX} bytes"
            fault = Fault(where, f"a line of more than {LINE_BYTES_MAX} bytes", must)
            yield Row(number, where, {}, fault, _kept(text))
            continue
        try:
            values = wire.OBJECT.decode(text)
        except wire.UNREADABLE as error:
            found = wire.placed(wire.explained(error, len(text)), where)
            hint = "each line is one JSON object" if text.lstrip()[:1] in (b"[", b"]") else found.hint
            yield Row(number, where, {}, Fault(found.where, found.got, found.must, hint), _kept(text))
            continue
        if values is None:
            fault = Fault(where, "null", "a JSON object")
            yield Row(number, where, {}, fault, _kept(text))
        else:
            yield Row(number, where, values)
    if number == 0:
        raise Invalid(Fault(name, "an empty file", "one JSON object on each line"))


class _Unreadable(msgspec.Struct, frozen=True):
    """A value that Python cannot hold."""

    said: str


def _parquet(disk: Disk, name: str, columns: frozenset[str] | None) -> Iterator[Row]:
    file = pq.ParquetFile(disk.path(name))
    names = [each for each in file.schema_arrow.names if columns is None or each in columns]
    number = 0
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
        cells = [_values(column) for column in batch.columns]
        for each in zip(*cells, strict=True) if cells else [()] * batch.num_rows:
            number += 1
            where = f"{name}: row {number}"
            values: dict[str, object] = dict(zip(names, each, strict=True))
            broken = next((key for key, value in values.items() if isinstance(value, _Unreadable)), None)
            if broken is None:
                yield Row(number, where, values)
            else:
                fault = Fault(
                    f"{where}, column {broken}",
                    "a value that cannot be read",
                    "text in UTF-8 or a time of this calendar",
                )
                yield Row(number, where, {}, fault, repr(values))


def _values(column: pa.Array) -> list[object]:
    """A column as Python values; times to the microsecond."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        found: list[object] = column.to_pylist()
    except (ValueError, OverflowError):
        found = [_value(each) for each in column]
    return found


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return _Unreadable(str(error))


def _kept(line: bytes) -> str:
    return line[:KEPT_BYTES].decode("utf-8", "backslashreplace").rstrip("\r\n")
