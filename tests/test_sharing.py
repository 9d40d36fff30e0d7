"""What may be shown to anybody: nothing undeclared, nothing personal and no identifier, whatever is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import FILES as WORLD
from world import World, project

from hetki.declarations.read import read
from hetki.engine.check import check
from hetki.errors import Conflict
from hetki.events import free
from hetki.events.catalogue import SHIPPED, Catalogue, EventSpec
from hetki.events.event import Event
from hetki.events.free import free_fields
from hetki.simulation.world import MemoryDisk
from hetki.store import sharing
from hetki.store.lake import EVENTS, SCHEMAS, open_lake, refresh
from hetki.store.sharing import FREE, share

#: A field of each kind; nobody said what `unsaid` is, and nobody declared what is inside `parts` and `more`.
DECLARED = """
event: Offer Sent
fields:
  {amount: number, n_pages: integer, is_first: boolean, valid_until: time, kind: text, note: text,
   unsaid: text, parts: list, more: object}
personal: [note]
free: [amount, n_pages, is_first, valid_until, kind]
"""
FILES = {"events/offer_sent.yaml": DECLARED}
CANARY = "kanarialintu"
#: What is told of somebody, and no name of theirs.
SECRET = "salaisuus"


@cache
def catalogue() -> Catalogue:
    spec = read(DECLARED, "e.yaml", EventSpec).value
    assert spec is not None
    return SHIPPED.extended([spec])


def may_be_shown(field: str, value: object, names: list[str]) -> bool:
    """The rule in other words, for the one event: by field and type, with nobody's name in it."""
    match field, value:
        case ("is_first", bool()):
            return True
        case ("amount", bool()) | ("n_pages", bool()):
            return False
        case ("amount", int() | float()) | ("n_pages", int()):
            return value not in [float(name) for name in names if name.removeprefix("+").isdigit()]
        case ("valid_until", str()):
            try:
                datetime.fromisoformat(value)
            except ValueError:
                return False
        case ("kind", str()):
            pass
        case _:
            return False
    return all(name.lower() not in value.lower() for name in names)


FIELDS = [
    "amount",
    "n_pages",
    "is_first",
    "valid_until",
    "kind",
    "note",
    "unsaid",
    "parts",
    "more",
    "channel",
]
NAMES = st.sampled_from(["anna", "anna@kauppa.fi", "4711", "+358401234567"])
VALUES = st.one_of(
    st.integers(0, 9_999),
    st.sampled_from([4711, 4711.0, 358401234567, 358401234567.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
    NAMES,
    NAMES.map(lambda name: f"for {name.upper()}!"),
    st.just("2026-03-02T10:00:00Z"),
    st.lists(NAMES, max_size=2),
    st.dictionaries(st.sampled_from(["kind", "amount"]), NAMES, max_size=2),
)
TOLD = st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=6)), VALUES, max_size=6)


@given(
    event=st.sampled_from(["Offer Sent", "Offer Sent", "Offer Snet", "offer sent", "anna@kauppa.fi"]),
    told=TOLD,
    names=st.lists(NAMES, min_size=1, max_size=3),
)
@settings(max_examples=300)
def test_only_what_was_declared_free_is_shown(event: str, told: dict[str, object], names: list[str]) -> None:
    shown = free_fields(catalogue(), event, json.dumps(told).encode(), names)
    if event != "Offer Sent":
        assert shown is None
    else:
        assert shown == {name: value for name, value in told.items() if may_be_shown(name, value, names)}


def lived(tmp_path: Path, name: str = "Offer Sent", **told: object) -> World:
    """A world with a canary in whatever is personal, and what is free beside it."""
    own = project(FILES)
    world = World(own, disk=MemoryDisk(str(tmp_path)))
    said = {"amount": 12.5, "n_pages": 3, "is_first": True, "kind": "house", **told}
    hidden = {"note": SECRET, "unsaid": SECRET, "parts": [SECRET], "more": {"kind": SECRET}, SECRET: SECRET}
    canaries = {"amount": 7, "kind": f"to {CANARY}@kauppa.fi", "n_pages": SECRET, "valid_until": SECRET}
    for number, (called, fields) in enumerate(
        [(name, said | hidden), (name, canaries), (SECRET, said), ("Page Viewed", {"path": f"/{SECRET}"})]
    ):
        at = world.clock.now() + number * 61_234_567
        world.accept(
            [
                Event(
                    source="web",
                    message_id=f"{CANARY}-{number}",
                    channel="web",
                    name=called,
                    occurred_at=at,
                    received_at=at,
                    identifiers={"user_id": CANARY, "email": f"{CANARY}@kauppa.fi"},
                    properties=json.dumps(fields).encode(),
                    context=json.dumps({"device": {"type": SECRET}, "page": {"path": SECRET}}).encode(),
                )
            ]
        )
    world.live("10:00 web u=kanarialintu Help Searched n_results=0 query=kanarialintu")
    world.until("10:30")
    world.deliver()
    refresh(world.disk, world.engine.journal, world.engine.state)
    return world


