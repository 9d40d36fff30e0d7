"""Linking: customer tables into the journal, and linkage over all records that are known.

Nothing is joined here: what linkage finds goes into the journal as proposals, and the fold decides. A model
is trained once and kept in the project's folder; later runs weigh new records against those that are known.
Start at `link_tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b

import duckdb
import msgspec

from hetki.engine.advance import advance
from hetki.engine.commands import PAIRS_MAX, Matched, MatchedPair, SetAside
from hetki.engine.engine import Engine
from hetki.engine.records import Compared, Records, compared, load_records
from hetki.engine.tables import Roles, Taking, Wishes, roles_of, rows_as_events
from hetki.errors import Fault, Invalid, NotFound, nearest, shown
from hetki.events.wire import Parsed
from hetki.identity.linkage import Linkage, Model, apply, link
from hetki.identity.proposals import Proposals, proposed
from hetki.store.lake import spill_inside
from hetki.store.ports import Disk
from hetki.store.records import customers_of_records, refused_matches, rejected_rows
from hetki.store.sqlite import alone
from hetki.store.tables import Table

#: Where the model is kept, in the project's folder; and how far its use has come, in the data folder.
MODEL = "linkage/model.json"
MARK = "linkage/mark.json"
WHERE = "records"
#: Its lock: what one run has taken in, another must not take for compared.
LOCK = "linkage.db"
BUSY = Fault("hetki link", "another run of it", "one at a time", "wait until it has ended")
#: From so many times the records that a model was trained on, it should be trained again.
GROWN = 2
FAULTS_KEPT = 20
#: Before every position: all records are new.
NONE = -1

#: Told a stage, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


class Mark(msgspec.Struct, frozen=True):
    """Records up to this position of the journal were compared with each other, with this model."""

    position: int
    model: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What one table came to; `faults` has the first of its `n_rejected` rows."""

    name: str
    roles: Roles
    n_rows: int
    n_new: int
    n_changed: int
    n_same: int
    n_rejected: int
    faults: list[Fault]


@dataclass(frozen=True, slots=True)
class Linked:
    """What linkage came to.

    `n_customers` counts the customers of all records by shared identifiers alone, and after what was
    proposed. `n_compared` records were new. `linkage` is None where nothing was new. `refused` counts the
    probable links that a constraint forbids, by reason.
    """

    n_records: int
    n_sources: int
    n_compared: int
    n_customers: tuple[int, int]
    version: str
    model: Model
    is_trained: bool
    linkage: Linkage | None
    proposals: Proposals
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run shall do: tables of one source, with what a person said of their columns."""

    tables: Sequence[Table] = ()
    source: str = ""
    wishes: Wishes = field(default_factory=Wishes)
    is_training: bool = False
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What a run came to; `unlinked` says why linkage could not be, where it could not."""

    taken: list[Taken]
    linked: Linked | None
    unlinked: tuple[Fault, ...] = ()


def link_tables(engine: Engine, folder: Disk, wanted: Wanted, progress: Progress) -> Done:
    """Take tables in, find what belongs together over all records, and propose it.

    `folder` is the project's. A dry run writes nothing. Raises `NotFound`, `Conflict` while another run is
    at it, and `Invalid`, before anything is stored, where a table or the kept model cannot be used.
    """
    if wanted.tables and wanted.source not in engine.project.sources:
        hint = nearest(wanted.source, engine.project.sources)
        raise NotFound(Fault("--source", shown(wanted.source), "a declared source", hint))
    roles = [roles_of(table, wanted.wishes) for table in wanted.tables]
    model = None if wanted.is_training else load_model(folder)
    if model is not None and model.is_taught:
        for table, each in zip(wanted.tables, roles, strict=True):
            check_fit(table, each, model)
    with nullcontext() if wanted.is_dry else alone(engine.disk, LOCK, BUSY):
        return _linked(engine, folder, wanted, roles, model, progress)


def _linked(
    engine: Engine,
    folder: Disk,
    wanted: Wanted,
    roles: Sequence[Roles],
    model: Model | None,
    progress: Progress,
) -> Done:
    if not wanted.is_dry:
        advance(engine)
    records = load_records(engine, lambda n_done, n: progress("known records", n_done, n))
    taken = [
        _take_in(engine, records, table, each, wanted, progress)
        for table, each in zip(wanted.tables, roles, strict=True)
    ]
    if not wanted.is_dry:
        advance(engine)
    try:
        return Done(taken, _find(engine, folder, records, model, wanted, progress))
    except Invalid as error:
        return Done(taken, None, error.faults)


def load_model(folder: Disk) -> Model | None:
    """The kept model. Raises `Invalid` if what is kept is none."""
    if MODEL not in folder.names(MODEL):
        return None
    try:
        return msgspec.json.decode(folder.read(MODEL), type=Model)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        hint = "take it back from version control, or train again with --train"
        raise Invalid(Fault(MODEL, str(error), "a model as hetki link writes it", hint)) from None


def version_of(model: Model) -> str:
    """What links say that they come from: a hash of the model (16 hex characters)."""
    return blake2b(msgspec.json.encode(model, order="sorted"), digest_size=8).hexdigest()


