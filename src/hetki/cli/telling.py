"""Telling: what the demo's month came to, as tables on the terminal."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from hetki.decisions.decide import GATES
from hetki.engine.project import Project
from hetki.measurement.effect import NO_EFFECT, Effect
from hetki.simulation.demo import Story

WIDTH = 118


def tell(story: Story, project: Project) -> None:
    """Print the story of the month: customers, moments, the funnel of gates, messages, effects."""
    console = Console(width=WIDTH, highlight=False)
    counts = story.counts
    console.print(
        f"[bold]Events[/]     {counts['events']:,} taken in, {counts.get('duplicates', 0):,} repeats dropped,"
        f" {counts.get('late', 0):,} late and put in their place, {story.n_rejected} rejected and kept\n"
        f"[bold]Customers[/]  {counts['identifiers']:,} identifiers are {counts['customers']:,} customers;"
        f" {counts['refused links']} links refused, as they would have made one of two\n"
    )
    console.print(_funnel(story, project))
    messages = ", ".join(f"{n:,} {status}" for status, n in sorted(story.n_messages.items()))
    console.print(
        f"[bold]Messages[/]   {messages}; {story.n_posts:,} webhooks and {story.n_mails:,} e-mails tried"
        " at the local receiver\n"
    )
    console.print(_effects(story, project))


def _funnel(story: Story, project: Project) -> Table:
    title = "Moments caught, their possible answers, how many each gate closed, and who was answered"
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("moment", no_wrap=True)
    gates = [name for name, _ in GATES if any(name in counts for counts in story.funnel.values())]
    columns = [
        "caught",
        "answers",
        *(gate.replace("_", " ") for gate in gates),
        "open",
        "answered",
        "held out",
    ]
    for column in columns:
        table.add_column(column, justify="right", min_width=max(map(len, column.split())))
    for moment in _first(project):
        counts = story.funnel[moment]
        closed = [counts.get(gate, 0) for gate in gates]
        still_open = counts.get("open", 0)
        row = [story.n_caught[moment], sum(closed) + still_open, *closed, still_open]
        row += [counts.get("arm answered", 0), counts.get("arm holdout", 0)]
        table.add_row(moment, *(f"{n:,}" for n in row))
    return table


def _effects(story: Story, project: Project) -> Table:
    title = "Effects as assigned, beside what the simulation planted"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in ("moment", "measure"):
        table.add_column(column)
    for column in ("n answered", "n held out"):
        table.add_column(column, justify="right")
    table.add_column("estimated effect")
    table.add_column("planted", justify="right")
    planted = {(each.moment, each.measure): each.effect_points for each in story.truths}
    found = {(each.moment, each.measure): each for each in story.effects if each.moment}
    for moment in _first(project):
        for measure in ("solved", "business"):
            effect = found.get((moment, measure))
            if effect is not None:
                truth = planted.get((moment, measure))
                table.add_row(moment, measure, *_cells(effect), "" if truth is None else f"{truth:+.1f}")
    return table


def _cells(effect: Effect) -> tuple[str, str, str]:
    told = effect.verdict
    if effect.low is not None and effect.high is not None and told == NO_EFFECT:
        told += f" ({100 * effect.low:+.1f} to {100 * effect.high:+.1f})"
    return f"{effect.n_answered:,}", f"{effect.n_holdout:,}", told


def _first(project: Project) -> list[str]:
    """The moments by name, the order that never came first."""
    return sorted(project.moments, key=lambda name: (name != "where_is_my_order", name))
