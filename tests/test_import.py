"""Import: rows become events by the rules of the wire; what breaks one is kept; a repeat doubles nothing."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World

from hetki.engine import importing
from hetki.engine.importing import Imported, Trial, dry_run, import_file, load_map, render
from hetki.engine.repair import list_rejected, replay_rejected, show_rejected
from hetki.errors import HetkiError, Invalid, NotFound, Unavailable
from hetki.events.event import Event
from hetki.events.wire import Parsed
from hetki.store.journal import Kind
from hetki.store.system import SystemDisk

MAP = """
import: old_orders
source: shop
event: {column: what, names: {buy: Order Completed, ask: Help Searched}}
occurred_at: at
user_id: customer
properties:
  order_id: order
  total: euros
  n_results: {column: hits, type: integer}
"""
CSV = """what,at,customer,order,euros,hits
buy,2026-03-01T10:00:00Z,anna,o1,12.50,
ask,2026-03-01T11:00:00+02:00,bert,,,0
"""


class Desk:
    """A world, and a folder with a map and a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World()
        self.disk = SystemDisk(folder)
        self.put("map.yaml", MAP)

    def put(self, name: str, content: str | bytes) -> None:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def table(self, **columns: object) -> None:
        pq.write_table(pa.table(columns), self.folder / "rows.parquet")

    def run(self, name: str = "rows.csv", of_map: str = "map.yaml") -> Imported:
        return import_file(self.world.engine, self.disk, name, self.plan(of_map))

    def trial(self, name: str = "rows.csv") -> Trial:
        return dry_run(self.world.engine.project, self.disk, name, self.plan(), self.world.clock.now())

    def plan(self, of_map: str = "map.yaml") -> importing.Plan:
        return load_map(self.disk, of_map, self.world.engine.project)

    def events(self) -> list[Event]:
        """What lies in the journal, repeats too."""
        stored = self.world.engine.journal.read(0, 1_000_000)
        bodies = [each.body for each in stored if each.kind is Kind.EVENT and each.body is not None]
        return [msgspec.msgpack.decode(body, type=Event) for body in bodies]

    def n_folded(self) -> int:
        self.world.advance()
        return int(str(self.world.rows("SELECT count(*) FROM events")[0][0]))

    def faults(self, name: str = "rows.csv") -> list[str]:
        return [str(fault) for fault in self.trial(name).faults]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def broken(run: object, *args: object) -> list[str]:
    with pytest.raises(Invalid) as caught:
        run(*args)  # type: ignore[operator]
    return [str(fault) for fault in caught.value.faults]


# -- rows become events


def test_rows_become_events_in_the_order_of_the_file(desk: Desk) -> None:
    desk.put("rows.csv", CSV)
    assert desk.run() == Imported(2, 2, 0, 0)
    one, two = desk.events()
    assert (one.name, one.source, one.channel, one.identifiers) == (
        "Order Completed",
        "shop",
        "shop",
        {"user_id": "anna"},
    )
    assert msgspec.json.decode(one.properties) == {"order_id": "o1", "total": 12.5}
    assert msgspec.json.decode(two.properties) == {"n_results": 0}
    assert one.occurred_at - two.occurred_at == 3_600_000_000, "two zones, one clock"
    assert (one.sequence, two.sequence) == (1, 2)


def test_the_three_forms_and_gzip_give_the_same_events(desk: Desk) -> None:
    desk.put("rows.csv", CSV)
    desk.put("rows.csv.gz", gzip.compress(CSV.encode()))
    desk.put("rows.tsv", CSV.replace(",", "\t"))
    rows = [
        {"what": "buy", "at": "2026-03-01T10:00:00Z", "customer": "anna", "order": "o1", "euros": 12.5},
        {"what": "ask", "at": "2026-03-01T11:00:00+02:00", "customer": "bert", "hits": 0},
    ]
    desk.put("rows.jsonl", b"\n\n".join(map(msgspec.json.encode, rows)))
    desk.table(
        what=["buy", "ask"],
        at=[datetime(2026, 3, 1, 10, tzinfo=UTC), datetime(2026, 3, 1, 9, tzinfo=UTC)],
        customer=["anna", "bert"],
        order=["o1", None],
        euros=[Decimal("12.50"), None],
        hits=[None, 0],
    )
    desk.put("tabs.yaml", MAP + 'delimiter: "\\t"\n')
    told = []
    for name in ("rows.csv", "rows.csv.gz", "rows.tsv", "rows.jsonl", "rows.parquet"):
        before = len(desk.events())
        assert desk.run(name, "tabs.yaml" if name == "rows.tsv" else "map.yaml").n_accepted == 2
        found = desk.events()[before:]
        told.append([(e.name, e.occurred_at, e.identifiers, e.properties, e.sequence) for e in found])
    assert told[1:] == told[:1] * 4


