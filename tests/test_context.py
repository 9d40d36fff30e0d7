"""Context as of that time: what conditions ask of the situation, and what an occurrence keeps of it."""

from __future__ import annotations

import pytest
from world import World, action, bodies, moment, project

from hetki.dialogues.explaining import decision_words
from hetki.dialogues.tracing import why_words
from hetki.engine.folding import decode_occurrence
from hetki.engine.telling import titles, why_moment
from hetki.errors import Invalid
from hetki.events.event import LeafId
from hetki.moments.moment import Occurrence
from hetki.patterns import around
from hetki.patterns.run import OPEN_TO

CLUB = "segment: club\ntitle: Club members\npurpose: service\nwho: customer.plan = 'club'\n"
ASKED = moment(
    "asked",
    "searched: Help Searched | tried: Order Tracked | no chat: Chat Started, for 10 minutes",
    answers="call, gift",
    more="""
    within: 1 hour
    aggregates: {n: count of Help Searched over 1 hour, spent: sum total of Order Completed over 30 days}
    context: [channel, order_id, consent.marketing, segment.club, aggregate.n, staffing('kitchen')]
    """,
)
GIFT = action("gift", customer=9, more="eligible: aggregate.spent >= 10 and not consent.marketing")
TEMPLATE = (
    "Subject: hi\n\nYou asked {{ context.aggregate.n }} times on {{ context.channel }}"
    "{% if context.consent.marketing %}, offers{% endif %}, {{ context.order_id | default: 'no order' }}, "
    "{{ context.staffing.kitchen }}."
)
FILES: dict[str, str | None] = {
    "segments/club.yaml": CLUB,
    **ASKED,
    **GIFT,
    "templates/call.liquid": TEMPLATE,
    "moments/help.yaml": None,
    "moments/promise.yaml": None,
    "moments/again.yaml": None,
}
PROJECT = project(FILES)
STORY = """
    09:00 web u=anna Customer Identified plan=club
    09:30 shop Staffing Reported pool=kitchen n_present=3 n_planned=4
    10:00 web u=anna Help Searched
    10:01 web u=anna Help Searched
    10:02 app u=anna Order Tracked order_id=o7
    10:05 web u=anna Help Searched
    10:06 web u=anna Consent Granted purpose=marketing
"""


def caught(world: World) -> list[Occurrence]:
    rows = world.rows("SELECT body FROM occurrences ORDER BY occurred_at, occurrence_id")
    return [decode_occurrence(row[0]) for row in rows if isinstance(row[0], bytes)]


def test_the_situation_is_kept_as_the_last_event_step_is_fulfilled() -> None:
    world = World(PROJECT)
    world.live(STORY)
    world.until("11:00")
    kept = [
        {name: value for name, value in each.context.items() if name != OPEN_TO} for each in caught(world)
    ]
    assert (
        kept
        == [
            {
                "channel": "app",
                "order_id": "o7",
                "consent.marketing": False,
                "segment.club": True,
                "aggregate.n": 2,
                "staffing.kitchen": 0.75,
            }
        ]
        * 2
    )
    world.assert_rebuilds()


def test_a_late_event_that_changes_what_is_kept_revises() -> None:
    world = World(PROJECT)
    world.live(STORY)
    world.until("11:00")
    world.live("09:50>11:05 web u=anna Help Searched")
    assert [each.context["aggregate.n"] for each in caught(world)] == [3, 3, 3]
    assert [each.partition(":")[0] for each in world.revisions()] == ["revised asked"] * 2


def test_it_is_explained_and_printed() -> None:
    world = World(PROJECT)
    world.live(STORY)
    world.until("10:14")
    world.deliver()
    assert [each["body"] for each in bodies(world.posts)] == ["You asked 2 times on app, o7, 0.75."] * 2
    record = world.records()[0]
    text = "\n".join(decision_words(record, titles(world.engine.project)))
    assert (
        "What it was like then: aggregate.n was 2, channel was app,"
        " consent.marketing was false, order_id was o7, segment.club was true, staffing.kitchen was 0.75."
    ) in text
    assert "the sum of total of Order Completed over 30 days is at least 10" in text


