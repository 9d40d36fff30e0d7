"""The twelve moments of `examples/twelve_moments`, on a random history, against queries in plain SQL.

`twelve_history` draws the events, and `twelve_truth` has the queries. With a bound that is a second longer or
shorter they must give another answer, so that the history is known to meet the bounds.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pytest
import ruamel.yaml
from twelve_history import ENDS_AT, SOURCES, history, table
from twelve_truth import CONFIRMED, ENDS_IN_SILENCE, VIEWS, confirmed
from world import ORIGIN, World, event

from hetki.declarations.durations import seconds
from hetki.engine.backtest import backtest
from hetki.engine.check import check
from hetki.engine.folding import Caught, decode_occurrence
from hetki.engine.project import Project, load
from hetki.events.event import Event, LeafId, utc
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk
from hetki.store.lake import open_lake, refresh
from hetki.store.system import SystemDisk

EXAMPLE = Path(__file__).parent.parent / "examples" / "twelve_moments"
SEED, N_BODIES = 12, 8
STARTS_AT = ORIGIN + 9 * 3600 * SECOND

#: What messages say of a first and a last event, and of times in the customer's zone.
WORDS = {
    "helped_self_in_vain": "tried 3 times to find the answer alone, since 11:00",
    "marketplace_order_late": "promised for 05.03. 11:00",
    "complaint_reopened": "called solved on 03.03. and is open again",
}

#: What `hetki check` says of each.
SENTENCES = """
cart_and_searched_again:
  For any customer: after Product Added (device is mobile), then Products Searched (product id is that of
  Product Added) within 1 hour of Product Added, without Order Completed in between, answer within 30
  minutes with 'Show the product that is already in the cart, with what others ask about it', or not at
  all, once per product id of Product Added; 30% of customers are held out to measure the effect.
complaint_reopened:
  For any customer: after Complaint Solved, then Complaint Opened (complaint id is that of Complaint
  Solved) within 14 days of Complaint Solved, without Complaint Solved (complaint id is that of Complaint
  Solved) in between, answer within 4 hours with 'Give the complaint to one person with the right to
  decide', or not at all, every time; nobody is held out, so the effect cannot be measured.
detractor_unheard:
  For any customer: after Survey Answered (nps is between 0 and 6), then none of Feedback Answered,
  Contact Started, Chat Started, Order Completed or Store Visited for 7 days, answer within 2 days with
  'Call the customer, listen, and say what comes of it', or not at all, at most once per 30 days; 30% of
  customers are held out to measure the effect.
failed_and_waited:
  For any customer: after in any order Delivery Failed and Contact Ended (number of seconds waiting is
  more than 600) within 1 hour, answer within 1 hour with 'Call with a new delivery time that the customer
  chooses', or not at all, at most once per 1 day; 10% of customers are held out to measure the effect.
handover_unanswered:
  For any customer: after Handover Requested, then neither Agent Joined nor Live Chat Conversation Ended
  (conversation id is that of Handover Requested) for 2 minutes, answer within 3 minutes with 'Say that it
  takes longer, and offer a call back', or not at all, once per conversation id of Handover Requested; 10%
  of customers are held out to measure the effect.
helped_self_in_vain:
  For any customer: after 'failed' (Help Searched where number of results is 0 or Help Viewed where
  helpful is false) at least 3 times, then 'asked' (Contact Started or Chat Started) within 1 day of the
  first 'failed', answer within 10 minutes with 'Give the agent what the customer has tried already', or
  not at all, at most once per 1 day; 20% of customers are held out to measure the effect.
marketplace_order_late:
  For any customer: after Order Completed (affiliation is marketplace), then Delivery Promised (order id
  is that of Order Completed), then no Order Delivered (order id is that of Delivery Promised) by its
  promised time, then Post Noticed (mood is negative and time is at or before promised time of Delivery
  Promised plus 48 hours) within 30 days of Order Completed, answer within 4 hours with 'Find the order,
  settle it, and then answer the post', or not at all, once per order id of Delivery Promised; nobody is
  held out, so the effect cannot be measured.
