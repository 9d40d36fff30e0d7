"""The crucial property: however events arrive, the settled occurrences are those of one pass of history.

Random streams of several customers: fragments that join, consent that comes and goes, merges and unmerges by
command, repeats, delays within and beyond the lateness; accepted in random bodies and folded in random
micro-batches, or one by one. The oracle looks at nothing that the engine stores: it takes every event
once, resolves all evidence at once and folds each customer in one pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from world import ORIGIN, World, moment, project

from hetki.engine.commands import CannotLink, Merge, Unmerge
from hetki.engine.folding import decode_occurrence
from hetki.engine.project import Project
from hetki.engine.rebuilding import rebuild
from hetki.events.event import Event, LeafId, event_id
from hetki.identity.identifier import NodeId, as_leaf
from hetki.identity.link import DESPITE_UNIQUE, Link, LinkKind, evidence, make_link
from hetki.identity.resolve import Node, derive
from hetki.moments.fold import Fact, Folded, Joined, encode, step
from hetki.moments.moment import Occurrence
from hetki.patterns.staffing import read_report, timeline
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk

MOMENTS = (
    moment("silent", "a: Order Tracked | no b: Chat Started, for 5 minutes")
    | moment("bought", "a: Product Added | no b: Order Completed, for 3 minutes", purpose="marketing")
    | moment(
        "pair",
        "a: Product Viewed | b: Product Viewed where product_id = a.product_id",
        purpose="marketing",
        more="within: 6 minutes\nrepeat: once per 2 minutes",
    )
    | moment(
        "kept",
        "a: Delivery Delayed | no b: Chat Started, by a.promised_at | c: Order Tracked",
        more="within: 10 minutes\nrepeat: once per a.order_id",
    )
    | moment(
        "often",
        "a: Order Tracked where aggregate.n >= 1 and not segment.busy | no b: Chat Started where"
        " aggregate.last_order = order_id, for 2 minutes",
        more="aggregates: {n: 'count of Order Tracked or Chat Started over 5 minutes',"
        " last_order: last order_id of Order Completed}\n"
        "context: [order_id, aggregate.last_order, consent.marketing, segment.busy, staffing('kitchen')]",
    )
    | moment(
        "busy",
        "a: Product Added where coalesce(staffing('kitchen'), 1) < 1",
        more="who: segment.busy or consent.marketing or not segment.known",
    )
    | moment(
        "twice", "a: Chat Started | no b: Order Tracked, for 1 minute | no c: Chat Started, for 2 minutes"
    )
)
BUSY = """
segment: busy
title: Busy
purpose: marketing
who: aggregate.n_viewed >= 2 or aggregate.spent > 2 and segment.known
aggregates:
  n_viewed: distinct product_id of Product Viewed or Product Added over 4 minutes
  spent: sum total of Order Completed over 6 minutes
