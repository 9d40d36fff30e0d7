"""Conditions: what they say of an event, which faults they name, and that SQL agrees (DuckDB)."""

from __future__ import annotations

import random

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetki.events.catalogue import Catalogue, EventSpec
from hetki.events.event import Event, EventId, LeafId
from hetki.events.fields import Fields, instant_of
from hetki.patterns.condition import CHARS_MAX, Condition, holds, parse, step_fields
from hetki.patterns.evaluate import like
from hetki.patterns.run import Bound
from hetki.patterns.scope import Scope
from hetki.patterns.words import words

CATALOGUE = Catalogue(
    {
        "Help Searched": EventSpec(
            "Help Searched",
            fields={
                "n_results": "integer",
                "price": "number",
                "query": "text",
                "order_id": "text",
                "is_first": "boolean",
                "promised_at": "time",
                "products": "list",
            },
        ),
        "Chat Started": EventSpec("Chat Started", fields={"query": "number", "order_id": "text"}),
    }
)
SCOPE = Scope(CATALOGUE, ("Help Searched",), {"late": ("Help Searched",)})
EVENT = {
    "n_results": 0,
    "price": 12.5,
    "query": "Where is it",
    "order_id": "o1",
    "is_first": True,
    "promised_at": "2026-01-01T12:00:00+02:00",
    "products": [1],
}
CONTEXT = {"device": {"type": "mobile"}, "locale": "fi-FI", "page": {"path": "/help"}}
AT = instant_of("2026-01-01T10:10:00Z")
TRAITS = {"plan": "private", "n_orders": 3, "member_since": "2025-06-01", "vip": True}


def condition(text: str, scope: Scope = SCOPE) -> Condition:
    parsed, faults = parse(text, scope, str)
    assert parsed is not None, "\n".join(map(str, faults))
    return parsed


def fields(values: dict[str, object]) -> Fields:
    raw = msgspec.json.encode(values)
    assert AT is not None
    return Fields(Event("web", "m", "site", "Help Searched", AT, AT, {}, raw, msgspec.json.encode(CONTEXT)))


def bound(values: dict[str, object]) -> list[Bound]:
    return [Bound("late", EventId(b""), LeafId(b""), 0, "web", 0, values)]


TRUE = """
n_results = 0 and device = 'mobile'
channel = 'site' and source = 'web' and locale = 'fi-FI' and page_path = '/help'
n_results < 1 and n_results <= 0 and price > 12 and price >= 12.5 and price <> 3 and price != 3
not n_results = 1
is_first
is_first = true and not is_first = false
query like 'Where%' and query like '%is%' and query not like '%was%' and query like 'Where__s it'
lower(query) = 'where is it'
length(query) = 11
abs(n_results - 3) = 3 and -price = -12.5
price between 12.5 and 13 and not price between 13 and 14
query in ('a', 'Where is it') and n_results not in (1, 2)
price + 1 = 13.5 and price - 1 = 11.5 and price * 2 = 25 and price / 2 = 6.25
coalesce(late.query, query) = 'Where is it'
late.query is null and query is not null and products is not null
late.order_id = order_id
customer.plan = 'private' and customer.n_orders >= 3 and customer.vip
customer.member_since < promised_at
promised_at = '2026-01-01T10:00:00Z'
occurred_at - promised_at = 600
occurred_at - promised_at > interval '9 minutes'
promised_at + interval '10 minutes' = occurred_at
occurred_at - interval 10 minutes = promised_at
(n_results = 1 or price > 1) and "query" <> ''
"""

#: SQL's null logic: neither of these, nor its opposite, is true.
UNKNOWN = """
late.query = 'x'
late.query = query
late.n_results > 1
late.n_results between 1 and 2
late.query in ('x', 'y')
late.query like '%'
late.is_first
customer.colour = 'red'
customer.plan > 3
customer.plan = promised_at
price / n_results > 1
price > 1 and late.query = 'x'
price < 1 or late.query = 'x'
lower(late.query) = 'x'
"""


