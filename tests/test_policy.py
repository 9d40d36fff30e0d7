"""The policy of identity: what joins, what is refused and why, what is learned, and what a change does."""

from __future__ import annotations

import msgspec
import pytest
from world import World, at, lines, project

from hetki.engine.commands import Matched, MatchedPair
from hetki.engine.files import Kept
from hetki.engine.known import known_at
from hetki.engine.project import Project
from hetki.engine.rederiving import dry_run
from hetki.errors import Conflict
from hetki.events.event import Event
from hetki.identity.identifier import NodeId
from hetki.identity.policy import compile_policy, fits
from hetki.server.watch import Watch


def with_identity(toml: str) -> Project:
    """The world's project with tables of `[identity]`."""
    return project(toml=toml)


def told(text: str, of: Project | None = None) -> World:
    world = World(of)
    world.live(text)
    world.assert_rebuilds()
    return world


def from_phone(minute: int, user: str, device: str, **ids: str) -> Event:
    """A mobile event with a device id, and external ids by type."""
    external = [{"id": value, "type": kind, "collection": "users"} for kind, value in ids.items()]
    context = {"device": {"id": device, "type": "ios"}, "externalIds": external}
    when = at(f"10:{minute:02}")
    name = f"{minute} {user} {device}"
    return Event("app", name, "app", "Page Viewed", when, when, {"user_id": user} if user else {}, b"{}",
                 msgspec.json.encode(context))  # fmt: skip


#: Under this policy what two users share stays with the first of them.
LENIENT = with_identity(
    "[identity.anonymous_id]\nunique_ids_max = 2\n[identity.device]\nunique_ids_max = 2\n"
)

# -- limited, shared, blocked


def test_a_customer_has_one_address_and_one_number_in_a_year() -> None:
    world = World(starts="00:00")
    for n, day in enumerate((1, 300, 370)):
        world.live(f"{day}/10:00 web u=anna mail=anna{n}@kauppa.fi tel=+35840222222{n} Page Viewed")
    assert world.refusals() == [
        "+358402222221 - anna: too_many_values",
        "anna - anna1@kauppa.fi: too_many_values",
    ]
    world.assert_rebuilds()


def test_a_customer_has_as_many_addresses_in_a_time_as_the_policy_says() -> None:
    three = with_identity('[identity.email]\nper_customer = 3\nwithin = "30 days"\n')
    world = told("\n".join(f"10:0{n} web u=anna mail=anna{n}@kauppa.fi Page Viewed" for n in range(4)), three)
    assert world.refusals() == ["anna - anna3@kauppa.fi: too_many_values"]
    over_years = World(three, starts="00:00")
    for n in range(4):
        over_years.live(f"{n * 20 + 1}/10:00 web u=anna mail=anna{n}@kauppa.fi Page Viewed")
    assert over_years.refusals() == []
    over_years.assert_rebuilds()


def test_what_two_users_share_belongs_to_neither_unless_they_are_one() -> None:
    world = told(
        """
        10:00 web a=kiosk u=anna mail=anna@kauppa.fi Page Viewed
        10:10 web a=kiosk u=bertta Page Viewed
        10:20 web a=web1 u=bertta Page Viewed
        10:21 web a=web1 mail=anna@kauppa.fi Page Viewed
        """
    )
    # the address is anna's by her own word, so bertta's browser does not take it from her
    assert world.customers() == ["anna anna@kauppa.fi", "bertta web1", "kiosk"]
    assert {line.split(": ")[1] for line in world.refusals()} == {"two_unique_ids"}
    world.merge("anna", "bertta", despite_unique=True)
    world.advance()
    assert world.customers() == ["anna anna@kauppa.fi bertta kiosk web1"] and world.refusals() == []
    world.assert_rebuilds()


def test_an_address_that_two_users_give_is_neithers() -> None:
    world = told(
        """
        10:00 web u=anna mail=family@kauppa.fi Page Viewed
        10:01 web u=bertta mail=family@kauppa.fi Page Viewed
        10:02 web a=web1 mail=family@kauppa.fi Page Viewed
        """
    )
    assert world.customers() == ["anna", "bertta", "family@kauppa.fi", "web1"]