def check_fit(table: Table, roles: Roles, model: Model) -> None:
    """Raise `Invalid` unless a table has two or more of the columns that a model compares."""
    names = [column.name for column in model.columns]
    shared = [name for name in roles.names.values() if name in names]
    if len(shared) < 2:
        got = f"{' and '.join(shared) or 'none'} of the columns that {MODEL} compares"
        hint = "call the table's columns so with --as COLUMN=NAME, or train again with --train"
        raise Invalid(Fault(table.name, got, f"two or more of {', '.join(names)}", hint))


def _take_in(
    engine: Engine, records: Records, table: Table, roles: Roles, wanted: Wanted, progress: Progress
) -> Taken:
    """Accept what the rows of a table say that is new. What stops halfway is taken up by the same command."""
    source, now = wanted.source, engine.clock.now()
    channel, limits = engine.project.sources[source].channel, engine.project.settings.limits
    before = rejected_rows(engine.db, source)
    taking = Taking(table, roles, source, channel, now, limits, records.known, {})
    n_rows = table.texts.num_rows + len(table.broken)
    n_done = n_new = n_changed = n_same = n_rejected = 0
    faults: list[Fault] = []
    for part in rows_as_events(taking):
        if not wanted.is_dry:
            rejected = [x for x in part.parsed.rejected if (x.fault.where, x.fault.got) not in before]
            engine.acceptor.accept([Parsed(part.parsed.events, rejected)])
        records.fresh.update(event.identifiers["record_id"] for event in part.parsed.events)
        faults += part.faults[: FAULTS_KEPT - len(faults)]
        n_new, n_changed, n_same = n_new + part.n_new, n_changed + part.n_changed, n_same + part.n_same
        n_rejected += len(part.faults)
        n_done += part.n_new + part.n_changed + part.n_same + len(part.faults)
        progress(table.name, n_done, n_rows)
    return Taken(table.name, roles, n_rows, n_new, n_changed, n_same, n_rejected, faults)


def _find(
    engine: Engine, folder: Disk, records: Records, model: Model | None, wanted: Wanted, progress: Progress
) -> Linked:
    """Compare what is new, with a kept model or one that is trained now, and propose what is found."""
    mark = _mark(engine)
    is_training = model is None or not model.is_taught
    after = NONE if model is None or mark is None or mark.model != version_of(model) else mark.position
    rows = compared(engine, records, NONE if is_training else after)
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")  # it would write over ours
    spill_inside(con, engine.disk)
    con.execute("SET enable_external_access = false")  # tables in memory are all it needs

    def stage(name: str) -> None:
        progress(name, 0, 0)

    found: Linkage | None = None
    proposals = Proposals([], 0)
    if model is None or is_training:
        found = link(con, rows.table, WHERE, rows.customer, stage)
    elif rows.is_new.any():
        is_new = None if rows.is_new.all() else rows.is_new
        found = apply(con, rows.table, model, WHERE, is_new, rows.customer, stage)
    if found is not None:
        model = found.model
        stage("proposals")
        proposals = proposed(con, found, rows.customer, rows.apart)
    assert model is not None, "there was one, or one was trained"
    version = version_of(model)
    before = len(set(rows.customer.tolist()))
    n_after = before - sum(pair.kind == "probable" for pair in proposals.pairs)
    if not wanted.is_dry:
        if is_training:
            folder.write(MODEL, msgspec.json.format(msgspec.json.encode(model), indent=2))
        if found is not None:
            _propose(engine, rows, found, proposals, version)
            leaves = customers_of_records(engine.db)
            n_after = len({leaves[node] for node in rows.nodes})
        position = engine.state.progress()
        assert position is not None, "all was folded before it was compared"
        engine.disk.write(MARK, msgspec.json.encode(Mark(position.position, version)))
    n_sources = len({record.partition(":")[0] for record in records.known})
    n_compared = int(rows.is_new.sum())
    customers = (before, n_after)
    n_rows = len(rows.nodes)
    refused = {} if wanted.is_dry else refused_matches(engine.db)
    return Linked(
        n_rows,
        n_sources,
        n_compared,
        customers,
        version,
        model,
        is_training,
        found,
        proposals,
        refused,
    )


def _propose(engine: Engine, rows: Compared, found: Linkage, proposals: Proposals, version: str) -> None:
    """Put what was found into the journal as commands, and fold it."""
    now = engine.clock.now()
    names = [node.hex() for node in rows.nodes]
    pairs = [
        MatchedPair(names[each.left], names[each.right], each.kind, each.weight, each.told)
        for each in proposals.pairs
    ]
    for start in range(0, len(pairs), PAIRS_MAX):
        engine.acceptor.command(Matched(version, pairs[start : start + PAIRS_MAX], now))
    for each in found.quarantined:
        nodes = [names[row] for row in each.rows]
        if not rows.is_new[each.rows].any():
            continue
        for start in range(0, len(nodes), PAIRS_MAX):
            engine.acceptor.command(SetAside(nodes[start : start + PAIRS_MAX], each.reason, version, now))
    advance(engine)


def _mark(engine: Engine) -> Mark | None:
    """How far linkage has come; None if it never ran here, or that is not known."""
    if MARK not in engine.disk.names(MARK):
        return None
    try:
        return msgspec.json.decode(engine.disk.read(MARK), type=Mark)
    except msgspec.MsgspecError:
        return None