def test_imported_history_is_caught_like_any_other(desk: Desk) -> None:
    desk.put("rows.csv", CSV)
    desk.run()
    desk.world.until("12:00")
    assert len(desk.world.rows("SELECT * FROM occurrences WHERE moment = 'help'")) == 1


@pytest.mark.parametrize(
    ("given", "how", "hour"),
    [
        ("01.07.2026 12:00", "{column: at, format: '%d.%m.%Y %H:%M', zone: Europe/Helsinki}", 9),
        ("2025-12-01 12:00", "{column: at, zone: Europe/Helsinki}", 10),
        ("2025-12-01T12:00:00Z", "{column: at, zone: Europe/Helsinki}", 12),
        ("1750000000", "{column: at, format: unix_s}", 15),
        ("1750000000123", "{column: at, format: unix_ms}", 15),
    ],
)
def test_times_in_their_zone(desk: Desk, given: str, how: str, hour: int) -> None:
    desk.world.clock.move(desk.world.clock.now() + 200 * 86_400_000_000)
    desk.put("map.yaml", MAP.replace("occurred_at: at", f"occurred_at: {how}"))
    desk.put("rows.csv", f"what,at,customer,order,euros,hits\nbuy,{given},anna,o1,,\n")
    assert desk.run().n_accepted == 1
    assert datetime.fromtimestamp(desk.events()[0].occurred_at / 1e6, UTC).hour == hour


def test_contacts_context_dates_and_inner_members(desk: Desk) -> None:
    desk.put(
        "map.yaml",
        """
import: people
source: shop
event: Customer Identified
occurred_at: since
user_id: person.id
email: person.mail
properties: {plan: plan, birthday: born, age: {column: age, type: text}}
context: {device.type: device, locale: person.language}
""",
    )
    desk.table(
        since=[date(2026, 2, 3)],
        person=[{"id": 7, "mail": "anna@kauppa.fi", "language": "fi-FI"}],
        plan=["private"],
        born=[date(1990, 5, 6)],
        age=[35],
        device=["mobile"],
    )
    assert desk.run("rows.parquet").n_accepted == 1
    (event,) = desk.events()
    assert event.identifiers == {"user_id": "7", "email": "anna@kauppa.fi"}
    assert msgspec.json.decode(event.properties) == {
        "plan": "private",
        "birthday": "1990-05-06",
        "age": "35",
        "email": "anna@kauppa.fi",
    }
    assert msgspec.json.decode(event.context) == {"device": {"type": "mobile"}, "locale": "fi-FI"}


# -- nothing is doubled, nothing vanishes


def rows(n: int) -> str:
    lines = [f"buy,2026-03-01T10:00:00Z,c{i % 7},o{i},{'x' if i % 50 == 9 else i},\n" for i in range(n)]
    return "what,at,customer,order,euros,hits\n" + "".join(lines)


