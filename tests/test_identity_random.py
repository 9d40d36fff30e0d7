"""Random people say and do random things: customers are a function of what was said, never of how it arrived.

Calls come through the real parser (logins, aliases, addresses, devices, loyalty cards, rows of tables, junk)
with commands of people and of linkage between them. Two engines get the same in other orders, bodies and
micro-batches, or one of them gets links that are all taken back; then all projections are compared, but
for places in the journal. Bounds are small here, so that small stories meet them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import ORIGIN, World, project

from hetki.engine.commands import CannotLink, Command, Matched, MatchedPair, Merge, Unmerge, Unsure, as_entry
from hetki.events.event import Event, utc
from hetki.events.segment import parse
from hetki.identity.identifier import NodeId, identifier
from hetki.identity.link import LinkKind, make_link
from hetki.settings import SECOND, Limits

MINUTE = 60 * SECOND
#: When people begin to give commands, and when everything has arrived.
SPOKEN_AT, OVER_AT = ORIGIN + 120 * MINUTE, ORIGIN + 600 * MINUTE
USERS, COOKIES, ROWS = ("u1", "u2", "u3", "null"), ("c1", "c2", "c3", "c4"), ("r1", "r2")
MORE = {
    "email": ("m1@x.fi", "m2@x.fi", "test@test.com"),
    "phone": ("+358401111111", "+358402222222", "000000"),
    "device": ("d1", "d2", "00000000-0000-0000-0000-000000000000"),
    "card": ("k1", "k2"),
    "record": ROWS,
    "alias": (*USERS, *COOKIES),
}
NAMES = (
    ("Help Searched", {"n_results": 0}),
    ("Chat Started", {}),
    ("Product Viewed", {"product_id": "p"}),
    ("Product Added", {"product_id": "p"}),
    ("Consent Granted", {"purpose": "marketing"}),
    ("Consent Refused", {"purpose": "marketing"}),
)
#: The rules of the world: as they are, and others with which other constraints bite.
POLICIES = (
    "",
    """
