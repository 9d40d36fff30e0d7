"""Identity: fragments become customers, whatever the order of arrival; every merge can be undone (law 5)."""

from __future__ import annotations

from itertools import islice, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, at, event, lines, project

from hetki.engine.commands import Merge, Unmerge
from hetki.engine.project import Project
from hetki.errors import Invalid
from hetki.identity.identifier import identifier, leaf_of, normalised
from hetki.identity.policy import LINKS_MAX

KEY = b"k" * 32

#: What an unmerge must bring back: every projection but the links themselves, and where events lie.
DERIVED = {
    "nodes": "SELECT node, namespace, value, customer FROM nodes ORDER BY 1",
    "customers": "SELECT customer, state, due_at, last_at, n_events FROM customers ORDER BY 1",
    "occurrences": "SELECT * FROM occurrences ORDER BY 1",
}


#: Under this policy what two users share stays with the first of them.
FIRST = project(toml="[identity.anonymous_id]\nunique_ids_max = 2\n[identity.email]\nunique_ids_max = 2\n")


def told(text: str, of: Project | None = None) -> World:
    world = World(of)
    world.tell(text)
    world.advance()
    return world


def derived(world: World) -> dict[str, list[tuple[object, ...]]]:
    return {name: world.rows(query) for name, query in DERIVED.items()}


def test_a_login_joins_what_was_anonymous() -> None:
    world = told(
        """
        10:00 web a=web1 Help Searched n_results=0
        10:05 web a=web1 u=anna Customer Identified
        10:20 app u=anna Page Viewed
        """
    )
    assert world.customers() == ["anna web1"]
    world.until("10:12")
    assert world.occurrences() == ["10:10 help anna: 10:00"]


def test_an_alias_joins_a_visit_and_never_two_users() -> None:
    world = told(
        """
        10:00 web u=anna Page Viewed
        10:01 app u=a.virtanen Page Viewed
        10:02 web u=a.virtanen p=anna Customer Aliased
        10:03 web a=web1 Page Viewed
        10:04 web u=bertta p=web1 Customer Aliased
        10:05 web u=anna p=never-seen Customer Aliased
        """
    )
    assert world.customers() == ["a.virtanen", "anna", "bertta web1"]
    assert world.refusals() == ["a.virtanen - anna: two_unique_ids"], "anybody could send that"
    world.merge("anna", "a.virtanen", despite_unique=False)
    world.advance()
    assert world.refusals() == ["a.virtanen - anna: two_unique_ids"] * 2
    world.merge("anna", "a.virtanen")
    world.advance()
    assert world.customers() == ["a.virtanen anna", "bertta web1"]
    world.assert_rebuilds()


def test_addresses_join_in_normalised_form() -> None:
    world = told(
        """
        10:00 web a=web1 mail=Anna@Kauppa.FI Page Viewed
        10:01 app a=app1 mail=' anna@kauppa.fi ' tel='+358 40 123-4567' Page Viewed
        10:02 shop tel=00358401234567 Order Completed
        10:03 shop tel=12 mail=no-address Order Completed
        """
    )
    # An event that names nobody is a customer of its own, under its own id.
    names = [line.replace("anna@kauppa.fi", "MAIL").split(" ") for line in world.customers()]
    (joined,) = [line for line in names if "MAIL" in line]
    assert {"MAIL", "web1", "app1", "+358401234567"} <= set(joined) and len(names) == 2


def test_a_shared_device_never_joins_two_users() -> None:
    world = told(
        """
        10:00 web a=kiosk u=anna Page Viewed
        10:10 web a=kiosk u=bertta Page Viewed
        10:20 web a=kiosk Page Viewed
        10:30 app u=bertta mail=anna@kauppa.fi Page Viewed
        10:40 app u=anna mail=anna@kauppa.fi Page Viewed
        """,
        FIRST,
    )
    assert world.customers() == ["anna kiosk", "anna@kauppa.fi bertta"]
    assert world.refusals() == ["anna - anna@kauppa.fi: two_unique_ids", "bertta - kiosk: two_unique_ids"]


def test_earlier_evidence_that_comes_late_turns_the_join() -> None:
    world = World(FIRST)
    world.live("10:10 web a=kiosk u=bertta Page Viewed")
    world.live("10:20 web a=kiosk Help Searched n_results=0")
    assert world.customers() == ["bertta kiosk"]
    world.live("10:00>10:21 web a=kiosk u=anna Page Viewed")
    assert world.customers() == ["anna kiosk", "bertta"]
    assert world.refusals() == ["bertta - kiosk: two_unique_ids"]
    world.until("10:35")
    assert world.occurrences() == ["10:30 help anna: 10:20"]
    world.assert_rebuilds()


