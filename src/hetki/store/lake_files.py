"""The files of the lake's events: how far they go, which of them count, and how small ones become one.

Each refresh adds a file for every bucket and month in which something happened: tens of thousands a day, and
whoever asks the lake opens each. So the small files of a bucket and month are merged when there are too many.
A name is never given to other rows, and the mark says which files do not count: first the new ones, while
they are written, then, from one instant to the next, those that they replace, until these are deleted. So at
any instant each row counts once, also for who finds the files after a crash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from hetki.store.lake_tables import FOLDER, ROWS_AT_ONCE, write_parts
from hetki.store.ports import Disk

MARK = f"{FOLDER}/position.json"
#: The form of the lake. One of another form is made anew by the next refresh.
FORM = 1
#: The files of events.
EVENT_FILES = f"{FOLDER}/events/*/*/*"
#: So many small files of one bucket and month are left as they are.
SMALL_MAX = 64
#: A file of so many rows is no small one: it is not written again but for an erasure.
ROWS_MIN = 100_000


class Mark(msgspec.Struct, frozen=True):
    """How far the lake has come: in the journal, and in what was erased (`n_erasures`); and the files that do
    not count (`hidden`)."""

    position: int
    n_events: int
    n_erasures: int = 0
    form: int = 0
    hidden: tuple[str, ...] = ()


def read_mark(disk: Disk) -> Mark:
    """How far the lake has come; position 0 when there is none."""
    if MARK not in disk.names(f"{FOLDER}/*"):
        return Mark(0, 0, form=FORM)
    return msgspec.json.decode(disk.read(MARK), type=Mark)


def save_mark(disk: Disk, mark: Mark) -> Mark:
    """Have the lake be as far as this, durably."""
    disk.write(MARK, msgspec.json.encode(mark))
    return mark


def name_of(bucket: str, month: str, start: int) -> str:
    """The file of a refresh, by the position of the first journal row that it looked at."""
    return f"{FOLDER}/events/bucket={bucket}/month={month}/from-{start:012}.parquet"


def start_of(name: str) -> int:
    """The journal position that a file of events begins with."""
    return int(name.rpartition("/from-")[2][:12])


def event_files(disk: Disk) -> list[str]:
    """The files in which every event stands once, as they are at one instant."""
    while True:
        hidden = read_mark(disk).hidden
        names = disk.names(EVENT_FILES)
        if read_mark(disk).hidden == hidden:
            return sorted({*names}.difference(hidden))


def tidy_files(disk: Disk, mark: Mark) -> Mark:
    """Delete what does not count: what a merge left that was interrupted."""
    for name in mark.hidden:
        disk.remove(name)
    return save_mark(disk, msgspec.structs.replace(mark, hidden=())) if mark.hidden else mark


def merge_small(disk: Disk, mark: Mark) -> Mark:
    """Merge the small files of each bucket and month that has too many. The rows of one small file and of one
    part of a new one are held in memory."""
    merged = {_merged(run): run for run in _runs(disk, disk.names(EVENT_FILES))}
    if not merged:
        return mark
    mark = save_mark(disk, msgspec.structs.replace(mark, hidden=tuple(merged)))
    for name, run in merged.items():
        write_parts(disk, name, pq.read_schema(disk.path(run[0])), _parts(disk, run))
    gone = tuple(each for run in merged.values() for each in run)
    return tidy_files(disk, save_mark(disk, msgspec.structs.replace(mark, hidden=gone)))


def _parts(disk: Disk, run: list[str]) -> Iterator[pa.Table]:
    """The rows of some files, in parts that are good to read."""
    held: list[pa.Table] = []
    for name in run:
        held.append(pq.ParquetFile(disk.path(name)).read())
        if name == run[-1] or sum(each.num_rows for each in held) >= ROWS_AT_ONCE:
            yield pa.concat_tables(held)
            held = []


def _runs(disk: Disk, names: Collection[str]) -> Iterable[list[str]]:
    """Which files become one, in their order."""
    folders: dict[str, list[str]] = {}
    for name in sorted(names):
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    for listed in folders.values():
        if len(listed) <= SMALL_MAX:
            continue
        n_rows = {each: pq.read_metadata(disk.path(each)).num_rows for each in listed}
        small = [each for each in listed if n_rows[each] < ROWS_MIN]
        if len(small) <= SMALL_MAX:
            continue
        run: list[str] = []
        n = 0
        for name in small:
            run.append(name)
            n += n_rows[name]
            if n >= ROWS_MIN:
                yield run
                run, n = [], 0
        if len(run) > 1:
            yield run


def _merged(run: list[str]) -> str:
    """A name that no file had before: it says of which rows of the journal the first and the last file is."""
    last = run[-1].removesuffix(".parquet")[-12:]
    return f"{run[0].rpartition('/from-')[0]}/from-{start_of(run[0]):012}-{last}.parquet"
