"""Accounts: moments about all members of a business customer together, and never a merge of them."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from console import ask
from world import World, action, moment, project

from hetki.dialogues.explaining import decision_words
from hetki.engine.telling import find_account, titles
from hetki.errors import Invalid, NotFound
from hetki.events import cloudevents, segment
from hetki.events.event import LeafId
from hetki.identity.account import account_id
from hetki.server.access import Access
from hetki.server.app import console_app
from hetki.settings import Limits
from hetki.simulation.world import MemoryDisk
from hetki.store.accounts import counted_accounts, members_of
from hetki.store.households import household_of

PRICING = (
    "one: Help Searched where topic = 'pricing'"
    " | two: Help Searched where topic = 'pricing' and member <> one.member"
    " | three: Help Searched where topic = 'pricing' and member <> one.member and member <> two.member"
)


def about_account(
    name: str, steps: str, answers: str = "call", more: str = "", **rest: str
) -> dict[str, str]:
    """A moment about an account, in no initiative but its own."""
    files = moment(name, steps, answers, more="about: account\n" + more, **rest)
    return {path: text.replace("initiative: keep_our_word\n", "") for path, text in files.items()}


BUYING = about_account("buying", PRICING, more="within: 7 days\nrepeat: once per 30 days")
QUIET = about_account("quiet", "in: Signed In | no more: Signed In, for any 14 days", more="match: one_open")
PROJECT = project({**BUYING, **QUIET})
JOIN = """
    09:00 web u=anna g=kone Account Joined plan=pro
    09:00 web u=bert g=kone Account Joined
    09:00 web u=cleo g=kone Account Joined
    09:00 web u=dora g=nokia Account Joined
