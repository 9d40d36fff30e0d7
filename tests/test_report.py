"""The report, from the lake's tables to rows: who counts, in which arm, for how long, and what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetki.engine.report import render_report, report
from hetki.events.catalogue import SHIPPED
from hetki.measurement.effect import NOT_ENOUGH, Effect
from hetki.measurement.outcome import Measured
from hetki.patterns.choices import Choice, EventWithin, parse_outcome

HOUR_US = 3_600_000_000
WHEN = pa.timestamp("us", tz="UTC")
SCHEMAS = {
    "events": pa.schema(
        [(name, pa.string()) for name in ("leaf", "event_id", "source", "message_id", "channel", "name")]
        + [("occurred_at", WHEN), ("received_at", WHEN), ("sequence", pa.int64()), ("gpc", pa.bool_())]
        + [(name, pa.string()) for name in ("identifiers", "properties", "context")]
    ),
    "customers": pa.schema([("leaf", pa.string()), ("customer", pa.string())]),
    "decisions": pa.schema(
        [(name, pa.string()) for name in ("decision_id", "moment", "initiative", "customer", "leaf", "arm")]
        + [("decided_at", WHEN), ("holdout_share", pa.float64()), ("account", pa.string())]
    ),
    "accounts": pa.schema([("account", pa.string()), ("group_id", pa.string())]),
    "account_members": pa.schema(
        [("account", pa.string()), ("customer", pa.string()), ("joined_at", WHEN), ("is_folded", pa.bool_())]
    ),
    "deliveries": pa.schema(
        [("message_id", pa.string()), ("decision_id", pa.string()), ("status", pa.string())]
    ),
    "restricted": pa.schema([("unit", pa.string()), ("restricted_at", WHEN), ("lifted_at", WHEN)]),
}
Row = dict[str, object]
SOLVED = EventWithin(True, (Choice("Contact Started"),), 24 * 3600)
BUSINESS = EventWithin(False, (Choice("Order Completed"),), 60 * 24 * 3600)
MOMENT = Measured("late", "keep_our_word", {"solved": SOLVED})
LATER = 1000 * HOUR_US


def happened(leaf: str, name: str, hour: float, properties: str = "{}", context: str = "{}") -> Row:
    at = round(hour * HOUR_US)
    told = {"identifiers": '{"user_id":"u"}', "properties": properties, "context": context}
    where = {
        "leaf": leaf,
        "event_id": f"{leaf}{at}",
        "source": "web",
        "message_id": f"{leaf}{at}",
        "channel": "web",
    }
    return {**where, **told, "name": name, "occurred_at": at, "received_at": at, "sequence": 0, "gpc": False}


def decided(
    leaf: str, hour: float, arm: str, moment: str = "late", customer: str = "", holdout_share: float = 0.5
) -> Row:
    return {
        "decision_id": f"{moment}-{leaf}-{hour}",
        "moment": moment,
        "initiative": "keep_our_word",
        "customer": customer or leaf,
        "leaf": leaf,
        "arm": arm,
        "decided_at": round(hour * HOUR_US),
        "holdout_share": holdout_share,
    }


def lake_of(
    decisions: Sequence[Row],
    events: Sequence[Row] = (),
    customers: dict[str, str] | None = None,
    deliveries: Sequence[Row] = (),
    members: Sequence[tuple[str, str, float]] = (),
    restricted: Sequence[tuple[str, float, float | None]] = (),
) -> duckdb.DuckDBPyConnection:
    """A lake in memory. A leaf that `customers` does not name is a customer of its own; `members` are
    (account, customer, the hour of joining), `restricted` (customer or account, since and until which
    hour)."""
    leaves = {str(row["leaf"]) for row in (*decisions, *events)}
    owners = {leaf: leaf for leaf in leaves} | (customers or {})
    tables: dict[str, Sequence[Row]] = {
        "events": events,
        "customers": [{"leaf": leaf, "customer": customer} for leaf, customer in owners.items()],
        "decisions": decisions,
        "deliveries": deliveries,
        "restricted": [
            {
                "unit": unit,
                "restricted_at": round(since * HOUR_US),
                "lifted_at": None if until is None else round(until * HOUR_US),
            }
            for unit, since, until in restricted
        ],
        "accounts": [{"account": each, "group_id": f"group {each}"} for each in {row[0] for row in members}],
        "account_members": [
            {"account": account, "customer": customer, "joined_at": round(hour * HOUR_US), "is_folded": True}
            for account, customer, hour in members
        ],
    }
    lake = duckdb.connect()
    for name, rows in tables.items():
        lake.register(name, pa.Table.from_pylist(list(rows), schema=SCHEMAS[name]))
    return lake


def solved(lake: duckdb.DuckDBPyConnection, until: int = LATER) -> Effect:
    (found,) = [each for each in report(lake, [MOMENT], until) if each.moment == "late"]
    return found


def shares(effect: Effect) -> tuple[tuple[float | None, int], tuple[float | None, int]]:
    return (effect.share_answered, effect.n_answered), (effect.share_holdout, effect.n_holdout)


def test_a_contact_within_the_window_means_not_solved() -> None:
    lake = lake_of(
        [decided("a", 1, "answered"), decided("b", 1, "answered"), decided("c", 1, "holdout")],
        [happened("a", "Order Tracked", 2), happened("c", "Contact Started", 3)],
    )
    assert shares(solved(lake)) == ((1.0, 2), (0.0, 1))


@pytest.mark.parametrize(
    "hour, is_solved",
    [(0.9, 1.0), (1, 1.0), (1 + 1e-9, 0.0), (25, 0.0), (25 + 1e-9, 1.0)],
    ids=["before", "at the decision", "just after", "at the end", "after the end"],
)
def test_the_window_opens_after_the_decision_and_includes_its_end(hour: float, is_solved: float) -> None:
    earlier, judged = decided("a", -100, "answered"), decided("a", 1, "answered")
    lake = lake_of([earlier, judged], [happened("a", "Contact Started", hour)])
    assert solved(lake).share_answered == (1 + is_solved) / 2


def test_only_decisions_whose_window_has_elapsed_count_in_both_arms() -> None:
    early = [decided("a", 1, "answered"), decided("b", 1, "holdout")]
    late = [decided("c", 2, "answered"), decided("d", 2, "holdout")]
    lake = lake_of(
        early + late,
        [happened("c", "Contact Started", 3), happened("d", "Contact Started", 3)],
    )
    assert shares(solved(lake, until=25 * HOUR_US)) == ((1.0, 1), (1.0, 1))
    assert shares(solved(lake, until=25 * HOUR_US - 1)) == ((None, 0), (None, 0))
    assert shares(solved(lake, until=26 * HOUR_US)) == ((0.5, 2), (0.5, 2))


def test_decisions_outside_the_experiment_do_not_count() -> None:
    effect = solved(lake_of([decided("a", 1, "none"), decided("b", 1, "answered")]))
    assert (effect.n_answered, effect.n_holdout) == (1, 0)


def test_a_condition_of_an_outcome_is_evaluated_on_the_event_itself() -> None:
    text = "Order Completed where total > 20 and device = 'mobile' or Cart Viewed within 1 hour"
    big, faults = parse_outcome(text, SHIPPED, str)
    assert big is not None and not faults
    lake = lake_of(
        [decided(leaf, 1, "answered") for leaf in "abcd"],
        [
            happened("a", "Order Completed", 1.5, '{"total":30}', '{"device":{"type":"mobile"}}'),
            happened("b", "Order Completed", 1.5, '{"total":10}', '{"device":{"type":"mobile"}}'),
            happened("c", "Order Completed", 1.5, '{"total":30}'),
            happened("d", "Cart Viewed", 1.5),
        ],
    )
    effect = report(lake, [Measured("late", "keep_our_word", {"business": big})], LATER)[-1]
    assert (effect.measure, effect.share_answered, effect.n_answered) == ("business", 0.5, 4)


def test_what_a_customer_does_under_another_leaf_counts() -> None:
    same = {"phone": "a", "web": "a"}
    lake = lake_of([decided("phone", 1, "answered")], [happened("web", "Contact Started", 2)], same)
    assert solved(lake).share_answered == 0.0


def test_decisions_are_clustered_by_the_customer_that_their_leaf_belongs_to_now() -> None:
    decisions = [
        decided("web", 1, "answered"),
        decided("phone", 40, "answered"),
        decided("web", 80, "answered"),
    ]
    apart = solved(lake_of(decisions))
    joined = solved(lake_of(decisions, customers={"web": "z", "phone": "z"}))
    assert (apart.n_customers_answered, joined.n_customers_answered) == (2, 1)
    assert apart.n_answered == joined.n_answered == 3


def test_after_a_merge_the_first_assignment_stands_and_the_crossing_is_counted() -> None:
    decisions = [decided("web", 1, "holdout"), decided("phone", 40, "answered"), decided("b", 1, "answered")]
    apart, joined = (
        solved(lake_of(decisions)),
        solved(lake_of(decisions, customers={"phone": "z", "web": "z"})),
    )
    assert (apart.n_answered, apart.n_holdout, apart.n_crossed) == (2, 1, 0)
    assert (joined.n_answered, joined.n_holdout, joined.n_crossed) == (1, 2, 1)


def test_the_first_assignment_of_the_initiative_stands_across_its_moments() -> None:
    decisions = [decided("web", 1, "holdout", moment="wrong"), decided("phone", 40, "answered")]
    effect = solved(lake_of(decisions, customers={"phone": "z", "web": "z"}))
    assert (effect.n_answered, effect.n_holdout, effect.n_crossed) == (0, 1, 1)


def test_an_initiative_takes_all_decisions_of_its_moments_once_per_customer() -> None:
    other = Measured("wrong", "keep_our_word", {"solved": SOLVED, "business": BUSINESS})
    decisions = [
        decided("a", 1, "answered"),
        decided("a", 2, "answered", "wrong"),
        decided("b", 3, "holdout"),
    ]
    lake = lake_of(decisions, [happened("a", "Order Completed", 30)])
    effects = {(each.moment, each.measure): each for each in report(lake, [MOMENT, other], 9000 * HOUR_US)}
    assert list(effects) == [
        ("", "solved"),
        ("", "business"),
        ("late", "solved"),
        ("wrong", "solved"),
        ("wrong", "business"),
    ]
    whole = effects["", "solved"]
    assert (whole.n_answered, whole.n_customers_answered, whole.n_customers_holdout) == (2, 1, 1)
    assert (effects["late", "solved"].n_answered, effects["wrong", "solved"].n_answered) == (1, 1)
    assert effects["", "business"].share_answered == 1.0


def test_as_assigned_whatever_was_delivered() -> None:
    decisions = [decided("a", 1, "answered"), decided("b", 1, "answered"), decided("c", 1, "holdout")]
    sent: list[Row] = [{"message_id": f"m{i}", "decision_id": "late-a-1", "status": "sent"} for i in range(2)]
    failed: list[Row] = [{"message_id": "m9", "decision_id": "late-b-1", "status": "failed"}]
    effect = solved(lake_of(decisions, deliveries=sent + failed))
    assert (effect.n_answered, effect.n_delivered_answered, effect.n_delivered_holdout) == (2, 1, 0)
    assert "sent to 1 of 2 answered, 0 of 1 holdout" in render_report([effect])


def test_a_measure_without_decisions_is_a_row_that_says_so() -> None:
    effects = report(lake_of([]), [MOMENT], LATER)
    assert [(each.moment, each.n_answered, each.verdict) for each in effects] == [
        ("", 0, NOT_ENOUGH),
        ("late", 0, NOT_ENOUGH),
    ]
    assert report(lake_of([decided("a", 1, "answered")]), [], LATER) == []


def test_the_lake_is_left_as_it_was() -> None:
    lake = lake_of([decided("a", 1, "answered")])
    before = lake.execute("SHOW TABLES").fetchall()
    report(lake, [MOMENT], LATER)
    assert lake.execute("SHOW TABLES").fetchall() == before


def experiment(n_answered: int, n_holdout: int, holdout_share: float) -> duckdb.DuckDBPyConnection:
    arms = {f"{i:04}": "answered" if i < n_answered else "holdout" for i in range(n_answered + n_holdout)}
    decisions = [decided(leaf, 1, arm, holdout_share=holdout_share) for leaf, arm in arms.items()]
    every = {"answered": 5, "holdout": 2}
    contacts = [
        happened(leaf, "Contact Started", 2) for leaf, arm in arms.items() if int(leaf) % every[arm] == 0
    ]
    return lake_of(decisions, contacts)


def test_the_text_and_the_json_carry_interval_n_and_grade() -> None:
    effects = report(experiment(200, 200, 0.5), [MOMENT], LATER)
    text = render_report(effects)
    row = next(line for line in text.splitlines() if line.startswith("late"))
    assert "80.0 % of 200" in row and "50.0 % of 200" in row and "randomised" in row
    assert row.endswith("+30.0 points (95 % from +21.1 to +38.9)")
    (_, again) = msgspec.json.decode(msgspec.json.encode(effects), type=list[Effect])
    assert again == effects[1]


def test_a_broken_ratio_is_flagged_instead_of_believed() -> None:
    effect = solved(experiment(200, 200, 0.1))
    assert effect.grade == "broken" and effect.verdict.startswith("not to be believed")
    assert "sample ratio p =" in render_report([effect])


ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 90), st.sampled_from(["answered", "holdout"])),
    min_size=1,
    max_size=20,
    unique_by=lambda row: row[:2],
)
CONTACTS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 120)), max_size=20, unique=True)


@settings(max_examples=25, deadline=None)
@given(st.data(), ROWS, CONTACTS)
def test_neither_the_order_of_rows_nor_their_files_matter(
    data: st.DataObject, rows: list[tuple[str, int, str]], contacts: list[tuple[str, int]]
) -> None:
    tables = {
        "decisions": [decided(*row) for row in rows],
        "events": [happened(leaf, "Contact Started", hour) for leaf, hour in contacts],
    }
    owners = dict(zip("abcdefgh", "aacceegg", strict=True))
    lake = lake_of(tables["decisions"], tables["events"], owners)
    expected = report(lake, [MOMENT], LATER)
    with TemporaryDirectory() as folder:
        for name, table in tables.items():
            in_three_files(lake, Path(folder), name, data.draw(st.permutations(table)))
        assert report(lake, [MOMENT], LATER) == expected


def test_an_account_is_one_unit_and_what_its_members_do_is_its_result() -> None:
    """Two decisions about each account, for different members of it; a colleague's contact counts."""
    decisions = [
        decided(leaf, hour, arm) | {"account": account}
        for account, arm, hour, leaf in (
            ("x", "answered", 0, "a"),
            ("x", "answered", 100, "b"),
            ("y", "holdout", 0, "c"),
            ("y", "holdout", 100, "d"),
        )
    ]
    members = [("x", "a", 0), ("x", "b", 0), ("x", "e", 50), ("y", "c", 0), ("y", "d", 0), ("y", "e", 50)]
    events = [
        happened("e", "Contact Started", 1),  # before e joined
        happened("e", "Contact Started", 101, context='{"groupId": "group y"}'),  # about y alone
        happened("b", "Contact Started", 101, context='{"groupId": "group z"}'),  # about another account
    ]
    found = solved(lake_of(decisions, events, members=members))
    assert (found.n_answered, found.n_customers_answered, found.share_answered) == (2, 1, 1.0)
    assert (found.n_holdout, found.n_customers_holdout, found.share_holdout) == (2, 1, 0.5)