@pytest.mark.parametrize("text", TRUE.strip().splitlines())
def test_true(text: str) -> None:
    test = condition(text).test
    assert test(fields(EVENT), bound({"order_id": "o1"}), TRAITS) is True
    assert condition(f"not ({text})").test(fields(EVENT), bound({"order_id": "o1"}), TRAITS) is False


@pytest.mark.parametrize("text", UNKNOWN.strip().splitlines())
def test_unknown_is_not_true_and_not_false(text: str) -> None:
    assert condition(text).test(fields(EVENT), bound({"order_id": "o1"}), TRAITS) is None
    assert condition(f"not ({text})").test(fields(EVENT), bound({"order_id": "o1"}), TRAITS) is None


WRONG: list[dict[str, object]] = [
    {"n_results": "0", "price": "12", "query": 5, "is_first": 1, "promised_at": 5},
    {"n_results": True, "price": [1], "query": None, "is_first": "true", "promised_at": "tomorrow"},
    {"n_results": 10**30, "price": {}, "query": {"a": 1}, "is_first": [], "promised_at": True},
    {},
]


@pytest.mark.parametrize("values", WRONG)
@pytest.mark.parametrize(
    "text", ["n_results >= 0", "price < 99", "query <> 'x'", "is_first = true", "promised_at > '2020-01-01'"]
)
def test_a_value_of_the_wrong_type_reads_as_null(values: dict[str, object], text: str) -> None:
    assert condition(text).test(fields(values), bound({}), {}) is None


FAULTS = """
n_result = 0 -> 0: got 'n_result', must be a field of Help Searched. Hint: did you mean 'n_results'.
price > 1 and qery = 'x' -> 14: got 'qery', must be a field of Help Searched. Hint: did you mean 'query'.
late.ordr_id = '1' -> 5: got 'ordr_id', must be a field of Help Searched. Hint: did you mean 'order_id'.
lte.order_id = '1' -> 0: got 'lte', must be a step before this one, or customer. Hint: did you mean 'late'.
query = 5 -> 0: got text compared with number, must be two values of one type.
1 = 1 and query = price -> 10: got text compared with number, must be two values of one type.
is_first > true -> 0: got true or false >, must be = or <> between true and false.
promised_at < 'soon' -> 0: got 'soon', must be a time such as '2026-01-31T12:00:00Z'.
products = 'x' -> 0: got a comparison of a list, must be is null or is not null.
query = null -> 0: got a comparison with null, must be is null or is not null.
price > 1 && query = 'x' -> 10: got '&&', must be a condition such as n_results = 0 and device = 'mobile'. Hint: write and.
(price > 1 or (query = 'x' and price < 9) -> 0: got a bracket that is not closed, must be a condition such as n_results = 0 and device = 'mobile'.
properties.query = 'x' -> 0: got 'properties', must be a step before this one, or customer. Hint: a field of the event stands by its name alone.
price -> 0: got a number, must be true or false; compare it with something.
price = 1 or query -> 13: got a text, must be true or false; compare it with something.
price > interval '3 dys' -> 0: got '3 dys', must be a duration such as '10 minutes' or '1 day 2 hours'. Hint: did you mean 'day'.
query + 1 = 2 -> 0: got text + number, must be numbers, or times and intervals.
promised_at + promised_at = 1 -> 0: got time + time, must be numbers, or times and intervals.
lower(price) = 'x' -> 6: got lower of a number, must be lower of a text.
query like price -> 0: got like with a computed text, must be like with a text in quotes.
query = mobile -> 8: got 'mobile', must be a field of Help Searched. Hint: a text stands in single quotes; else add the field to a file in events/, or use one of channel, device, is_first, locale, n_results, occurred_at, order_id, page_path, price, products, promised_at, query.
occurred_at - late.occurred_at < 1 hour -> 35: got 'hour', must be a condition such as n_results = 0 and device = 'mobile'. Hint: a duration is written interval '10 minutes'.
occurred_at - late.occurred_at < '1 hour' -> 0: got number compared with text, must be two values of one type. Hint: a duration is written interval '10 minutes'.
price = = 1 -> 8: got '=', must be a condition such as n_results = 0 and device = 'mobile'.
price > -> 6: got nothing after '>', must be a condition such as n_results = 0 and device = 'mobile'.
query = 'x -> 8: got a text that is not closed, must be a condition such as n_results = 0 and device = 'mobile'.
"""  # noqa: E501