paid_unconfirmed:
  For any customer: after Order Paid, then no Order Confirmed (order id is that of Order Paid) for 10
  minutes, answer within 20 minutes with 'Say that the payment has arrived and the order stands', or not
  at all, once per order id of Order Paid; 10% of customers are held out to measure the effect.
price_watched:
  For any customer: after 'first' (Product Viewed where price is known), then 'again' (Product Viewed
  where price is known and product id is that of 'first') 3 times within 3 days of 'first', without
  Product Added (product id is that of 'first') in between, answer within 2 hours with 'Offer to tell them
  when the price falls', or not at all, at most once per 7 days; 40% of customers are held out to measure
  the effect.
promoter_spends_less:
  For a customer in 'Would recommend us, as they said last': after Order Completed (total is at most 0.6
  times the mean total of Order Completed over 90 days and the number of Order Completed (where total is
  known) over 90 days is at least 3), answer within 2 days with 'Thank them, and ask in one question what
  has changed', or not at all, at most once per 30 days; 30% of customers are held out to measure the
  effect.
sent_round_channels:
  For any customer: after 'first' (Contact Started, Chat Started or Help Searched where topic is known),
  then 'second' (Contact Started, Chat Started or Help Searched where topic is that of 'first' and channel
  is not that of 'first'), without Contact Ended or Chat Ended (topic is that of 'first' and solved is
  true) in between, then 'third' (Contact Started, Chat Started or Help Searched where topic is that of
  'first' and channel is neither channel of 'first' nor channel of 'second') within 2 hours of 'first',
  without Contact Ended or Chat Ended (topic is that of 'first' and solved is true) in between, answer
  within 15 minutes with 'Give the whole matter to one person, who calls' or 'Say in the app who has the
  matter and until when', or not at all, at most once per 1 day; 20% of customers are held out to measure
  the effect.
visit_understaffed:
  For any customer: after Email Link Clicked (campaign id is known), then Store Visited (the staffing of
  store id is less than 1) within 7 days of Email Link Clicked, answer within 30 minutes with 'Offer an
  advisor by phone now, or a time in the store', or not at all, at most once per 1 day; 20% of customers
  are held out to measure the effect.
