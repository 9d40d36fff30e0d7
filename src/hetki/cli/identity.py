"""Commands about identity as a whole: `identity`."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from hetki.cli.opening import HERE, Folder, opened, progress_bar
from hetki.declarations.durations import spoken
from hetki.dialogues.wording import counted, spoken_at
from hetki.engine.engine import Engine
from hetki.engine.rederiving import Tried, dry_run
from hetki.errors import Fault, NotFound, nearest, shown
from hetki.events.event import LeafId
from hetki.identity.policy import Rule
from hetki.identity.resolve import Refusal
from hetki.settings import SECOND
from hetki.store.views import Views

app = typer.Typer()


@app.command()
def identity(
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="What the folder's policy would change of the one in force.")
    ] = False,
    refused: Annotated[str, typer.Option(help="List the links that are refused for this reason.")] = "",
    n_shown: Annotated[int, typer.Option("--for", min=1, help="How many of each list to show.")] = 20,
    project: Folder = HERE,
) -> None:
    """The policy of identity, what it refuses and what is in quarantine; or what another would change."""
    reasons = get_args(Refusal)
    if refused and refused not in reasons:
        must = "one of " + ", ".join(reasons)
        raise NotFound(Fault("--refused", shown(refused), must, nearest(refused, reasons)))
    engine = opened(project)
    if is_dry:
        with progress_bar() as bar:
            task = bar.add_task("identifiers", total=engine.state.counts()["identifiers"])
            tried = dry_run(engine, engine.project.identity, lambda n: bar.update(task, completed=n))
        print("\n".join(_tried(engine, tried, n_shown)))
    elif refused:
        print("\n".join(_refused(engine, refused, n_shown)))
    else:
        print("\n".join(_standing(engine, n_shown)))


def _standing(engine: Engine, n_shown: int) -> list[str]:
    counts = engine.state.counts()
    found = [
        f"{counted(counts['identifiers'], 'identifier')} are {counted(counts['customers'], 'customer')}",
        *(
            f"  {name}: {_rule(rule)}"
            for name, rule in engine.project.identity.rules.items()
            if name != "event"
        ),
        "  any other: never joins",
    ]
    progress = engine.state.progress()
    if progress is not None and progress.policy != engine.project.identity.version:
        found.append("another policy is in force: --dry-run says what this one would change")
    found += [f"refused: {counted(n, 'link')} {why}" for why, n in sorted(engine.state.refusals().items())]
    for namespace, value, why, n_links in engine.state.quarantined(n_shown):
        found.append(f"quarantine: {namespace} {value}  {why}  {counted(n_links, 'link')}")
    return found


def _rule(rule: Rule) -> str:
    parts = []
    if not rule.joins:
        parts.append("never joins")
    if rule.per_customer:
        within = f" within {spoken(rule.within // SECOND)}" if rule.within else ""
        parts.append(f"{rule.per_customer} per customer{within or ', for ever' * rule.is_unique}")
    if rule.unique_ids_max:
        parts.append(f"quarantined beside more than {counted(rule.unique_ids_max, 'unique id')}")
    if rule.blocked:
        parts.append(f"{counted(len(rule.blocked), 'pattern')} blocked")
    return "; ".join(parts) or "joins"


def _refused(engine: Engine, reason: str, n_shown: int) -> list[str]:
    views, zone = Views(engine.disk), engine.project.settings.time_zone
    links = engine.state.refused_links(reason, n_shown)
    named = views.identities.nodes(node for link in links for node in (link.node_a, link.node_b))
    found = []
    for link in links:
        ends = " = ".join(
            f"{named[node].namespace} {named[node].value}" if node in named else node.hex()
            for node in (link.node_a, link.node_b)
        )
        found.append(f"link {link.link_id.hex()}  {link.kind}  {ends}  {spoken_at(link.linked_at, zone)}")
    n_all = engine.state.refusals().get(reason, 0)
    return [*found, f"{counted(n_all, 'link')} refused: {reason}"]


def _tried(engine: Engine, tried: Tried, n_shown: int) -> list[str]:
    """Merges and splits by name, and how refusals change."""
    views = Views(engine.disk)
    ids = {each for group in (*tried.merges.values(), *tried.splits.values()) for each in group}
    names = views.identities.names([*ids, *tried.splits])

    def name(customer: LeafId) -> str:
        return f"{customer.hex()} {names.get(customer, '')}".strip()

    found = [
        f"{counted(len(tried.merges), 'merge')}, {counted(len(tried.splits), 'split')}; nothing is written"
    ]
    for parts in list(tried.merges.values())[:n_shown]:
        found.append("would become one: " + " and ".join(name(each) for each in parts))
    for was, parts in list(tried.splits.items())[:n_shown]:
        found.append(f"would become {len(parts)} customers: {name(was)}")
    for why, (now, then) in tried.refused.items():
        if now != then:
            found.append(f"refused {why}: {counted(now, 'link')} now, {then:,} then")
    return found