def test_the_condition_of_an_answer_sees_what_was_kept() -> None:
    world = World(PROJECT)
    world.live(
        f"08:00 web u=anna Order Completed total=7.5\n08:01 web u=anna Order Completed total=2.5\n{STORY}"
    )
    world.live("10:07 web u=anna Order Completed total=900")
    world.until("10:14")
    assert {each.partition("answered ")[2] for each in world.decisions()} == {"gift"}
    (candidate,) = (each for each in world.records()[0].question.candidates if each.action == "gift")
    assert candidate.values == {"aggregate.spent": 10.0, "consent.marketing": False}


def test_an_answer_may_not_rest_on_what_was_closed_to_its_purpose() -> None:
    """The shop's data is not for marketing: a figure that counts it is not, either."""
    offered = moment(
        "offered",
        "a: Order Tracked where aggregate.n >= 1",
        answers="remind",
        more="aggregates: {n: count of Order Completed over 1 hour}",
    )
    world = World(project({**FILES, **offered}))
    world.live(
        """
        09:00 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing
        09:10 shop u=anna Order Completed
        09:20 web u=anna Order Tracked
        10:20 web u=anna Order Completed
        10:30 web u=anna Order Tracked
        """
    )
    one, other = (each.question.candidates[0] for each in world.records())
    assert (one.closed_sources, other.closed_sources) == (["earlier events that it rests on"], [])
    assert "that was not open to 'Offers'" in "\n".join(
        decision_words(world.records()[0], titles(world.engine.project))
    )
    assert world.records()[0].question.context == {}


def test_what_an_occurrence_rested_on_before_its_last_events_is_closed_as_well() -> None:
    """Figures that earlier steps looked up, however old by now, and earlier rounds of a group."""
    counted = moment(
        "counted",
        "a: Help Searched where aggregate.n >= 1 | b: Order Tracked",
        answers="remind",
        more="within: 1 hour\naggregates: {n: count of Help Searched over 5 minutes}",
    )
    again = moment("rounds", "a: Help Viewed | b: STEP", answers="remind", more="within: 1 hour")
    again = {
        name: text.replace('{"b": "STEP"}', "{again: [{b: Chat Ended}]}") for name, text in again.items()
    }
    world = World(project({**FILES, **counted, **again}))
    world.live(
        """
        09:00 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing
        10:00 shop u=anna Help Searched
        10:01 web u=anna Help Searched
        10:20 web u=anna Order Tracked
        11:00 web u=anna Help Viewed
        11:01 shop u=anna Chat Ended
        11:20 web u=anna Chat Ended
        """
    )
    records = [each.question for each in world.records() if each.question.moment in ("counted", "rounds")]
    assert [each.candidates[0].closed_sources for each in records] == [
        ["earlier events that it rests on"],
        ["shop"],
        ["earlier events that it rests on"],
    ]


def test_a_figure_is_worked_out_once_for_an_event_however_many_tries_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = moment(
        "asked",
        "a: Help Searched | b: Order Tracked where aggregate.spent > 100",
        more="within: 1 hour\naggregates: {spent: sum total of Order Completed over 30 days}",
    )
    world = World(project({**asked, "moments/help.yaml": None}))
    world.live("\n".join(f"10:{minute:02} web u=anna Help Searched" for minute in range(30)))
    worked_out = []

    def counting(*given: object) -> object:
        worked_out.append(given)
        return 0.0

    monkeypatch.setattr(around, "figure", counting)
    world.live("10:40 web u=anna Order Tracked")
    assert len(worked_out) == 1


