"""Warming: taking up other declarations while those in force go on answering. Start at `warm_once`.

Customers are folded under the new declarations in small steps, into the shadow beside the state; whoever a
live batch touches meanwhile is folded again. When nobody is left, one transaction moves the shadow into the
state, decides what is new and tells what was revised. A crash at any step goes on, or begins again, to
the same end: what a rebuild under the new declarations would make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from hetki import __version__
from hetki.dialogues.destination import Destination
from hetki.engine import rederiving
from hetki.engine.changing import Target, target
from hetki.engine.commands import Activated
from hetki.engine.deciding import apply_repairs, decide_all
from hetki.engine.engine import Engine, open_engine, version_of
from hetki.engine.files import Kept
from hetki.engine.folding import Caught, Repair, decode_occurrence, load_histories, row_of
from hetki.engine.project import Project, load
from hetki.errors import Conflict, Fault, Invalid
from hetki.events.event import LeafId
from hetki.moments.fold import Folded, decode, step
from hetki.moments.moment import Occurrence
from hetki.store.ledger import Ledger
from hetki.store.ports import Chance, Clock, Disk, Shelf
from hetki.store.shadow import Change
from hetki.store.sqlite import transaction
from hetki.store.state import FILE, CustomerRow, Progress, State

#: Customers folded in one step: live batches wait for one step at most.
WARM_MAX = 100

CAUSE = "declarations changed"
OTHER_DECLARATIONS = Fault(
    "declarations",
    "others than those that the state was folded under",
    "the same",
    "start again to read them",
)

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def activate(engine: Engine) -> None:
    """Bring the state under the declarations of this engine, if it is under others; nothing is folded live.

    Raises `Conflict` if another process has begun to take up yet others since this one read its own.
    """
    progress = engine.state.progress()
    old = None if progress is None or is_in_force(engine) else kept_project(engine.ledger, progress.program)
    rederiving.take_up(engine, old)
    if progress is None or is_in_force(engine):
        keep(engine)
        if engine.shadow.warming() is not None:  # the folder has gone back to what is in force
            with transaction(engine.db):
                engine.shadow.drop()
        return
    found = target(engine.project, progress.program, old)
    begin(engine, found)
    while not warm_once(engine, found):
        pass


def is_in_force(engine: Engine) -> bool:
    """Whether the state is under the declarations of this engine, or under none yet."""
    progress = engine.state.progress()
    return progress is None or progress.program == engine.program.version


def keep(engine: Engine) -> None:
    """Keep the files of the declarations that are in force, whatever becomes of the folder."""
    if engine.ledger.declarations(engine.program.version) is None:
        with transaction(engine.db):
            engine.ledger.keep_declarations(engine.program.version, engine.clock.now(), engine.project.texts)


def begin(engine: Engine, found: Target) -> None:
    """Begin to warm, or go on where it was left; what was warmed for others is dropped.

    Raises `Conflict` if others have come into force than those it is to replace. Where nothing is to be
    changed nothing is written, so that nobody who writes is waited for.
    """
    if _is_begun(engine, found):
        return
    with transaction(engine.db):
        progress = engine.state.progress()
        if progress is not None and progress.program != found.instead_of:
            raise Conflict(OTHER_DECLARATIONS)
        under_way = engine.shadow.warming()
        if found.program.version == found.instead_of:
            engine.shadow.drop()
        elif under_way is None or not _is_of(under_way.program, under_way.instead_of, found):
            engine.shadow.begin(found.program.version, found.instead_of, engine.clock.now())
        engine.shadow.refuse(engine.clock.now(), [])


def _is_begun(engine: Engine, found: Target) -> bool:
    progress, under_way = engine.state.progress(), engine.shadow.warming()
    if (progress is not None and progress.program != found.instead_of) or engine.shadow.refused() is not None:
        return False
    if found.program.version == found.instead_of:
        return under_way is None
    return under_way is not None and _is_of(under_way.program, under_way.instead_of, found)


def refuse(engine: Engine, faults: list[Fault]) -> None:
    """Remember why the declarations of the folder are not taken up; what was being warmed is dropped."""
    with transaction(engine.db):
        engine.shadow.drop()
        engine.shadow.refuse(engine.clock.now(), faults)


def warm_once(engine: Engine, found: Target, n_max: int = WARM_MAX) -> bool:
    """One step in one transaction; whether the declarations are in force now.

    Raises `Conflict` if others have come into force, or another process has begun to warm others.
    """
    with transaction(engine.db):
        progress = engine.state.progress()
        assert progress is not None, "what has never been folded has no declarations to change"
        if progress.program == found.program.version:
            return True
        under_way = engine.shadow.warming()
        if under_way is None or not _is_of(under_way.program, under_way.instead_of, found):
            raise Conflict(OTHER_DECLARATIONS)
        if progress.program != found.instead_of:
            raise Conflict(OTHER_DECLARATIONS)
        if not found.is_same:
            customers = engine.shadow.next(under_way, progress.advance_to, n_max)
            _warm(engine, found, customers, progress.advance_to)
            if engine.shadow.is_behind(progress.advance_to):
                return False
        _swap(engine, found, progress)
    return True


def _is_of(program: str, instead_of: str, found: Target) -> bool:
    return (program, instead_of) == (found.program.version, found.instead_of)


def _warm(engine: Engine, found: Target, customers: Sequence[LeafId], advance_to: int) -> None:
    """Fold customers under the new declarations and keep what that changes in the shadow."""
    state = engine.state
    rows = state.load_customers(customers)
    live: dict[LeafId, list[Occurrence]] = {}
    for customer, body in state.occurrences_of(customers).values():
        live.setdefault(customer, []).append(decode_occurrence(body))
    warmed: list[CustomerRow] = []
    changes: list[Change] = []
    for customer, of_unit, whole in load_histories(engine.journal, state, found.program, rows):
        row = rows[customer]
        mine = {each.occurrence_id: each for each in live.get(customer, [])}
        after = None
        if found.kept:
            changed = of_unit.only(found.not_kept)
            partly, caught = step(changed, Folded(), whole.batch, advance_to, whole.staffing)
            after = found.joined(decode(row.state), partly)
            caught += [each for each in mine.values() if each.moment in found.kept]
        if after is None:
            after, caught = step(of_unit, Folded(), whole.batch, advance_to, whole.staffing)
        new = row_of(of_unit, engine.keys.node, customer, after, whole.facts)
        if new != row:
            warmed.append(new)
        changes.extend(_changes(customer, mine, {each.occurrence_id: each for each in caught}))
    engine.shadow.replace(customers, warmed, changes)


def _changes(
    customer: LeafId, before: Mapping[str, Occurrence], after: Mapping[str, Occurrence]
) -> list[Change]:
    """What became of a customer's occurrences."""
    found = [(each, "retracted") for key, each in before.items() if key not in after]
    found += [(each, "new") for key, each in after.items() if key not in before]
    found += [(each, "revised") for key, each in after.items() if before.get(key, each) != each]
    return [
        Change(each.occurrence_id, each.moment, customer, each.occurred_at, _encode(each), kind)
        for each, kind in found
    ]