STORY = lines(
    """
    10:00 web a=kiosk u=anna Page Viewed
    10:10 web a=kiosk u=bertta Help Searched n_results=0
    10:12 web a=web1 mail=anna@kauppa.fi Help Searched n_results=0
    10:20 web u=anna mail=anna@kauppa.fi Page Viewed
    10:30 app u=bertta p=app1 Customer Aliased
    10:31 app a=app1 Chat Started
    """
)


def test_the_order_of_arrival_does_not_matter() -> None:
    expected = None
    for order in islice(permutations(STORY), 0, None, 5):
        world = World(FIRST, starts="23:00")
        for line in order:
            world.tell(line)
        world.advance()
        got = world.customers(), world.refusals(), world.occurrences()
        expected = expected or got
        assert got == expected, order
    assert expected is not None
    assert expected[0] == ["anna anna@kauppa.fi kiosk web1", "app1 bertta"]
    assert expected[1] == ["bertta - kiosk: two_unique_ids"]
    assert expected[2] == ["10:20 help bertta: 10:10", "10:22 help anna: 10:12"]


@settings(max_examples=60)
@given(st.permutations(STORY), st.sets(st.integers(1, 5)), st.integers(1, 3))
def test_the_order_of_arrival_does_not_matter_live(order: list[str], cuts: set[int], batch_max: int) -> None:
    world = World(FIRST, starts="23:00", batch_max=batch_max)
    for number, line in enumerate(order):
        world.tell(line)
        if number in cuts:
            world.advance()
    world.advance()
    assert world.customers() == ["anna anna@kauppa.fi kiosk web1", "app1 bertta"]
    assert world.refusals() == ["bertta - kiosk: two_unique_ids"]
    assert world.occurrences() == ["10:20 help bertta: 10:10", "10:22 help anna: 10:12"]
    world.assert_rebuilds()


@pytest.mark.parametrize("junk", ["undefined", "null", "None", " ", "0", "[object Object]", "NaN"])
def test_junk_names_nobody(junk: str) -> None:
    world = told(
        f"""
        10:00 web 'u={junk}' a=web1 Page Viewed
        10:01 web 'u={junk}' a=web2 Page Viewed
        10:02 web u=anna 'a={junk}' 'mail={junk}' 'p={junk}' Page Viewed
        10:03 web u=bertta 'a={junk}' 'tel={junk}' Page Viewed
        """
    )
    assert world.customers() == ["anna", "bertta", "web1", "web2"]


def test_an_event_without_any_name_belongs_to_itself() -> None:
    one, other = event("10:00 web u=null Page Viewed"), event("10:01 web Page Viewed")
    assert leaf_of(KEY, one).namespace == leaf_of(KEY, other).namespace == "event"
    assert leaf_of(KEY, one).node != leaf_of(KEY, other).node


@given(st.text(max_size=30), st.sampled_from(["user_id", "anonymous_id", "email", "phone"]))
def test_normalising_twice_is_normalising_once(text: str, namespace: str) -> None:
    once = normalised(namespace, text)  # type: ignore[arg-type]
    if once is not None:
        assert normalised(namespace, once) == once  # type: ignore[arg-type]


def test_namespaces_do_not_meet() -> None:
    user, anonymous = identifier(KEY, "user_id", "x"), identifier(KEY, "anonymous_id", "x")
    assert user is not None and anonymous is not None and user.node != anonymous.node


# -- merge and unmerge

BEFORE = """
10:00 web u=anna Help Searched n_results=0
10:01 web u=anna Product Viewed product_id=p1
10:02 web u=anna Consent Granted purpose=marketing
10:02 web u=bertta Consent Granted purpose=marketing
10:03 web u=anna Product Viewed product_id=p2
10:05 web u=bertta Chat Started
10:06 web u=bertta Product Viewed product_id=p2
"""
AFTER = """
10:30 web u=anna Product Viewed product_id=p3
10:31 web u=bertta Product Viewed product_id=p3
10:32 web u=bertta Help Searched n_results=0
"""


def test_a_merge_by_command_folds_again_and_shows_what_changed() -> None:
    world = World()
    world.live(BEFORE)
    world.until("10:13")
    assert world.occurrences() == ["10:10 help anna: 10:00"]
    world.merge("anna", "bertta")
    world.advance()
    assert world.customers() == ["anna bertta"]
    assert world.occurrences() == ["10:06 again anna+bertta: 10:03 10:06"]
    assert world.revisions() == ["retracted help: identity; decided: call, message is cancelled"]
    world.assert_rebuilds()


