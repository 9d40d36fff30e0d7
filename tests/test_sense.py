"""Conditions without sense are refused with their place; what something can fulfil never is."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
import sqlglot
from sqlglot import expressions as exp
from test_condition import SCOPE, bound, fields, random_condition

from hetki.patterns.condition import parse
from hetki.patterns.evaluate import compiled
from hetki.patterns.sense import ALTERNATIVES_MAX, senseless
from hetki.patterns.types import typed

NEVER = """
0: 1 = 2
0: 1 = 1 and 2 > 3
0: false
0: price > 5 and price < 3
0: price > 3 and not price > 3
0: price >= 3 and price <> 3 and price <= 3
0: price between 5 and 3
0: price in (1, 2) and price > 2
0: price = 1 and n_results = 2 and price = 3
0: query = 'a' and query = 'b'
0: query > 'b' and query < 'a'
0: query is null and query = 'a'
0: query is null and query is not null
0: query like 'a%' and query not like 'a%'
0: query like 'a%' and query is null
0: is_first and not is_first
0: is_first <> true and is_first <> false
0: price < price
8: price < n_results and n_results < price
8: price = n_results and price <> n_results
4: abs(price) > 2 and abs(price) < 1
0: promised_at > '2026-01-02' and promised_at < '2026-01-01'
0: late.price > 2 and late.price < 1
0: customer.plan = 'a' and customer.plan = 'b'
0: customer.n > 2 and customer.n < 1
1: (price > 2 or price > 3) and (price < 1 or price < 2)
1: (price > 1 and price < 0) or (query = 'a' and query = 'b')
5: not (price >= 3 or price < 3)
18: n_results = 1 and price > 5 and price < 3
0: 1 + 1 > 3
0: interval '1 minute' > interval '1 hour'
"""

ALWAYS = """
0: 1 = 1
0: true
0: price > 1 or 1 = 1
0: price >= 3 or price < 3
0: price > 3 or price <> 4
0: query is null or query is not null
0: price = price
0: is_first or not is_first
0: query like 'a%' or query not like 'a%'
5: not (price > 5 and price < 3)
0: price not in (1) or price = 1
0: customer.plan = 'a' or customer.plan <> 'a'
"""

FINE = """
price > 3 and price < 3.0000001
price >= 3 and price <= 3
price > 5 or price < 3
price in (1, 2) and price >= 2
query = 'a' or query = 'b'
query > 'a' and query < 'b'
query is null or price > 1
is_first is null or is_first
price <> 1 and price <> 2
price < n_results and n_results < late.price
price <= n_results and n_results <= price
query like 'a%' and query not like 'ab%'
customer.plan = 'a' and customer.plan <> 'b'
customer.n = 1 and customer.m = 'a'
late.price > 2 and price < 1
coalesce(price, 0) >= 0
not is_first and price > 1
"""


def refused(text: str) -> list[str]:
    _, faults = parse(text, SCOPE, str)
    return [f"{each.where}: {each.got}" for each in faults]


@pytest.mark.parametrize("line", NEVER.strip().splitlines())
def test_what_can_never_be_true_is_refused(line: str) -> None:
    place, _, text = line.partition(": ")
    assert refused(text) == [f"{place}: a condition that can never be true"]


@pytest.mark.parametrize("line", ALWAYS.strip().splitlines())
def test_what_is_always_true_is_refused(line: str) -> None:
    place, _, text = line.partition(": ")
    assert refused(text) == [f"{place}: a condition that is always true"]


@pytest.mark.parametrize("text", FINE.strip().splitlines())
def test_what_can_be_either_is_not(text: str) -> None:
    assert refused(text) == []


def test_a_fault_says_what_may_be_meant() -> None:
    (fault,) = parse("price >= 3 or price < 3", SCOPE, str)[1]
    assert str(fault) == (
        "0: got a condition that is always true, must be one that can be false, or left out."
        " Hint: write price is not null if that is meant."
    )


def number_condition(draw: random.Random, depth: int) -> str:
    """Comparisons of one number with constants: here everything is found."""
    if depth and draw.random() < 0.7:
        one, other = number_condition(draw, depth - 1), number_condition(draw, depth - 1)
        return draw.choice(
            [f"({one} and {other})", f"({one} or {other})", f"not {one}", f"({one} or {other})"]
        )
    n = draw.randrange(4)
    return draw.choice(
        [
            f"(price {draw.choice(['=', '<>', '<', '<=', '>', '>='])} {n})",
            f"({n} {draw.choice(['<', '<=', '>'])} price)",
            f"(price in ({n}, {draw.randrange(4)}))",
            f"(price between {n} and {draw.randrange(4)})",
            "(price is null)",
            "(price is not null)",
        ]
    )


def answers(text: str, rows: Iterable[dict[str, object]]) -> set[object]:
    """What a condition gives for rows, without the check of its sense."""
    tree = typed(sqlglot.parse_one(text, into=exp.Condition), SCOPE, str, [])
    return {compiled(tree)(fields(row), bound({}), {}) for row in rows}


def test_of_one_number_all_is_found_and_nothing_else() -> None:
    draw, n_never, n_always = random.Random(3), 0, 0
    rows = [{"price": value} for value in (None, -1, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)]
    for _ in range(1000):
        text = number_condition(draw, 3)
        found = refused(text)
        given = answers(text, rows)
        assert bool(found) == (not {True, False} <= given), text
        if found:
            n_never += "never" in found[0]
            n_always += "always" in found[0]
            assert (True not in given) if "never" in found[0] else (False not in given), text
    assert n_never > 30 and n_always > 30


def test_of_any_condition_what_is_refused_is_without_sense() -> None:
    """Sound: a condition that some row fulfils is never called impossible, and the other way round."""
    draw, n_refused = random.Random(5), 0
    rows = [
        {"price": price, "query": query, "is_first": is_first}
        for price in (None, 0, 1, 2.5, -1, 2)
        for query in (None, "", "a", "ab", "B_")
        for is_first in (None, True, False)
    ]
    for _ in range(600):
        text = random_condition(draw, 2)
        parsed, faults = parse(text, SCOPE, str)
        if parsed is not None or "a condition that" not in faults[0].got:
            continue
        n_refused += 1
        assert ("never" in faults[0].got) not in answers(text, rows), text
    assert n_refused > 10


def test_a_large_condition_is_not_looked_into() -> None:
    text = " and ".join(f"(price = {n} or n_results = {n})" for n in range(12))
    parsed, faults = parse(text, SCOPE, str)
    assert parsed is not None and not faults and 2**12 > ALTERNATIVES_MAX
    assert senseless(parsed.tree) is None