def _swap(engine: Engine, found: Target, progress: Progress) -> None:
    """Put the new declarations in force, with all that follows from them."""
    state, ledger, now = engine.state, engine.ledger, engine.clock.now()
    engine.acceptor.command(Activated(found.program.version, now))
    changes = engine.shadow.changes()
    engine.shadow.swap()
    caught: list[Caught] = []
    repairs: list[Repair] = []
    for change in changes:
        each = Caught(change.customer, decode_occurrence(change.body))
        if change.kind == "new":
            caught.append(each)
        else:
            repairs.append(Repair(change.kind, CAUSE, each))
    in_time = {each.customer for each in caught if now <= each.occurrence.expires_at}
    folded = {customer: decode(row.state) for customer, row in state.load_customers(in_time).items()}
    decided = decide_all(engine, found.project, found.program, caught, folded, now)
    apply_repairs(ledger, repairs, now)
    state.save_progress(msgspec.structs.replace(progress, program=found.program.version))
    ledger.keep_declarations(found.program.version, now, found.project.texts)
    ledger.log_advance(
        progress.position,
        progress.advance_to,
        0,
        len(caught),
        decided.n_decided,
        __version__,
        found.program.version,
    )


def kept_project(ledger: Ledger, version: str) -> Project | None:
    """The declarations of a version that was in force; None if this code cannot fold on under them."""
    texts = ledger.declarations(version)
    if texts is None:
        return None
    try:
        project = load(Kept(texts))
    except Invalid:  # another version of Hetki may have read them
        return None
    return project if version_of(project) == version else None


def open_in_force(
    shelf: Shelf,
    disk: Disk,
    clock: Clock,
    chance: Chance,
    environment: Mapping[str, str],
    known: Project | None = None,
) -> Engine:
    """The engine under the declarations that are in force, whatever lies in the folder by now.

    Those of the folder if none are, or if this code cannot fold on under them. `known` are declarations
    that are compiled already and may be those. Raises what `load` and `open_engine` raise.
    """
    db = disk.connect(FILE)
    try:
        progress, ledger = State(db).progress(), Ledger(db)
        if progress is None or (known is not None and version_of(known) != progress.program):
            known = None
        project = known or (kept_project(ledger, progress.program) if progress else None) or load(shelf)
        project = replace(project, destinations={**draining(ledger, project), **project.destinations})
    finally:
        db.close()
    return open_engine(project, disk, clock, chance, environment)


def draining(ledger: Ledger, project: Project) -> dict[str, Destination]:
    """Destinations that are declared no more and that messages still wait for, as they were declared last."""
    wanted = ledger.destinations_waiting() - project.destinations.keys()
    found: dict[str, Destination] = {}
    for version in ledger.versions() if wanted else ():
        was = kept_project(ledger, version)
        if was is not None:
            found = {name: was.destinations[name] for name in wanted & was.destinations.keys()} | found
        if found.keys() == wanted:
            break
    return found