def test_who_names_the_addresses_of_two_users_belongs_to_neither() -> None:
    world = told(
        """
        10:00 web u=anna mail=anna@kauppa.fi Page Viewed
        10:01 web u=bertta mail=bertta@kauppa.fi Page Viewed
        10:02 web a=thief mail=anna@kauppa.fi Page Viewed
        10:03 web a=thief mail=bertta@kauppa.fi Page Viewed
        """
    )
    assert world.customers() == ["anna anna@kauppa.fi", "bertta bertta@kauppa.fi", "thief"]
    assert {line.split(": ")[1] for line in world.refusals()} == {"two_unique_ids"}


def test_who_names_an_address_of_one_and_a_number_that_is_not_his_belongs_to_nobody() -> None:
    world = told(
        """
        10:00 web a=web9 mail=anna@kauppa.fi tel=+358402222222 Page Viewed
        10:05 web u=anna mail=anna@kauppa.fi tel=+358401111111 Page Viewed
        """
    )
    # what anna says herself is heard first, although the guest said it earlier
    assert world.customers() == ["+358401111111 anna anna@kauppa.fi", "+358402222222", "web9"]
    assert {line.split(": ")[1] for line in world.refusals()} == {"too_many_values"}


def test_what_three_users_share_belongs_to_none_of_them() -> None:
    world = told("10:00 web a=kiosk u=anna Page Viewed\n10:10 web a=kiosk u=bertta Page Viewed", LENIENT)
    assert world.customers() == ["anna kiosk", "bertta"]
    world.live("10:20 web a=kiosk u=cecilia Page Viewed")
    assert world.customers() == ["anna", "bertta", "cecilia", "kiosk"]
    assert {line.split(": ")[1] for line in world.refusals()} == {"shared_value"}
    world.live("10:30 web a=kiosk Help Searched n_results=0")
    world.until("10:41")
    assert world.occurrences() == ["10:40 help kiosk: 10:30"], "its events are folded like any other's"
    world.unmerge("login")
    world.advance()
    assert world.customers() == ["anna kiosk", "bertta", "cecilia"], "two are not too many"
    world.assert_rebuilds()


@pytest.mark.parametrize("mail", ["noreply@kauppa.fi", "test@test.com", "kassa@oma.fi"])
def test_an_address_that_is_nobodys_joins_nobody(mail: str) -> None:
    of = with_identity('[identity.email]\nblocked = ["*@oma.fi"]\n')
    world = told(f"10:00 web a=w1 mail={mail} Page Viewed\n10:01 web a=w2 mail={mail} Page Viewed", of)
    assert world.customers() == [*sorted([mail, "w1", "w2"])]
    assert {line.split(": ")[1] for line in world.refusals()} == {"blocked_value"}


def test_a_device_joins_visits_and_never_users() -> None:
    world = World(LENIENT)
    world.accept([from_phone(0, "anna", "d1"), from_phone(1, "", "d1"), from_phone(2, "bertta", "d1")])
    world.advance()
    assert world.rows("SELECT count(DISTINCT customer) FROM nodes") == [(2,)]
    assert world.rows("SELECT refusal, count(*) FROM links GROUP BY 1 ORDER BY 1") == [
        ("", 2),
        ("two_unique_ids", 1),
    ]
    world.assert_rebuilds()


def test_an_external_id_joins_once_it_is_declared() -> None:
    events = [from_phone(0, "", "d1", card="c1"), from_phone(1, "", "d2", card="c1")]
    undeclared, declared = World(), World(with_identity("[identity.card]\nper_customer = 1\n"))
    for world in (undeclared, declared):
        world.accept(events)
        world.advance()
        world.assert_rebuilds()
    assert {line.split(": ")[1] for line in undeclared.refusals()} == {"never_alone"}
    assert declared.refusals() == [] and len(declared.customers()) == 1
    declared.accept([from_phone(2, "", "d1", card="c2")])
    declared.advance()
    assert {line.split(": ")[1] for line in declared.refusals()} == {"two_unique_ids"}