"""
KNOWN = "segment: known\ntitle: Known\npurpose: service\nwho: customer.plan = 'club'\n"
PROJECT = project(
    {**MOMENTS, "segments/busy.yaml": BUSY, "segments/known.yaml": KNOWN}
    | {"moments/help.yaml": None, "moments/basket.yaml": None, "moments/again.yaml": None}
)
NAMES = ["Order Tracked", "Chat Started", "Product Added", "Order Completed", "Product Viewed"] * 2 + [
    "Delivery Delayed",
    "Staffing Reported",
    "Staffing Reported",
    "Customer Identified",
    "Page Viewed",
    "Consent Granted",
    "Consent Granted",
    "Consent Refused",
    "Consent Withdrawn",
]
USERS, DEVICES, MAILS = ["u1", "u2", "u3"], ["d1", "d2", "d3"], ["m1@x.fi", "m2@x.fi"]


def random_event(draw: random.Random, number: int) -> Event:
    """One event of a quarter of an hour, told by one of three sources, about one of few customers."""
    occurred_at = ORIGIN + draw.randrange(0, 900, 5) * SECOND
    delay_s = draw.choice([0, 0, 0, 10, 59, 200, 900])
    identifiers = {}
    if draw.random() < 0.5:
        identifiers["user_id"] = draw.choice(USERS)
    if draw.random() < 0.6 or not identifiers:
        identifiers["anonymous_id"] = draw.choice(DEVICES)
    if draw.random() < 0.15:
        identifiers["email"] = draw.choice(MAILS)
    if draw.random() < 0.05:
        identifiers["previous_id"] = draw.choice(USERS + DEVICES)
    minutes, seconds = divmod(draw.randrange(0, 1200, 30), 60)
    ends = draw.choice([{}, {"until": f"2026-03-02T00:{minutes % 60:02}:{seconds:02}Z"}])
    properties = {
        "purpose": draw.choice(["marketing", "marketing", "service"]),
        "product_id": draw.choice("pq"),
        "order_id": draw.choice(["o1", "o2"]),
        "total": draw.choice([0.5, 1, 2, "much"]),
        "plan": draw.choice(["club", "none"]),
        "pool": draw.choice(["kitchen", "kitchen", "desk"]),
        "n_present": draw.randrange(4),
        "n_planned": draw.choice([0, 2, 4]),
        "promised_at": f"2026-03-02T00:{minutes % 60:02}:{seconds:02}Z",
        **ends,
    }
    return Event(
        source=draw.choice(["web", "app", "shop"]),
        message_id=f"m{number}",
        channel="web",
        name=draw.choice(NAMES),
        occurred_at=occurred_at,
        received_at=occurred_at + delay_s * SECOND,
        identifiers=identifiers,
        properties=msgspec.json.encode(properties),
        gpc=draw.random() < 0.03,
    )


@dataclass(frozen=True)
class Told:
    """A command as the oracle knows it: when, and the merge link or which link (its number) is taken back."""

    link: Link | None = None
    revoked: bytes = b""


def command(world: World, draw: random.Random, told: list[Told]) -> None:
    """A person merges two names at random, or takes a link back."""
    at = world.clock.now()
    rows = world.rows("SELECT link_id FROM links WHERE revoked_at IS NULL ORDER BY 1")
    if rows and draw.random() < 0.5:
        link_id = draw.choice(rows)[0]
        assert isinstance(link_id, bytes)
        world.engine.acceptor.command(Unmerge(link_id.hex(), "agent", at))
        told.append(Told(revoked=link_id))
        return
    a, b = (NodeId(world.node(each)) for each in draw.sample([*USERS, *(f"a={each}" for each in DEVICES)], 2))
    kind: LinkKind = draw.choice(["merge", "merge", "cannot"])
    despite = draw.random() < 0.7
    said = (
        Merge(a.hex(), b.hex(), "agent", at, despite)
        if kind == "merge"
        else CannotLink(a.hex(), b.hex(), "", at)
    )
    world.engine.acceptor.command(said)
    (stored,) = world.engine.journal.read(world.engine.journal.head()[0] - 1, 1)
    rule = DESPITE_UNIQUE if despite and kind == "merge" else ""
    told.append(Told(make_link(kind, a, b, at, stored.event_id, stored.event_id, 0.0, rule)))


def live(
    draw: random.Random,
    events: list[Event],
    commands: bool,
    of: Project = PROJECT,
    disk: MemoryDisk | None = None,
) -> tuple[World, list[Told]]:
    """The events as they arrive, in random bodies, repeats among them, folded at random times."""
    world = World(
        of, disk, starts="00:00", batch_max=draw.choice([1, 2, 3, 7, 2000]), seed=draw.randrange(99)
    )
    repeats = draw.sample(events, len(events) // 4)
    stream = sorted([*events, *repeats], key=lambda each: (each.received_at, draw.random()))
    told: list[Told] = []
    while stream:
        n = draw.choice([1, 1, 2, 5, 20])
        body, stream = stream[:n], stream[n:]
        world.accept(body)
        if draw.random() < 0.5:
            if draw.random() < 0.3:
                world.clock.sleep(draw.choice([5, 60, 130]))
            world.advance()
        if commands and draw.random() < 0.25:
            command(world, draw, told)
    world.clock.sleep(draw.choice([0, 100, 3000]))
    world.advance()
    return world, told


History = dict[LeafId, tuple[bytes, list[tuple[str, Occurrence]]]]


def one_pass(world: World, events: list[Event], told: list[Told], advance_to: int) -> History:
    """The oracle: customer -> (state, occurrences), from all evidence at once and in one pass."""
    engine = world.engine
    nodes: dict[NodeId, Node] = {}
    links: dict[bytes, Link] = {}
    facts: dict[LeafId, list[Fact]] = {}
    staffing = timeline(report for each in events if (report := read_report(each)))
    for each in events:
        if each.name == "Staffing Reported":
            continue
        known_as = event_id(engine.keys.event, each.source, each.message_id)
        found = evidence(engine.keys.node, each, known_as)
        for one in found.identifiers:
            first_at = min(
                each.occurred_at, nodes[one.node].first_at if one.node in nodes else each.occurred_at
            )
            nodes[one.node] = Node(one.namespace, first_at)
        leaf = as_leaf(found.leaf.node)
        facts.setdefault(leaf, []).append(Fact(each, known_as, leaf))
        for link in found.links:
            if link.link_id not in links or link.linked_at < links[link.link_id].linked_at:
                links[link.link_id] = link
    for each_told in told:
        if each_told.link is not None:
            links[each_told.link.link_id] = each_told.link
        links.pop(each_told.revoked, None)
    resolution = derive(nodes, links.values(), engine.project.identity)
    refusals = {link_id: refusal for link_id, refusal in resolution.refused.items() if refusal}
    got = dict(world.rows("SELECT link_id, refusal FROM links WHERE refusal <> ''"))
    assert got == refusals, "links are refused for what all evidence says"
    history: History = {}
    for customer in set(resolution.roots.values()):
        mine = [each for leaf, each in facts.items() if resolution.roots[NodeId(leaf)] == customer]
        batch: list[Fact | Joined] = [fact for each in mine for fact in each]
        batch = [each for each in batch if isinstance(each, Fact) and engine.program.concerns(each.event)]
        batch += [
            Joined(link.linked_at, link.node_a.hex(), link.node_b.hex())
            for link in links.values()
            if link.link_id in resolution.joining and resolution.roots[link.node_a] == customer
        ]
        batch.sort(key=lambda item: item.order_key)
        if mine:
            state, found_in_one = step(engine.program, Folded(), batch, advance_to, staffing)
            caught = sorted((each.occurrence_id, each) for each in found_in_one)
            history[customer] = (encode(state), caught)
    return history


def stored(world: World) -> History:
    """What the engine holds: customer -> (state, occurrences)."""
    found: History = {}
    for customer, state in world.rows("SELECT customer, state FROM customers"):
        assert isinstance(customer, bytes) and isinstance(state, bytes)
        rows = world.rows(
            "SELECT occurrence_id, body FROM occurrences WHERE customer = ? ORDER BY 1", customer
        )
        told = [(str(row[0]), decode_occurrence(row[1])) for row in rows if isinstance(row[1], bytes)]
        found[LeafId(customer)] = (state, told)
    assert len(world.rows("SELECT 1 FROM occurrences")) == sum(len(each[1]) for each in found.values())
    return found


def check(
    seed: int,
    n_max: int,
    commands: bool,
    of: Project = PROJECT,
    one_event: Callable[[random.Random, int], Event] = random_event,
) -> int:
    """One random story; returns how many occurrences it had."""
    draw = random.Random(seed)
    events = [one_event(draw, number) for number in range(draw.randint(1, n_max))]
    world, told = live(draw, events, commands, of)
    progress = world.engine.state.progress()
    assert progress is not None
    got, expected = stored(world), one_pass(world, events, told, progress.advance_to)
    assert got == expected, f"seed {seed}"
    rebuilt = rebuild(world.engine)
    assert rebuilt.before == rebuilt.after, f"seed {seed}"
    handled = world.rows("SELECT occurrence_id FROM decisions UNION ALL SELECT occurrence_id FROM missed")
    assert len(handled) == len(set(handled)), "each is decided once or missed once"
    assert {each[0] for _, caught in got.values() for each in caught} <= {str(row[0]) for row in handled}
    return sum(len(caught) for _, caught in got.values())


@settings(max_examples=500)
@given(st.integers(0, 2**48))
def test_live_is_one_pass_of_history(seed: int) -> None:
    check(seed, 30, commands=False)


@settings(max_examples=500)
@given(st.integers(0, 2**48))
def test_live_is_one_pass_of_history_with_merges_and_unmerges(seed: int) -> None:
    check(seed, 30, commands=True)


def test_the_random_stories_are_worth_telling() -> None:
    assert sum(check(seed, 60, commands=True) for seed in range(30)) > 60
