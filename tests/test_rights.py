"""Consent as it is declared, recorded and exercised: notices, categories, records, restriction, objection."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import TOML, World, caught_either_way, event, moment, project

from hetki.consent.purpose import Controller, Purpose
from hetki.consent.record import Declared, Record, records
from hetki.consent.statements import ALL, SPOKEN, spoken, told_by
from hetki.consent.vocabulary import MARKETING, PURPOSES
from hetki.dialogues.tracing import why_words
from hetki.dialogues.wording import spoken_at
from hetki.engine.erase import erase
from hetki.engine.export import export
from hetki.engine.rights import Entered, correction, enter, objection, restriction
from hetki.engine.telling import known_traits, why_moment
from hetki.errors import Invalid
from hetki.events.catalogue import SHIPPED
from hetki.events.event import LeafId, instant
from hetki.identity.identifier import NodeId, leaf_of
from hetki.moments.fold import decode
from hetki.settings import SECOND
from hetki.store.identity_views import IdentityViews

CATEGORIES = """
[categories.baskets]
title = "What you put into the basket"
events = ["Product Added", "Order Completed"]
[categories.views]
title = "What you look at"
events = ["Product Viewed"]
"""
BASKET = "10:00 web u=anna Product Added product_id=p1"
CAUGHT = ["10:30 basket anna: 10:00"]


def with_purpose(more: str, tables: str = "") -> dict[str, str]:
    """`hetki.toml` with more in the table of marketing."""
    return {"hetki.toml": TOML.replace('title = "Offers"', f'title = "Offers"\n{more}') + tables}


def caught(story: str, files: dict[str, str], until: str = "10:40") -> list[str]:
    world = World(project(files))
    world.live(story)
    world.until(until)
    world.assert_rebuilds()
    return world.occurrences("basket")


# -- notices


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        ("notice_version=n2", True),
        ("notice_version=n1", False),
        ("", False),
        ("notice_version=null", False),
        ('"notice_version={}"', False),
    ],
)
def test_a_grant_counts_only_under_a_notice_that_is_listed(words: str, counts: bool) -> None:
    story = f"09:00 web u=anna Consent Granted purpose=marketing {words}\n{BASKET}"
    assert caught(story, with_purpose('notices = ["n2", "n3"]')) == (CAUGHT if counts else [])


def test_a_grant_that_does_not_count_leaves_what_stands() -> None:
    files = with_purpose('notices = ["n2"]')
    good, old = (
        "web u=anna Consent Granted purpose=marketing notice_version=" + each for each in ("n2", "n1")
    )
    no = "web u=anna Consent Refused purpose=marketing"
    assert caught(f"08:00 {good}\n09:00 {old}\n{BASKET}", files) == CAUGHT
    assert caught(f"08:00 {good}\n08:30 {no}\n09:00 {old}\n{BASKET}", files) == []


# -- categories of data


def test_a_grant_opens_only_the_data_that_it_names() -> None:
    granted = "09:00 web u=anna Consent Granted purpose=marketing categories='[\"{}\"]'"
    files = with_purpose("", CATEGORIES)
    assert caught(f"{granted.format('baskets')}\n{BASKET}", files) == CAUGHT
    for other in ("views", "odd"):
        assert caught(f"{granted.format(other)}\n{BASKET}", files) == []
    assert caught(f"{granted.format('baskets')}\n{BASKET}", with_purpose("")) == [], "it is in no category"


def test_a_later_grant_of_less_drops_what_is_half_matched() -> None:
    files = with_purpose("", CATEGORIES)
    granted = "web u=anna Consent Granted purpose=marketing"
    less = f"{granted} categories='[\"baskets\"]'"
    assert caught(f"09:00 {granted}\n{BASKET}\n10:10 {granted}", files) == CAUGHT
    assert caught(f"09:00 {granted}\n{BASKET}\n10:10 {less}", files) == []
    assert caught(f"09:00 {less}\n{BASKET}\n10:10 {less}", files) == CAUGHT


def test_a_merge_opens_only_what_both_have_granted() -> None:
    files = with_purpose("", CATEGORIES)
    granted = '08:00 web u={} Consent Granted purpose=marketing categories=\'["{}", "{}"]\''
    both = granted.format("anna", "baskets", "views") + "\n" + granted.format("bertta", "baskets", "odd")
    for added, expected in (("Product Added", True), ("Product Viewed", False)):
        world = World(project({**files, **moment("basket", f"a: {added}", "remind", "marketing")}))
        world.live(both)
        world.merge("anna", "bertta")
        world.advance()
        world.live(f"10:00 web u=anna {added} product_id=p1")
        assert bool(world.occurrences("basket")) is expected
        world.assert_rebuilds()


def test_a_purpose_sees_no_data_that_it_does_not_use() -> None:
    files = with_purpose('categories = ["baskets"]', CATEGORIES)
    with pytest.raises(Invalid) as refused:
        project(files)  # the moment `again` listens to Product Viewed
    assert "an event whose category" in str(refused.value) or "uses" in str(refused.value)
    granted = "09:00 web u=anna Consent Granted purpose=marketing"
    assert caught(f"{granted}\n{BASKET}", {**files, "moments/again.yaml": None}) == CAUGHT  # type: ignore[dict-item]
    helped = {**moment("help", "a: Help Searched", "remind"), "moments/again.yaml": None}
    world = World(project({**files, **helped}))  # type: ignore[arg-type]
    world.live(f"{granted}\n10:00 web u=anna Help Searched n_results=0")
    (record,) = world.records()
    assert record.weighed[0].dropped_by == "data_contract", "nor an answer that rests on it"


def test_what_is_declared_wrongly_is_said() -> None:
    wrong = with_purpose(
        'dpv = "DirectMarketting"\ncategories = ["basket"]',
        CATEGORIES + '[categories.more]\ntitle = "?"\nevents = ["Product Viewed", "Product Vewed"]\n',
    )
    with pytest.raises(Invalid) as refused:
        project(wrong)
    text = str(refused.value)
    for told in ("DirectMarketing", "'baskets'", "'Product Viewed' again", "an event of the catalogue"):
        assert told in text, told


def test_the_vocabulary_is_whole() -> None:
    assert len(PURPOSES) == 121 and MARKETING < PURPOSES
    assert {"ServiceProvision", "CustomerCare", "LegalCompliance", "FraudPreventionAndDetection"} < PURPOSES
    assert SPOKEN <= SHIPPED.events.keys()


# -- objection and restriction


def test_an_objection_closes_what_may_be_objected_to_and_no_more() -> None:
    purposes = {
        "contract": Purpose("", "contract"),
        "legal": Purpose("", "legal_obligation"),
        "interest": Purpose("", "legitimate_interests"),
        "task": Purpose("", "public_task"),
        "mail": Purpose("", "contract", dpv="DirectMarketing"),
        "offers": Purpose("", "consent", dpv="PersonalisedAdvertising"),
        "news": Purpose("", "consent"),
    }
    said = spoken(event("10:00 web u=anna Objection Raised"), purposes, {})
    assert set(said) == {"interest", "task", "mail", "offers"}
    assert not any(each.granted for each in said.values())
    assert set(spoken(event("10:00 web u=anna Objection Raised purpose=news"), purposes, {})) == {"news"}
    assert set(spoken(event("10:00 web u=anna Objection Raised purpose=7"), purposes, {})) == set(purposes)
    (odd,) = told_by(event("10:00 web u=anna Objection Raised purpose=odd"), purposes)
    assert (odd.statement, odd.no_effect) == (None, "no_such_purpose")


HELP = "web u=anna Help Searched n_results=0"
RESTRICT, LIFT = "Processing Restricted", "Restriction Lifted"


def helped(story: str, until: str = "12:00") -> list[str]:
    return caught_either_way("help", story, until)


def test_a_restriction_closes_everything_until_staff_lift_it() -> None:
    assert helped(f"09:00 web u=anna {RESTRICT}\n10:00 {HELP}") == []
    assert helped(f"10:00 {HELP}\n10:05 web u=anna {RESTRICT}") == [], "what is half matched is dropped"
    granted = "09:30 web u=anna Consent Granted purpose=service"
    assert helped(f"09:00 web u=anna {RESTRICT}\n{granted}\n10:00 {HELP}") == [], "a grant is no lifting"
    assert helped(f"09:00 web u=anna {RESTRICT}\n09:30 web u=anna {LIFT}\n10:00 {HELP}") == []
    lifted = f"09:00 web u=anna {RESTRICT}\n09:10 {HELP}\n09:30 hetki u=anna {LIFT}\n10:00 {HELP}"
    assert helped(lifted) == ["10:10 help anna: 10:00"], "and nothing of before comes back"
    assert helped(f"{lifted}\n09:40 web u=anna {RESTRICT}") == []


def test_a_restriction_survives_a_merge_and_returns_to_its_leaf() -> None:
    world = World()
    world.live(f"09:00 web u=anna {RESTRICT}\n09:00 hetki u=bertta {LIFT}\n09:01 web u=bertta Page Viewed")
    world.merge("anna", "bertta")
    world.advance()
    world.live("10:00 web u=bertta Help Searched n_results=0")
    world.until("10:20")
    assert world.occurrences("help") == []
    world.unmerge()
    world.until("11:00")
    assert world.occurrences("help") == ["10:10 help bertta: 10:00"]
    world.live(f"11:01 {HELP}")
    world.until("12:00")
    assert world.occurrences("help") == ["10:10 help bertta: 10:00"]
    world.assert_rebuilds()


def test_a_restriction_closes_the_answer_and_says_so() -> None:
    world = World()
    world.live(f"10:00 {HELP}")
    world.live(f"10:10:30 web u=anna {RESTRICT}")
    world.until("10:12")
    (record,) = world.records()
    assert (record.weighed[0].dropped_by, record.reasons[0].code) == ("consent", "restricted")
    world = World()
    world.live(f"10:00 {HELP}\n10:10:30 web u=anna Objection Raised purpose=service")
    world.until("10:12")
    assert world.records()[0].reasons[0].code == "refused"


def test_a_restriction_stops_a_message_on_its_way() -> None:
    world = World()
    world.live(f"10:00 {HELP}")
    world.until("10:12")
    world.tell(f"10:12 web u=anna {RESTRICT}")
    assert world.deliver().n_sent == 0, "it is acknowledged, and not folded yet"
    world.advance()
    assert world.deliver().n_sent == 0 and world.posts == []
    assert world.outbox()[0].endswith("cancelled processing is restricted")


# -- records


def told(story: str, purposes: dict[str, Purpose]) -> list[Record]:
    events = [event(line) for line in story.strip().splitlines()]
    named = [(f"user id {each.identifiers['user_id']}", str(n), each) for n, each in enumerate(events)]
    return records(named, Declared(purposes, Controller("Kauppa Oy", "tieto@kauppa.fi")))


PURPOSE = {
    "marketing": Purpose("Offers", "consent", True, "DirectMarketing", ["n2"], ["orders", "views"]),
    "service": Purpose("Service", "contract"),
}


def test_each_statement_is_one_record_in_the_names_of_the_standard() -> None:
    granted, old, odd, blind, said, no = told(
        """
        09:00>09:05 web u=anna Consent Granted purpose=marketing {more} until={until} categories={data}
        09:10 shop u=anna Consent Granted purpose=marketing notice_version=n1
        09:20 web u=anna Consent Refused purpose=tracking method=call
        09:30 web u=anna gpc Page Viewed
        09:31 web u=anna gpc Page Viewed
        09:40 web u=anna Consent Granted purpose=7
        09:50 web u=anna Consent Withdrawn purpose=service said_by=Sami
        """.format(
            more="notice_version=n2 method=form", until="2026-04-01T00:00:00Z", data='\'["orders","odd"]\''
        ),
        PURPOSE,
    )
    assert msgspec.to_builtins(granted) == {
        "schema_version": "ISO/IEC TS 27560:2023",
        "record_id": "0:marketing",
        "pii_principal_id": "user id anna",
        "privacy_notice": "n2",
        "purpose": "marketing",
        "purpose_type": "dpv:DirectMarketing (DPV 2.3)",
        "lawful_basis": "consent",
        "pii_information": [{"pii_type": "orders"}],
        "pii_controllers": [
            {"party_name": "Kauppa Oy", "party_role": "controller", "party_contact": "tieto@kauppa.fi"}
        ],
        "collection_method": "form",
        "event_time": "2026-03-02T09:00:00+00:00",
        "validity_duration": "2026-03-02T09:00:00+00:00/2026-04-01T00:00:00+00:00",
        "entity_id": "user id anna",
        "event_type": "",
        "event_state": "dpv:ConsentGiven",
        "said": "Consent Granted",
        "source": "web",
        "received_at": "2026-03-02T09:05:00+00:00",
        "no_effect": "",
    }
    assert (old.no_effect, old.event_state, old.source) == ("notice", "dpv:ConsentInvalidated", "shop")
    assert (odd.purpose, odd.no_effect, odd.lawful_basis) == ("tracking", "no_such_purpose", None)
    assert (blind.said, blind.collection_method, blind.purpose) == ("Sec-GPC", "signal", "marketing")
    assert (said.no_effect, said.purpose) == ("unreadable", "7")
    assert (no.event_state, no.entity_id, no.collection_method) == ("dpv:ConsentWithdrawn", "Sami", "web")


def test_a_signal_that_refuses_is_a_record_whatever_else_its_event_says() -> None:
    """It stands, so it must be there to be read."""
    old = "Consent Granted purpose=marketing notice_version=n1"
    found = told(f"09:00 web u=anna gpc {old}", PURPOSE)
    assert [(each.said, each.event_state, each.no_effect) for each in found] == [
        ("Sec-GPC", "dpv:ConsentRefused", ""),
        ("Consent Granted", "dpv:ConsentInvalidated", "notice"),
    ]
    assert len({each.record_id for each in found}) == 2


def test_a_signal_refuses_again_once_what_was_granted_under_it_has_ended() -> None:
    until = "2026-03-02T10:00:00Z"
    story = f"""
        09:00 web u=anna gpc Consent Granted purpose=marketing notice_version=n2 until={until}
        09:30 web u=anna gpc Page Viewed
        10:00 web u=anna gpc Page Viewed
    """
    granted, refused = told(story, PURPOSE)
    assert (granted.event_state, refused.event_state) == ("dpv:ConsentGiven", "dpv:ConsentRefused")
    assert refused.event_time == "2026-03-02T10:00:00+00:00"
    world = World()
    world.live(story.replace("notice_version=n2 ", ""))
    world.until("11:00")
    (state,) = world.rows("SELECT state FROM customers")[0]
    assert isinstance(state, bytes)
    (standing,) = decode(state).statements.values()
    assert not standing["marketing"].granted, "as the fold has it"


def test_a_restriction_is_a_record_of_all_purposes() -> None:
    (one, lifted) = told(f"09:00 web u=anna {RESTRICT} reason=wrong\n09:10 web u=anna {LIFT}", PURPOSE)
    assert (one.purpose, one.event_state, one.no_effect) == (ALL, "", "")
    assert lifted.no_effect == "not_theirs_to_lift"


@pytest.mark.parametrize(
    "edge", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z"]
)
def test_a_time_at_the_edge_of_the_calendar_can_be_said(edge: str) -> None:
    """Whoever sends events may tell any: no page and no export of the customer may break by it."""
    world = World()
    world.live(
        f"""
        09:00 web u=anna Consent Granted purpose=marketing until={edge}
        10:00 web u=anna Delivery Delayed order_id=o1 promised_at={edge}
        """
    )
    customer, promise = LeafId(world.node("anna")), world.engine.project.moments["promise"]
    assert export(world.engine, customer).n_rows["consents"] == 1
    (granted,) = told(f"09:00 web u=anna Consent Granted purpose=service until={edge}", PURPOSE)
    assert granted.validity_duration.partition("/")[2].startswith(edge[:4])
    for zone in ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"):
        assert f" {int(edge[:4])}, " in spoken_at(instant(datetime.fromisoformat(edge)), zone)
        assert why_words(why_moment(world.engine, customer, "promise"), promise, {}, zone)


SAID = st.lists(
    st.tuples(
        st.sampled_from(sorted(SPOKEN)),
        st.sampled_from(["purpose=marketing", "purpose=service", "purpose=odd", ""]),
        st.sampled_from(["anna", "bertta"]),
    ),
    max_size=8,
)


@given(SAID)
def test_no_statement_is_without_a_record_and_none_is_overwritten(said: list[tuple[str, str, str]]) -> None:
    story = "\n".join(
        f"09:{number:02} hetki u={who} {name} {purpose}" for number, (name, purpose, who) in enumerate(said)
    )
    if not story:
        return
    found = told(story, PURPOSE)
    spoke = {each.event_time for each in found}
    assert len(spoke) == len(said)
    assert len({each.event_time for each in told(story, {"service": PURPOSE["service"]})}) == len(said)
    assert found[: len(found) - 1] == told(story, PURPOSE)[:-1]
    longer = told(f"{story}\n10:00 web u=anna Consent Refused purpose=service", PURPOSE)
    assert longer[: len(found)] == found, "what comes later changes no record"


# -- what staff enter


def entered(world: World, user: str, what: Entered) -> None:
    views = IdentityViews(world.engine.db)
    customer = world.engine.state.customers_of([NodeId(world.node(user))])[NodeId(world.node(user))]
    nodes = world.engine.state.members([customer])[customer]
    leaves = list(views.nodes(nodes).values())
    world.clock.move(world.clock.now() + SECOND)
    enter(world.engine.acceptor.accept, world.clock, world.chance, leaves, what)
    world.advance()


def traits(world: World, user: str) -> dict[str, tuple[object, str]]:
    node = NodeId(world.node(user))
    customer = world.engine.state.customers_of([node])[node]
    folded = decode(world.engine.state.load_customers([customer])[customer].state)
    found = known_traits(world.engine.program, folded)
    return {each.name: (each.word.value, each.word.source) for each in found if each.word}


def test_a_restriction_is_entered_for_every_leaf_and_outlives_an_unmerge() -> None:
    world = World()
    world.live(
        "09:00 web u=anna Page Viewed\n09:00 web u=bertta Page Viewed\n"
        "09:01 web mail=anna@kauppa.fi Unsubscribed"
    )
    world.live("09:02 web u=anna mail=anna@kauppa.fi Page Viewed")
    world.merge("anna", "bertta")
    world.advance()
    entered(world, "anna", restriction("Sami", "wrong address"))
    world.unmerge()
    world.advance()
    world.live("10:00 web u=anna Help Searched n_results=0\n10:00 web u=bertta Help Searched n_results=0")
    world.until("11:00")
    assert world.customers() == [
        "anna anna@kauppa.fi web:09:01 web mail=anna@kauppa.fi Unsubscribed",
        "bertta",
    ]
    assert world.occurrences("help") == []
    entered(world, "anna", restriction("Sami", lifts=True))
    world.live("11:10 web u=anna Help Searched n_results=0\n11:10 web u=bertta Help Searched n_results=0")
    world.until("12:00")
    assert world.occurrences("help") == ["11:20 help anna: 11:10"], "bertta is restricted still"
    world.assert_rebuilds()


def test_a_restriction_of_an_event_that_nobody_has_put_a_name_to() -> None:
    world = World()
    world.live("09:00 web Help Searched n_results=0")
    ((node,),) = world.rows("SELECT node FROM nodes")
    assert isinstance(node, bytes)
    leaves = list(IdentityViews(world.engine.db).nodes([NodeId(node)]).values())
    world.clock.move(world.clock.now() + SECOND)
    enter(world.engine.acceptor.accept, world.clock, world.chance, leaves, restriction("Sami"))
    world.until("10:00")
    assert world.occurrences("help") == [] and len(world.rows("SELECT node FROM nodes")) == 1
    world.tell("10:01 web u=x Page Viewed")
    outside = event("10:02 web Page Viewed")
    named = msgspec.structs.replace(outside, identifiers={"event": leaves[0].value})
    assert leaf_of(world.engine.keys.node, named).node != leaves[0].node, "senders cannot name it"


@pytest.mark.parametrize("by", ["", " ", "x" * 81, "a\x00b"])
def test_who_enters_it_has_a_name(by: str) -> None:
    with pytest.raises(Invalid):
        restriction(by)


def test_what_may_not_be_objected_to_is_refused_with_a_hint() -> None:
    purposes = {"service": Purpose("", "contract"), "news": Purpose("", "consent")}
    with pytest.raises(Invalid, match="hetki restrict"):
        objection(purposes, "service", "Sami")
    with pytest.raises(Invalid, match="news"):
        objection(purposes, "new", "Sami")
    with pytest.raises(Invalid, match=r"one that may be objected to.+hetki restrict"):
        objection(purposes, "", "Sami")
    assert objection(purposes, "news", "Sami").properties["purpose"] == "news"


IDENTIFY = "web u=anna Customer Identified email={}"


def test_a_correction_stands_over_what_sources_tell_and_can_be_taken_back() -> None:
    rules = [None, "most_frequent", "verified", "source"]
    for rule in rules:
        listed = 'sources = ["shop", "web"]' if rule == "source" else ""
        toml = f'[traits.email]\nsurvives = "{rule}"\n{listed}' if rule else ""
        world = World(project(toml=toml))
        world.live(f"09:00 {IDENTIFY.format('old@kauppa.fi')}")
        entered(world, "anna", correction(world.engine.project, "email", "new@kauppa.fi", "Sami"))
        assert traits(world, "anna")["email"] == ("new@kauppa.fi", "hetki")
        told = "\n".join(f"10:{n:02} {IDENTIFY.format(f'other{n % 12}@kauppa.fi')}" for n in range(40))
        world.live(told)
        assert traits(world, "anna")["email"] == ("new@kauppa.fi", "hetki"), rule
        world.assert_rebuilds()
        entered(world, "anna", correction(world.engine.project, "email", "newer@kauppa.fi", "Sami"))
        assert traits(world, "anna")["email"][0] == "newer@kauppa.fi"
        entered(world, "anna", correction(world.engine.project, "email", None, "Sami"))
        assert traits(world, "anna")["email"][1] == "web", rule
        world.assert_rebuilds()


def test_a_message_to_an_address_that_was_corrected_is_not_sent() -> None:
    world = World()
    world.live(
        """
        09:00 web u=anna mail=old@kauppa.fi Customer Identified email=old@kauppa.fi
        09:01 web u=anna Consent Granted purpose=marketing
        10:00 web u=anna Product Added product_id=p1
        """
    )
    world.until("10:32")
    assert "old@kauppa.fi: waiting" in world.outbox()[0]
    entered(world, "anna", correction(world.engine.project, "email", "new@kauppa.fi", "Sami"))
    assert world.deliver("mail").n_sent == 0
    world.live("12:00 web u=anna Product Added product_id=p1")
    world.until("12:32")
    assert world.deliver("mail").n_sent == 1 and world.mails[0][0] == "new@kauppa.fi"


@pytest.mark.parametrize(
    ("trait", "text", "value"),
    [
        ("age", "41", 41),
        ("email_verified", "true", True),
        ("plan", "41", "41"),
        ("birthday", "1985-02-03", "1985-02-03"),
        ("address.street", "Katu 1", "Katu 1"),
        ("timezone", "Europe/Helsinki", "Europe/Helsinki"),
    ],
)
def test_a_correction_is_of_the_type_of_its_trait(trait: str, text: str, value: object) -> None:
    assert correction(project(), trait, text, "Sami").properties[trait] == value


@pytest.mark.parametrize(
    ("trait", "text"),
    [("age", "old"), ("colour", "red"), ("address", "Katu 1"), ("birthday", "soon"), ("plan", "")],
)
def test_what_cannot_be_corrected_is_said(trait: str, text: str) -> None:
    with pytest.raises(Invalid):
        correction(project(), trait, text, "Sami")


@pytest.mark.parametrize(
    ("trait", "text"), [("score", "nan"), ("score", "inf"), ("method", "call"), ("rectified_by", "Sami")]
)
def test_a_correction_never_becomes_something_else(trait: str, text: str) -> None:
    """No number is null in JSON, which would take corrections back; and two fields are our own."""
    more = "event: Customer Identified\nfields: {score: number, method: text, rectified_by: text}\n"
    own = project({"events/customer_identified.yaml": more})
    assert correction(own, "score", "1.5", "Sami").properties["score"] == 1.5
    with pytest.raises(Invalid):
        correction(own, trait, text, "Sami")


def test_what_is_entered_goes_with_the_customer() -> None:
    world = World()
    world.live(f"09:00 {IDENTIFY.format('old@kauppa.fi')}")
    entered(world, "anna", restriction("Sami", "canary-reason"))
    entered(world, "anna", correction(world.engine.project, "email", "canary@kauppa.fi", "Sami"))
    erase(world.engine, LeafId(world.node("anna")), "desk")
    world.live(
        "10:00 web u=anna Consent Granted purpose=marketing\n10:01 web u=anna Help Searched n_results=0"
    )
    world.until("11:00")
    assert world.occurrences("help") == ["10:11 help anna: 10:01"], "nothing of before stands"
