"""Patterns: what a list of steps becomes, and the faults it may have, each with its place."""

from __future__ import annotations

import pytest
from streams import entries_of

from hetki.events.catalogue import SHIPPED, Catalogue, EventSpec, FieldType
from hetki.patterns.choices import parse_outcome
from hetki.patterns.condition import parse
from hetki.patterns.pattern import parse_pattern
from hetki.patterns.sequence import Absence, Pattern

FIELDS: dict[str, FieldType] = {
    "order_id": "text",
    "n_minutes": "number",
    "promised_at": "time",
    "products": "list",
}
CATALOGUE = Catalogue(
    {
        name: EventSpec(name, name, FIELDS)
        for name in ("Delivery Delayed", "Help Searched", "Order Tracked", "Chat Started", "Trick or Treat")
    }
)


def parsed(
    steps: str,
    within: str = "1 day",
    repeat: str = "every time",
    who: str = "",
    captures: str = "",
    match: str = "first_per_start",
) -> tuple[Pattern | None, list[str]]:
    """A fault reads `place: got ...`, a place `number+offset` or `key+offset`."""
    wanted = [tuple(each.split(".")) for each in captures.split()]
    pattern, faults = parse_pattern(
        entries_of(steps),
        who,
        within,
        repeat,
        CATALOGUE,
        [(step, field) for step, field in wanted],
        lambda *keys, offset=0: f"{keys[1] if len(keys) > 1 else keys[0]}+{offset}",
        match,
    )
    return pattern, [str(fault) for fault in faults]


def compiled(steps: str, **options: str) -> Pattern:
    pattern, faults = parsed(steps, **options)
    assert pattern is not None, "\n".join(faults)
    return pattern


LATE = """late: Delivery Delayed where n_minutes >= 15
| searched: Help Searched or Trick or Treat where order_id = late.order_id
| no answered: Order Tracked where n_minutes = 2 or Chat Started, for 10 minutes after late"""


def test_a_pattern_knows_what_the_matcher_looks_up() -> None:
    pattern = compiled(LATE, repeat="once per late.promised_at", captures="late.n_minutes nobody.x")
    assert pattern.names == set(CATALOGUE.events)
    assert [step.captures for step in pattern.events] == [("n_minutes", "order_id", "promised_at"), ()]
    assert pattern.events[0].anchors == (0,) and pattern.ending == (0,) and pattern.stages[1].waits == ()
    (absence,) = pattern.timed
    assert (absence.name, absence.anchor, absence.follows, absence.for_s) == ("answered", 0, 2, 600)
    assert [(choice.event, choice.where is None) for choice in absence.choices] == [
        ("Order Tracked", False),
        ("Chat Started", True),
    ]
    assert pattern.within_s == 86_400 and pattern.repeat.once == "field"


def test_a_where_belongs_to_the_events_before_it() -> None:
    outcome, faults = parse_outcome(
        "no Help Searched where n_minutes = 1 or order_id = 'a or Chat Started' "
        "or Order Tracked or Trick or Treat where n_minutes in (1, 2) within 24 hours",
        CATALOGUE,
        str,
    )
    assert outcome is not None, faults
    assert outcome.negated and outcome.within_s == 86_400
    assert [(choice.event, choice.where.text if choice.where else "") for choice in outcome.choices] == [
        ("Help Searched", "n_minutes = 1 or order_id = 'a or Chat Started'"),
        ("Order Tracked", "n_minutes in (1, 2)"),
        ("Trick or Treat", "n_minutes in (1, 2)"),
    ]


def test_an_absence_by_a_time_captures_it() -> None:
    pattern = compiled("late: Delivery Delayed | no told: Chat Started, by late.promised_at", within="")
    assert pattern.events[0].captures == ("promised_at",) and pattern.within_s is None
    assert isinstance(pattern.steps[1], Absence) and pattern.steps[1].by == "promised_at"


def test_a_condition_about_an_occurrence_sees_all_event_steps() -> None:
    scope = compiled(LATE).scope(CATALOGUE)
    eligible, faults = parse("late.n_minutes > 1 and searched.order_id = late.order_id", scope, str)
    assert eligible is not None, faults
    assert eligible.references() == [("late", "n_minutes"), ("late", "order_id"), ("searched", "order_id")]


