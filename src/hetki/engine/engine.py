"""Engine: one opened project, its stores and its ports, as every command finds them.

`open_engine` is the only place where the parts are put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from hetki.consent.purpose import category_of, closed_to
from hetki.engine.accept import Acceptor, Keys, load_keys
from hetki.engine.project import Project, load
from hetki.errors import Conflict, Fault
from hetki.events.event import OWN_SOURCE
from hetki.identity.survival import surviving
from hetki.moments.context import account_traits
from hetki.moments.fold import FORM, Program
from hetki.moments.moment import Moment
from hetki.patterns.segments import Segment
from hetki.store.erasing import unfinished
from hetki.store.journal import Journal
from hetki.store.ledger import Ledger
from hetki.store.ports import Chance, Clock, Disk
from hetki.store.secrets import Secrets
from hetki.store.shadow import Shadow
from hetki.store.sqlite import Connection
from hetki.store.state import FILE, State
from hetki.store.system import SystemChance, SystemClock, SystemDisk, environment

#: Lies in the data folder while a backup is restored into it: nobody else may open it.
RESTORING = "restoring"
#: What is settled before it is opened (`Disk.settle`).
DATABASES = ("secrets.db", "journal.db", FILE)


@dataclass(frozen=True, slots=True)
class Engine:
    """A project with its journal, state and ports. `db` is the connection of state and ledger."""

    project: Project
    program: Program
    disk: Disk
    clock: Clock
    chance: Chance
    keys: Keys
    journal: Journal
    acceptor: Acceptor
    db: Connection
    state: State
    ledger: Ledger
    shadow: Shadow
    environment: Mapping[str, str] = field(repr=False)

    def close(self) -> None:
        """Give every connection back. A repeat does nothing."""
        self.journal.close()
        self.journal.secrets.close()
        self.db.close()


def open_engine(
    project: Project,
    disk: Disk,
    clock: Clock,
    chance: Chance,
    environment: Mapping[str, str],
    is_restoring: bool = False,
    is_beside: bool = False,
) -> Engine:
    """Open (or create) the stores of a project on a disk. Raises `Unavailable`, or `Conflict` if the files
    in it do not belong together, or a backup is being restored into them.

    `environment` holds the secrets that declarations name as `env:NAME`. `is_beside`: this process holds
    another engine on the same stores, which has settled them; it must live as long as this one.
    """
    if disk.names(RESTORING) and not is_restoring:
        got, must = "a restore that was not finished", "one that was"
        raise Conflict(Fault(RESTORING, got, must, "delete the folder and restore again"))
    for name in () if is_beside else DATABASES:
        disk.settle(name)
    with ExitStack() as opened:
        secrets = opened.enter_context(closing(Secrets(disk, chance)))
        journal = opened.enter_context(closing(Journal(disk, chance, secrets)))
        db = opened.enter_context(closing(disk.connect(FILE)))
        engine = _put_together(project, disk, clock, chance, environment, journal, db)
        opened.pop_all()  # they are the engine's from now on
    return engine


def _put_together(
    project: Project,
    disk: Disk,
    clock: Clock,
    chance: Chance,
    environment: Mapping[str, str],
    journal: Journal,
    db: Connection,
) -> Engine:
    """An engine on stores that are open. Raises as `open_engine` does."""
    secrets = journal.secrets
    if secrets.is_new() and journal.head()[0] > 0:
        got, must = "no secrets beside a journal with entries", "the secrets that it was sealed with"
        raise Conflict(Fault("secrets.db", got, must, "bring secrets.db back from its backup"))
    keys = load_keys(secrets)
    state, ledger = State(db), Ledger(db)
    progress = state.progress()
    looked_at = progress.position if progress else 0
    acceptor = Acceptor(journal, keys, project.sources, project.purposes, clock, chance, looked_at)
    for erasure_id in unfinished(db):  # what a crash left undone goes before anything else is done
        secrets.destroy(bytes.fromhex(erasure_id))
    return Engine(
        project,
        compile_program(project),
        disk,
        clock,
        chance,
        keys,
        journal,
        acceptor,
        db,
        state,
        ledger,
        Shadow(db),
        environment,
    )


def open_folder(folder: str) -> Engine:
    """The engine of the project in a folder, on this machine's own ports.

    Raises `Invalid` with every fault of its declarations, `NotFound` or `Unavailable`.
    """
    project = load(SystemDisk(folder))
    data = SystemDisk(f"{folder}/{project.settings.data}")
    return open_engine(project, data, SystemClock(), SystemChance(), environment())


def version_of(project: Project) -> str:
    """What progress and decisions call a project's declarations: their hash, and the form of states."""
    return f"{project.content_hash}.{FORM}"


def compile_program(project: Project) -> Program:
    """What the fold runs of a project."""
    purposes = tuple(sorted(project.purposes.items()))
    bit = {name: 1 << number for number, (name, _) in enumerate(purposes)}
    moments = [moment for _, moment in sorted(project.moments.items())]
    about_customers = tuple(moment for moment in moments if not moment.is_about_account)
    about_accounts = tuple(moment for moment in moments if moment.is_about_account)
    segments = tuple(segment for _, segment in sorted(project.segments.items()))
    categories = category_of(project.categories)
    closed = {
        event: sum(bit[name] for name in closed_to(project.purposes, categories, event))
        for event in project.catalogue.events
    }
    program = Program(
        moments=about_customers,
        purposes=purposes,
        contracts={
            OWN_SOURCE: sum(bit.values()),
            **{
                name: sum(bit[purpose] for purpose in set(source.purposes))
                for name, source in project.sources.items()
            },
        },
        traits=surviving(project.traits, project.survival),
        lateness_s=project.settings.lateness_s,
        version=version_of(project),
        bits={
            **{moment.name: bit[moment.purpose] for moment in about_customers},
            **{segment.key: bit[segment.purpose] for segment in segments},
        },
        listening=_by_event(about_customers),
        segments=segments,
        watching=_by_event(segments),
        household=tuple(project.household.same) if project.household else (),
        categories=categories,
        closed_to=closed,
    )
    if not about_accounts:
        return program
    accounts = msgspec.structs.replace(
        program,
        moments=about_accounts,
        traits=account_traits(tree for moment in about_accounts for tree in moment.trees),
        bits={moment.name: bit[moment.purpose] for moment in about_accounts},
        listening=_by_event(about_accounts),
        segments=(),
        watching={},
    )
    return msgspec.structs.replace(program, accounts=accounts)


_Listening = TypeVar("_Listening", Moment, Segment)


def _by_event(listening: Sequence[_Listening]) -> dict[str, tuple[_Listening, ...]]:
    """What listens to each event."""
    found: dict[str, list[_Listening]] = {}
    for each in listening:
        for name in sorted(each.listens):
            found.setdefault(name, []).append(each)
    return {name: tuple(mine) for name, mine in found.items()}
