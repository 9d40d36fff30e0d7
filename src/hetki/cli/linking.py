"""Commands about customer tables: `link`, and what it says of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TaskID

from hetki.cli.opening import HERE, Folder, opened, progress_bar
from hetki.engine.linking import GROWN, MODEL, Done, Linked, Taken, Wanted, link_tables
from hetki.engine.tables import Wishes
from hetki.errors import Fault, Invalid, shown
from hetki.identity.columns import units
from hetki.store.postgres import is_place, read_postgres
from hetki.store.system import SystemDisk, environment
from hetki.store.tables import Table, read_table

app = typer.Typer()
#: What stages are called while they run.
STAGES = {
    "columns": "what the columns hold",
    "blocking": "which records to compare",
    "u": "how often others are alike",
    "m": "how often records of one person are",
    "weights": "weights of all pairs",
    "clusters": "who is one person",
    "proposals": "what to propose, and why",
}
LEFT_OUT = {
    "empty": "it is empty",
    "one_value": "it has one value everywhere",
    "an_id_of_the_record": "each record has its own",
    "not_plain_values": "its values are lists, objects or bytes",
    "not_in_the_model": "the model does not know it; --train would",
}
SET_ASIDE = {"crowd": "a crowd in which nearly all match", "too_many_alike": "too many records are like them"}


@app.command()
def link(
    tables: Annotated[
        list[str] | None,
        typer.Argument(metavar="TABLE...", help="CSV, Parquet, or env:URL_NAME#schema.table of PostgreSQL."),
    ] = None,
    source: Annotated[str, typer.Option(help="The declared source whose records these are.")] = "",
    row_id: Annotated[str, typer.Option("--id", metavar="COLUMN", help="The column of the row's id.")] = "",
    renamed: Annotated[
        list[str] | None, typer.Option("--as", metavar="COLUMN=NAME", help="Take a column under a name.")
    ] = None,
    ignored: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="Leave a column out.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of CSV files: utf-8 or windows-1252.")] = "utf-8",
    is_training: Annotated[bool, typer.Option("--train", help="Train the model again.")] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be found; write nothing.")
    ] = False,
    project: Folder = HERE,
) -> None:
    """Take in customer tables, and propose which records of all tables are of one customer."""
    names = tables or []
    if names and not source:
        raise Invalid(Fault("--source", "no source", "the source whose records these are", "--source NAME"))
    wishes = Wishes(row_id, dict(_renamed(each) for each in renamed or []), ignored or [])
    engine = opened(project)
    read = [_read(each, encoding) for each in names]
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, n_done: int, n: int) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bar.update(task, total=1, completed=1)
                tasks[stage] = bar.add_task(STAGES.get(stage, stage), total=None)
            if n:
                bar.update(tasks[stage], completed=n_done, total=n)

        wanted = Wanted(read, source, wishes, is_training, is_dry)
        done = link_tables(engine, SystemDisk(project), wanted, progress)
    print(said(done, is_dry))
    if done.unlinked and not done.taken:
        raise typer.Exit(1)


def _renamed(text: str) -> tuple[str, str]:
    column, equals, name = text.rpartition("=")
    if not equals or not column or not name:
        raise Invalid(Fault("--as", shown(text), "COLUMN=NAME"))
    return column, name


def _read(name: str, encoding: str) -> Table:
    if is_place(name):
        return read_postgres(name, environment())
    path = Path(name)
    return read_table(SystemDisk(path.parent), path.name, encoding)


def said(done: Done, is_dry: bool) -> str:
    """What a run came to, in words."""
    lines = [line for taken in done.taken for line in _of_table(taken)]
    if done.linked is not None:
        lines += _of_linkage(done.linked)
    lines += [f"not linked: {fault}" for fault in done.unlinked]
    return "\n".join([*lines, *(["a dry run: nothing was written"] if is_dry else [])])


def _of_table(taken: Taken) -> list[str]:
    roles = taken.roles
    counts = (
        f"{taken.n_new:,} new records, {taken.n_changed:,} changed, {taken.n_same:,} as before, "
        f"{taken.n_rejected:,} rejected"
    )
    lines = [f"{taken.name}: {taken.n_rows:,} rows: {counts}"]
    by_hash = "none: a record is known by all its values, and equal rows are one record"
    lines.append(f"  id of a row: {f'column {roles.row_id}' if roles.row_id else by_hash}")
    for kind, columns in roles.contacts.items():
        if columns:
            lines.append(f"  {kind}: {', '.join(columns)}")
    renamed = [f"{column} as {name}" for column, name in roles.names.items() if column != name]
    if renamed:
        lines.append(f"  taken under other names: {', '.join(renamed)}")
    for name, reason in roles.left_out.items():
        lines.append(f"  left out: {name}: {LEFT_OUT.get(reason, reason)}")
    lines += [f"  {fault}" for fault in taken.faults]
    if taken.n_rejected > len(taken.faults):
        lines.append(f"  and {taken.n_rejected - len(taken.faults):,} more")
    return lines


def _of_linkage(linked: Linked) -> list[str]:
    before, after = linked.n_customers
    of = f"of {linked.n_sources} source{'s' * (linked.n_sources != 1)}"
    customers = f"{before:,} customers before linkage, {after:,} after it"
    lines = [f"{linked.n_records:,} records {of}: {customers}"]
    taught = "" if linked.model.is_taught else "; hardly anybody comes twice, so it will be trained again"
    how = "trained on" if linked.is_trained else "as it was, trained on"
    lines.append(f"model {linked.version} ({MODEL}): {how} {linked.model.n_records:,} records{taught}")
    if linked.n_records >= GROWN * linked.model.n_records:
        lines.append("  there are many more records now: --train would teach it what they are like")
    if linked.linkage is None:
        return [*lines, "nothing is new: no pair was compared"]
    groups = units(linked.model.columns)
    told = ["/".join(column.name for column in unit) + f" ({unit[0].kind})" for unit in groups]
    lines.append(f"compared: {', '.join(told)}")
    lines += [f"  not compared: {each.name}: {LEFT_OUT[each.reason]}" for each in linked.linkage.ignored]
    kinds = [pair.kind for pair in linked.proposals.pairs]
    lines.append(
        f"{linked.n_compared:,} records compared: {kinds.count('probable'):,} probable pairs, "
        f"{kinds.count('possible'):,} possible ones for a person to answer"
    )
    for reason, n in linked.refused.items():
        lines.append(f"  {n:,} probable links join nobody: {reason} (hetki identity --refused)")
    if linked.proposals.n_unasked:
        lines.append(f"  {linked.proposals.n_unasked:,} weaker pairs are not asked now")
    for each in linked.linkage.quarantined:
        lines.append(f"  set aside: {len(each.rows):,} records: {SET_ASIDE[each.reason]}")
    return lines