STEP_FAULTS = """
late: Delivery Delaid -> 0+0: got 'Delivery Delaid', must be an event of the catalogue. Hint: did you mean 'Delivery Delayed'.
late: Delivery Delayed where n_minute > 1 -> 0+23: got 'n_minute', must be a field of Delivery Delayed. Hint: did you mean 'n_minutes'.
late: Delivery Delayed or Chat Startd where n_minutes > 1 -> 0+20: got 'Chat Startd', must be an event of the catalogue. Hint: did you mean 'Chat Started'.
late: Delivery Delayed, for 3 days -> 0+16: got ', for 3 days', must be the end of the step: only a silence ('no name: ...') has a time.
late:  -> 0+0: got nothing, must be an event of the catalogue. Hint: known are 'Chat Started', 'Delivery Delayed', 'Help Searched', 'Order Tracked', 'Trick or Treat'.
Late: Chat Started -> 0+0: got 'Late', must be a step name of small letters, digits and _, such as late.
customer: Chat Started -> 0+0: got 'customer', must be a step name of its own, and not customer.
a: Chat Started | a: Chat Started -> 1+0: got 'a', must be a step name of its own, and not customer.
no a: Chat Started, for 3 days -> 0+0: got the silence 'a' first, must be an event, or a silence before it, such as: Store Visited, for 7 days before searched.
a: Chat Started | b: Help Searched where order_id = c.order_id -> 1+31: got 'c', must be a step before this one, or customer. Hint: known are 'a', 'customer'.
a: Chat Started | no b: Help Searched, for 3 dys -> 1+19: got '3 dys', must be a duration such as '10 minutes' or '1 day 2 hours'. Hint: did you mean 'day'.
a: Chat Started | no b: Help Searched, for 0 days -> 1+19: got '0 days', must be longer than nothing.
a: Chat Started | no b: Help Searched, for 1 day after c -> 1+31: got 'c', must be an event step before this one. Hint: known are 'a'.
a: Chat Started | no b: Help Searched, by a.promise -> 1+20: got 'promise', must be a time of Chat Started. Hint: did you mean 'promised_at'.
a: Chat Started | no b: Help Searched, by a.n_minutes -> 1+20: got 'n_minutes', which is number, must be a time of Chat Started. Hint: known are 'occurred_at', 'promised_at'.
a: Chat Started | no b: Help Searched, until Friday -> 1+15: got 'until Friday', must be for and a duration, or by and a step's time, as in: for 10 minutes after late.
a: 2 times Chat Started until Chat Started -> 0+0: got several events until the first of them, must be until another event, or until one with a where: this can never match.
a: Chat Started where -> 0+18: got nothing, must be a condition such as n_results = 0 and device = 'mobile'.
a: Chat Started if device = 'mobile' -> 0+0: got "Chat Started if device = 'mobile'", must be an event of the catalogue. Hint: a condition begins with where.
a: Chat Started | no b: Help Searched, for 3 days where n_results = 0 -> 1+19: got '3 days where n_results = 0', must be a duration such as '10 minutes' or '1 day 2 hours'. Hint: a where stands before the time.
a: Chat Started | not b: Help Searched -> 1+0: got 'not b', must be a step name of small letters, digits and _, such as late. Hint: a silence is written no b.
a: Chat Started | no b: Help Searched -> 1+0: got a silence at the end without a deadline, must be followed by an event step, or end with a time, such as: for 10 minutes.
a: Chat Started | no b: Help Searched or Order Tracked | c: Help Searched -> 1+0: got a silence of what the step c needs, must be another event, or have a where: this can never match.
a: Chat Started | no b: Help Searched, for 1 day | c: Help Searched -> 2+0: got silences as long as within before a step, must be shorter than within together, as the next event step could never bind.
a: Chat Started | no b: Help Searched, for 12 hours | c: Help Searched | no d: Chat Started, for 12 hours | e: Chat Started -> 4+0: got silences as long as within before a step, must be shorter than within together, as the next event step could never bind.
a: Chat Started | b: Help Searched & no c: Help Searched, for 1 day | d: Chat Started -> 2+0: got silences as long as within before a step, must be shorter than within together, as the next event step could never bind.
a: Chat Started | no b: Help Searched, for 2 hours | c: Help Searched within 2 hours -> 2+0: got a step whose within ends before it may come, must be longer than the silences that it waits for.
a: Chat Started | b: Help Searched | no c: Help Searched, for 2 hours after a | d: Help Searched within 1 hour of a -> 3+0: got a step whose within ends before it may come, must be longer than the silences that it waits for.
a: Chat Started | b: Help Searched | no c: Order Tracked where order_id = b.order_id, for 1 hour after a -> 2+31: got 'b', must be a or a step before it, as the silence is watched from a on.
a: next Chat Started -> 0+0: got next in the first step, must be an event: nothing stands before it.
a: 0 times Chat Started -> 0+0: got '0 times', must be from 2 to 100 times, the fewest first, such as 2 to 4 times.
a: 4 to 2 times Chat Started -> 0+0: got '4 to 2 times', must be from 2 to 100 times, the fewest first, such as 2 to 4 times.
a: Chat Started | b: next 101 times Chat Started -> 1+5: got '101 times', must be from 2 to 100 times, the fewest first, such as 2 to 4 times.
a: at least 2 to 3 times Chat Started -> 0+0: got 'at least 2 to 3 times', must be at least 3 times, or 2 to 4 times.
a: 3 times Chat Startd -> 0+8: got 'Chat Startd', must be an event of the catalogue. Hint: did you mean 'Chat Started'.
a: 3 times Chat Started | b: Help Searched where order_id = a.first.ordr_id -> 1+39: got 'ordr_id', must be a field of Chat Started. Hint: did you mean 'order_id'.
a: Chat Started | b: Help Searched where order_id = a.first.order_id -> 1+31: got 'a.first.order_id', must be a field of the step; .first and .last are of steps that bind several events.
a: Chat Started | b: Help Searched where n_minutes = a.n -> 1+34: got 'n', must be a field of Chat Started. Hint: known are 'channel', 'device', 'locale', 'n_minutes', 'occurred_at', 'order_id', 'page_path', 'products', 'promised_at', 'source'.
a: Chat Started and Help Searched -> 0+0: got 'Chat Started and Help Searched', must be an event of the catalogue. Hint: for both, in any order, put two names into one entry: {one: ..., other: ...}.
a: 3x Chat Started -> 0+0: got '3x Chat Started', must be an event of the catalogue. Hint: a count is written 3 times Help Searched, 2 to 4 times, or at least 3 times.
a: three times Chat Started -> 0+0: got 'three times Chat Started', must be an event of the catalogue. Hint: a count is written 3 times Help Searched, 2 to 4 times, or at least 3 times.
a: Chat Started, n_minutes = 3 -> 0+12: got ', n_minutes = 3', must be the end of the step: only a silence ('no name: ...') has a time. Hint: a condition begins with where.
a: Chat Started within 1 hour -> 0+12: got within in the first step, must be a step after the first one: the time runs from a step before.
a: Chat Started | b: Help Searched within 1 hor -> 1+21: got '1 hor', must be a duration such as '10 minutes' or '1 day 2 hours'. Hint: did you mean 'hour'.
a: Chat Started | b: Help Searched within 1 hour of c -> 1+31: got 'c', must be an event step before this one. Hint: known are 'a'.
a: Chat Started | b: Help Searched within 2 days -> 1+0: got a step with a longer within, must be no longer than within, which ends the whole.
a: Chat Started & no b: Help Searched -> 0+0: got a silence in the first step, must be events only: a silence starts with a step before it. Hint: a step of its own begins with a dash.
c: Chat Started | a: Chat Started & no b: Help Searched -> 1+13: got no time, must be for and a duration, or by and a step's time, as in: for 10 minutes after late.
c: Chat Started | a: Chat Started & no b: Help Searched, for 1 day after c -> 1+25: got 'after', must be a duration alone: as a part of a step it starts when the step is awaited.
a: maybe Chat Started -> 0+0: got maybe in the first step, must be an event: nothing stands before it.
a: Chat Started | b: maybe Help Searched -> 1+0: got maybe in the last step, must be followed by a step, or match: all: nothing waits for a last step that may be missing.
a: Chat Started | b: maybe Help Searched | no c: Order Tracked, for 1 day | d: Chat Started -> 2+19: got a silence after a step that may be missing, must be after and a step that always comes, such as: for 3 days after late.
a: Chat Started | b: maybe Help Searched | no c: Order Tracked, for 1 day after b | d: Chat Started -> 2+31: got 'b', must be a step that always comes: b may be missing.
a: Chat Started | b: maybe Help Searched | c: Order Tracked within 1 hour | d: Chat Started -> 2+13: got within without a step, must be of and a step that always comes, as b may be missing.
a: Chat Started | b: any Help Searched -> 1+0: got any in a step, must be match: all, as otherwise the first event that fits is bound.
a: Chat Started | b: Help Searched until Order Tracked -> 1+13: got until after a single event, must be several events, such as: at least 2 times Help Searched until Contact Started.
a: 3 times in a row any Chat Started -> 0+17: got any, must be in a row, or any: not both.
a: 2 times Chat Started where order_id <> b.order_id -> 0+39: got 'b', must be a step before this one, or customer. Hint: known are 'a', 'customer'.
a: Chat Started | any(b: Help Searched) -> 1+0: got any with too few parts, must be named parts of which one is enough, as in: {any: {paid: Order Completed, left: Order Cancelled}}.
a: Chat Started | any(b: Help Searched & c: Order Tracked) | no d: Chat Started, for 1 day after c -> 2+30: got 'c', must be a step that always comes: c may be missing.
again[a: Chat Started] -> 0+0: got again in the first step, must be a step before the group; each first event opens a try of its own by itself.
a: Chat Started | again[b: Help Searched then no c: Order Tracked] -> 1+0: got a silence that ends a group, must be a silence with a time, or a step after it in the group.
a: Chat Started | again[no c: Order Tracked, by a.promised_at] -> 1+0: got a group that nothing passes, must be an event, or a silence with a time.
a: Chat Started | again[b: maybe Help Searched then c: Order Tracked] -> 1+0: got a group with a step that may be missing, must be steps that always come, first and last.
a: Chat Started & b: Help Searched where order_id = a.order_id -> 0+31: got 'a', must be customer, as no step is known here. Hint: known are 'customer'.
no a: Chat Started, for 1 day before c | b: Help Searched -> 0+31: got 'c', must be the first event step, b.
b: Help Searched | no a: Chat Started, for 1 day before b -> 1+24: got before, must be after and a step before this one: only a silence before the first step looks back.
no a: Chat Started, for 1 day before b -> steps+0: got no event step, must be at least one event.
"""  # noqa: E501