def shared(world: World, to: Path) -> dict[str, list[dict[str, object]]]:
    """What was written, row by row, by table."""
    disk = MemoryDisk(str(to))
    share(world.disk, world.engine.project.catalogue, disk)
    found: dict[str, list[dict[str, object]]] = {}
    for name in disk.names("**"):
        rows = duckdb.sql(f"SELECT * FROM read_parquet('{disk.path(name)}', hive_partitioning = false)")
        table = name.partition("/")[0].removesuffix(".parquet")
        values = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
        found.setdefault(table, []).extend(values)
    return found


def ids(world: World) -> set[str]:
    """Every id of somebody or something, and every exact instant, that the lake knows."""
    db = open_lake(world.disk)
    found: set[str] = set()
    for name, schema in {"events": EVENTS, **SCHEMAS}.items():
        for column in schema.names:
            is_id = column in ("leaf", "customer", "account", "node_a", "node_b") or column.endswith("_id")
            if is_id or column.endswith("_at"):
                for (value,) in db.execute(f"SELECT DISTINCT {column}::VARCHAR FROM {name}").fetchall():
                    found |= {value} if value and (is_id or not value.endswith(":00:00+00")) else set()
    db.close()
    return found


def leaks(world: World, to: Path) -> list[str]:
    """What is shared and says whose it is: canaries, ids, exact instants."""
    text = json.dumps(shared(world, to), default=str)
    return [each for each in (CANARY, SECRET, *sorted(ids(world))) if each in text]


def test_what_is_shared_names_nobody_and_says_what_is_free(tmp_path: Path) -> None:
    world = lived(tmp_path / "data")
    db = open_lake(world.disk)
    events = db.execute("SELECT * FROM events").fetchall()
    db.close()
    assert min(str(events).count(word) for word in (CANARY, SECRET)) > 10 and len(ids(world)) > 10, (
        "else the scan is blind"
    )
    assert leaks(world, tmp_path / "one") == []
    found = shared(world, tmp_path / "two")
    told = [(row["name"], json.loads(str(row["properties"]))) for row in found["events"]]
    assert ("Offer Sent", {"amount": 12.5, "n_pages": 3, "is_first": True, "kind": "house"}) in told
    assert ("Offer Sent", {"amount": 7}) in told and ("Help Searched", {"n_results": 0}) in told
    assert ("Page Viewed", {}) in told and len(told) < len(events)
    assert {row["status"] for row in found["occurrences"]} == {"caught"}
    assert {row["chosen"] for row in found["decisions"]} and {row["arm"] for row in found["assignments"]}
    assert {row["status"] for row in found["deliveries"]} == {"sent"}


def _free_unless_personal(catalogue: Catalogue, event: str, field: str) -> bool:
    spec = catalogue.events.get(event)
    return spec is None or field not in spec.personal


def _any_name(known: Catalogue, event: str, properties: bytes, names: list[str]) -> dict[str, object]:
    return free_fields(known, event, properties, names) or {}


PLANTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "free by default": lambda patch: patch.setattr(Catalogue, "is_free", _free_unless_personal),
    "any type": lambda patch: patch.setattr(free, "_is", lambda value, kind: True),
    "names in values": lambda patch: patch.setattr(free, "_repeats", lambda value, names: False),
    "any event": lambda patch: patch.setattr(sharing, "free_fields", _any_name),
    "one column more": lambda patch: patch.setitem(FREE, "decisions", (*FREE["decisions"], "leaf")),
    "exact instants": lambda patch: patch.setattr(sharing, "_blurred", lambda table: table),
}


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_leak_is_found(plant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = lived(tmp_path / "data")
    PLANTED[plant](monkeypatch)
    assert leaks(world, tmp_path / "shared")


def test_check_names_the_fields_of_which_nobody_said_what_they_are() -> None:
    disk = MemoryDisk()
    for name, text in {**WORLD, **FILES}.items():
        disk.write(name, text.encode())
    notes = [note for note in check(disk).notes if note.startswith("events/")]
    assert notes == [
        "events/: nobody called these fields free, so they are personal:"
        " Offer Sent.more, Offer Sent.parts, Offer Sent.unsaid"
    ]
    disk.write("events/offer_sent.yaml", DECLARED.replace("[note]", "[note, unsaid, parts, more]").encode())
    assert not [note for note in check(disk).notes if note.startswith("events/")]
    disk.write("events/offer_sent.yaml", DECLARED.replace("free: [", "free: [note, more, ").encode())
    assert [str(fault) for fault in check(disk).faults] == [
        "events/offer_sent.yaml:7:8: got 'note', must be a field that is not personal.",
        "events/offer_sent.yaml:7:14: got object, must be a field with one value to be free."
        " Hint: nobody has declared what is inside.",
    ]


def test_a_folder_with_files_in_it_is_left_alone(tmp_path: Path) -> None:
    world = lived(tmp_path / "data")
    to = MemoryDisk(str(tmp_path / "to"))
    to.write("events/x", b"1")
    with pytest.raises(Conflict):
        share(world.disk, world.engine.project.catalogue, to)
    assert to.names("**") == ["events/x"]
