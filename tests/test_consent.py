"""Consent fails closed (law 4): where data is read, where it is decided, and once more where it is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World, caught_either_way, event, moment, project, source

from hetki.consent.purpose import Basis, Purpose
from hetki.consent.statements import Statement, in_force, spoken, strictest

#: Someone puts a product into the basket at ten and does not buy it: caught at 10:30, if we may know.
BASKET = "10:00 web u=anna Product Added product_id=p1"
CAUGHT = ["10:30 basket anna: 10:00"]


def caught(story: str, until: str = "10:40") -> list[str]:
    return caught_either_way("basket", story, until)


def test_unknown_is_no() -> None:
    assert caught(BASKET) == []


def test_a_grant_opens_from_its_time_on() -> None:
    assert caught(f"09:00 web u=anna Consent Granted purpose=marketing\n{BASKET}") == CAUGHT
    assert caught(f"{BASKET}\n10:01 web u=anna Consent Granted purpose=marketing") == [], "never back"


@pytest.mark.parametrize("word", ["Refused", "Withdrawn"])
def test_a_refusal_stands_against_an_earlier_grant_and_yields_to_a_later_one(word: str) -> None:
    granted = "web u=anna Consent Granted purpose=marketing"
    refused = f"web u=anna Consent {word} purpose=marketing"
    assert caught(f"09:00 {granted}\n09:01 {refused}\n{BASKET}") == []
    assert caught(f"09:00 {refused}\n09:01 {granted}\n{BASKET}") == CAUGHT


def test_another_basis_holds_until_it_is_refused() -> None:
    search = "10:00 web u=anna Help Searched n_results=0"
    world, refused = World(), World()
    world.live(search)
    refused.live(f"09:00 web u=anna Consent Refused purpose=service\n{search}")
    for each in (world, refused):
        each.until("10:12")
    assert world.occurrences() == ["10:10 help anna: 10:00"]
    assert refused.occurrences() == []


@pytest.mark.parametrize("basis", ["contract", "legitimate_interests", "public_task"])
def test_only_consent_needs_a_grant(basis: Basis) -> None:
    purpose = Purpose("", basis)
    assert in_force(purpose, None, 0)
    assert in_force(purpose, Statement(True, 0, until=5), 10), "a grant that ended says nothing"
    assert not in_force(purpose, Statement(False, 0), 10)


def test_a_withdrawal_drops_what_is_half_matched() -> None:
    story = f"09:00 web u=anna Consent Granted purpose=marketing\n{BASKET}"
    assert caught(f"{story}\n10:10 web u=anna Consent Withdrawn purpose=marketing") == []
    again = "10:11 web u=anna Consent Granted purpose=marketing"
    assert caught(f"{story}\n10:10 web u=anna Consent Withdrawn purpose=marketing\n{again}") == []


def test_a_withdrawal_of_one_purpose_leaves_the_others() -> None:
    world = World()
    world.live(
        """
        10:00 web u=anna Help Searched n_results=0
        10:01 web u=anna Consent Withdrawn purpose=marketing
        """
    )
    world.until("10:12")
    assert world.occurrences() == ["10:10 help anna: 10:00"]


def test_a_withdrawal_after_the_moment_leaves_it_and_closes_the_answer() -> None:
    world = World()
    world.live(f"09:00 web u=anna Consent Granted purpose=marketing\n{BASKET}")
    # It happened at 10:30, and is decided at 10:31, when it has settled; the withdrawal came in between.
    world.live("10:30:30 web u=anna Consent Withdrawn purpose=marketing")
    world.until("10:31")
    assert world.occurrences() == CAUGHT
    assert world.decisions() == ["10:31 basket anna none nothing"]
    (record,) = world.records()
    assert record.weighed[0].dropped_by == "consent"


def test_a_late_withdrawal_retracts_and_cancels() -> None:
    world = World()
    world.live(f"09:00 web u=anna Consent Granted purpose=marketing\n{BASKET}")
    world.live("09:00 web u=anna mail=anna@kauppa.fi Customer Identified email=anna@kauppa.fi")
    world.until("10:32")
    assert world.outbox()[0].endswith("remind to anna@kauppa.fi: waiting")
    world.live("10:10>10:33 web u=anna Consent Withdrawn purpose=marketing")
    assert world.occurrences() == []
    assert world.revisions() == ["retracted basket: late event; decided: remind, message is cancelled"]


WAITING = """
    09:00 web u=anna mail=anna@kauppa.fi Customer Identified email=anna@kauppa.fi
    09:00 web u=anna Consent Granted purpose=marketing
    10:00 web u=anna Product Added product_id=p1