# -- a person's word


def test_who_is_not_one_customer_stays_apart_whatever_comes() -> None:
    world = told("10:00 web a=web1 Page Viewed\n10:01 web u=anna Page Viewed")
    world.cannot("a=web1", "anna")
    world.live("10:05 web a=web1 u=anna Page Viewed")
    assert world.customers() == ["anna", "web1"] and world.refusals() == ["anna - web1: cannot_link"]
    world.clock.move(at("10:10"))
    world.merge("a=web1", "anna")
    world.advance()
    assert world.customers() == ["anna web1"], "the later word about the same two counts"
    world.unmerge("merge")
    world.advance()
    assert world.customers() == ["anna", "web1"], "the earlier word counts again"
    world.unmerge("cannot")
    world.advance()
    assert world.customers() == ["anna web1"] and world.refusals() == []
    world.assert_rebuilds()


def test_a_way_round_does_not_join_who_is_apart() -> None:
    world = World()
    world.live("10:00 web a=web1 mail=anna@kauppa.fi Page Viewed")
    world.live("10:01 web a=web2 Page Viewed")
    world.cannot("a=web1", "a=web2")
    world.live("10:05 web a=web2 mail=anna@kauppa.fi Page Viewed")
    assert world.customers() == ["anna@kauppa.fi web1", "web2"]
    world.assert_rebuilds()


def test_who_has_two_accounts_has_two_cards_and_two_visits() -> None:
    cards = with_identity("[identity.card]\nper_customer = 1\n")
    world = World(cards)
    world.accept([from_phone(0, "anna", "d1", card="c1"), from_phone(1, "bertta", "d2", card="c2")])
    world.tell("10:02 web a=web1 Page Viewed\n10:02 web a=web2 Page Viewed")
    world.advance()
    world.merge("a=web1", "a=web2")  # before anybody knows whose they are
    world.live("10:05 web a=web1 u=anna Page Viewed\n10:06 web a=web2 u=bertta Page Viewed")
    assert len(world.customers()) == 1 and world.refusals() == []
    world.live("10:07 web u=cecilia Page Viewed")
    world.merge("a=web1", "cecilia", despite_unique=False)
    world.advance()
    assert len(world.customers()) == 2 and len(world.refusals()) == 1, "two accounts are not three"
    world.unmerge()
    world.advance()
    world.assert_rebuilds()


def row_of(number: int) -> Event:
    """A row of a customer table with an address of its own."""
    when = at("10:00")
    names = {"record_id": f"crm:{number}", "email": f"p{number}@kauppa.fi"}
    return Event("shop", f"r{number}", "shop", "Customer Identified", when, when, names)


def test_linkage_has_weighed_addresses_and_not_how_many_records_may_be_one() -> None:
    n_records = compile_policy({}).of("record").per_customer + 5
    world = World()
    world.accept([row_of(number) for number in range(n_records)])
    world.advance()
    assert len(world.customers()) == n_records
    nodes = [world.node(f"record=crm:{number}").hex() for number in range(n_records)]
    pairs = [MatchedPair(nodes[0], node, "probable", 12.0) for node in nodes[1:]]
    world.engine.acceptor.command(Matched("model", pairs, world.clock.now()))
    world.advance()
    assert len(world.customers()) == 6, "one of 25 rows and addresses, and five alone"
    assert {line.split(": ")[-1] for line in world.refusals()} == {"too_many_values"}
    world.assert_rebuilds()


# -- another policy

SHARED = """
10:00 web a=kiosk u=anna Page Viewed
10:10 web a=kiosk u=bertta Help Searched n_results=0
10:12 web a=kiosk Help Searched n_results=0
10:20 web a=web1 mail=anna@kauppa.fi Page Viewed
10:21 web u=anna mail=anna@kauppa.fi Page Viewed
"""