@pytest.mark.parametrize(
    "since, until, is_left_out",
    [
        (30, None, True),
        (-10, None, True),
        (-10, 1, False),
        (-10, 1.1, True),
        (5, 6, True),
        (25, 26, True),
        (25 + 1e-9, 26, False),
        (90, 101, True),
    ],
    ids=["now", "now and long", "before", "into it", "inside", "at the end", "after", "another window"],
)
def test_who_is_restricted_or_was_while_a_result_was_waited_for_is_left_out(
    since: float, until: float | None, is_left_out: bool
) -> None:
    """Whole customers, with all of their decisions, and in both arms."""
    arms = {"a": "answered", "b": "answered", "c": "holdout", "d": "holdout"}
    decisions = [decided(leaf, hour, arm) for leaf, arm in arms.items() for hour in (1, 100)]
    for leaf, arm in (("a", "answered"), ("c", "holdout")):
        effect = solved(lake_of(decisions, restricted=[(leaf, since, until)]))
        left_out = effect.n_left_out_answered, effect.n_left_out_holdout
        assert left_out == ((arm == "answered", arm == "holdout") if is_left_out else (0, 0))
        n = {"answered": effect.n_answered, "holdout": effect.n_holdout}
        assert n == {"answered": 4, "holdout": 4} | ({arm: 2} if is_left_out else {})
        n_customers = effect.n_customers_answered + effect.n_customers_holdout
        assert n_customers == (3 if is_left_out else 4)