@pytest.mark.parametrize("lost", ["before the commit", "after the commit"])
def test_an_interrupted_import_goes_on_without_doubles(
    desk: Desk, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ROWS_MAX", 100)
    desk.put("rows.csv", rows(950))
    acceptor = desk.world.engine.acceptor
    accept, calls = acceptor.accept, iter(range(100))

    def dying(bodies: list[Parsed]) -> int:
        if next(calls) == 4:
            if lost == "after the commit":
                accept(bodies)
            raise KeyboardInterrupt
        return accept(bodies)

    monkeypatch.setattr(acceptor, "accept", dying)
    with pytest.raises(KeyboardInterrupt):
        desk.run()
    desk.world.clock.sleep(3600)
    monkeypatch.setattr(acceptor, "accept", accept)
    assert desk.run() == Imported(950, 550 - 11, 11, 400)
    assert desk.n_folded() == 950 - 19
    assert len(list_rejected(desk.world.engine)) == 19
    assert desk.run() == Imported(950, 0, 0, 950)


def test_a_full_disk_is_told_and_the_next_run_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put("rows.csv", rows(20))
    acceptor = desk.world.engine.acceptor

    def full(bodies: list[Parsed]) -> int:
        raise Unavailable(importing.Fault("journal.db", "no space", "free space"))

    with monkeypatch.context() as patched, pytest.raises(Unavailable):
        patched.setattr(acceptor, "accept", full)
        desk.run()
    assert desk.run() == Imported(20, 19, 1, 0)


def test_a_message_id_makes_a_longer_file_a_continuation(desk: Desk) -> None:
    desk.put("map.yaml", MAP + "message_id: [order, what]\n")
    desk.put("rows.csv", rows(8))
    desk.run()
    desk.put("rows.csv", rows(30))
    assert desk.run().n_accepted == 29
    assert desk.n_folded() == 29


def test_another_map_makes_another_event_of_the_same_row(desk: Desk) -> None:
    desk.put("rows.csv", CSV)
    desk.put(
        "other.yaml", MAP.replace("old_orders", "old_visits").replace("Order Completed", "Store Visited")
    )
    desk.run()
    desk.run(of_map="other.yaml")
    assert desk.n_folded() == 4


def test_a_bad_row_is_kept_and_repaired(desk: Desk) -> None:
    desk.put("rows.csv", CSV.replace("12.50", "twelve"))
    assert desk.run() == Imported(2, 1, 1, 0)
    desk.world.advance()
    engine = desk.world.engine
    (row,) = list_rejected(engine)
    assert str(row.fault) == (
        "rows.csv:2, column euros: got 'twelve', must be a number."
        ' Hint: repair the value, set "type" to "track", then replay it.'
    )
    kept = show_rejected(engine, row.rejected_id)
    assert replay_rejected(engine).n_accepted == 0, "unrepaired, it is no event"
    repaired = kept.replace(b'"twelve"', b"12.5").replace(b'"row"', b'"track"')
    assert replay_rejected(engine, row.rejected_id, repaired).n_accepted == 1
    assert desk.n_folded() == 2 and list_rejected(engine) == []


def test_a_rejected_row_that_was_no_row_is_kept_in_full(desk: Desk) -> None:
    desk.put("rows.csv", CSV + "buy,2026-03-01T10:00:00Z,anna\n")
    desk.run()
    desk.world.advance()
    (row,) = list_rejected(desk.world.engine)
    kept = msgspec.json.decode(show_rejected(desk.world.engine, row.rejected_id))
    assert kept["context"] == {"row": "buy,2026-03-01T10:00:00Z,anna"}


# -- bad input


ROW = "buy,{at},{who},o1,{euros},{hits}"
GOOD = {"at": "2026-03-01T10:00:00Z", "who": "anna", "euros": "1", "hits": "0"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"at": "1900-01-01T00:00:00Z"},
            "column at: got '1900-01-01T00:00:00+00:00', must be 1970 or later.",
        ),
        ({"at": "2200-01-01T00:00:00Z"}, "column at: got '2200-01-01T00:00:00+00:00', must be at most 86400"),
        ({"at": "1.3.2026"}, "column at: got '1.3.2026', must be a time in ISO 8601. Hint: name its format"),
        ({"at": ""}, "column at: got nothing, must be a time in ISO 8601."),
        ({"who": ""}, "column customer: got neither userId nor anonymousId, must be at least one of them."),
        ({"who": "x" * 600}, "column customer: got 600 characters, must be at most 512 characters."),
        ({"who": "a\x00b"}, "column customer: got 'a\\x00b', must be text without control characters."),
        ({"euros": "1,234"}, "got 7 columns, must be 6 columns as in the header."),
        ({"euros": '"1,234"'}, "column euros: got '1,234', must be a number."),
        ({"euros": "nan"}, "column euros: got 'nan', must be a number."),
        ({"euros": "9" * 40}, ""),
        ({"hits": "1.5"}, "column hits: got '1.5', must be a whole number."),
        ({"who": "y" * 40_000}, "got 40190 bytes, must be at most 32768 bytes."),
    ],
)
def test_a_row_that_breaks_a_rule_says_which(desk: Desk, change: dict[str, str], said: str) -> None:
    lines = CSV + ROW.format(**{**GOOD, **change}) + "\n" + ROW.format(**GOOD) + "\n"
    desk.put("rows.csv", lines)
    told = desk.faults()
    assert len(told) == (1 if said else 0)
    assert all(each.startswith("rows.csv:4") and said in each for each in told), told
    done = desk.run()
    assert (done.n_accepted, done.n_rejected) == (4 - len(told), len(told)), "the neighbours are stored"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("buy,2026-03-01T10:00:00Z,an\xe4,o1,1,0\n", "the byte 0xe4 that is not utf-8"),
        ('buy,2026-03-01T10:00:00Z,"anna,o1,1,0\n', "a quoted text that does not end"),
        ('buy,2026-03-01T10:00:00Z,"an"na",o1,1,0\n', 'a " inside a quoted text'),
        ("buy,2026-03-01T10:00:00Z,anna\n", "3 columns, must be 6 columns as in the header"),
        (f"buy,2026-03-01T10:00:00Z,{'x' * 2_000_000},o1,1,0\n", "a line of more than 1048576 bytes"),
        (f"buy,2026-03-01T10:00:00Z,{'x' * 200_000},o1,1,0\n", "a value that is too long"),
    ],
)
def test_a_broken_line_leaves_its_neighbours_alone(desk: Desk, lines: str, said: str) -> None:
    after = "".join(f"buy,2026-03-01T10:00:00Z,c{n},o1,1,0\n" for n in range(1500))
    desk.put("rows.csv", CSV.encode() + lines.encode("latin-1") + after.encode() + b"sell,,,,,")
    told = desk.faults()
    assert told[0].startswith("rows.csv:4: got " + said), told
    assert all(each.startswith("rows.csv:1505, column ") for each in told[1:]), told
    assert desk.run() == Imported(1504, 1502, 2, 0)