@pytest.mark.parametrize("line", STEP_FAULTS.strip().splitlines())
def test_faults_of_steps(line: str) -> None:
    steps, _, expected = line.partition(" -> ")
    pattern, faults = parsed(steps)
    assert pattern is None
    assert faults == [expected]


def test_a_group_of_silences_in_the_first_step_is_a_fault() -> None:
    _, faults = parsed(
        "again[no a: Chat Started, for 1 day & no b: Help Searched, for 1 day] | c: Chat Started"
    )
    assert [each.partition(",")[0] for each in faults] == [
        "0+0: got again in the first step",
        "0+0: got a silence in the first step",
        "0+0: got a silence in the first step",
    ]


OTHER_FAULTS = """
within:  -> within+0: got nothing, must be a duration from the first event step to the last, such as within: 1 day.
within: 1 dya -> within+0: got '1 dya', must be a duration such as '10 minutes' or '1 day 2 hours'. Hint: did you mean 'day'.
within: 0 days -> within+0: got '0 days', must be longer than nothing.
repeat: twice -> repeat+0: got 'twice', must be every time, once per late.order_id, or once per 7 days.
repeat: once per 0 days -> repeat+9: got '0 days', must be longer than nothing.
repeat: once per order_id -> repeat+9: got 'order_id', must be a field of an event step, such as late.order_id. Hint: known are 'late', 'searched'.
repeat: once per late.ordr_id -> repeat+14: got 'ordr_id', must be a field of Delivery Delayed that is no list and no object. Hint: did you mean 'order_id'.
repeat: once per late.products -> repeat+14: got 'products', must be a field of Delivery Delayed that is no list and no object.
match: every -> match+0: got 'every', must be first_per_start, one_open or all. Hint: known are 'all', 'first_per_start', 'one_open'.
who: plan = 'private' -> who+0: got 'plan', must be a step's field or a customer's trait. Hint: did you mean customer.plan.
who: customer.plan = late.order_id -> who+16: got 'late', must be customer, as no step is known here. Hint: known are 'customer'.
"""  # noqa: E501