def test_consent_is_that_of_the_instant() -> None:
    world = World(
        project(
            {
                "moments/seen.yaml": moment("seen", "a: Order Tracked where consent.marketing")[
                    "moments/seen.yaml"
                ]
            }
        )
    )
    world.live(
        """
        10:00 web u=anna Order Tracked
        10:01 web u=anna Consent Granted purpose=marketing until=2026-03-02T10:30:00Z
        10:02 web u=anna Order Tracked
        10:30 web u=anna Order Tracked
        10:31 web u=anna Consent Granted purpose=marketing
        10:32 web u=anna Order Tracked
        10:33 web u=anna Consent Withdrawn purpose=marketing
        10:34 web u=anna Order Tracked
        """
    )
    assert world.occurrences("seen") == ["10:02 seen anna: 10:02", "10:32 seen anna: 10:32"]


def faults_of(more: str, steps: str = "a: Order Tracked", **changes: str) -> list[str]:
    with pytest.raises(Invalid) as found:
        project({**FILES, **moment("tried", steps, more=more), **changes})
    return [str(each) for each in found.value.faults]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "context: [devise]",
            "11:13: got 'devise', must be a field of Order Tracked. Hint: did",
        ),
        ("context: [device, device]", "11:21: got 'device', must be named once."),
        ("context: [1 + 1]", "11:13: got '1 + 1', must be a field, such as device, or"),
        ("context: [occurred_at]", "11:13: got 'occurred_at', must be a single value"),
        (
            "context: [aggregate.n]",
            "11:13: got 'aggregate.n', must be another name, as no",
        ),
        (
            "context: [segment.klub]",
            "11:13: got 'segment.klub', must be a declared segment. Hint: did",
        ),
        (
            "aggregates: {n: count of Order Tracked over 1 day}",
            "11:19: got the aggregate 'n' that",
        ),
        (
            "aggregates: {n: count of Order Traced over 1 day}",
            "11:28: got 'Order Traced', must",
        ),
        ("who: staffing(late) > 1", "11:17: got 'late', must be a step's field or a customer's trait."),
        ("who: staffing() > 1", "11:8: got staffing of no pool, must be staffing of a text"),
        ("who: staffed('a') > 1", "11:8: got 'staffed', must be one of: and, or, not"),
    ],
)
def test_faults_have_their_place(more: str, expected: str) -> None:
    (fault,) = faults_of(more)
    assert fault.startswith("moments/tried.yaml:" + expected)


def test_a_step_cannot_be_called_as_what_is_around_it() -> None:
    for name in ("aggregate", "segment", "consent", "context", "customer"):
        (fault,) = faults_of("", f"{name}: Order Tracked")
        assert f"must be a step name of its own, and not {name}." in fault


def test_a_report_of_staffing_is_no_step() -> None:
    (fault,) = faults_of("", "a: Staffing Reported")
    assert "got 'Staffing Reported', must be an event of customers" in fault


def test_a_template_and_an_answer_see_only_what_there_is() -> None:
    misspelt = {"templates/call.liquid": TEMPLATE.replace("context.channel", "context.chanel")}
    unknown = action("gift", more="eligible: aggregate.spend >= 10")
    with pytest.raises(Invalid) as found:
        project({**FILES, **misspelt, **unknown})
    said = [str(each) for each in found.value.faults]
    assert len(said) == 2
    assert "got 'aggregate.spend', must be a declared aggregate" in said[0]
    assert "got 'context.chanel', must be an entry of the moment's identify: context" in said[1]


def test_who_asks_why_sees_what_conditions_looked_up() -> None:
    busy = moment(
        "busy",
        "a: Help Searched where staffing('kitchen') < 0.7 and aggregate.n = 0",
        answers="gift",
        more="aggregates: {n: count of Order Tracked over 1 hour,"
        " spent: sum total of Order Completed over 1 day}",
    )
    world = World(project({**FILES, **busy}))
    world.live(STORY)
    found = why_moment(world.engine, LeafId(world.node("anna")), "busy")
    text = "\n".join(why_words(found, world.engine.project.moments["busy"], {}, "UTC"))
    assert found.occurrences == [] and "the staffing of kitchen" in text and "0.75" in text, text
