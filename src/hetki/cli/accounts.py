"""Commands about business customers: `account`."""

from __future__ import annotations

from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, opened
from hetki.dialogues.wording import counted, in_one_line, spoken_at
from hetki.engine.engine import Engine
from hetki.engine.telling import find_account
from hetki.moments.fold import Folded, decode
from hetki.moments.present import dropped
from hetki.store.accounts import Member, counted_accounts, groups_of, members_of
from hetki.store.views import Views

app = typer.Typer()


@app.command()
def account(
    name: Annotated[str, typer.Argument(help="A group id or a hex id; none: the largest accounts.")] = "",
    n_shown: Annotated[int, typer.Option("--for", min=1, help="How many accounts or members to show.")] = 20,
    project: Folder = HERE,
) -> None:
    """One account: its traits, its members, and what was decided about it; or the largest accounts."""
    engine = opened(project)
    if not name:
        for each in counted_accounts(engine.db, n_shown):
            beyond = each.n_members + each.n_named - each.n_folded
            more = f", the events of {beyond:,} customers are not looked at" if beyond else ""
            print(f"{each.account.hex()}  {each.group_id}  {counted(each.n_members, 'member')}{more}")
        print(counted(engine.state.counts()["accounts"], "account"))
        return
    found = find_account(engine, name)
    zone = engine.project.settings.time_zone
    print(f"account {found.hex()}  {groups_of(engine.db, [found])[found]}")
    row = engine.state.load_customers([found]).get(found)
    folded = decode(row.state) if row else Folded()
    for trait, value in sorted(folded.traits.items()):
        print(f"  trait  {trait}  {in_one_line(value)}")
    _print_members(engine, members_of(engine.db, [found]).get(found, []), n_shown)
    for moment, (n_tries, n_values) in dropped(folded).items():
        given_up = f"{counted(n_tries, 'try')}, {counted(n_values, 'value')}"
        print(f"  given up  {moment}  {given_up}: more than is kept")
    for handled in Views(engine.disk).of_customer(found, [], 50):
        decision = handled.decision
        outcome = f"{decision.chosen}  {decision.decision_id}" if decision else handled.status
        print(f"  {spoken_at(handled.occurred_at, zone)}  {handled.moment}  {outcome}")


def _print_members(engine: Engine, members: list[Member], n_shown: int) -> None:
    zone = engine.project.settings.time_zone
    names = Views(engine.disk).identities.names(each.customer for each in members[:n_shown])
    for each in members[:n_shown]:
        since = each.first_at if each.joined_at is None else each.joined_at
        is_member = "names it" if each.joined_at is None else "member"
        beyond = "" if each.is_folded else "  beyond the bound: their events are not looked at"
        name = names.get(each.customer, "")
        print(f"  {is_member}  {each.customer.hex()}  {name}  since {spoken_at(since, zone)}{beyond}")
    if len(members) > n_shown:
        print(f"  and {len(members) - n_shown:,} more")