"""


def waiting() -> World:
    """A world with an unsent message under consent."""
    world = World()
    world.live(WAITING)
    world.until("10:32")
    assert [line.split(": ")[1] for line in world.outbox()] == ["waiting"]
    return world


def test_the_claim_looks_again() -> None:
    world = waiting()
    world.live("10:33 web u=anna Consent Withdrawn purpose=marketing")
    assert world.occurrences() == CAUGHT, "a withdrawal is an event at its time, not a repair"
    delivered = world.deliver("mail")
    assert (delivered.n_sent, delivered.n_cancelled) == (0, 1) and world.mails == []
    assert world.outbox() == [
        "10:32 remind to anna@kauppa.fi: cancelled no lawful basis for marketing any more"
    ]


def test_a_withdrawal_that_is_accepted_but_not_folded_stops_all_sending() -> None:
    world = waiting()
    world.tell("10:33 web u=bertta Consent Withdrawn purpose=marketing")
    assert world.deliver("mail").n_sent == 0 and world.mails == []
    world.advance()
    assert world.deliver("mail").n_sent == 1, "it was someone else's"


def test_a_signal_that_is_accepted_but_not_folded_stops_all_sending() -> None:
    world = waiting()
    world.tell("10:33 web u=anna gpc Page Viewed")
    assert world.deliver("mail").n_sent == 0
    world.advance()
    assert world.deliver("mail").n_sent == 0
    assert world.mails == [] and "cancelled" in world.outbox()[0]


def test_a_message_is_not_sent_whose_data_a_late_word_has_closed() -> None:
    # Caught for service, answered for marketing; the refusal was before the search, and the grant came back.
    helped = moment("help", "searched: Help Searched where n_results = 0", "remind", more="expires: 4 hours")
    world = World(project(helped))
    world.live("09:00 web u=anna mail=anna@kauppa.fi Customer Identified email=anna@kauppa.fi")
    world.live(
        "09:00 web u=anna Consent Granted purpose=marketing\n10:00 web u=anna Help Searched n_results=0"
    )
    world.live("09:30>10:33 web u=anna Consent Withdrawn purpose=marketing")
    world.live("10:34 web u=anna Consent Granted purpose=marketing")
    assert world.revisions() == ["revised help: late event; decided: remind"]
    assert world.deliver("mail").n_sent == 0 and world.mails == []
    assert world.outbox()[0].endswith("cancelled what it rests on is not open to marketing any more")


def test_a_refusal_of_a_leaf_that_joins_later_stops_the_message() -> None:
    world = waiting()
    world.live("08:00>10:33 web a=web9 Consent Refused purpose=marketing")
    world.live("10:34 web a=web9 u=anna Page Viewed")
    assert world.deliver("mail").n_sent == 0 and "cancelled" in world.outbox()[0]


def test_sec_gpc_refuses_what_is_declared_for_it() -> None:
    assert caught("09:00 web u=anna Consent Granted purpose=marketing\n" + BASKET + " gpc") == []
    told_under_it = "09:00 web u=anna gpc Consent Granted purpose=marketing"
    assert caught(f"{told_under_it}\n{BASKET} gpc") == CAUGHT, "a grant made with the signal on outweighs it"
    world = World()
    world.live("10:00 web u=anna gpc Help Searched n_results=0")
    world.until("10:12")
    assert world.occurrences() == ["10:10 help anna: 10:00"], "the signal is not about service"


def test_a_grant_ends_at_its_time() -> None:
    until = "09:00 web u=anna Consent Granted purpose=marketing until=2026-03-02T{}:00Z"
    assert caught(f"{until.format('10:00')}\n{BASKET}") == []
    assert caught(f"{until.format('12:00')}\n{BASKET}") == CAUGHT
    assert caught(f"{until.format('10:20')}\n{BASKET}") == [], "what is half matched when it ends is dropped"


def test_a_grant_that_ends_is_no_refusal_and_the_next_one_opens_again() -> None:
    story = f"""
    09:00 web u=anna Consent Granted purpose=marketing until=2026-03-02T10:20:00Z
    {BASKET}
    10:25 web u=anna Consent Granted purpose=marketing
    10:26 web u=anna Product Added product_id=p2
    """
    assert caught(story, "11:00") == ["10:56 basket anna: 10:26"]


def test_a_grant_that_ends_stops_the_message_at_the_claim() -> None:
    world = World()
    world.live(WAITING.replace("purpose=marketing", "purpose=marketing until=2026-03-02T10:33:00Z"))
    world.until("10:32:59")
    assert "waiting" in world.outbox()[0]
    world.until("10:33")
    assert world.deliver("mail").n_sent == 0 and "no lawful basis" in world.outbox()[0]


def test_the_contract_of_a_source_closes_its_data() -> None:
    granted = "09:00 web u=anna Consent Granted purpose=marketing"
    assert caught(f"{granted}\n{BASKET.replace(' web ', ' shop ')}") == []
    undeclared = BASKET.replace(" web ", " nobody ")
    assert caught(f"{granted}\n{undeclared}") == [], "a source without a contract allows nothing"


def test_an_answer_for_a_purpose_that_the_data_is_closed_to_is_dropped() -> None:
    help_of_shop = moment(
        "help",
        "searched: Help Searched where n_results = 0 | no chat: Chat Started, for 10 minutes",
        "remind",
    )
    world = World(project(help_of_shop))
    world.live(
        """
        09:00 web u=anna Consent Granted purpose=marketing
        10:00 shop u=anna Help Searched n_results=0
        """
    )
    world.until("10:12")
    (record,) = world.records()
    assert (record.chosen, record.weighed[0].dropped_by) == ("nothing", "data_contract")
    assert record.weighed[0].reason is not None
    assert record.weighed[0].reason.values == {"purpose": "marketing", "sources": "shop"}


# -- merges

REFUSED, GRANTED = "Consent Refused purpose=marketing", "Consent Granted purpose=marketing"


def merged(before: str, after: str = "") -> World:
    world = World()
    world.live(before)
    world.clock.sleep(60)
    world.merge("anna", "bertta")
    world.advance()
    if after:
        world.live(after)
    world.until("10:40")
    world.assert_rebuilds()
    return world


@pytest.mark.parametrize("order", ["08:00 08:01", "08:01 08:00"])
def test_a_merge_takes_the_strictest_made_before_it(order: str) -> None:
    one, other = order.split()
    statements = f"{one} web u=anna {REFUSED}\n{other} web u=bertta {GRANTED}"
    for name in ("anna", "bertta"):
        assert merged(statements, f"10:00 web u={name} Product Added").occurrences() == []


def test_a_statement_after_the_merge_wins_over_it() -> None:
    statements = f"08:00 web u=anna {REFUSED}\n08:00 web u=bertta {REFUSED}"
    after = f"09:00 web u=anna {GRANTED}\n10:00 web u=bertta Product Added"
    assert merged(statements, after).occurrences() == ["10:30 basket anna+bertta: 10:00"]


def test_a_grant_reaches_a_silent_leaf_from_the_merge_on_and_never_back() -> None:
    world = World()
    world.live(f"08:00 web u=anna {GRANTED}\n09:50 web u=bertta Product Added\n09:55 web u=cilla Page Viewed")
    world.merge("anna", "bertta")
    world.advance()
    world.until("10:30")
    assert world.occurrences() == [], "what bertta did before was not granted by anyone"
    world.live("11:00 web u=bertta Product Added")
    world.until("11:40")
    assert world.occurrences() == ["11:30 basket anna+bertta: 11:00"]
    world.assert_rebuilds()


def test_a_merge_that_closes_a_purpose_drops_what_is_half_matched() -> None:
    world = merged(
        f"08:00 web u=anna {GRANTED}\n08:00 web u=bertta {REFUSED}\n10:20 web u=anna Product Added"
    )
    world.until("11:00")
    assert world.occurrences() == []


def test_an_unmerge_returns_each_statement_to_its_leaf() -> None:
    world = merged(f"08:00 web u=anna {GRANTED}\n08:00 web u=bertta {REFUSED}")
    world.live("10:45 web u=anna Product Added")
    world.until("11:20")
    assert world.occurrences() == []
    world.unmerge()
    world.advance()
    assert world.occurrences() == ["11:15 basket anna: 10:45"]
    world.live("11:30 web u=bertta Product Added\n11:31 web u=anna Page Viewed")
    world.until("12:10")
    assert world.occurrences() == ["11:15 basket anna: 10:45"]
    world.assert_rebuilds()


def test_weak_evidence_that_was_refused_does_not_date_the_merge_back() -> None:
    # Both used the kiosk, which joined nothing. The merge is later than both statements, so the refusal
    # stands, although the kiosk's link agrees with the merge from then on.
    world = merged(
        f"""
        07:00 web u=anna a=kiosk Page Viewed
        07:10 web u=bertta a=kiosk Page Viewed
        08:00 web u=anna {REFUSED}
        08:10 web u=bertta {GRANTED}
        """,
        "10:00 web u=bertta Product Added",
    )
    assert world.customers() == ["anna bertta kiosk"] and world.refusals() == []
    assert world.occurrences() == []


# -- the statements themselves


@pytest.mark.parametrize("words", ["purpose=7", "", "purpose=null"])
def test_an_unreadable_refusal_refuses_every_purpose(words: str) -> None:
    said = spoken(event(f"10:00 web u=anna Consent Withdrawn {words}"), PURPOSES, {})
    assert {name: each.granted for name, each in said.items()} == {"service": False, "marketing": False}
    assert spoken(event(f"10:00 web u=anna Consent Granted {words}"), PURPOSES, {}) == {}


def test_a_grant_with_an_unreadable_end_grants_nothing() -> None:
    assert spoken(event("10:00 web Consent Granted purpose=marketing until=soon"), PURPOSES, {}) == {}
    without_zone = event("10:00 web Consent Granted purpose=marketing until=2027-01-01T00:00:00")
    (said,) = spoken(without_zone, PURPOSES, {}).values()
    assert not said.holds(said.stated_at)


PURPOSES = {"service": Purpose("", "contract"), "marketing": Purpose("", "consent", gpc=True)}
STATEMENTS = st.dictionaries(
    st.sampled_from(["service", "marketing"]),
    st.builds(Statement, st.booleans(), st.integers(0, 9), st.none() | st.integers(0, 9)),
)


@given(STATEMENTS, STATEMENTS, st.integers(0, 10))
def test_a_join_is_never_more_open_than_a_refusal(a: dict, b: dict, at: int) -> None:  # type: ignore[type-arg]
    joined = strictest(a, b)
    for name in joined:
        refused = any(name in each and not each[name].granted for each in (a, b))
        assert not (refused and joined[name].granted)
        for purpose in PURPOSES.values():
            if in_force(purpose, joined[name], at):
                assert any(in_force(purpose, each.get(name), at) for each in (a, b))


@given(st.lists(STATEMENTS, min_size=3, max_size=3))
def test_the_order_of_joins_does_not_matter(three: list) -> None:  # type: ignore[type-arg]
    a, b, c = three
    left, right = (
        {name: (each.granted, each.stated_at, each.until if each.granted else None) for name, each in joined}
        for joined in (
            strictest(strictest(a, b), c).items(),
            strictest(c, strictest(b, a)).items(),
        )
    )
    assert left == right


def test_a_purpose_that_a_source_does_not_name_is_closed_however_it_is_based() -> None:
    world = World(project(source("web", "marketing")))
    world.live("10:00 web u=anna Help Searched n_results=0\n10:01 app u=bertta Help Searched n_results=0")
    world.until("10:13")
    assert world.occurrences() == ["10:11 help bertta: 10:01"]


def test_a_grant_that_ended_before_it_was_given_ends_nothing_else() -> None:
    story = f"""
    09:00 web u=anna Consent Granted purpose=marketing
    {BASKET}
    10:32 web u=anna Consent Granted purpose=marketing until=2026-03-02T10:20:00Z
    """
    assert caught(story) == CAUGHT