@pytest.mark.parametrize("line", FAULTS.strip().splitlines())
def test_faults_name_their_place(line: str) -> None:
    text, _, expected = line.partition(" -> ")
    parsed, faults = parse(text, SCOPE, str)
    assert parsed is None
    assert [str(fault) for fault in faults] == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "exists(select 1)",
        "query in (select query from events)",
        "upper(query) = 'X'",
        "read_csv('x') = 1",
        "price::text = 'x'",
        "case when is_first then true end",
        "query ilike 'x'",
        "price % 2 = 1",
        "query || 'x' = 'y'",
        "length(query, query) = 1",
        "price between symmetric 1 and 2",
        "query like any ('x')",
        "a.b.c = 1",
        "is_first is true",
        "price in ()",
        "query = ?",
        "query = @x",
        "products[0] = 1",
        "select 1",
        "query = 'x'; drop table events",
        "",
        "   ",
        "price = 1e999",
        "price = 12345678901234567890",
    ],
)
def test_nothing_else_is_said(text: str) -> None:
    parsed, faults = parse(text, SCOPE, str)
    assert parsed is None and len(faults) >= 1


def test_all_faults_at_once() -> None:
    faults = parse("qery = 'x' and n_result = 1 and late.foo = 2 and price = 'x'", SCOPE, str)[1]
    assert [fault.where for fault in faults] == ["0", "15", "37", "49"]


def test_a_field_must_be_in_every_event_at_hand_and_of_one_type() -> None:
    both = Scope(CATALOGUE, ("Help Searched", "Chat Started"))
    assert condition("order_id = 'o1'", both).references() == []
    assert "must be a field of Chat Started" in str(parse("n_results = 1", both, str)[1][0])
    assert "of one type" in str(parse("query = 'x'", both, str)[1][0])


def test_without_an_event_only_steps_and_traits_are_known() -> None:
    scope = Scope(CATALOGUE, (), {"late": ("Help Searched",)})
    assert "did you mean late.price or customer.price" in str(parse("price > 1", scope, str)[1][0])
    eligible = condition("late.price > 1 and customer.vip", scope)
    assert eligible.references() == [("late", "price")]
    assert holds(eligible, bound({"price": 2}), {"vip": True})
    assert not holds(eligible, bound({}), {"vip": True})
    assert holds(None, [], {})


def test_the_steps_fields_of_a_text_before_it_is_checked() -> None:
    assert step_fields("a.x = 1 and lower(b.y) = 'z' or c and customer.plan = 'p'") == [
        ("a", "x"),
        ("b", "y"),
    ]
    assert step_fields("a.x = = 1") == []


@pytest.mark.parametrize(
    "text",
    [
        "price = 1 and " * 200 + "price = 1",
        "(" * 60 + "price = 1" + ")" * 60,
        "not " * 240 + "is_first",
        "- " * 240 + "price = 1",
        "1" + " + 1" * 140 + " = price",
        "price in (" + ", ".join("1" * 3 for _ in range(149)) + ")",
        "x" * (CHARS_MAX + 1),
        "case when " * 99,
        "interval " * 99,
        "\0 = 'x'",
        "query = '\ud800'",
        "/* " * 99,
    ],
)
def test_large_and_deep_conditions_are_refused_or_run_but_never_break(text: str) -> None:
    parsed, faults = parse(text, SCOPE, str)
    assert (parsed is None) == bool(faults)
    if parsed is not None:
        assert parsed.test(fields(EVENT), bound({}), {}) in (True, False, None)
        assert words(parsed.tree, {})


