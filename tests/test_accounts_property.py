"""However events arrive, accounts are one pass of their members' events: the crucial property, for accounts.

Random people of few companies, who join late, merge, are parted, grant and withdraw; the oracle takes every
event once and asks only who is whose now. The moments are random too, with all that steps can say.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_accounts import about_account
from test_backtest import backtested
from test_backtest import live as caught_live
from test_fold_property import live
from test_wide_property import BASE, bounds, random_moment
from test_wide_property import random_event as wide_event
from world import ORIGIN, World, moment, project

from hetki.engine.folding import decode_occurrence
from hetki.engine.project import Project
from hetki.engine.telling import why_moment
from hetki.errors import Invalid
from hetki.events.event import Event, LeafId, event_id
from hetki.identity.account import MEMBERS_MAX, account_id
from hetki.identity.identifier import NodeId, as_leaf, leaf_of
from hetki.moments.fold import Fact, Folded, Joined, encode, step
from hetki.moments.moment import Occurrence
from hetki.patterns.staffing import read_report, timeline
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk

OneEvent = Callable[[random.Random, int], Event]

NAMES = ["Order Tracked", "Chat Started", "Product Added", "Product Viewed"] * 3
NAMES += ["Account Joined"] * 3 + ["Consent Granted"] * 3 + ["Consent Refused", "Consent Withdrawn"]
RANDOM = project(
    about_account("silent", "a: Order Tracked | no b: Chat Started, for 5 minutes")
    | about_account(
        "people",
        "a: Product Viewed where aggregate.n_people > 1 or aggregate.n_people = 1 and account.plan = 'pro'",
        purpose="marketing",
        more="aggregates: {n_people: 'distinct member of Product Viewed or Product Added over 5 minutes'}\n"
        "context: [account.plan, aggregate.n_people]",
    )
    | about_account(
        "two",
        "a: Product Added | b: Product Added where member <> a.member | no c: Order Tracked where member ="
        " b.member, for 2 minutes",
        purpose="marketing",
        more="within: 6 minutes\nrepeat: once per a.product_id",
    )
    | about_account(
        "back", "no b: Chat Started, for 3 minutes before a | a: Chat Started", purpose="marketing"
    )
    | {"moments/basket.yaml": None, "moments/promise.yaml": None}
)


def random_event(draw: random.Random, number: int) -> Event:
    """One event of a quarter of an hour by one of few people, some of whom are of one of two accounts."""
    occurred_at = ORIGIN + draw.randrange(0, 900, 5) * SECOND
    name = draw.choice(NAMES)
    identifiers = {"user_id": draw.choice(["u1", "u2", "u3", "u4"])} if draw.random() < 0.6 else {}
    if draw.random() < 0.4 or not identifiers:
        identifiers["anonymous_id"] = draw.choice(["d1", "d2", "d3"])
    context: dict[str, object] = {}
    if name == "Account Joined":
        identifiers["group_id"] = draw.choice(["kone", "nokia", "kone", " kone ", "null"])
    elif draw.random() < 0.1:
        context["groupId"] = draw.choice(["kone", "nokia", "undefined", 7])
    until = {"until": f"2026-03-02T00:{draw.randrange(20):02}:00Z"} if draw.random() < 0.5 else {}
    properties = {
        "purpose": draw.choice(["marketing", "marketing", "service"]),
        "product_id": draw.choice("pq"),
        "plan": draw.choice(["pro", "free"]),
        **until,
    }
    return Event(
        source=draw.choice(["web", "app", "shop"]),
        message_id=f"m{number}",
        channel="web",
        name=name,
        occurred_at=occurred_at,
        received_at=occurred_at + draw.choice([0, 0, 0, 10, 59, 200, 900]) * SECOND,
        identifiers=identifiers,
        properties=msgspec.json.encode(properties),
        context=msgspec.json.encode(context),
        gpc=draw.random() < 0.03,
    )


def one_pass(
    world: World, events: list[Event], advance_to: int, members_max: int
) -> dict[str, tuple[bytes, list[Occurrence]]]:
    """The oracle: group id -> (state, occurrences), from all events at once and who is whose now."""
    key, program = world.engine.keys, world.engine.program
    owner: dict[NodeId, LeafId] = world.engine.state.customers_of(
        NodeId(leaf_of(key.node, each).node) for each in events
    )
    staffing = timeline(report for each in events if (report := read_report(each)))
    told = []
    for each in events:
        if each.name == "Staffing Reported":
            continue
        leaf = as_leaf(leaf_of(key.node, each).node)
        customer = owner[NodeId(leaf)]
        group = each.identifiers.get("group_id", msgspec.json.decode(each.context).get("groupId"))
        group = str(group).strip() if group is not None else None
        told.append((each, leaf, customer, None if group in ("null", "undefined") else group))
    found = {}
    for group in {each[3] for each in told if each[3]}:
        joined: dict[LeafId, int] = {}
        for event, _, customer, named in told:
            if named == group and event.name == "Account Joined":
                joined[customer] = min(joined.get(customer, event.occurred_at), event.occurred_at)
        first: dict[LeafId, int] = {}
        for event, _, customer, named in told:
            if named == group:
                first[customer] = min(first.get(customer, event.occurred_at), event.occurred_at)
        ranked = sorted((each not in joined, joined.get(each, first[each]), each) for each in first)
        members = {each[2] for each in ranked[:members_max]}
        batch: list[Fact | Joined] = []
        of_account = program.of(account_id(key.node, group))
        for event, leaf, customer, named in told:
            if customer in members and of_account.concerns(event):
                is_own = named == group or (
                    named is None and joined.get(customer, event.occurred_at + 1) <= event.occurred_at
                )
                if is_own or event.gpc or event.name.startswith("Consent"):
                    known_as = event_id(key.event, event.source, event.message_id)
                    batch.append(Fact(event, known_as, leaf, customer.hex(), not is_own))
        nodes = [node for mine in world.engine.state.members(members).values() for node in mine]
        batch += [
            Joined(link.linked_at, link.node_a.hex(), link.node_b.hex())
            for link in world.engine.state.joining_links(nodes)
        ]
        batch.sort(key=lambda item: item.order_key)
        state, caught = step(of_account, Folded(), batch, advance_to, staffing)
        found[group] = (encode(state), sorted(caught, key=lambda each: each.occurrence_id))
    return found


def stored(world: World) -> dict[str, tuple[bytes, list[Occurrence]]]:
    """What the engine holds of accounts."""
    found = {}
    rows = world.rows("SELECT account, group_id, state FROM accounts JOIN customers ON customer = account")
    for account, group, state in rows:
        bodies = world.rows("SELECT body FROM occurrences WHERE customer = ? ORDER BY occurrence_id", account)
        assert isinstance(state, bytes)
        found[str(group)] = (state, [decode_occurrence(row[0]) for row in bodies])  # type: ignore[arg-type]
    return found


def check(
    seed: int,
    n_max: int,
    disk: MemoryDisk | None = None,
    members_max: int = MEMBERS_MAX,
    of: Project = RANDOM,
    one_event: OneEvent = random_event,
) -> int:
    """One random story; returns how many occurrences of accounts it had."""
    draw = random.Random(seed)
    events = [one_event(draw, number) for number in range(draw.randint(1, n_max))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hetki.store.accounts.MEMBERS_MAX", members_max)
        world, _ = live(draw, events, True, of, disk)
        progress = world.engine.state.progress()
        assert progress is not None
        got = stored(world)
        assert got == one_pass(world, events, progress.advance_to, members_max), f"seed {seed}"
        world.assert_rebuilds()
    if disk is not None:
        assert backtested(world.engine) == caught_live(world.engine)
        explained(world, got)
    return sum(len(caught) for _, caught in got.values())


def explained(world: World, got: dict[str, tuple[bytes, list[Occurrence]]]) -> None:
    """Who asks why is told what was caught."""
    names = [each.name for each in world.engine.project.moments.values() if each.is_about_account]
    for account, group in world.rows("SELECT account, group_id FROM accounts"):
        assert isinstance(account, bytes)
        told = [one for name in names for one in why_moment(world.engine, LeafId(account), name).occurrences]
        assert sorted(told, key=lambda each: each.occurrence_id) == got[str(group)][1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**48), st.sampled_from([1, 2, MEMBERS_MAX]))
def test_accounts_are_one_pass_of_their_members_events(seed: int, members_max: int) -> None:
    check(seed, 40, None, members_max)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**48))
def test_a_backtest_and_an_explanation_tell_what_was_live(seed: int) -> None:
    folder = tempfile.mkdtemp()
    try:
        check(seed, 40, MemoryDisk(folder))
    finally:
        shutil.rmtree(folder)


def test_the_random_stories_are_worth_telling() -> None:
    assert sum(check(seed, 80) for seed in range(20)) > 20


# -- any moment -------------------------------------------------------------------------------------------

TURNED = {
    "not segment.known": "account.plan = 'none'",
    "segment.busy": "account.plan = 'club'",
    "not consent.marketing": "member is not null",
    "consent.marketing": "aggregate.n >= 0",
}


@cache
def wide_project(seed: int) -> Project:
    """A project of one to three random moments about accounts."""
    draw = random.Random(seed)
    files = dict(BASE)
    n_moments, number = draw.randint(1, 3), 0
    while number < n_moments:
        ((path, text),) = random_moment(draw, number).items()
        spec = json.loads(text)
        del spec["initiative"]
        identify = spec["identify"] | {"about": "account"}
        kept = [each for each in identify["context"] if not each.startswith(("segment", "consent"))]
        identify["context"] = [*kept, *(["account.plan", "member"] if draw.random() < 0.5 else [])]
        if "consent.marketing" in json.dumps(identify["steps"]) + identify["who"]:
            identify["aggregates"].setdefault("n", "count of Alpha Came or Beta Came, over 4 minutes")
        spec["identify"] = json.loads(
            re.sub("|".join(TURNED), lambda found: TURNED[found[0]], json.dumps(identify))
        )
        if draw.random() < 0.3:
            spec["identify"]["aggregates"]["m"] = "distinct member of Alpha Came or Xi Came, over 5 minutes"
            spec["identify"]["context"].append("aggregate.m")
        tried = {path: json.dumps(spec)}
        try:
            project({**BASE, **tried})
        except Invalid:
            continue
        files.update(tried)
        number += 1
    return project(files)


def wide_event_of_account(draw: random.Random, number: int) -> Event:
    """One of the events of the wide property, some by others, some that join or name an account."""
    found = wide_event(draw, number)
    identifiers, context, name = dict(found.identifiers), {}, found.name
    if number >= 3 and draw.random() < 0.3:
        identifiers["user_id"] = draw.choice(["u2", "u3"])
    if number < 3 or draw.random() < 0.1:
        name = "Account Joined" if number >= 3 or draw.random() < 0.7 else name
        context["groupId"] = draw.choice(["kone", "kone", "nokia"])
    if name == "Account Joined":
        identifiers["group_id"] = str(context["groupId"]) if context else "kone"
        context = {}
    return msgspec.structs.replace(
        found, name=name, identifiers=identifiers, context=msgspec.json.encode(context)
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 19), st.integers(0, 2**48), st.booleans())
def test_any_moment_about_accounts_is_one_pass(which: int, seed: int, narrow: bool) -> None:
    with bounds(narrow):
        check(seed, 40, None, MEMBERS_MAX, wide_project(which), wide_event_of_account)


def test_the_random_moments_are_worth_catching() -> None:
    assert sum(check(seed, 60, None, 9, wide_project(seed), wide_event_of_account) for seed in range(20)) > 20


# -- other declarations -----------------------------------------------------------------------------------

NO_ACCOUNTS = {"moments/basket.yaml": None, "moments/promise.yaml": None}
VARIANTS = (
    RANDOM,
    project(NO_ACCOUNTS),
    project(NO_ACCOUNTS | about_account("silent", "a: Order Tracked | no b: Chat Started, for 4 minutes")),
    project(NO_ACCOUNTS | moment("silent", "a: Order Tracked | no b: Chat Started, for 5 minutes")),
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**48))
def test_taking_up_other_declarations_is_folding_under_them(seed: int) -> None:
    draw = random.Random(seed)
    events = [random_event(draw, number) for number in range(draw.randint(1, 40))]
    world, _ = live(draw, events, True, draw.choice(VARIANTS))
    for _ in range(3):
        taken_up = draw.choice(VARIANTS)
        while not world.warm(taken_up, draw.randint(1, 3)):
            if draw.random() < 0.5:
                world.accept([random_event(draw, draw.randrange(1000, 9999))])
                world.catch_up()
        world.assert_rebuilds()