@pytest.mark.parametrize("line", OTHER_FAULTS.strip().splitlines())
def test_faults_beside_the_steps(line: str) -> None:
    option, _, expected = line.partition(" -> ")
    key, _, text = option.partition(":")
    assert parsed(LATE, **{key: text.strip()}) == (None, [expected])


def test_too_many_steps_and_none() -> None:
    assert parsed("")[1] == ["steps+0: got 0 steps, must be 1 to 16 steps."]
    assert "17 steps" in parsed("|".join(f"s{n}: Chat Started" for n in range(17)))[1][0]


def test_a_silence_as_a_part_after_a_varying_number_is_not_for_every_way() -> None:
    steps = "a: 2 to 3 times Chat Started | any(b: Help Searched & no c: Order Tracked, for 1 day)"
    assert compiled(steps).stages[1].is_any
    assert parsed(steps, match="all")[1] == [
        "1+0: got a silence after a step with a varying number of events, "
        "must be after a step with a fixed number of events, as match is all."
    ]


def test_steps_that_each_have_a_limit_need_no_within() -> None:
    assert compiled("a: Chat Started | b: Help Searched within 1 hour", within="").within_s is None
    assert "got nothing" in parsed("a: 2 times Chat Started", within="")[1][0]
    assert "got nothing" in parsed("a: Chat Started & b: Help Searched", within="")[1][0]