"""
SEARCH = "Help Searched topic=pricing n_results=1"


def test_three_people_of_an_account_search_for_pricing_within_a_week() -> None:
    world = World(PROJECT)
    world.live(JOIN)
    world.live(f"10:00 web u=anna {SEARCH}\n10:05 web u=anna id=again {SEARCH}\n2/10:00 web u=bert {SEARCH}")
    world.live(f"2/11:00 web u=dora {SEARCH}")
    assert world.occurrences("buying") == [], "two people, and one of another account"
    world.live(f"5/10:00 web u=cleo {SEARCH}")
    assert world.occurrences("buying") == ["5/10:00 buying kone: 10:00 2/10:00 5/10:00"]
    assert world.decisions() == ["5/10:00 buying cleo answered call"], "whose event completed it"
    assert world.outbox() == ["5/10:00 call to cleo: waiting"]
    (record,) = world.records()
    assert (record.question.group, record.question.n_members) == ("kone", 3)
    assert len(world.customers()) == 4, "nobody was merged"
    world.assert_rebuilds()


# -- consent, and whose data ------------------------------------------------------------------------------

OFFER = about_account(
    "offer",
    "a: Product Added | b: Product Added where member <> a.member",
    "remind, call",
    purpose="marketing",
    more="within: 1 day",
)
OFFERED = project(OFFER)


def test_an_event_counts_by_the_consent_of_whose_it_is() -> None:
    world = World(OFFERED)
    world.live(JOIN)
    world.live("09:10 web u=anna Consent Granted purpose=marketing\n10:00 web u=anna Product Added")
    world.live("10:01 web u=bert Product Added")
    assert world.occurrences("offer") == [], "bert has granted nothing"
    world.live("10:02 web u=bert Consent Granted purpose=marketing\n10:03 web u=bert Product Added")
    assert world.occurrences("offer") == ["10:03 offer kone: 10:00 10:03"]
    world.assert_rebuilds()


def test_a_withdrawal_takes_back_the_events_of_who_withdraws_and_no_others() -> None:
    world = World(OFFERED)
    world.live(JOIN)
    for name in ("anna", "bert", "cleo"):
        world.live(f"09:10 web u={name} Consent Granted purpose=marketing")
    world.live("10:00 web u=anna Product Added\n10:00:30 web u=cleo id=c Product Viewed")
    world.live("10:01 web u=bert Consent Withdrawn purpose=marketing")
    world.live("10:02 web u=cleo Product Added")
    assert world.occurrences("offer") == ["10:02 offer kone: 10:00 10:02"]
    world.live("3/11:00 web u=anna Product Added\n3/11:01 web u=anna Consent Withdrawn purpose=marketing")
    world.live("3/11:02 web u=cleo Product Added")
    assert len(world.occurrences("offer")) == 1, "anna's is dropped"
    world.assert_rebuilds()


def test_the_answer_is_under_the_consent_and_the_cap_of_who_gets_it() -> None:
    files = {**OFFER, **action("call", more="cap: 1 per 1 day"), **action("remind", "marketing", "app")}
    world = World(project(files, '[contact]\ncap = "1 per 1 day"\n'))
    world.live(JOIN)
    world.live(
        "09:10 web u=anna Consent Granted purpose=marketing\n"
        "09:10 web u=bert Consent Granted purpose=marketing"
    )
    world.live(
        "10:00 web u=anna Product Added\n10:01 web u=bert Product Added\n10:02 web u=anna Product Added"
    )
    world.live("10:03 web u=bert Product Added")
    assert [line.split(" ", 2)[2] for line in world.decisions()] == [
        "bert answered call",
        "anna answered call",
        "bert none nothing",
    ], "each has a cap of their own"


def test_arms_are_drawn_for_the_account_once() -> None:
    files = about_account("offer", "a: Product Added | b: Product Added", more="within: 1 day", holdout="50%")
    world = World(project(files))
    for number in range(40):
        world.live(
            f"09:00 web u=a{number} g=g{number} Account Joined\n"
            f"09:00 web u=b{number} g=g{number} Account Joined"
        )
        world.live(f"10:00 web u=a{number} Product Added\n10:00:01 web u=b{number} Product Added")
        world.live(f"10:00:02 web u=a{number} id=again{number} Product Added")
    records = [each for each in world.records() if each.question.moment == "offer"]
    arms = {each.question.group: set() for each in records}  # type: ignore[var-annotated]
    for each in records:
        arms[each.question.group].add(each.arm)
    assert len(records) == 80 and len(arms) == 40
    assert all(len(each) == 1 for each in arms.values()), "both members of an account have its arm"
    assert {arm for each in arms.values() for arm in each} == {"answered", "holdout"}
    assert len(world.rows("SELECT 1 FROM assignments")) == 40


# -- membership -------------------------------------------------------------------------------------------


def test_nothing_counts_from_before_a_member_joined_or_for_another_account() -> None:
    world = World(PROJECT)
    world.live(f"08:00 web u=anna {SEARCH}\n08:01 web u=bert {SEARCH}")
    world.live(JOIN)
    world.live(f"10:00 web u=cleo {SEARCH}\n10:01 web u=bert g=nokia {SEARCH}\n10:02 web u=bert {SEARCH}")
    assert world.occurrences("buying") == [], "anna's was before she joined"
    world.live(f"10:03 web u=anna {SEARCH}")
    assert world.occurrences("buying") == ["10:03 buying kone: 10:00 10:02 10:03"]
    world.live("07:00>11:00 web u=anna g=kone id=late Account Joined")
    assert world.occurrences("buying")[0] == "10:02 buying kone: 08:00 10:00 10:02", "she had joined before"
    world.assert_rebuilds()


def test_junk_names_no_account() -> None:
    world = World(PROJECT)
    world.live("09:00 web u=anna g=null Account Joined\n09:00 web u=bert g=undefined Account Joined")
    assert (
        world.rows("SELECT * FROM accounts") == []
        and world.rows("SELECT is_account FROM customers") == [(0,)] * 2
    )


def test_two_who_are_one_are_one_member_and_two_again_after_it_is_taken_back() -> None:
    world = World(PROJECT)
    world.live(JOIN)
    for number, name in enumerate(("anna", "bert", "cleo")):
        world.live(f"10:0{number} web u={name} {SEARCH}")
    assert world.occurrences("buying") == ["10:02 buying kone: 10:00 10:01 10:02"]
    world.merge("anna", "bert")
    world.advance()
    assert world.occurrences("buying") == []
    assert world.revisions() == ["retracted buying: identity; decided: call, message is cancelled"]
    world.unmerge()
    world.advance()
    assert world.occurrences("buying") == ["10:02 buying kone: 10:00 10:01 10:02"]
    assert len(world.decisions()) == 1, "what was decided is not decided again"
    world.assert_rebuilds()


def test_nobody_of_an_account_signs_in_for_two_weeks() -> None:
    world = World(PROJECT)
    world.live(JOIN)
    world.live("10:00 web u=anna Signed In\n8/10:00 web u=bert Signed In\n9/10:00 web u=dora Signed In")
    world.until("16/12:00")
    assert world.occurrences("quiet") == []
    world.until("22/12:00")
    assert world.occurrences("quiet") == ["22/10:00 quiet kone: 10:00"], "bert's began the silence again"
    world.assert_rebuilds()


# -- what is shown ----------------------------------------------------------------------------------------

HOUSEHOLD = '[household]\nsame = ["address.street", "last_name"]\nmembers_max = 2\n'


def identified(name: str, street: str, last_name: str) -> str:
    address = msgspec.json.encode({"street": street}).decode()
    return f"09:00 web u={name} Customer Identified address='{address}' last_name={last_name}"


def test_a_household_is_who_shares_all_traits_and_is_too_many_beyond_the_bound() -> None:
    world = World(project(None, HOUSEHOLD))
    world.live(
        identified("anna", "Katu 1, A", "Virtanen") + "\n" + identified("bert", " katu 1 a", "VIRTANEN")
    )
    world.live(
        identified("cleo", "Katu 1 A", "Korhonen")
        + "\n09:00 web u=dora Customer Identified last_name=Virtanen"
    )
    (anna, bert), db = (LeafId(world.node(name)) for name in ("anna", "bert")), world.engine.db
    shared = household_of(db, anna, 2)
    assert shared is not None and shared.is_one and set(shared.customers) == {anna, bert}
    assert household_of(db, LeafId(world.node("cleo")), 2) is None, "another name"
    assert household_of(db, LeafId(world.node("dora")), 2) is None, "no address"
    assert len(world.customers()) == 4, "nobody was merged"
    world.live(identified("eija", "KATU 1 A", "virtanen"))
    shared = household_of(db, anna, 2)
    assert shared is not None and not shared.is_one
    world.live(identified("eija", "Tie 2", "virtanen").replace("09:00", "09:30"))
    assert household_of(db, anna, 2).is_one, "who has moved is of another"  # type: ignore[union-attr]
    world.assert_rebuilds()


def test_a_household_that_is_declared_later_is_there_at_once() -> None:
    world = World(project(None, HOUSEHOLD.replace('"last_name"', '"first_name"')))
    world.live(identified("anna", "Katu 1", "V") + "\n" + identified("bert", "Katu 1", "V"))
    assert household_of(world.engine.db, LeafId(world.node("anna")), 2) is None
    while not world.warm(project(None, HOUSEHOLD)):
        pass
    assert household_of(world.engine.db, LeafId(world.node("anna")), 2) is not None
    world.assert_rebuilds()


@pytest.mark.parametrize(
    ("toml", "fault"),
    [
        ("same = []", "got 0 traits, must be 1 to 8 traits"),
        ('same = ["adress.street"]', "got 'adress.street', must be a trait of the catalogue"),
        (
            'same = ["address"]',
            "got 'address', which is of type object, must be a trait with one plain value",
        ),
        ('same = ["email.domain"]', "got 'email.domain', which is of type text"),
        ('same = ["email", "email"]', "got 'email' again, must be each trait once"),
        ('same = ["email"]\nmembers_max = 1', "got 1, must be a number from 2 to 100"),
    ],
)
def test_a_household_that_cannot_be_is_refused(toml: str, fault: str) -> None:
    with pytest.raises(Invalid, match=re.escape(fault)):
        project(None, f"[household]\n{toml}\n")


@pytest.mark.parametrize(
    ("steps", "more", "fault"),
    [
        (
            "a: Signed In where customer.plan = 'pro'",
            "",
            "'customer.plan', must be account and a trait of it",
        ),
        (
            "a: Signed In where segment.busy",
            "",
            "'segment.busy', must be another name, as no segment is known",
        ),
        ("a: Signed In where consent.marketing", "", "must be another name, as no purpose is known here"),
        ("a: Signed In where account.plam = 'pro'", "", "must be a declared trait of an account"),
        (
            "a: Signed In where aggregate.n > 1",
            "aggregates: {n: 'count of Signed In where customer.x = 1 over 1 day'}",
            "'customer.x', must be account and a trait of it",
        ),
    ],
)
def test_what_is_of_one_customer_is_no_part_of_a_moment_about_an_account(
    steps: str, more: str, fault: str
) -> None:
    with pytest.raises(Invalid, match=re.escape(fault)):
        project(about_account("wrong", steps, more=more))


def test_an_initiative_has_one_kind_of_unit_and_other_moments_no_members() -> None:
    files = moment("both", "a: Signed In", more="about: account")
    with pytest.raises(Invalid, match="must be in an initiative of moments about accounts alone"):
        project(files)
    with pytest.raises(Invalid, match="got 'member', must be a field of Signed In"):
        project(moment("both", "a: Signed In where member = 'x'"))
    with pytest.raises(Invalid, match="as this moment is not about an account"):
        project({"templates/call.liquid": "Subject: x\n\n{{ account.plan }}"})


def test_answers_print_and_ask_for_traits_of_the_account_and_of_who_gets_them() -> None:
    files = about_account(
        "offer", "a: Product Added | b: Product Added where member <> a.member", more="within: 1 day"
    )
    files |= action("call", more="eligible: account.plan = 'pro' and customer.plan = 'own'")
    files["templates/call.liquid"] = "Subject: x\n\n{{ account.industry }} for {{ customer.first_name }}"
    world = World(
        project(
            {**files, "moments/again.yaml": None, "moments/help.yaml": None, "moments/promise.yaml": None}
        )
    )
    world.live(
        "09:00 web u=anna g=kone Account Joined plan=pro industry=lifts\n"
        "09:00 web u=bert g=kone Account Joined"
    )
    world.live("09:01 web u=bert Customer Identified first_name=Bert plan=own")
    world.live("10:00 web u=anna Product Added\n10:01 web u=bert Product Added")
    (record,) = world.records()
    assert record.chosen == "call"
    assert record.question.context == {"account.industry": "lifts", "account.plan": "pro"}
    assert world.rows("SELECT body FROM outbox") == [("lifts for Bert",)]
    told = "\n".join(decision_words(record, titles(world.engine.project), ()))
    assert "These are data of 2 people of the account 'kone', as the moment declares." in told
    assert "We looked at what your colleagues and you had done, as one company." in told


def test_commands_and_pages_tell_of_accounts(tmp_path: Path) -> None:
    world = World(project(None, HOUSEHOLD), disk=MemoryDisk(str(tmp_path)))
    world.live(JOIN + "\n" + identified("anna", "Katu 1", "V") + "\n" + identified("bert", "Katu 1", "V"))
    account = account_id(world.engine.keys.node, "kone")
    (kone, nokia) = counted_accounts(world.engine.db, 10)
    assert (kone.group_id, kone.n_members, kone.n_named, kone.n_folded) == ("kone", 3, 0, 3)
    assert nokia.group_id == "nokia" and find_account(world.engine, "kone") == account
    assert find_account(world.engine, account.hex()) == account
    with pytest.raises(NotFound):
        find_account(world.engine, "nokkia")
    access = Access(world.disk, world.clock, world.chance)
    app, session = console_app(world.engine, access), access.sign_in(access.new_token())
    page = ask(app, f"/accounts/{account.hex()}", session)
    assert page.status_code == 200 and "An account of 3 members" in page.text and "anna" in page.text
    assert (
        ask(app, f"/customers/{account.hex()}", session).headers["location"] == f"/accounts/{account.hex()}"
    )
    assert ask(app, f"/accounts/{'0' * 32}", session).status_code == 404
    anna = ask(app, f"/customers/{world.node('anna').hex()}", session).text
    assert f"/accounts/{account.hex()}" in anna and "Household" in anna and "bert" in anna


def test_every_way_in_names_accounts() -> None:
    """Segment's group call, the context of any call, and a CloudEvent or a row with a property."""
    world = World(PROJECT)
    calls = [
        {"type": "group", "userId": "anna", "groupId": 7, "traits": {"plan": "pro", "email": "a@kone.fi"}},
        {"type": "track", "event": "Signed In", "userId": "bert", "context": {"groupId": "7"}},
        {"type": "track", "event": "Signed In", "userId": "cleo", "context": {"groupId": None}},
    ]
    body = msgspec.json.encode({"batch": [{**each, "messageId": f"m{n}"} for n, each in enumerate(calls)]})
    now = world.clock.now()
    world.engine.acceptor.accept([segment.parse(body, "batch", "web", "web", now, Limits())])
    told = {"specversion": "1.0", "id": "c", "source": "crm", "type": "Account Joined", "userid": "dora"}
    body = msgspec.json.encode({**told, "data": {"group_id": "7"}})
    form = cloudevents.STRUCTURED
    world.engine.acceptor.accept([cloudevents.parse(body, form, {}, "web", "web", now, Limits())])
    world.advance()
    account = account_id(world.engine.keys.node, "7")
    members = members_of(world.engine.db, [account])[account]
    assert {world.name_of(each.customer): each.joined_at is not None for each in members} == {
        "anna": True,
        "bert": False,
        "dora": True,
    }
    assert "a@kone.fi" not in str(world.rows("SELECT value FROM nodes")), "its address is nobody's"
    world.assert_rebuilds()


def test_another_policy_of_identity_changes_who_the_members_are() -> None:
    """Two visits with one address are one person, until addresses join nobody."""
    world = World(PROJECT)
    world.live(
        "09:00 web a=w1 mail=a@kone.fi g=kone Account Joined\n"
        "09:00 web a=w2 mail=a@kone.fi g=kone Account Joined"
    )
    world.live("09:00 web u=cleo g=kone Account Joined")
    world.live(f"10:00 web a=w1 {SEARCH}\n10:01 web a=w2 {SEARCH}\n10:02 web u=cleo {SEARCH}")
    assert world.occurrences("buying") == []
    world.reopen(project({**BUYING, **QUIET}, "[identity.email]\njoins = false\n"))
    world.advance()
    assert world.occurrences("buying") == ["10:02 buying kone: 10:00 10:01 10:02"]
    world.assert_rebuilds()
