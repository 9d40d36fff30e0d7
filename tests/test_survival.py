"""Which value of a trait survives, and where it came from: stories, an oracle, merges, and both forms."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from console import ask, words
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_cli import Hetki
from test_fold_property import check as check_story
from test_fold_property import random_event
from world import ORIGIN, World, action, clock, event, lines, moment, project, source

from hetki.dialogues.explaining import decision_words
from hetki.dialogues.wording import PLAIN
from hetki.engine.advance import advance
from hetki.engine.backtest import histories
from hetki.engine.engine import open_folder
from hetki.engine.project import Project
from hetki.engine.sweep import swept
from hetki.errors import Invalid
from hetki.events.event import Event, EventId
from hetki.events.wire import Parsed
from hetki.identity.identifier import identifier
from hetki.identity.survival import WORDS_MAX, Heard, Scalar, Survival, hear, learned, standing
from hetki.moments.fold import decode
from hetki.server.access import Access
from hetki.server.app import console_app
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk
from hetki.store.lake import open_lake, refresh

EXAMPLE = Path(__file__).parent.parent / "examples" / "twelve_moments"
RULES = {
    "most_recent": Survival(),
    "most_frequent": Survival("most_frequent"),
    "verified": Survival("verified"),
    "source": Survival("source", ["crm", "web"]),
}


def heard_of(survival: Survival, table: str, name: str = "email") -> Heard | None:
    """What is heard of a trait after the events of a table."""
    heard: dict[str, Heard] = {}
    for number, line in enumerate(lines(table)):
        told = event(line)
        assert told.name == "Customer Identified"
        heard = hear(heard, {name: survival}, told, EventId(number.to_bytes(16)))
    return heard.get(name)


def said(heard: Heard | None) -> str:
    """`a@x.fi of web 10:01 | b@x.fi of crm 10:00 twice`: what stands first, then the others, latest first."""
    if heard is None:
        return "nothing"
    words = list(heard.words)
    if not words:
        return "taken back"
    stands = words.pop(heard.stands)
    told = [
        f"{each.value} of {each.source} {clock(each.told_at)}"
        + (f" x{each.n_told}" if each.n_told > 1 else "")
        + (" verified" if each.verified else "")
        for each in (stands, *reversed(words))
    ]
    return " | ".join(told) + (f" and {heard.n_dropped} more" if heard.n_dropped else "")


# -- stories --------------------------------------------------------------------------------------------

TWO_SOURCES = """
10:00 crm u=anna Customer Identified email=old@x.fi
10:01 web u=anna Customer Identified email=new@x.fi
10:02 crm u=anna Customer Identified email=old@x.fi
10:03 shop u=anna Customer Identified email=shop@x.fi
"""


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("most_recent", "shop@x.fi of shop 10:03 | old@x.fi of crm 10:02 x2 | new@x.fi of web 10:01"),
        ("most_frequent", "old@x.fi of crm 10:02 x2 | shop@x.fi of shop 10:03 | new@x.fi of web 10:01"),
        ("verified", "shop@x.fi of shop 10:03 | old@x.fi of crm 10:02 x2 | new@x.fi of web 10:01"),
        ("source", "old@x.fi of crm 10:02 x2 | shop@x.fi of shop 10:03 | new@x.fi of web 10:01"),
    ],
)
def test_each_rule_has_its_own_survivor(rule: str, expected: str) -> None:
    assert said(heard_of(RULES[rule], TWO_SOURCES)) == expected


def test_sources_are_believed_in_their_order_and_the_latest_of_one_stands() -> None:
    told = "10:00 web u=anna Customer Identified email=a@x.fi"
    assert said(heard_of(RULES["source"], told)) == "a@x.fi of web 10:00"
    told += "\n10:01 shop u=anna Customer Identified email=b@x.fi"
    told += "\n10:02 app u=anna Customer Identified email=c@x.fi"
    expected = "a@x.fi of web 10:00 | c@x.fi of app 10:02 | b@x.fi of shop 10:01"
    assert said(heard_of(RULES["source"], told)) == expected
    told += "\n10:03 crm u=anna Customer Identified email=d@x.fi"
    told += "\n10:04 crm u=anna Customer Identified email=e@x.fi"
    told += "\n10:05 web u=anna Customer Identified email=f@x.fi"
    assert said(heard_of(RULES["source"], told)).startswith("e@x.fi of crm 10:04 | f@x.fi of web 10:05 | d@x")
    unlisted = "10:00 shop u=anna Customer Identified email=b@x.fi"
    unlisted += "\n10:01 app u=anna Customer Identified email=c@x.fi"
    assert said(heard_of(RULES["source"], unlisted)).startswith("c@x.fi of app 10:01")


def test_what_is_verified_stands_until_its_own_source_says_it_is_not() -> None:
    told = """
    10:00 web u=anna Customer Identified email=true@x.fi email_verified=true
    10:01 shop u=anna Customer Identified email=typo@x.fi
    """
    verified = RULES["verified"]
    assert said(heard_of(verified, told)) == "true@x.fi of web 10:00 verified | typo@x.fi of shop 10:01"
    again = told + "10:02 web u=anna Customer Identified email=true@x.fi"
    assert said(heard_of(verified, again)).startswith("true@x.fi of web 10:02 x2 verified")
    other = told + "10:02 crm u=anna Customer Identified email=true@x.fi email_verified=false"
    assert said(heard_of(verified, other)).startswith("true@x.fi of web 10:00 verified")
    later = told + "10:02 crm u=anna Customer Identified email=also@x.fi email_verified=true"
    assert said(heard_of(verified, later)).startswith("also@x.fi of crm 10:02 verified | typo@x.fi")
    lost = told + "10:02 web u=anna Customer Identified email=true@x.fi email_verified=false"
    lost += "\n10:03 shop u=anna Customer Identified email=typo@x.fi"
    assert said(heard_of(verified, lost)).startswith("typo@x.fi of shop 10:03 x2 | true@x.fi of web 10:02 x2")
    loose = "10:00 web u=anna Customer Identified email=a@x.fi email_verified=yes"
    assert said(heard_of(verified, loose)) == "a@x.fi of web 10:00"
    unasked = heard_of(RULES["most_recent"], told)
    assert unasked is not None and not any(each.verified for each in unasked.words)


def test_a_null_takes_back_what_its_own_source_told() -> None:
    taken = TWO_SOURCES + "10:04 crm u=anna Customer Identified email=null"
    assert said(heard_of(RULES["source"], taken)) == "new@x.fi of web 10:01 | shop@x.fi of shop 10:03"
    assert said(heard_of(RULES["most_frequent"], taken)) == "shop@x.fi of shop 10:03 | new@x.fi of web 10:01"
    assert heard_of(RULES["most_recent"], "10:00 web u=anna Customer Identified email=null") is None
    alone = "10:00 web u=a Customer Identified email=a@x.fi\n10:01 web u=a Customer Identified email=null"
    for survival in RULES.values():
        assert said(heard_of(survival, alone)) == "taken back"
        assert said(heard_of(survival, alone + "\n10:02 crm u=a Customer Identified email=b@x.fi")) == (
            "b@x.fi of crm 10:02"
        )
    stranger = "10:00 web u=a Customer Identified email=a@x.fi\n10:01 crm u=a Customer Identified email=null"
    assert said(heard_of(RULES["most_recent"], stranger)) == "a@x.fi of web 10:00"


def test_only_listed_sources_may_say_that_a_value_is_verified() -> None:
    told = """
    10:00 orders u=anna Customer Identified email=true@x.fi email_verified=true
    10:01 web u=anna Customer Identified email=mine@x.fi email_verified=true
    10:02 web u=anna Customer Identified email=true@x.fi email_verified=false
    """
    listed = heard_of(Survival("verified", ["orders", "crm"]), told)
    assert (
        said(listed) == "true@x.fi of orders 10:00 verified | true@x.fi of web 10:02 | mine@x.fi of web 10:01"
    )
    assert said(heard_of(RULES["verified"], told)).startswith("mine@x.fi of web 10:01 verified")


def test_an_address_that_was_taken_back_is_not_written_to() -> None:
    before = project({**action("call", destination="mail")})
    told = """
    09:00 web u=anna Customer Identified email=old@x.fi
    10:00 web u=anna Help Searched n_results=0
    """
    world = World(before)
    world.live(told)
    world.until("10:11:30")
    assert world.outbox() == ["10:11:30 call to old@x.fi: waiting"]
    world.live("10:11:40 web u=anna Customer Identified email=null")
    world.deliver("mail")
    assert [line.partition(": ")[2] for line in world.outbox()] == [
        "cancelled the recipient is no longer this customer's"
    ]
    world = World(before)
    world.live(told + "\n10:01 web u=anna Customer Identified email=null")
    world.until("10:11:30")
    (decision,) = world.records()
    assert decision.weighed[0].dropped_by == "reach" and world.outbox() == []


def test_a_number_or_text_beyond_the_bounds_says_nothing_and_harms_nobody() -> None:
    world = World(OF_RULE["most_recent"])
    for number, value in enumerate(["club", "9" * 30, "-9223372036854775809", f'"{"x" * 2001}"']):
        one = event(f"10:0{number} web u=anna Customer Identified plan=club")
        world.accept(
            [msgspec.structs.replace(one, properties=f'{{"plan": {value}}}'.encode())] if number else [one]
        )
    world.advance()
    assert told_in(world) == {"anna": "club of web 10:00"}


def test_a_value_counts_whoever_tells_it_and_a_tie_goes_to_the_latest() -> None:
    told = """
    10:00 web u=anna Customer Identified plan=club
    10:01 crm u=anna Customer Identified plan=none
    10:02 shop u=anna Customer Identified plan=club
    """
    often = RULES["most_frequent"]
    expected = "club of shop 10:02 | none of crm 10:01 | club of web 10:00"
    assert said(heard_of(often, told, "plan")) == expected
    tied = told + "10:03 crm u=anna Customer Identified plan=none"
    assert said(heard_of(often, tied, "plan")).startswith("none of crm 10:03 x2")


def test_lists_objects_and_nulls_of_a_context_say_nothing_and_truths_are_no_numbers() -> None:
    heard: dict[str, Heard] = {}

    def tell(properties: object, context: object) -> None:
        nonlocal heard
        raw = msgspec.json.encode(properties), msgspec.json.encode(context)
        told = Event("web", "m", "web", "Customer Identified", 0, 0, {}, *raw)
        survivals = {"locale": RULES["most_recent"], "plan": RULES["most_frequent"]}
        heard = hear(heard, survivals, told, EventId(b"e"))

    tell({}, {"locale": "fi-FI", "plan": "of a context, and no address"})
    assert standing(heard) == {"locale": "fi-FI"}
    tell({"plan": ["club"]}, {"locale": None})
    assert standing(heard) == {"locale": "fi-FI"}
    tell({"locale": None}, {"locale": "sv-FI"})
    assert standing(heard) == {}
    for value in (True, 1, 1.0):
        tell({"plan": value}, {})
    assert [each.value for each in heard["plan"].words] == [True, 1.0]
    assert standing(heard)["plan"] == 1 and standing(heard)["plan"] is not True


def test_a_talkative_source_does_not_push_out_what_another_told_once() -> None:
    told = "10:00 crm u=anna Customer Identified email=crm@x.fi email_verified=true\n" + "\n".join(
        f"{10 + number // 60}:{number % 60:02} web u=anna Customer Identified email=n{number}@x.fi"
        for number in range(1, 100)
    )
    for name, survival in RULES.items():
        heard = heard_of(survival, told)
        assert heard is not None and len(heard.words) == WORDS_MAX
        assert heard.n_dropped == 100 - WORDS_MAX
        kept = {each.value for each in heard.words}
        assert "n99@x.fi" in kept
        assert ("crm@x.fi" in kept) is (name != "most_frequent"), name
    first, _, rest = told.replace(" email_verified=true", "").partition("\n")
    all_verified = f"{first}\n" + rest.replace("@x.fi", "@x.fi email_verified=true")
    heard = heard_of(RULES["verified"], all_verified)
    assert heard is not None and heard.words[0].value == "crm@x.fi" and heard.word == heard.words[-1]
    last = told + "\n12:00 web u=anna Customer Identified email=null"
    assert said(heard_of(RULES["most_recent"], last)) == f"crm@x.fi of crm 10:00 and {100 - WORDS_MAX} more"


def test_what_stands_never_gives_way() -> None:
    told = "10:00 web u=anna Customer Identified email=true@x.fi email_verified=true\n" + "\n".join(
        f"10:{number} s{number} u=anna Customer Identified email=n{number}@x.fi" for number in range(10, 40)
    )
    heard = heard_of(RULES["verified"], told + "\n11:00 web u=anna Customer Identified email=typo@x.fi")
    assert said(heard).startswith(
        "true@x.fi of web 10:00 verified | typo@x.fi of web 11:00 | n39@x.fi of s39"
    )


# -- properties -----------------------------------------------------------------------------------------

Telling = tuple[str, Scalar | None, bool | None]
TELLINGS = st.lists(
    st.tuples(
        st.sampled_from(["web", "crm", "shop", "app"]),
        st.one_of(st.none(), st.sampled_from(["a", "b", "c", 1, True, 2.5])),
        st.sampled_from([None, None, True, False]),
    ),
    max_size=40,
)


def by_definition(rule: str, tellings: list[Telling]) -> Scalar | None:
    """What stands, said from all that was told at once and without any bound."""
    since = {source: number for number, (source, value, _) in enumerate(tellings) if value is None}
    valid = [(number, each) for number, each in enumerate(tellings) if number > since.get(each[0], -1)]
    if not valid:
        return None
    alike = [(number, (source, repr(value), flag)) for number, (source, value, flag) in valid]
    values = {number: each[1] for number, each in valid}

    def is_verified(number: int) -> bool:
        source, value, _ = dict(alike)[number]
        flags = [flag for _, (s, v, flag) in alike if (s, v) == (source, value) and flag is not None]
        return bool(flags and flags[-1])

    def n_told(number: int) -> int:
        return sum(value == dict(alike)[number][1] for _, (_, value, _) in alike)

    order = {"crm": 2, "web": 1}
    worth = {
        "most_recent": lambda number: 0,
        "most_frequent": n_told,
        "verified": is_verified,
        "source": lambda number: order.get(dict(valid)[number][0], 0),
    }[rule]
    return values[max(values, key=lambda number: (worth(number), number))]


def after(survival: Survival, tellings: list[Telling]) -> Heard | None:
    heard = None
    for number, (told_by, value, verified) in enumerate(tellings):
        told = {"plan": value} | ({} if verified is None else {"plan_verified": verified})
        heard = learned(heard, "plan", survival, told, {}, told_by, number, EventId(b""))
    return heard


@settings(max_examples=200)
@given(TELLINGS, st.sampled_from(sorted(RULES)))
def test_what_stands_is_what_the_rule_says_of_all_that_was_told(tellings: list[Telling], rule: str) -> None:
    heard = after(RULES[rule], tellings)
    if heard is not None and heard.n_dropped and rule in ("most_frequent", "verified"):
        return  # what gave way to the bound may have counted
    expected = by_definition(rule, tellings)
    assert (standing({"plan": heard}).get("plan") if heard else None) == expected
    assert heard is None or len(heard.words) <= WORDS_MAX


IDENTITIES = {
    **moment("bought", "a: Product Added where customer.plan = 'club' | no b: Chat Started, for 1 minute"),
    **source("crm", "service"),
    "moments/help.yaml": None,
    "moments/basket.yaml": None,
    "moments/again.yaml": None,
    "moments/promise.yaml": None,
    "events/more.yaml": "event: Customer Identified\nfields: {plan_verified: boolean}\n",
}
ORDER = 'sources = ["crm", "web"]'
OF_RULE: dict[str, Project] = {
    rule: project(
        IDENTITIES,
        "".join(
            f'\n[traits.{name}]\nsurvives = "{rule}"\n{ORDER if rule == "source" else ""}\n'
            for name in ("plan", "email")
        ),
    )
    for rule in RULES
}


def identified(draw: random.Random, number: int) -> Event:
    """Mostly somebody who tells of themselves, else one of the usual events."""
    usual = random_event(draw, number)
    if draw.random() < 0.3:
        return usual
    told: dict[str, object] = {
        "plan": draw.choice(["club", "none", "trial", None, 3, ["club"], 2**70, "x" * 2001])
    }
    if draw.random() < 0.4:
        told["plan_verified"] = draw.random() < 0.6
    if draw.random() < 0.4:
        told["email"] = draw.choice(["m1@x.fi", None])
        told["timezone"] = draw.choice(["Europe/Helsinki", None])
    return msgspec.structs.replace(
        usual,
        name="Customer Identified",
        source=draw.choice(["web", "crm", "shop"]),
        properties=json.dumps(told).encode(),
        context=draw.choice([b"{}", b'{"locale": "fi"}', b'{"locale": null, "timezone": "Asia/Tokyo"}']),
    )


@settings(max_examples=100)
@given(st.integers(0, 2**48), st.sampled_from(sorted(RULES)))
def test_any_split_any_merge_and_any_unmerge_are_one_pass_and_a_rebuild(seed: int, rule: str) -> None:
    check_story(seed, 24, commands=True, of=OF_RULE[rule], one_event=identified)


@settings(max_examples=60)
@given(st.integers(0, 2**48), st.sampled_from(sorted(RULES)))
@example(1, "verified")
def test_after_an_unmerge_traits_are_as_if_two_had_never_been_one(seed: int, rule: str) -> None:
    draw = random.Random(seed)
    told = []
    for number in range(draw.randint(2, 16)):
        whose = {"user_id": draw.choice(["anna", "bert"])}
        one = identified(draw, number)
        told.append(
            msgspec.structs.replace(
                one, identifiers=whose, received_at=max(one.received_at, ORIGIN + 60 * number * SECOND)
            )
        )
    told.sort(key=lambda each: each.received_at)
    begins, ends = sorted(draw.sample(range(len(told) + 1), 2))
    kept = []
    for merges in (False, True):
        world = World(OF_RULE[rule], starts="00:00", batch_max=draw.choice([1, 3, 2000]))
        for number in range(len(told) + 1):
            if merges and number == begins:
                world.merge("anna", "bert")
            if merges and number == ends:
                world.advance()
                world.unmerge()
            if number < len(told):
                world.accept([told[number]])
            if draw.random() < 0.7:
                world.advance()
        world.clock.sleep(7200)
        world.advance()
        rows = world.rows("SELECT customer, state FROM customers ORDER BY 1")
        kept.append([decode(state).heard for _, state in rows if isinstance(state, bytes)])
        assert {each.event_id for heard in kept[-1] for one in heard.values() for each in one.words} <= {
            row[0] for row in world.rows("SELECT event_id FROM events")
        }
    assert kept[0] == kept[1]


def test_merged_customers_hear_each_other_and_say_whose_word_stands() -> None:
    world = World(OF_RULE["source"])
    world.live(
        """
        10:00 web u=anna Customer Identified plan=club
        10:01 crm u=bert Customer Identified plan=none
        """
    )
    world.merge("anna", "bert")
    world.advance()
    assert told_in(world) == {"anna+bert": "none of crm 10:01 | club of web 10:00"}
    world.unmerge()
    world.advance()
    assert told_in(world) == {"anna": "club of web 10:00", "bert": "none of crm 10:01"}
    world.assert_rebuilds()


def told_in(world: World) -> dict[str, str]:
    rows = world.rows("SELECT customer, state FROM customers")
    found = {world.name_of(customer): decode(state) for customer, state in rows if isinstance(state, bytes)}
    return {name: said(folded.heard.get("plan")) for name, folded in found.items()}


# -- the fast form --------------------------------------------------------------------------------------


def apart(one: Event, family: int) -> Event:
    """The same event in one of many families that share no names."""
    names = {space: f"{family} {value}" for space, value in one.identifiers.items() if space != "email"}
    return msgspec.structs.replace(one, identifiers=names or {"user_id": f"{family}"})


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_fast_form_of_history_knows_the_same_traits(rule: str, tmp_path: Path) -> None:
    stands = {}
    for number, where in enumerate(
        ["plan = 'club'", "plan = 'none'", "plan is null", "email = 'm1@x.fi'", "timezone = 'Asia/Tokyo'"]
    ):
        stands |= moment(f"stands_{number}", f"a: Order Tracked where customer.{where}")
    bound = "a: Chat Started where customer.plan = 'club' | b: Order Tracked"
    stands |= moment("bound", bound, more="within: 1 hour")
    tables = "".join(
        f'\n[traits.{name}]\nsurvives = "{rule}"\n{ORDER if rule == "source" else ""}\n'
        for name in ("plan", "email")
    )
    disk, draw = MemoryDisk(folder=tmp_path), random.Random(5)
    world = World(project({**IDENTITIES, **stands}, tables), disk, starts="00:00")
    told = (identified(draw, number) for number in range(1_500))
    world.accept([apart(each, number % 12) for number, each in enumerate(told)])
    world.advance()
    refresh(world.disk, world.engine.journal, world.engine.state)
    lake, program, until = open_lake(world.disk), world.engine.program, world.clock.now()
    runs = swept(program)
    assert runs is not None and not {*runs.left} & {"bought", "bound", *stands}
    by_fold, by_sweep = (
        sorted(
            (each.occurrence_id, customer, each)
            for customer, caught in histories(lake, program, until, events_min=events_min)
            for each in caught
        )
        for events_min in (10**9, 0)
    )
    assert by_sweep == by_fold
    caught = {each.moment for _, _, each in by_fold}
    assert caught >= {"bound", *(f"stands_{number}" for number in range(5))}, "every value stood somewhere"


# -- declarations ---------------------------------------------------------------------------------------


def faults_of(tables: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        project(IDENTITIES, tables)
    return [str(fault) for fault in caught.value.faults]


def cases() -> Iterator[tuple[str, list[str]]]:
    yield (
        '[traits.emial]\nsurvives = "most_recent"',
        [
            "hetki.toml:[traits.emial]: got 'emial', must be a trait of the catalogue."
            " Hint: did you mean 'email'."
        ],
    )
    yield (
        '[traits.email]\nsurvives = "verifed"',
        ["hetki.toml:[traits.email].survives: got survives: 'verifed', must be one of"],
    )
    yield (
        '[traits.plan]\nsurvives = "source"',
        [
            "hetki.toml:[traits.plan]: got no sources, must be the sources to believe,"
            " the first before the second."
        ],
    )
    yield (
        '[traits.plan]\nsurvives = "source"\nsources = ["crm", "wbe", "crm"]',
        [
            "hetki.toml:[traits.plan].sources[1]: got 'wbe', must be a declared source."
            " Hint: did you mean 'web'.",
            "hetki.toml:[traits.plan].sources[2]: got 'crm' again, must be each source once.",
        ],
    )
    yield (
        '[traits.plan]\nsources = ["crm"]',
        [
            "hetki.toml:[traits.plan].sources: got sources under 'most_recent', must be no sources."
            ' Hint: write survives = "source" to believe one before another.'
        ],
    )
    yield (
        '[traits.language]\nsurvives = "verified"',
        [
            "hetki.toml:[traits.language].survives: got no field 'language_verified', must be a boolean"
            " field beside the trait. Hint: add it to the fields of 'Customer Identified' in events/."
        ],
    )
    yield (
        '[traits.address]\nsurvives = "most_recent"',
        [
            "hetki.toml:[traits.address]: got 'address', which is of type object, must be a trait with one"
            " plain value, as no other is kept."
        ],
    )


@pytest.mark.parametrize(("tables", "expected"), list(cases()))
def test_a_rule_that_makes_no_sense_is_a_fault_with_its_place(tables: str, expected: list[str]) -> None:
    found = faults_of(tables)
    assert len(found) == len(expected)
    for fault, begins in zip(found, expected, strict=True):
        assert fault.startswith(begins), fault


def test_a_trait_with_a_rule_is_kept_though_no_moment_asks_for_it() -> None:
    told = "10:00 web u=anna Customer Identified language=fi first_name=Anna"
    for tables, kept in (("", {}), ('\n[traits.language]\nsurvives = "most_frequent"', {"language": "fi"})):
        world = World(project({}, tables))
        world.live(told)
        ((state,),) = world.rows("SELECT state FROM customers")
        assert isinstance(state, bytes) and decode(state).traits == kept


def test_another_rule_folds_everybody_again() -> None:
    told = """
    10:00 crm u=anna Customer Identified plan=none
    10:01 web u=anna Customer Identified plan=club
    """
    world = World(OF_RULE["most_recent"])
    world.live(told)
    assert told_in(world) == {"anna": "club of web 10:01 | none of crm 10:00"}
    while not world.warm(OF_RULE["source"]):
        pass
    assert told_in(world) == {"anna": "none of crm 10:00 | club of web 10:01"}
    world.assert_rebuilds()


# -- where it is shown ----------------------------------------------------------------------------------


def test_a_decision_names_who_told_the_traits_that_its_conditions_looked_at() -> None:
    asked = action("call", more="eligible: customer.plan = 'club' and customer.language is null")
    world = World(project(asked, '\n[traits.plan]\nsurvives = "source"\nsources = ["shop"]'))
    world.live(
        """
        09:00 shop u=anna Customer Identified plan=club
        09:01 web u=anna Customer Identified plan=none
        10:00 web u=anna Help Searched n_results=0
        """
    )
    world.until("10:30")
    (decision,) = world.records()
    assert decision.chosen == "call" and decision.question.told_by == {"customer.plan": "shop"}
    lines_told = decision_words(decision, msgspec.structs.replace(PLAIN, sources={"shop": "The shop"}))
    assert "  Who told customer.plan: The shop." in lines_told


def test_the_command_and_the_page_tell_each_trait_with_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hetki = Hetki(tmp_path, monkeypatch, capsys)
    shutil.copytree(EXAMPLE, hetki.project)
    engine = open_folder(str(hetki.project))
    rules = {name: each.survives for name, each in engine.project.survival.items()}
    assert rules == {"email": "verified", "locale": "source"}
    told = """
    10:00 orders u=anna Customer Identified email=anna@x.fi email_verified=true timezone=Asia/Tokyo
    10:01 stores u=anna Customer Identified email=<b>anna@x.fi locale=en
    10:02 stores u=anna Customer Identified locale=en
    10:03 web u=anna Customer Identified locale=sv
    """
    engine.acceptor.accept([Parsed([event(line) for line in lines(told)], [])])
    advance(engine)
    printed = hetki.on("customer", "anna").splitlines()
    ids = [line.rpartition(", event ")[2].partition("  ")[0] for line in printed if "told by" in line]
    assert len(ids) == 5 and ids[0] == ids[4]
    assert {bytes.fromhex(each) for each in ids} <= {
        row[0] for row in engine.db.execute("SELECT event_id FROM events")
    }
    assert [re.sub(", event [0-9a-f]+", "", line) for line in printed if "told by" in line] == [
        "  trait  email  'anna@x.fi'  told by orders, Mon 2 Mar 2026, 12:00:00, verified  (verified first)",
        "    other  '<b>anna@x.fi'  told by stores, Mon 2 Mar 2026, 12:01:00",
        "  trait  locale  'sv'  told by web, Mon 2 Mar 2026, 12:03:00  (by source: app, web, others)",
        "    other  'en'  told by stores, Mon 2 Mar 2026, 12:02:00, 2 times",
        "  trait  timezone  'Asia/Tokyo'  told by orders, Mon 2 Mar 2026, 12:00:00  (the latest)",
    ]
    access = Access(engine.disk, engine.clock, engine.chance)
    session = access.sign_in(access.new_token())
    node = identifier(engine.keys.node, "user_id", "anna")
    assert node is not None
    page = words(ask(console_app(engine, access), f"/customers/{node.node.hex()}", session))
    page = re.sub(" ?, event [0-9a-f]{8}", "", page)
    assert "email anna@x.fi Orders, payments and deliveries, Mon 2 Mar 2026, 12:00:00 verified" in page
    assert (
        "verified else <b>anna@x.fi Tills and counters, Mon 2 Mar 2026, 12:01:00 Rule: verified first."
        in page
    )
    assert "else en Tills and counters, Mon 2 Mar 2026, 12:02:00 , told 2 times Rule: by source: The" in page
    assert "Rule: by source: The phone app, The web shop, others. timezone" in page