def test_a_text_over_several_lines_is_one_row(desk: Desk) -> None:
    desk.put("rows.csv", CSV + 'buy,2026-03-01T10:00:00Z,anna,"o\n""1""\n",1,0\n' + "buy,soon,anna,o1,1,0\n")
    assert [each.partition(",")[0] for each in desk.faults()] == ["rows.csv:7"]
    desk.run()
    assert msgspec.json.decode(desk.events()[2].properties)["order_id"] == 'o\n"1"\n'


def test_the_encoding_of_the_map_is_used(desk: Desk) -> None:
    desk.put("map.yaml", MAP + "encoding: windows-1252\n")
    desk.put("rows.csv", CSV.replace("anna", "Päivi €").encode("windows-1252"))
    desk.run()
    assert desk.events()[0].identifiers == {"user_id": "Päivi €"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"what": "buy", "at": "2026-', "broken JSON at byte 28"),
        ("[1]", "Hint: each line is one JSON object."),
        ("null", "got null, must be a JSON object."),
        ('{"what": "buy", "euros": 1e999}', "a number beyond a 64-bit float"),
        ("{" * 200, "broken JSON"),
        ('{"a":' * 100_000, "nesting"),
        ('{"what": "sell"}', "column what: got 'sell', must be a value that the map names an event for."),
        ('{"what": {"a": 1}}', "column what"),
        ('{"what": "buy", "at": "2026-03-01T10:00:00Z", "customer": true}', "must be text or a whole number"),
        (
            '{"what": "buy", "at": "2026-03-01T10:00:00Z", "customer": "a", "order": "\\u0000"}',
            "a text with NUL",
        ),
    ],
)
def test_a_broken_json_line_leaves_its_neighbours_alone(desk: Desk, line: str, said: str) -> None:
    good = (
        '{"what": "buy", "at": "2026-03-01T10:00:00Z", "customer": "a", "order": "o1", "euros": 1, "hits": 0}'
    )
    desk.put("rows.jsonl", f"{good}\n{line}\n{good}\n")
    told = desk.faults("rows.jsonl")
    assert told and all(each.startswith("rows.jsonl:2") for each in told) and said in " ".join(told), told
    assert desk.run("rows.jsonl") == Imported(3, 2, 1, 0)


