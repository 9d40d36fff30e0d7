"""Accounts: the page of a business customer, and what a customer's page says of accounts and household."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hetki.errors import Fault, NotFound, shown
from hetki.events.event import LeafId
from hetki.moments.fold import Folded, decode
from hetki.moments.present import dropped
from hetki.server.desk import ROWS, Desk, Turning, leaf_in, page_of
from hetki.server.lines import lines
from hetki.store.accounts import belongs_to, counted_accounts, groups_of, members_of
from hetki.store.households import household_of
from hetki.store.views import Views

#: The newest occurrences of an account.
OCCURRENCES_MAX = 200


class Layers(msgspec.Struct, frozen=True):
    """What a customer belongs to: accounts as (id, group id, since when), and who shares the household by
    (id, name); `is_crowd`: too many do, so that it is none."""

    accounts: list[tuple[str, str, int | None]]
    household: list[tuple[str, str]]
    is_crowd: bool


def layers(desk: Desk, views: Views, customer: LeafId, leaves: Iterable[LeafId]) -> Layers:
    """The accounts and the household of a customer."""
    found = belongs_to(views.db, leaves)
    accounts = [(account.hex(), group, joined_at) for group, (account, joined_at) in found.items()]
    declared = desk.engine.project.household
    shared = household_of(views.db, customer, declared.members_max) if declared else None
    if shared is None or not shared.is_one:
        return Layers(accounts, [], shared is not None)
    others = [each for each in shared.customers if each != customer]
    names = views.identities.names(others)
    return Layers(accounts, [(each.hex(), names.get(each, "")) for each in others], False)


def account(desk: Desk, request: Request) -> Response:
    """One account: its traits, its members, and the moments about it."""
    text = request.path_params["account"]
    found = leaf_in(text)
    with desk.views() as views:
        group = groups_of(views.db, [found]).get(found) if found else None
        if found is None or group is None:
            must = "an account's id (32 hex digits)"
            raise NotFound(Fault("account", shown(text), must, "hetki account lists the largest"))
        turning = Turning(page_of(request), ROWS, False, request.url.path)
        members = members_of(views.db, [found]).get(found, [])
        shown_members = members[turning.n_skipped :][:ROWS]
        row = views.state.load_customers([found]).get(found)
        folded = decode(row.state) if row else Folded()
        (counted,) = counted_accounts(views.db, 1, found)
        return desk.pages.page(
            "account",
            account=found.hex(),
            group=group,
            counted=counted,
            traits=sorted(folded.traits.items()),
            dropped=dropped(folded),
            members=shown_members,
            names=views.identities.names(each.customer for each in shown_members),
            newest=lines(views, desk.titles, views.of_customer(found, [], OCCURRENCES_MAX)),
            turning=msgspec.structs.replace(turning, has_more=len(members) > turning.n_skipped + ROWS),
        )