def test_what_is_kept_of_several_events() -> None:
    pattern = compiled(
        "a: 2 to 4 times Chat Started | b: Help Searched where order_id = a.first.order_id and a.n > 2",
        captures="a.n_minutes a.n",
    )
    step = pattern.events[0]
    assert (step.least, step.most, step.captures, step.firsts) == (2, 4, ("n_minutes",), ("order_id",))
    assert step.counts and not pattern.stages[0].is_plain


def test_one_event_step_needs_no_within() -> None:
    assert compiled("a: Chat Started", within="").within_s is None


OUTCOME_FAULTS = """
Chat Started -> 11: got nothing, must be within and a duration, as in: Order Completed within 7 days.
Chat Startd within 1 day -> 0: got 'Chat Startd', must be an event of the catalogue. Hint: did you mean 'Chat Started'.
Chat Started within 1 dy -> 20: got '1 dy', must be a duration such as '10 minutes' or '1 day 2 hours'. Hint: did you mean 'day'.
Chat Started where late.order_id = order_id within 1 day -> 19: got 'late', must be customer, as no step is known here. Hint: known are 'customer'.
no Chat Started where order_id = 1 within 1 day -> 22: got text compared with number, must be two values of one type.
"""  # noqa: E501


@pytest.mark.parametrize("line", OUTCOME_FAULTS.strip().splitlines())
def test_faults_of_outcomes(line: str) -> None:
    text, _, expected = line.partition(" -> ")
    outcome, faults = parse_outcome(text, CATALOGUE, str)
    assert outcome is None
    assert [str(fault) for fault in faults] == [expected]


@pytest.mark.parametrize(
    ("step", "more", "is_refused"),
    [
        ("Page Viewed", {}, True),
        ("Page Viewed or Screen Viewed", {}, True),
        ("Page Viewed where page_path = '/help'", {}, False),
        ("Page Viewed or Chat Started", {}, False),
        ("2 times Page Viewed", {"within": "1 hour"}, True),
        ("Page Viewed", {"repeat": "once per 1 day"}, False),
        ("Page Viewed", {"who": "customer.plan = 'private'"}, False),
        ("Complaint Opened", {}, False),
    ],
)
def test_a_moment_at_every_page_is_refused(step: str, more: dict[str, str], is_refused: bool) -> None:
    options = {"who": "", "within": "", "repeat": "every time", **more}
    pattern, faults = parse_pattern(
        [{"seen": step}],
        options["who"],
        options["within"],
        options["repeat"],
        SHIPPED,
        (),
        lambda *keys, offset=0: "here",
    )
    assert (pattern is None) == is_refused, faults
    assert not is_refused or "this would match everything that anybody does" in str(faults[0])