def test_files_that_cannot_be_read_store_nothing(desk: Desk) -> None:
    desk.put("rows.csv", CSV)
    desk.run()
    before = desk.world.engine.journal.head()
    desk.table(
        what=["buy"] * 9_999,
        at=["2026-03-01T10:00:00Z"] * 9_999,
        customer=[f"c{n}" for n in range(9_999)],
        order=["o1"] * 9_999,
        euros=[1.0] * 9_999,
        hits=[0] * 9_999,
    )
    whole = (desk.folder / "rows.parquet").read_bytes()
    desk.put("half.parquet", whole[: len(whole) // 2])
    holed = bytearray(whole)
    holed[2_000:9_000] = b"\xff" * 7_000
    desk.put("holed.parquet", bytes(holed))
    desk.put("empty.parquet", b"")
    desk.put("empty.csv", b"")
    desk.put("empty.jsonl", b"\n")
    desk.put("half.csv.gz", gzip.compress(rows(5_000).encode())[:9_000])
    desk.put("twice.csv", "at,at\n")
    desk.put("unnamed.csv", "what,,at\n")
    desk.put("rows.xlsx", b"PK")
    said = {
        "half.parquet": "must be a whole file. Hint: it may have been cut on its way; fetch it again.",
        "holed.parquet": "got a file that breaks (",
        "empty.parquet": "got a file that breaks (",
        "empty.csv": "got an empty file, must be a line of column names, then rows.",
        "empty.jsonl": "got an empty file, must be one JSON object on each line.",
        "half.csv.gz": "got a file that breaks (",
        "twice.csv": "got the column 'at' twice",
        "unnamed.csv": "got a column without a name",
        "rows.xlsx": "must be a file that ends in .csv, .tsv, .jsonl or .parquet.",
    }
    for name, text in said.items():
        for run in (desk.run, desk.trial):
            (told,) = broken(run, name)
            assert told.startswith(name) and text in told, told
    with pytest.raises(NotFound, match=r"none.csv: got no such file"):
        desk.run("none.csv")
    assert desk.world.engine.journal.head() == before


def test_a_map_with_faults_names_all_of_them_in_place(desk: Desk) -> None:
    desk.put(
        "map.yaml",
        """import: Old Orders
source: shopp
event: Order Complete
occurred_at: {column: at, format: dd.mm.yyyy, zone: Europe/Helsingfors}
properties:
  total: {column: euros, type: numbr}
colour: red
""",
    )
    told = broken(desk.plan)
    assert told[0].startswith("map.yaml:6:32: got type: 'numbr', must be one of 'boolean'")
    assert told[1].startswith("map.yaml:7:1: got the unknown field 'colour'")
    text = (desk.folder / "map.yaml").read_text().replace("numbr", "number").replace("colour: red\n", "")
    desk.put("map.yaml", text)
    places = [each.partition(": got")[0] for each in broken(desk.plan)]
    assert places == [
        "map.yaml:1:1",
        "map.yaml:1:9",
        "map.yaml:2:9",
        "map.yaml:3:8",
        "map.yaml:4:35",
        "map.yaml:4:53",
    ]


def test_a_column_that_the_file_lacks_is_told_with_the_nearest(desk: Desk) -> None:
    desk.put("rows.csv", CSV.replace("customer", "custmer"))
    desk.put("rows.jsonl", '{"what": "buy", "at": 1, "order": 1, "euros": 1, "hits": 1}')
    said = "map.yaml:6:10: got 'customer', must be a column of the file."
    assert broken(desk.run) == [said + " Hint: did you mean 'custmer'."]
    assert broken(desk.run, "rows.jsonl")[0].startswith(said)


def test_a_dry_run_shows_first_events_and_counts_every_fault(desk: Desk) -> None:
    desk.put("rows.csv", rows(20_000))
    trial = desk.trial()
    assert (trial.n_rows, trial.n_rejected, trial.n_faults, len(trial.faults)) == (20_000, 400, 400, 200)
    text = render(trial).splitlines()
    assert text[0] == "20,000 rows: 19,600 events, 400 rejected"
    assert text[2] == "Order Completed at 2026-03-01T10:00:00+00:00 (shop; user_id c0)"
    assert text[3] == '  {"order_id":"o0","total":0}'
    assert "  rows.csv:11, column euros: got 'x', must be a number." in text
    assert text[-1] == "  and 200 more"
    assert desk.events() == [] and desk.world.disk.names("imports/*") == []


def test_progress_is_told_with_its_end(desk: Desk) -> None:
    desk.put("rows.csv", rows(2_500))
    told: list[tuple[int, int]] = []
    import_file(desk.world.engine, desk.disk, "rows.csv", desk.plan(), lambda *each: told.append(each))
    assert told == [(0, 2_500), (1_000, 2_500), (2_000, 2_500), (2_500, 2_500)]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.sampled_from(["csv", "jsonl", "parquet", "csv.gz"]), st.booleans())
def test_any_bytes_are_rows_or_a_clear_error(desk: Desk, data: bytes, ending: str, headed: bool) -> None:
    desk.put(f"any.{ending}", (CSV.encode() if headed else b"") + data)
    try:
        trial = desk.trial(f"any.{ending}")
    except HetkiError as error:
        assert all(fault.got and fault.must for fault in error.faults)
    else:
        assert trial.n_faults >= trial.n_rejected
        assert len(trial.events) == min(5, trial.n_rows - trial.n_rejected)