def test_who_was_left_out_is_said_arm_by_arm() -> None:
    decisions = [decided(f"{i}", 1, "answered" if i < 60 else "holdout") for i in range(100)]
    lake = lake_of(decisions, restricted=[(f"{i}", 2, None) for i in (1, 2, 3, 70)])
    whole, effect = report(lake, [MOMENT], LATER)
    for each in (whole, effect):
        assert (each.n_left_out_answered, each.n_left_out_holdout) == (3, 1)
    text = render_report([whole, effect])
    assert text.count("as their processing is or was restricted: 3 of 60 answered, 1 of 40 holdout.") == 2
    early = lake_of(decisions, restricted=[("1", 2, None)])
    assert "restricted" not in render_report(report(early, [MOMENT], 24 * HOUR_US)), "nothing is judged yet"


def test_an_account_with_a_restricted_member_is_left_out_whole() -> None:
    decisions = [
        decided("a", 1, "answered") | {"account": "x"},
        decided("b", 1, "answered") | {"account": "y"},
    ]
    members = [("x", "a", 0), ("x", "c", 0), ("y", "b", 0)]
    effect = solved(lake_of(decisions, members=members, restricted=[("c", 2, None), ("x", 2, None)]))
    assert (effect.n_customers_answered, effect.n_left_out_answered) == (1, 1)


def in_three_files(lake: duckdb.DuckDBPyConnection, folder: Path, name: str, rows: Sequence[Row]) -> None:
    for part in range(3):
        table = pa.Table.from_pylist(list(rows[part::3]), schema=SCHEMAS[name])
        pq.write_table(table, folder / f"{name}-{part}.parquet")
    lake.unregister(name)
    lake.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/{name}-*.parquet')")
