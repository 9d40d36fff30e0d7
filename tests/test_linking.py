"""`hetki link`: tables into the journal, linkage over all records, what a second run does, bad tables.

Persons come from the seeded maker of `test_linkage`, as two systems have them.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from random import Random

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from called import called
from test_linkage import another, person
from world import World, project, source

from hetki.cli.linking import said
from hetki.engine import linking
from hetki.engine.linking import MARK, MODEL, Done, Wanted, link_tables, load_model, version_of
from hetki.engine.rebuilding import rebuild
from hetki.engine.repair import list_rejected
from hetki.engine.skeleton import skeleton
from hetki.engine.tables import BATCH_ROWS, Wishes, roles_of
from hetki.errors import HetkiError, Invalid, Unavailable
from hetki.events.event import Event
from hetki.events.wire import Parsed
from hetki.store.journal import Kind
from hetki.store.system import SystemDisk
from hetki.store.tables import read_table

Row = dict[str, str | None]
N = 150


def in_systems(n: int, seed: int, *ids: str) -> list[list[Row]]:
    """The same persons as several systems have them, each with mistakes of its own and without the mail.

    `ids` are forms of the systems' ids: `id=C{}` is a column `id` with C0, C1 ...
    """
    chance = Random(seed)
    people = [person(chance) for _ in range(n)]
    named = [each.split("=") for each in ids]
    return [
        [{name: form.format(k), **another(chance, one), "mail": None} for k, one in enumerate(people)]
        for name, form in named
    ]


def in_two_systems(n: int = N, seed: int = 1) -> list[list[Row]]:
    return in_systems(n, seed, "id=C{}", "nr=1{:03}")


def as_csv(rows: list[Row], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Desk:
    """A world with the sources `crm` and `shop`, and a folder of tables beside the project's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = SystemDisk(folder)
        self.world = World(project({**source("crm", "service"), **source("till", "marketing")}))

    def put(self, name: str, content: str | bytes) -> None:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def link(self, *names: str, source: str = "crm", encoding: str = "utf-8", **wishes: object) -> Done:
        self.world.clock.move(self.world.clock.now() + 1)
        plain = {key: wishes.pop(key) for key in ("is_training", "is_dry") if key in wishes}
        tables = [read_table(self.disk, name, encoding) for name in names]
        wanted = Wanted(tables, source, Wishes(**wishes), **plain)  # type: ignore[arg-type]
        return link_tables(self.world.engine, self.disk, wanted, lambda *_: None)

    def take(self, *names: str, **wishes: object) -> Done:
        """Take tables in, and leave it at that."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(linking, "_find", lambda *_: None)
            return self.link(*names, **wishes)  # type: ignore[arg-type]

    def events(self) -> list[Event]:
        stored = self.world.engine.journal.read(0, 1_000_000)
        bodies = [each.body for each in stored if each.kind is Kind.EVENT and each.body is not None]
        return [msgspec.msgpack.decode(body, type=Event) for body in bodies]

    def customers(self) -> dict[str, bytes]:
        """The customer of each record."""
        rows = self.world.rows("SELECT value, customer FROM nodes WHERE namespace = 'record'")
        return {str(value): bytes(customer) for value, customer in rows}  # type: ignore[arg-type]

    def head(self) -> int:
        return self.world.engine.journal.head()[0]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Done, Done]:
    """Both systems linked, the second with the model of both: what most tests look at and none changes."""
    desk = Desk(tmp_path_factory.mktemp("tables"))
    crm, shop = in_two_systems()
    desk.put("crm.csv", as_csv(crm))
    desk.put("shop.csv", as_csv(shop))
    return desk, desk.link("crm.csv"), desk.link("shop.csv", source="shop", row_id="nr")


# -- tables of two systems


def test_rows_are_events_of_the_source_with_their_record_and_what_they_say(
    linked: tuple[Desk, Done, Done],
) -> None:
    desk, first, _ = linked
    (taken,) = first.taken
    assert (taken.n_rows, taken.n_new, taken.n_rejected, taken.roles.row_id) == (N, N, 0, "id")
    crm, _ = in_two_systems()
    event = next(each for each in desk.events() if each.identifiers["record_id"] == "crm:C7")
    assert (event.name, event.source, event.channel) == ("Customer Identified", "crm", "crm")
    said = {name: value for name, value in crm[7].items() if value and name != "id"}
    assert msgspec.json.decode(event.properties) == said


def test_two_systems_without_a_shared_id_have_the_same_customers(linked: tuple[Desk, Done, Done]) -> None:
    customers = linked[0].customers()
    right = [customers[f"crm:C{k}"] == customers[f"shop:1{k:03}"] for k in range(N)]
    assert len(customers) == 2 * N and sum(right) >= 0.9 * N
    mixed = len({customers[f"crm:C{k}"] for k in range(N)})
    assert mixed >= 0.99 * N, "hardly two of one system are one"


def test_a_link_tells_its_weight_by_field_and_its_model(linked: tuple[Desk, Done, Done]) -> None:
    desk, _, second = linked
    assert second.linked is not None
    model = load_model(desk.disk)
    assert model is not None and second.linked.version == version_of(model)
    rows = desk.world.rows("SELECT weight, rule, told FROM links WHERE kind IN ('probable', 'possible')")
    assert len(rows) == len(second.linked.proposals.pairs) > 0.9 * N
    for weight, rule, told in rows:
        parts = msgspec.msgpack.decode(told, type=list[tuple[str, float]])  # type: ignore[arg-type]
        assert parts[0][0] == "prior" and sum(bits for _, bits in parts) == pytest.approx(weight)
        assert rule == second.linked.version


def test_what_is_known_is_not_taken_again(linked: tuple[Desk, Done, Done]) -> None:
    desk, _, second = linked
    head, model, customers = desk.head(), desk.disk.read(MODEL), desk.customers()
    again = desk.link("shop.csv", source="shop", row_id="nr")
    assert (again.taken[0].n_same, again.taken[0].n_new) == (N, 0)
    assert again.linked is not None and again.linked.linkage is None and again.linked.n_compared == 0
    assert (desk.head(), desk.disk.read(MODEL), desk.customers()) == (head, model, customers)
    assert second.linked is not None and again.linked.version == second.linked.version


def test_what_linkage_found_is_rebuilt_from_the_journal(linked: tuple[Desk, Done, Done]) -> None:
    rebuilt = rebuild(linked[0].world.engine)
    assert rebuilt.before == rebuilt.after


def test_a_model_is_plain_and_holds_no_value_of_anybody(linked: tuple[Desk, Done, Done]) -> None:
    desk = linked[0]
    text = desk.disk.read(MODEL).decode()
    crm, shop = in_two_systems()
    families = {row["family"] for row in (*crm, *shop) if row["family"]}
    assert text.startswith('{\n  "columns"') and not [name for name in families if name in text]
    assert "family" in text


def test_the_summary_says_what_was_done(linked: tuple[Desk, Done, Done]) -> None:
    text = said(linked[2], False)
    assert "shop.csv: 150 rows: 150 new records, 0 changed, 0 as before, 0 rejected" in text
    assert "  id of a row: column nr" in text and "not compared: mail" not in text
    assert "300 records of 2 sources" in text and "probable pairs" in text


# -- later runs


def test_new_records_are_weighed_with_the_kept_model_and_customers_stay(desk: Desk) -> None:
    crm, shop, later = in_systems(100, 2, "id=C{}", "id=S{}", "id=L{}")
    desk.put("both.csv", as_csv([*crm, *shop]))
    desk.link("both.csv")
    model, before = desk.disk.read(MODEL), desk.customers()
    desk.put("later.csv", as_csv(later[:30]))
    dry = desk.link("later.csv", source="till", is_dry=True)
    done = desk.link("later.csv", source="till")
    assert done.linked is not None and not done.linked.is_trained and done.linked.n_compared == 30
    assert desk.disk.read(MODEL) == model
    assert dry.linked is not None and done.linked.n_compared == dry.linked.n_compared
    said_dry, said_wet = dry.linked.proposals.pairs, done.linked.proposals.pairs
    assert said_wet and [each[:3] for each in said_dry] == [each[:3] for each in said_wet]
    after = desk.customers()
    now_called = {before[record]: after[record] for record in before}
    assert all(after[record] == now_called[before[record]] for record in before), "nobody is parted"
    stayed = [old for old, new in now_called.items() if old == new]
    assert set(now_called.values()) == set(stayed) and len(stayed) >= 0.9 * len(now_called), "ids stay"
    assert sum(after[f"till:L{k}"] == after[f"crm:C{k}"] for k in range(30)) >= 24


def test_a_changed_row_is_told_again_and_a_row_that_goes_back_too(desk: Desk) -> None:
    rows = [{"id": "1", "name": "anna", "town": "oulu"}, {"id": "2", "name": "bert", "town": "pori"}]
    for town in ("oulu", "espoo", "oulu", "oulu"):
        rows[0]["town"] = town
        desk.put("t.csv", as_csv(rows))  # type: ignore[arg-type]
        desk.take("t.csv")
    told = [event for event in desk.events() if event.identifiers["record_id"] == "crm:1"]
    assert [msgspec.json.decode(event.properties)["town"] for event in told] == ["oulu", "espoo", "oulu"]
    assert len({event.message_id for event in told}) == 3
    changed = desk.take("t.csv")
    assert (changed.taken[0].n_same, changed.taken[0].n_changed) == (2, 0)


def test_an_interrupted_import_goes_on_and_doubles_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 2 * BATCH_ROWS + 10
    desk.put("t.csv", as_csv([{"id": str(k), "name": f"n{k % 700}", "age": str(k % 90)} for k in range(n)]))
    acceptor, accept = desk.world.engine.acceptor, desk.world.engine.acceptor.accept
    calls = []

    def breaks(bodies: list[Parsed]) -> int:
        calls.append(len(bodies))
        if len(calls) == 3:
            raise Unavailable(linking.Fault("journal.db", "no space", "free space"))
        return accept(bodies)

    with monkeypatch.context() as patched, pytest.raises(Unavailable):
        patched.setattr(acceptor, "accept", breaks)
        desk.take("t.csv")
    assert len(desk.events()) == BATCH_ROWS
    done = desk.take("t.csv")
    assert (done.taken[0].n_new, done.taken[0].n_same) == (n - BATCH_ROWS, BATCH_ROWS)
    assert len(desk.events()) == n


def test_a_dry_run_writes_nothing_and_says_the_same(linked: tuple[Desk, Done, Done], desk: Desk) -> None:
    crm, _ = in_two_systems()
    desk.put("crm.csv", as_csv(crm))
    head = desk.head()
    done = desk.link("crm.csv", is_dry=True)
    assert (desk.head(), desk.disk.names("linkage/*"), desk.world.disk.names(MARK)) == (head, [], [])
    wet = linked[1]
    assert done.taken == wet.taken and done.linked is not None and wet.linked is not None
    assert done.linked.version == wet.linked.version
    assert "a dry run: nothing was written" in said(done, True)


def test_whom_a_person_parted_stays_parted_when_the_model_is_trained_again(desk: Desk) -> None:
    crm, shop = in_systems(50, 4, "id=C{}", "id=S{}")
    desk.put("both.csv", as_csv([*crm, *shop]))
    desk.link("both.csv")
    desk.world.unmerge("probable")
    desk.world.advance()
    rows = desk.world.rows(
        "SELECT n.value FROM links l JOIN nodes n ON n.node IN (l.node_a, l.node_b)"
        " WHERE l.revoked_at IS NOT NULL"
    )
    parted = {str(value) for (value,) in rows}
    assert len(parted) == 2
    desk.link(is_training=True)
    customers = desk.customers()
    assert len({customers[record] for record in parted}) == 2


# -- identifiers


def test_addresses_and_numbers_join_at_once_with_what_the_web_knows(desk: Desk) -> None:
    desk.world.live("10:00 web u=anna mail=anna@example.fi Product Viewed product_id=p1")
    rows = [
        {
            "key": f"k{n}",
            "Contact": f"p{n}@example.fi",
            "Puhelin": f"+35840123{n:04}",
            "born": f"1980-01-{n + 1:02}",
        }
        for n in range(20)
    ]
    rows[3]["Contact"] = "Anna@Example.fi "
    rows[5] |= {"Contact": "", "Puhelin": rows[4]["Puhelin"]}
    desk.put("t.csv", as_csv(rows))  # type: ignore[arg-type]
    roles = desk.take("t.csv").taken[0].roles
    assert roles.contacts == {"email": ["Contact"], "phone": ["Puhelin"]} and roles.row_id == "key"
    assert roles.names == {"Contact": "email", "Puhelin": "phone", "born": "born"}
    customers = desk.customers()
    (anna,) = desk.world.rows("SELECT customer FROM nodes WHERE value = 'anna'")
    assert (
        customers["crm:k3"] == anna[0] and customers["crm:k4"] == customers["crm:k5"] != customers["crm:k6"]
    )


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("born", ["1980-01-02", "1981-02-03"], None),
        ("born", ["19800102", "19810203"], None),
        ("account", ["00012345", "00012346"], None),
        ("ssn", ["123-45-6789", "987-65-4321"], None),
        ("number", ["4012345678", "4012345679"], None),
        ("post", ["00100", "33100"], None),
        ("a", ["+358 40 1234567", "0401234568"], "phone"),
        ("b", ["(212) 555-0100", "212-555-0101"], "phone"),
        ("mobile", ["4012345678", "4012345679"], "phone"),
        ("note", ["anna@example.fi", "bert@example.fi"], "email"),
        ("note", ["call anna@example.fi", "at work"], None),
    ],
)
def test_columns_of_addresses_and_numbers_are_known_by_their_values(
    desk: Desk, name: str, values: list[str], kind: str | None
) -> None:
    desk.put("t.csv", as_csv([{"id": str(n), name: value} for n, value in enumerate(values)]))
    roles = roles_of(read_table(desk.disk, "t.csv", "utf-8"), Wishes())
    assert {key for key, columns in roles.contacts.items() if columns} == ({kind} if kind else set())


def test_columns_take_other_names_and_can_be_left_out(desk: Desk) -> None:
    desk.put("t.csv", as_csv([{"id": "1", "First Name": "anna", "tel": "12", "x": "y"}]))
    table = read_table(desk.disk, "t.csv", "utf-8")
    roles = roles_of(table, Wishes("", {"tel": "phone"}, ["x"]))
    assert roles.names == {"First Name": "first_name", "tel": "phone"} and roles.left_out == {"x": "as asked"}
    assert roles.contacts["phone"] == ["tel"]


# -- ids of rows


def test_without_ids_equal_rows_are_one_record(desk: Desk) -> None:
    desk.put("t.csv", "name,town\nanna,oulu\nbert,pori\nanna,oulu\nanna,pori\n")
    done = desk.take("t.csv")
    assert done.taken[0].roles.row_id is None and (done.taken[0].n_new, done.taken[0].n_same) == (3, 1)
    assert "equal rows are one record" in said(done, False)
    assert len(desk.customers()) == 3


def test_a_second_row_of_one_id_is_rejected_once_and_its_neighbours_are_taken(desk: Desk) -> None:
    desk.put("t.csv", "id,name,age\n1,anna,40\n2,bert,30\n1,anna,40\n1,otto,20\n,nobody,1\n3,carl,50\n")
    for _ in range(2):
        taken = desk.take("t.csv", row_id="id").taken[0]
        assert taken.n_rejected == 2
        assert [str(fault).partition(" Hint")[0] for fault in taken.faults] == [
            "t.csv:5, column id: got '1' again, with other values than at t.csv:2, must be an id of one row.",
            "t.csv:6, column id: got no id, must be an id of the row.",
        ]
    assert sorted(desk.customers()) == ["crm:1", "crm:2", "crm:3"]
    assert len(list_rejected(desk.world.engine)) == 2


def test_an_id_is_found_by_its_name_before_its_place(desk: Desk) -> None:
    rows = [{"post": f"{n + 100}", "customer_id": f"{n * 7}", "name": f"n{n % 9}"} for n in range(30)]
    desk.put("t.csv", as_csv(rows))  # type: ignore[arg-type]
    assert roles_of(read_table(desk.disk, "t.csv", "utf-8"), Wishes()).row_id == "customer_id"
    desk.put("u.csv", as_csv([{"post": row["post"], "name": row["name"]} for row in rows]))  # type: ignore[misc]
    assert roles_of(read_table(desk.disk, "u.csv", "utf-8"), Wishes()).row_id == "post"


# -- bad input


def many_columns() -> str:
    return ",".join(f"c{n}" for n in range(201)) + "\n" + ",".join("x" * 201)


@pytest.mark.parametrize(
    ("name", "content", "wishes", "told"),
    [
        ("none.csv", None, {}, "none.csv: got no such file"),
        ("t.xlsx", "a", {}, "must be a file that ends in"),
        ("t.jsonl", "{}", {}, "got JSON Lines, must be CSV or Parquet"),
        ("t.csv", "", {}, "got an empty file"),
        ("t.csv", "id,name\n", {}, "got no rows"),
        ("t.csv", "id,id\n1,2\n", {}, "the column 'id' twice"),
        ("t.csv", "Name,name\na,b\n", {}, "the columns 'Name' and 'name', both name"),
        ("t.csv", many_columns(), {}, "got 201 columns"),
        ("t.csv", "id,name\n1,a\n", {"row_id": "key"}, "no column 'key'"),
        ("t.csv", "id,name\n1,a\n", {"ignored": ["nam"]}, "did you mean 'name'"),
        ("t.csv", "id,name\n1,a\n", {"source": "crn"}, "--source: got 'crn', must be a declared source"),
        ("t.parquet", "no parquet", {}, "a file that breaks"),
    ],
)
def test_a_table_that_cannot_be_taken_is_a_fault_and_stores_nothing(
    desk: Desk, name: str, content: str | None, wishes: dict[str, object], told: str
) -> None:
    if content is not None:
        desk.put(name, content)
    with pytest.raises(HetkiError) as caught:
        desk.link(name, **wishes)  # type: ignore[arg-type]
    assert told in str(caught.value)
    assert desk.events() == []


@pytest.mark.parametrize(
    ("content", "n_new", "told"),
    [
        (b"\xef\xbb\xbfid;name\n1;J\xc3\xa4rvi\n2;bo\n", 2, ""),
        (
            b"id,name\n1,J\xe4rvi\n2,bo\n",
            1,
            "the byte 0xe4 that is not utf-8, must be text in utf-8. Hint: is it --encoding windows-1252",
        ),
        (b"id,name\n1,anna,x\n2,bo\n", 1, "got 3 columns, must be 2 columns"),
        (b'id,name\n1,"anna\n2,bo\n', 1, "a quoted text that does not end"),
        (b"id,name\n1," + b"x" * 40_000 + b"\n2,bo\n", 1, "40011 bytes in one row"),
        (b"id,name\n1," + b"x" * 2_000_000 + b"\n2,bo\n", 1, "a line of more than"),
        (b"id,name\n1,a\x00b\n2,bo\n", 1, "NUL"),
        (b"id,name\n" + b"1" * 200 + b",anna\n2,bo\n", 1, "200 characters"),
    ],
)
def test_a_broken_row_is_kept_with_its_reason_and_its_neighbours_are_taken(
    desk: Desk, content: bytes, n_new: int, told: str
) -> None:
    desk.put("t.csv", content)
    taken = desk.take("t.csv", row_id="id").taken[0]
    assert (taken.n_new, taken.n_rejected) == (n_new, 2 - n_new)
    assert all(told in str(fault) for fault in taken.faults)
    assert len(list_rejected(desk.world.engine)) == 2 - n_new


def test_another_encoding_is_read_when_it_is_named(desk: Desk) -> None:
    desk.put("t.csv", b"id,name\n1,J\xe4rvi\n2,bo\n")
    assert desk.take("t.csv", encoding="windows-1252").taken[0].n_new == 2
    assert msgspec.json.decode(desk.events()[0].properties) == {"name": "Järvi"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"id": "1", "name": "anna"}], "records: got 1 records, must be 2 or more"),
        ([{"id": str(n), "name": "anna", "town": ""} for n in range(9)], "name (one_value)"),
        ([{"id": str(n), "name": "a", "x": ["p", "q"][n % 2]} for n in range(9)], "got 1 columns"),
    ],
)
def test_records_that_cannot_be_linked_are_taken_and_the_summary_says_why(
    desk: Desk, rows: list[Row], told: str
) -> None:
    desk.put("t.csv", as_csv(rows))
    done = desk.link("t.csv")
    assert done.linked is None and told in said(done, False)
    assert len(desk.customers()) == len(rows) and desk.disk.names("linkage/*") == []


def test_types_of_parquet_are_kept_and_what_is_no_plain_value_is_left_out(desk: Desk) -> None:
    table = pa.table(
        {
            "id": [1, 2],
            "n": pa.array([5.0, float("nan")]),
            "is_new": [True, None],
            "born": pa.array([3653, None], pa.date32()),
            "photo": pa.array([b"\xff", b"\xfe"]),
            "tags": [["a"], ["b"]],
            "name": ["anna", "bo"],
        }
    )
    pq.write_table(table, desk.folder / "t.parquet")
    done = desk.take("t.parquet")
    assert done.taken[0].roles.left_out == {"photo": "not_plain_values", "tags": "not_plain_values"}
    assert [msgspec.json.decode(event.properties) for event in desk.events()] == [
        {"born": "1980-01-02", "is_new": True, "n": 5, "name": "anna"},
        {"name": "bo"},
    ]


def test_one_person_with_very_many_records_is_set_aside(desk: Desk) -> None:
    crm, _ = in_two_systems(80, seed=6)
    chance = Random(6)
    one = person(chance)
    many = [{"id": f"M{k}", **one, "mail": None, "town": f"town{k % 5}"} for k in range(2_000)]
    desk.put("t.csv", as_csv([*crm, *many]))
    done = desk.link("t.csv")
    assert "  set aside: 2,00" in said(done, False)
    customers = desk.customers()
    assert len({customers[f"crm:M{k}"] for k in range(2_000)}) == 2_000
    query = "SELECT count(*) FROM nodes WHERE set_aside = 'too_many_alike' AND value LIKE 'crm:M%'"
    assert desk.world.rows(query) == [(2_000,)]


# -- the model


def test_a_model_that_does_not_fit_is_a_fault_before_anything_is_stored(
    linked: tuple[Desk, Done, Done], desk: Desk
) -> None:
    desk.disk.write(MODEL, linked[0].disk.read(MODEL))
    desk.put("t.csv", "id,colour,town\n1,red,oulu\n2,blue,pori\n")
    with pytest.raises(Invalid, match=r"got town of the columns that linkage/model\.json compares"):
        desk.link("t.csv")
    assert desk.events() == []


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"columns": 1}'])
def test_a_broken_model_is_a_fault_with_a_way_out(desk: Desk, content: bytes) -> None:
    desk.disk.write(MODEL, content)
    desk.put("t.csv", "id,colour\n1,red\n")
    with pytest.raises(Invalid, match=r"linkage/model\.json: got .* train again with --train"):
        desk.link("t.csv")
    assert desk.events() == []


def test_a_model_that_had_nobody_to_learn_from_is_trained_again_by_itself(
    linked: tuple[Desk, Done, Done],
) -> None:
    _, first, second = linked
    assert first.linked is not None and not first.linked.model.is_taught
    assert "will be trained again" in said(first, False)
    assert second.linked is not None and second.linked.is_trained and second.linked.model.is_taught


def test_progress_names_every_stage(desk: Desk) -> None:
    crm, _ = in_two_systems(30)
    desk.put("crm.csv", as_csv(crm))
    stages: list[str] = []

    def tell(stage: str, n_done: int, n: int) -> None:
        stages.append(stage)

    table = read_table(desk.disk, "crm.csv", "utf-8")
    link_tables(desk.world.engine, desk.disk, Wanted([table], "crm"), tell)
    assert list(dict.fromkeys(stages)) == [
        "crm.csv",
        "columns",
        "blocking",
        "u",
        "m",
        "weights",
        "clusters",
        "proposals",
    ]


# -- the command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["t.csv"], "--source: got no source"),
        (["t.csv", "--source", "crm", "--as", "name"], "--as: got 'name', must be COLUMN=NAME"),
        (["t.csv", "--source", "crn"], "did you mean 'crm'"),
        (["none.csv", "--source", "crm"], "none.csv: got no such file"),
        (["t.csv", "--source", "crm", "--encoding", "klingon"], "--encoding: got 'klingon'"),
        (["env:NO_SUCH_DB#t", "--source", "crm"], "env:NO_SUCH_DB: got no such variable"),
        ([], "not linked: records: got 0 records"),
        (["t.csv", "--source", "crm", "--as", "n=name", "--dry-run"], "taken under other names: n as name"),
    ],
)
def test_the_command_says_what_is_wrong_and_what_it_found(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {**skeleton(), **source("crm", "service"), "t.csv": "id,n\n1,anna\n2,bo\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code, out, err = called(["link", *words], monkeypatch, capsys)
    assert told in out + err
    assert (code == 0) == ("--dry-run" in words)
