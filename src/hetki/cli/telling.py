"""Telling: what the demo's month came to, as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from hetki.decisions.decide import GATES
from hetki.engine.project import Project
from hetki.measurement.effect import Effect
from hetki.simulation.demo import Story

WIDTH = 118


def tell(story: Story, project: Project) -> None:
    """Print the story of the month: customers, moments, the funnel of gates, messages, effects."""
    console = Console(width=WIDTH, highlight=False)
    counts = story.counts
    console.print(
        f"[bold]Events[/]     {counts['events']:,} taken in, {counts.get('duplicates', 0):,} repeats dropped,"
        f" {counts.get('late', 0):,} late and put in their place, {story.n_rejected} rejected and kept\n"
        f"[bold]Customers[/]  {counts['identifiers']:,} identifiers joined to {counts['customers']:,} customers;"
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
    table = Table(title="Moments, and what the gates did with their answers", title_justify="left")
    table.add_column("moment")
    table.add_column("caught", justify="right")
    table.add_column("candidates", justify="right")
    gates = [name for name, _ in GATES if any(name in counts for counts in story.funnel.values())]
    for gate in gates:
        table.add_column(f"closed by\n{gate.replace('_', ' ')}", justify="right")
    for column in ("open", "answered", "held out"):
        table.add_column(column, justify="right")
    for moment in _first(project):
        counts = story.funnel[moment]
        closed = [counts.get(gate, 0) for gate in gates]
        still_open = counts.get("open", 0)
        row = [story.n_caught[moment], sum(closed) + still_open, *closed, still_open]
        row += [counts.get("arm answered", 0), counts.get("arm holdout", 0)]
        table.add_row(moment, *(f"{n:,}" for n in row))
    return table


def _effects(story: Story, project: Project) -> Table:
    table = Table(title="Effects as assigned, beside what the simulation planted", title_justify="left")
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
    return f"{effect.n_answered:,}", f"{effect.n_holdout:,}", effect.verdict


def _first(project: Project) -> list[str]:
    """The moments by name, the order that never came first."""
    return sorted(project.moments, key=lambda name: (name != "where_is_my_order", name))