"""


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return history(SEED)


@pytest.fixture(scope="module")
def drawn(events: list[Event]) -> duckdb.DuckDBPyConnection:
    """The history as SQL sees it."""
    connection = duckdb.connect()
    connection.register("drawn", pa.Table.from_pylist(table(events)))
    connection.execute(VIEWS)
    return connection


@pytest.fixture(scope="module")
def lived(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> World:
    """An engine that took all of it in, body by body, the last of each body a body late."""
    disk = MemoryDisk(str(tmp_path_factory.mktemp("lived")))
    world = World(load(SystemDisk(EXAMPLE)), disk)
    size = len(events) // N_BODIES + 1
    late: list[Event] = []
    for start in range(0, len(events), size):
        body = events[start : start + size]
        world.accept(late + body[:-20])
        world.advance()
        late = body[-20:]
    world.accept(late)
    world.clock.move(ENDS_AT)
    world.advance()
    refresh(world.disk, world.engine.journal, world.engine.state)
    return world


def sentences() -> dict[str, str]:
    parts = re.split(r"^(\w+):$", SENTENCES, flags=re.MULTILINE)[1:]
    return {name: " ".join(said.split()) for name, said in zip(parts[::2], parts[1::2], strict=True)}


def told(world: World, caught: list[Caught]) -> list[tuple[str, int]]:
    return sorted((world.name_of(each.customer), each.occurrence.occurred_at) for each in caught)


def test_the_project_keeps_every_rule_and_every_case_is_as_it_must_be() -> None:
    checked = check(SystemDisk(EXAMPLE))
    assert checked.faults == [] and checked.notes == []
    assert checked.n_cases >= 6 * len(CONFIRMED)
    assert checked.sentences == sentences()


@pytest.mark.parametrize("moment", CONFIRMED)
def test_a_moment_is_found_where_sql_finds_it(
    moment: str, drawn: duckdb.DuckDBPyConnection, lived: World
) -> None:
    truth = confirmed(drawn, moment)
    rows = lived.engine.db.execute("SELECT customer, body FROM occurrences WHERE moment = ?", (moment,))
    live = [Caught(LeafId(row[0]), decode_occurrence(row[1])) for row in rows]
    assert told(lived, live) == truth
    progress = lived.engine.state.progress()
    assert progress is not None
    found = backtest(open_lake(lived.disk), lived.engine.program, progress.advance_to, [moment])
    assert told(lived, found[moment]) == truth


def told_by_case(case: dict[str, object]) -> list[Event]:
    """The events of a case as sources would send them, on 2 March 2026 from 09:00 on, by a known customer."""
    events = []
    for number, given in enumerate(case["events"]):
        fields = dict(given)
        name, at = fields.pop("name"), STARTS_AT + seconds(fields.pop("at"), "") * SECOND
        source = SOURCES.get(name, "web").split()[0]
        for field in fields:
            if field.endswith("_at"):
                fields[field] = utc(STARTS_AT + seconds(fields[field], "") * SECOND).isoformat()
        events.append(
            Event(
                source=source,
                message_id=f"{number:03}",
                channel=fields.pop("channel", source),
                name=name,
                occurred_at=at,
                received_at=at,
                identifiers={"user_id": "anna", "email": "anna@kauppa.fi"},
                context=msgspec.json.encode({"device": {"type": fields.pop("device", None)}}),
                properties=msgspec.json.encode(fields),
            )
        )
    return events


@pytest.fixture(scope="module")
def answering() -> Project:
    """The project with nobody held out."""
    disk, example = MemoryDisk(), SystemDisk(EXAMPLE)
    for folder in ("", *(f"{each.name}/" for each in EXAMPLE.iterdir() if each.is_dir())):
        for path in example.names(f"{folder}*"):
            text = example.read(path).decode()
            disk.write(path, re.sub(r"holdout: \d+%", "holdout: 0%", text).encode())
    return load(disk)


@pytest.mark.parametrize("moment", CONFIRMED)
def test_a_moment_is_answered_in_words(moment: str, answering: Project) -> None:
    """Live, each event as it comes: the first case of each moment ends with a message."""
    text = SystemDisk(EXAMPLE).read(f"tests/{moment}.yaml").decode()
    case = ruamel.yaml.YAML(typ="safe").load(text)["cases"][0]
    world = World(answering)
    granted = event("08:00 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing")
    for each in [granted, *told_by_case(case)]:
        world.accept([each])
        world.advance()
    world.clock.move(STARTS_AT + seconds(case["fires"][0], "") * SECOND + 11 * SECOND)
    world.advance()
    ((action, status, detail, body),) = world.rows(
        "SELECT action, status, detail, body FROM outbox WHERE moment = ?", moment
    )
    assert (action, status, detail) == (answering.moments[moment].answers[0], "waiting", "")
    assert WORDS.get(moment, "") in str(body)


@pytest.mark.parametrize("moment", CONFIRMED)
def test_the_history_meets_the_bound_of_a_moment(moment: str, drawn: duckdb.DuckDBPyConnection) -> None:
    truth = confirmed(drawn, moment)
    second = timedelta(seconds=1)
    n_customers = len({customer for customer, _ in truth})
    assert len(truth) > 40 and n_customers > 20, f"{len(truth)} for {n_customers} customers"
    for n_more in (1, -1):
        moved = SECOND * n_more if moment in ENDS_IN_SILENCE else 0
        other = confirmed(drawn, moment, n_more * second)
        assert [(customer, at - moved) for customer, at in other] != truth