TOKENS = """
    price query is_first late.price = <> < and or not ( ) in between like is null 'x' 1 - + * , lower(
    coalesce( interval promised_at % || case [ ; @ : . " `
""".split()


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=14).map(" ".join) | st.text(max_size=30))
def test_any_text_is_a_condition_or_has_faults_within_it(text: str) -> None:
    parsed, faults = parse(text, SCOPE, str)
    assert (parsed is None) == bool(faults)
    assert all(0 <= int(fault.where) <= len(text) for fault in faults)
    if parsed is not None:
        assert parsed.test(fields(EVENT), bound({}), {}) in (True, False, None)
        assert words(parsed.tree, {"late": "Delivery Delayed"})


@given(st.text("ab%_", max_size=8), st.text("ab", max_size=10))
def test_like_equals_the_one_by_search(pattern: str, text: str) -> None:
    def fits(p: str, rest: str) -> bool:
        if not p:
            return not rest
        if p[0] == "%":
            return any(fits(p[1:], rest[n:]) for n in range(len(rest) + 1))
        return bool(rest) and p[0] in ("_", rest[0]) and fits(p[1:], rest[1:])

    assert like(pattern)(text) == fits(pattern, text)


def test_like_stays_quick_where_a_regular_expression_would_not() -> None:
    assert not like("%a" * 30 + "b")("a" * 5000)


# Our logic against SQL's: random conditions over random rows, in DuckDB and here.

VALUES = {
    "price": [None, 0, 1, 2.5, -1],
    "query": [None, "", "a", "ab", "B_"],
    "is_first": [None, True, False],
}


def random_number(draw: random.Random, depth: int) -> str:
    if depth <= 0 or draw.random() < 0.5:
        return draw.choice(["price", "price", "0", "1", "2.5"])
    one, other = random_number(draw, depth - 1), random_number(draw, depth - 1)
    return draw.choice(
        [
            f"({one} {draw.choice('+-*')} {other})",
            f"abs({one})",
            f"coalesce({one}, {other})",
            "length(query)",
            f"({one} / 2)",
        ]
    )


def random_condition(draw: random.Random, depth: int = 3) -> str:
    if depth > 0 and draw.random() < 0.6:
        one, other = random_condition(draw, depth - 1), random_condition(draw, depth - 1)
        return draw.choice(
            [f"({one} and {other})", f"({one} or {other})", f"(not {one})", f"{one} and {other}"]
        )
    number, text = random_number(draw, depth), draw.choice(["query", "lower(query)", "coalesce(query, 'a')"])
    sign = draw.choice(["=", "<>", "<", "<=", ">", ">="])
    negated = draw.choice(["", "not "])
    return draw.choice(
        [
            f"({number} {sign} {random_number(draw, 1)})",
            f"({text} {sign} {draw.choice(['query', repr('a'), repr('ab')])})",
            f"({number} {negated}in (0, {random_number(draw, 1)}, 2.5))",
            f"({number} {negated}between {random_number(draw, 1)} and 2)",
            f"({text} {negated}like '{draw.choice(['a%', '%b', '_', '%', 'a_', '%B%'])}')",
            f"({draw.choice([number, text, 'is_first'])} is {negated}null)",
            "is_first",
            "(is_first <> true)",
        ]
    )


def test_duckdb_agrees() -> None:
    draw = random.Random(7)
    rows = [{name: draw.choice(values) for name, values in VALUES.items()} for _ in range(30)]
    texts = [random_condition(draw) for _ in range(300)]
    with duckdb.connect() as database:
        database.execute("create table events (n integer, price double, query varchar, is_first boolean)")
        database.executemany(
            "insert into events values (?, ?, ?, ?)", [(n, *row.values()) for n, row in enumerate(rows)]
        )
        for text in texts:
            answers = database.execute(f"select {text} from events order by n").fetchall()
            parsed, faults = parse(text, SCOPE, str)
            if parsed is None:  # one without sense, and SQL says the same
                said = faults[0].got
                assert ("never" in said) not in [answer for (answer,) in answers], text
                continue
            test = parsed.test
            got = [test(fields(row), (), {}) for row in rows]
            assert got == [answer for (answer,) in answers], text