@pytest.mark.parametrize("batch_max", [1, 3, 2000])
def test_after_an_unmerge_everything_is_as_if_never_merged(batch_max: int) -> None:
    never, undone = World(batch_max=batch_max), World(batch_max=batch_max)
    for world in (never, undone):
        world.live(BEFORE)
        world.until("10:13")
        if world is undone:
            world.merge("anna", "bertta")
            world.advance()
        world.live(AFTER)
        if world is undone:
            assert "10:31 again anna+bertta: 10:30 10:31" in world.occurrences()
            world.unmerge()
        world.until("11:00")
    assert derived(never) == derived(undone)
    undone.assert_rebuilds()


def test_a_merge_and_its_unmerge_in_one_batch_are_nothing() -> None:
    live, at_once = World(), World()
    for world in (live, at_once):
        world.live(BEFORE)
        world.merge("anna", "bertta")
    live.advance()
    live.unmerge()
    live.advance()
    # The other engine gets both commands before it folds either.
    link_id = live.rows("SELECT link_id FROM links WHERE kind = 'merge'")[0][0]
    assert isinstance(link_id, bytes)
    at_once.engine.acceptor.command(Unmerge(link_id.hex(), "agent", at_once.clock.now()))
    at_once.advance()
    assert derived(live) == derived(at_once)
    live.assert_rebuilds()
    at_once.assert_rebuilds()


def test_an_unmerge_of_one_of_two_links_folds_again() -> None:
    # Both links say the same; without the earlier one, they grew together only later.
    world = World()
    world.live(
        """
        09:00 web u=anna Consent Refused purpose=marketing
        10:00 web u=bertta Consent Granted purpose=marketing
        """
    )
    world.merge("anna", "bertta")
    world.live("10:05 web u=bertta Consent Granted purpose=marketing")
    world.clock.move(at("10:10"))
    world.merge("anna", "bertta")
    world.live("10:12 app u=bertta Product Added product_id=p1")
    world.until("10:50")
    assert world.occurrences() == ["10:42 basket anna+bertta: 10:12"], "she granted it after the merge"
    world.unmerge(place=0)
    world.advance()
    assert world.customers() == ["anna bertta"]
    assert world.occurrences() == [], "the refusal now stands at 10:10, and nothing was granted after"
    world.assert_rebuilds()


def test_a_revoked_link_stays_revoked_when_its_evidence_comes_again() -> None:
    world = World()
    world.live("10:00 web a=kiosk u=anna Page Viewed")
    world.unmerge("login")
    world.live("10:05 web a=kiosk u=anna Page Viewed")
    world.live("09:55>10:06 web a=kiosk u=anna Page Viewed")
    assert world.customers() == ["anna", "kiosk"]
    world.assert_rebuilds()


def test_a_merge_with_an_unknown_customer_waits_until_it_is_known() -> None:
    worlds = World(), World(batch_max=1)
    for world in worlds:
        world.tell("10:00 web u=anna Help Searched n_results=0")
        if world.batch_max == 1:
            world.advance()
        world.merge("anna", "bertta")
        if world.batch_max == 1:
            world.advance()
            assert world.rows("SELECT refusal FROM links") == [("unknown_identifier",)]
            assert world.customers() == ["anna"]
        world.tell("10:05 web u=bertta Chat Started")
        world.until("10:30")
        assert world.customers() == ["anna bertta"] and world.occurrences() == []
        world.assert_rebuilds()
    assert derived(worlds[0]) == derived(worlds[1])


@pytest.mark.parametrize("bad", ["", "zz" * 16, "ab", "a" * 33])
def test_a_command_about_no_id_is_refused_before_the_journal(bad: str) -> None:
    world = told("10:00 web u=anna Page Viewed")
    for command in (
        Merge(bad, "ab" * 16, "agent", 0),
        Merge("ab" * 16, bad, "agent", 0),
        Unmerge(bad, "x", 0),
    ):
        with pytest.raises(Invalid, match="32 hex digits"):
            world.engine.acceptor.command(command)
    world.advance()
    assert world.engine.journal.head()[0] == 1


def test_a_robot_is_a_customer_without_its_visits() -> None:
    crowd = "\n".join(f"10:00 web a=a{number} u=robot Page Viewed" for number in range(LINKS_MAX))
    world = told(crowd)
    assert len(world.customers()) == 1, "as many as one may have"
    world.live("10:01 web a=one-more u=robot Page Viewed")
    assert len(world.customers()) == LINKS_MAX + 2
    assert world.rows("SELECT refusal, count(*) FROM links GROUP BY 1") == [("shared_value", LINKS_MAX + 1)]
    world.assert_rebuilds()
    world.unmerge("login")
    world.advance()
    assert len(world.customers()) == 2, "one link fewer is not too many"
    world.assert_rebuilds()