def test_a_change_is_shown_before_it_is_made_and_made_as_if_it_had_always_been() -> None:
    world, always = told(SHARED, LENIENT), told(SHARED)
    world.until("10:30")
    always.until("10:30")
    tried = dry_run(world.engine, project().identity)
    assert [len(each) for each in tried.splits.values()] == [2] and tried.merges == {}
    assert tried.refused == {"two_unique_ids": (1, 2)}
    assert world.customers() == ["anna anna@kauppa.fi kiosk web1", "bertta"], "nothing is written"
    world.reopen(project())
    with pytest.raises(Conflict, match="declarations"):
        world.catch_up()
    world.advance()
    assert world.customers() == always.customers() == ["anna anna@kauppa.fi web1", "bertta", "kiosk"]
    for table in ("nodes", "links", "customers", "occurrences"):
        query = f"SELECT * FROM {table} ORDER BY 1"
        assert world.rows(query) == always.rows(query), table
    world.assert_rebuilds()
    back = dry_run(world.engine, LENIENT.identity)
    assert [len(each) for each in back.merges.values()] == [2] and back.splits == {}


def test_a_running_server_does_not_take_up_another_policy() -> None:
    world = told(SHARED)
    watch = Watch(Kept(LENIENT.texts), "data")
    for _ in range(2):
        watch.look(world.engine)
    refused = world.engine.shadow.refused()
    assert refused is not None and "another policy of identity" in str(refused.faults[0])
    assert watch.target is None


# -- as it was known


def test_who_somebody_was_held_to_be_at_each_time() -> None:
    story = lines(SHARED)
    world = World()
    then: list[tuple[int, list[set[str]]]] = []
    for line in story:
        world.live(line)
        then.append((world.clock.now(), groups(world)))
        world.clock.sleep(1)
    world.merge("anna", "bertta")
    world.advance()
    then.append((world.clock.now(), groups(world)))
    world.clock.sleep(1)
    world.unmerge()
    world.unmerge("email")
    world.live("09:00>10:40 web a=kiosk u=bertta Page Viewed")
    then.append((world.clock.now(), groups(world)))
    assert len({str(each) for _, each in then}) >= 5, "it changed"
    for when, expected in then:
        assert groups_at(world, when) == expected


def groups(world: World) -> list[set[str]]:
    found: dict[object, set[str]] = {}
    for customer, node in world.rows("SELECT customer, lower(hex(node)) FROM nodes"):
        found.setdefault(customer, set()).add(str(node))
    return sorted(found.values(), key=sorted)


def groups_at(world: World, when: int) -> list[set[str]]:
    found: dict[bytes, set[str]] = {}
    for (node,) in world.rows("SELECT node FROM nodes"):
        assert isinstance(node, bytes)
        known = known_at(world.engine, NodeId(node), when)
        if known is not None:
            found[known.customer] = {each.hex() for each in known.members}
    return sorted(found.values(), key=sorted)


# -- patterns


@pytest.mark.parametrize(
    ("pattern", "value", "is_one"),
    [
        ("abc", "ABC", True),
        ("abc", "abcd", False),
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*a", "a", False),
        ("*b*b*", "ab", False),
        ("*b*b*", "abba", True),
        ("*a*" * 20, "a" * 5_000, True),
    ],
)
def test_a_star_is_any_text(pattern: str, value: str, is_one: bool) -> None:
    assert fits(pattern, value) is is_one


def test_what_a_table_leaves_out_stays_as_it_is_by_default() -> None:
    was = compile_policy({}).of("email")
    now = with_identity("[identity.email]\nper_customer = 3\n").identity.of("email")
    assert now == msgspec.structs.replace(was, per_customer=3) and was.within is not None


def test_policies_that_say_the_same_are_the_same() -> None:
    assert compile_policy({}).version == project().identity.version
    same = with_identity("[identity.anonymous_id]\nunique_ids_max = 1\n")
    assert same.identity.version == project().identity.version != LENIENT.identity.version
