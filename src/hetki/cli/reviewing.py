"""Command `review`: the pairs that wait for a person, and the answers, for those without the console."""

from __future__ import annotations

from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, opened
from hetki.cli.people import TWO_ACCOUNTS, say_merge
from hetki.dialogues.wording import counted, spoken_at
from hetki.engine.advance import advance
from hetki.engine.commands import Merge
from hetki.engine.engine import Engine
from hetki.engine.reviewing import command_of
from hetki.engine.telling import owner_words
from hetki.errors import Fault, Invalid, NotFound
from hetki.store.staff import checked_name
from hetki.store.views import Views

app = typer.Typer()
Link = Annotated[str, typer.Option(help="The link that is answered: its id.")]


@app.command()
def review(
    yes: Link = "",
    no: Link = "",
    unsure: Link = "",
    by: Annotated[str, typer.Option("--by", help="Who says so; it is kept with the answer.")] = "",
    despite_unique: Annotated[
        bool, typer.Option("--despite-unique", help="With --yes: although each has a user id.")
    ] = False,
    n_shown: Annotated[int, typer.Option("--for", min=1, help="How many pairs to list.")] = 20,
    project: Folder = HERE,
) -> None:
    """List the pairs that wait for a person; or say of one whether it is one customer."""
    answers = {"yes": yes, "no": no, "unsure": unsure}
    given = [(answer, link) for answer, link in answers.items() if link]
    if len(given) > 1:
        raise Invalid(Fault("review", "several answers", "one of --yes, --no and --unsure"))
    if bool(given) != bool(by):
        raise Invalid(Fault("review", "an answer or --by alone", "an answer, and --by with who says so"))
    engine = opened(project)
    if given:
        _answer(engine, *given[0], checked_name(by, "--by"), despite_unique)
    else:
        _list(engine, n_shown)


def _list(engine: Engine, n_shown: int) -> None:
    views = Views(engine.disk)
    waiting = views.identities.review(n_shown)
    named = views.identities.nodes(node for each in waiting for node in each.ends)
    zone = engine.project.settings.time_zone
    for each in waiting:
        ends = " = ".join(owner_words(named.get(node)) for node in each.ends)
        mark = f"  unsure {spoken_at(each.unsure_at, zone)}" if each.unsure_at is not None else ""
        told = ", ".join(f"{name} {bits:+.1f}" for name, bits in each.link.told)
        print(f"{each.link.link_id.hex()}  {each.link.weight:+.1f} bits  {ends}{mark}")
        if told:
            print(f"  {told}")
    n_waiting, n_unsure = views.identities.n_review()
    print(f"{counted(n_waiting, 'pair')} to look at, {n_unsure:,} of them unsure")


def _answer(engine: Engine, answer: str, link_id: str, by: str, despite_unique: bool) -> None:
    views = Views(engine.disk)
    try:
        asked = views.identities.link(bytes.fromhex(link_id))
    except ValueError:
        asked = None
    if asked is None:
        raise NotFound(Fault("link", repr(link_id), "the id of a link", "see hetki review"))
    policy, now = engine.project.identity, engine.clock.now()
    command = command_of(engine.state, policy, asked, answer, by, now, despite_unique, TWO_ACCOUNTS)
    if isinstance(command, Merge):
        say_merge(engine, command)
    else:
        engine.acceptor.command(command)
        advance(engine)
    customers = {each.hex() for each in engine.state.customers_of(asked.ends).values()}
    print("now: " + " and ".join(sorted(customers)))