[identity.loyalty_card]
per_customer = 1
[identity.email]
per_customer = 1
within = "20 minutes"
[identity.anonymous_id]
unique_ids_max = 1
per_customer = 3
[identity.device]
joins = false
""",
)


@dataclass(frozen=True)
class Call:
    """One call: who says it (some ids), what else it names, when it happened (minutes)."""

    minute: int
    user: str
    cookie: str
    more: str
    value: str
    name: int

    def event(self, number: int) -> Event:
        """The event that the server makes of it, as the `number`-th message."""
        at = ORIGIN + self.minute * MINUTE
        name, properties = NAMES[self.name]
        message: dict[str, object] = {"type": "track", "event": name, "properties": properties}
        if self.more == "alias":
            message = {"type": "alias", "previousId": self.value}
        elif self.more in ("email", "phone"):
            message["properties"] = {**properties, self.more: self.value}
        elif self.more == "device":
            message["context"] = {"device": {"id": self.value}}
        elif self.more == "card":
            message["context"] = {"externalIds": [{"id": self.value, "type": "loyalty_card"}]}
        message |= {"messageId": f"m{number}", "timestamp": utc(at).isoformat()}
        message |= {"userId": self.user} if self.user else {}
        message |= {"anonymousId": self.cookie} if self.cookie else {}
        (event,) = parse(msgspec.json.encode(message), "message", "web", "web", at, Limits()).events
        if self.more == "record":
            names = {"record_id": self.value, **({"user_id": self.user} if self.user else {})}
            return msgspec.structs.replace(event, identifiers=names)
        return event


@st.composite
def calls(draw: st.DrawFn) -> Call:
    user = draw(st.sampled_from(("", *USERS)))
    cookie = draw(st.sampled_from(("", *COOKIES) if user else COOKIES))
    more = draw(st.sampled_from(("", *MORE)))
    more = "" if more == "alias" and not user else more
    value = draw(st.sampled_from(MORE[more])) if more else ""
    return Call(draw(st.integers(0, 60)), user, cookie, more, value, draw(st.integers(0, len(NAMES) - 1)))


WHO = st.sampled_from([*USERS[:3], *(f"a={each}" for each in COOKIES), *(f"r={each}" for each in ROWS)])
PAIRS = st.tuples(WHO, WHO).filter(lambda pair: pair[0] != pair[1])
WORDS = ("merge", "despite", "cannot", "probable", "possible")


@dataclass(frozen=True)
class Said:
    """What is said of two: that they are one (perhaps with two accounts), that they are not, how likely."""

    word: str
    pair: tuple[str, str]
    weight: int


SAID = st.builds(Said, st.sampled_from(WORDS), PAIRS, st.integers(1, 9))
LOGINS = st.tuples(st.sampled_from(USERS[:3]), st.sampled_from(COOKIES))


Tables = dict[str, list[tuple[object, ...]]]


class Told:
    """An engine that is told things in a given order, and folded in between or not."""

    def __init__(self, policy: str = "", batch_max: int = 2000) -> None:
        self.world = World(project(toml=policy), starts="00:00", batch_max=batch_max)
        self.links: list[bytes] = []

    def events(self, events: Sequence[Event], cuts: set[int]) -> None:
        """Accept events in this order; after each number in `cuts` a body ends, every other time folded."""
        body: list[Event] = []
        for number, event in enumerate(events):
            body.append(event)
            if number in cuts or number == len(events) - 1:
                self.world.accept(body)
                body = []
                if number % 2:
                    self.world.advance()

    def command(self, command: Command, name: str) -> None:
        """A command under an id of its own, so that it is the same in every engine."""
        entry = as_entry(command, self.once(name))
        self.world.engine.journal.append([[entry]], self.world.clock.now(), 1)

    def say(self, said: Said, number: int) -> None:
        """The `number`-th word; `links` remembers the link that it makes."""
        a, b = (self.node(who) for who in said.pair)
        at, name = SPOKEN_AT + number * MINUTE, f"said {number}"
        kind: LinkKind = "merge"
        if said.word in ("merge", "despite"):
            self.command(Merge(a.hex(), b.hex(), "agent", at, said.word == "despite"), name)
        elif said.word == "cannot":
            kind = "cannot"
            self.command(CannotLink(a.hex(), b.hex(), "agent", at), name)
        else:
            kind = "probable" if said.word == "probable" else "possible"
            pair = MatchedPair(a.hex(), b.hex(), kind, float(said.weight), (("name", float(said.weight)),))
            self.command(Matched("model", [pair], at), name)
        once = self.once(name) if kind in ("merge", "cannot") else b""
        self.links.append(make_link(kind, a, b, at, b"", once=once).link_id)

    def once(self, name: str) -> bytes:
        return name.encode().ljust(16, b".")

    def take_back(self, link_id: bytes, name: str) -> None:
        self.command(Unmerge(link_id.hex(), "agent", SPOKEN_AT + 60 * MINUTE), name)

    def login(self, user: str, cookie: str) -> bytes:
        """The id of the link that a login makes."""
        return make_link("login", self.node(user), self.node(f"a={cookie}"), 0, b"").link_id

    def node(self, who: str) -> NodeId:
        """The node of a user id, of an anonymous id written `a=c1`, or of a row of a table written `r=r1`."""
        short, _, value = who.rpartition("=")
        space = {"": "user_id", "a": "anonymous_id", "r": "record"}[short]
        found = identifier(self.world.engine.keys.node, space, value)
        assert found is not None
        return found.node

    def over(self) -> None:
        self.world.clock.move(OVER_AT)
        self.world.advance()

    def projections(self, with_revoked: bool = True) -> Tables:
        """Every row of every projection, without places in the journal."""
        tables: Tables = {}
        kept: list[int] = []
        for row in self.world.engine.state.rows():
            if len(row) == 1:
                table = str(row[0])
                tables[table] = []
                columns = [str(each[1]) for each in self.world.rows(f"PRAGMA table_info({table})")]
                kept = [n for n, name in enumerate(columns) if name not in ("position", "frame_offset")]
                revoked = columns.index("revoked_at") if table == "links" else -1
            elif with_revoked or revoked < 0 or row[revoked] is None:
                tables[table].append(tuple(row[n] for n in kept))
        return {table: sorted(found, key=repr) for table, found in tables.items()}


def assert_equal(got: Tables, expected: Tables) -> None:
    """Equal, table by table, and row by row where they are not."""
    for table in expected:
        missing = [row for row in expected[table] if row not in got[table]]
        added = [row for row in got[table] if row not in expected[table]]
        told = "\n".join([table, *(f"- {row}" for row in missing), *(f"+ {row}" for row in added)])
        assert got[table] == expected[table], told
    assert got.keys() == expected.keys()


@contextmanager
def bounds(are_small: bool) -> Iterator[None]:
    """As they are, or so small that a handful is a crowd."""
    with pytest.MonkeyPatch.context() as patch:
        if are_small:
            patch.setattr("hetki.identity.resolve.LINKS_MAX", 4)
            patch.setattr("hetki.identity.resolve.OTHERS_MAX", 3)
            patch.setattr("hetki.identity.resolve.CROWD_MAX", 6)
        yield


@dataclass(frozen=True)
class Arrived:
    """A story in two orders of arrival, with repeats in the second, and where each is cut into bodies."""

    orders: tuple[list[Event], list[Event]]
    cuts: tuple[set[int], set[int]]


@st.composite
def arrivals(draw: st.DrawFn, first: int = 0, min_size: int = 2, max_size: int = 14) -> Arrived:
    told = draw(st.lists(calls(), min_size=min_size, max_size=max_size))
    story = [call.event(first + number) for number, call in enumerate(told)]
    repeats = draw(st.lists(st.sampled_from(story), max_size=3)) if story else []
    cuts = st.sets(st.integers(0, 16))
    again: list[Event] = draw(st.permutations([*story, *repeats]))
    return Arrived((story, again), (draw(cuts), draw(cuts)))


LATER = arrivals(100, 0, 4)
BATCHES = st.sampled_from([1, 2, 3, 2000])
POLICY = st.sampled_from(POLICIES)


@settings(max_examples=60)
@given(arrivals(), LATER, st.lists(SAID, max_size=4), st.lists(LOGINS, max_size=2), st.data())
def test_any_order_of_arrival_gives_the_same(
    arrived: Arrived, later: Arrived, said: list[Said], undone: list[tuple[str, str]], data: st.DataObject
) -> None:
    policy = data.draw(POLICY)
    one, other = Told(policy), Told(policy, data.draw(BATCHES))
    with bounds(data.draw(st.booleans())):
        for told, n in ((one, 0), (other, 1)):
            first, then = arrived.orders[n], later.orders[n]
            # Words may come before the events that they are about; a link is taken back when it is there.
            place = data.draw(st.integers(0, len(first)))
            told.events(first[:place], arrived.cuts[n])
            for number, each in enumerate(said):
                told.say(each, number)
            told.events(first[place:], arrived.cuts[n])
            for number, pair in enumerate(pair for pair in undone if told_of(first, pair)):
                told.take_back(told.login(*pair), f"undo {number}")
            if said:
                told.command(Unsure(told.links[0].hex(), "agent", SPOKEN_AT + 50 * MINUTE), "unsure")
                told.take_back(told.links[-1], "undo")
            told.events(then, later.cuts[n])
            told.over()
        assert_equal(other.projections(), one.projections())
        other.world.assert_rebuilds()


@settings(max_examples=60)
@given(arrivals(), LATER, st.lists(SAID, min_size=1, max_size=4), st.data())
def test_what_is_taken_back_never_was(
    arrived: Arrived, later: Arrived, said: list[Said], data: st.DataObject
) -> None:
    policy = data.draw(POLICY)
    never, undone = Told(policy), Told(policy, data.draw(BATCHES))
    with bounds(data.draw(st.booleans())):
        never.events(arrived.orders[0], arrived.cuts[0])
        undone.events(arrived.orders[1], arrived.cuts[1])
        for number, each in enumerate(said):
            undone.say(each, number)
            undone.world.advance()
        never.events(later.orders[0], later.cuts[0])
        undone.events(later.orders[1], later.cuts[1])
        for number, link_id in enumerate(data.draw(st.permutations(undone.links))):
            undone.take_back(link_id, f"undo {number}")
            if number % 2:
                undone.world.advance()
        never.over()
        undone.over()
        assert_equal(undone.projections(with_revoked=False), never.projections())
        undone.world.assert_rebuilds()


@settings(max_examples=25)
@given(arrivals(), LATER, POLICY)
def test_whom_nothing_new_touches_keeps_the_customer(arrived: Arrived, later: Arrived, policy: str) -> None:
    told = Told(policy)
    told.events(arrived.orders[0], arrived.cuts[0])
    told.over()
    was = dict(told.world.rows("SELECT node, customer FROM nodes"))
    told.events([strange(each) for each in later.orders[0]], later.cuts[0])
    told.over()
    now = dict(told.world.rows("SELECT node, customer FROM nodes"))
    assert {node: now[node] for node in was} == was
    told.world.assert_rebuilds()


def told_of(events: Sequence[Event], pair: tuple[str, str]) -> bool:
    """Whether this login is among the events."""
    return any(
        (each.identifiers.get("user_id"), each.identifiers.get("anonymous_id")) == pair for each in events
    )


def strange(event: Event) -> Event:
    """The same of other people."""
    others = str.maketrans("1234", "5678")
    names = {name: value.translate(others) for name, value in event.identifiers.items()}
    context = event.context.translate(bytes.maketrans(b"1234", b"5678"))
    return msgspec.structs.replace(event, identifiers=names, context=context)


# -- what was found by the above, by itself


def call(minute: int = 0, user: str = "", cookie: str = "", more: str = "", value: str = "") -> Call:
    return Call(minute, user, cookie, more, value, 0)


def all_at_once_and_one_by_one(*told_calls: Call, said: Sequence[Said] = ()) -> tuple[Tables, Tables]:
    found: list[Tables] = []
    for batch_max, turn in ((2000, 1), (1, -1)):
        told = Told(batch_max=batch_max)
        events = [each.event(number) for number, each in enumerate(told_calls)]
        told.events(events[::turn], set(range(len(events))) if turn < 0 else set())
        for number, each in enumerate(said):
            told.say(each, number)
        told.over()
        told.world.assert_rebuilds()
        found.append(told.projections())
    return found[0], found[1]


def test_of_two_events_of_one_instant_the_cause_of_a_link_is_the_same_in_any_order() -> None:
    one, other = all_at_once_and_one_by_one(call(user="u1", cookie="c1"), call(user="u1", cookie="c1"))
    assert_equal(other, one)


def test_a_pair_that_is_weighed_again_keeps_its_time_and_takes_the_weight() -> None:
    said = [Said("possible", ("a=c1", "a=c2"), 3), Said("possible", ("a=c1", "a=c2"), 5)]
    one, other = all_at_once_and_one_by_one(call(cookie="c1"), call(cookie="c2"), said=said)
    assert_equal(other, one)
    ((*_, weight, _, _, _, _, _, _, _, _),) = one["links"]
    assert weight == 5.0


def test_a_link_between_two_of_a_crowd_is_refused_like_the_others() -> None:
    # seven in a row, each beside the next, and then the last beside the first
    row = [
        call(number, cookie=f"c{(number + 1) // 2}", more="email", value=f"m{number // 2}@x.fi")
        for number in range(7)
    ]
    with bounds(True):
        told = Told(batch_max=1)
        told.events([each.event(number) for number, each in enumerate(row)], set(range(9)))
        told.events([call(9, cookie="c0", more="email", value="m3@x.fi").event(9)], {0})
        told.over()
        assert {row[0] for row in told.world.rows("SELECT refusal FROM links")} == {"crowd"}
        told.world.assert_rebuilds()


@pytest.mark.parametrize("user", ["", "u3"])
def test_who_grew_together_before_any_event_keeps_when(user: str) -> None:
    # c1 and c2 are known from logins that are refused, and are said to be one before either has an event
    shared = [call(number, f"u{number % 3}", f"c{number // 3}") for number in range(3, 9)]
    first = call(20, user, "c1", "alias" if user else "", "c2" if user else "")
    told = Told(batch_max=1)
    told.events([each.event(number) for number, each in enumerate(shared)], set(range(9)))
    told.say(Said("merge", ("a=c1", "a=c2"), 0), 0)
    told.world.advance()
    told.events([first.event(20)], {0})
    told.world.advance()
    told.world.assert_rebuilds()
