"""Export: all of one customer and nothing of another, whole, hashed, and without a formula."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from syntax import house
from world import World

import hetki.engine.export as exporting
from hetki.engine.erase import erase
from hetki.engine.export import export
from hetki.errors import NotFound
from hetki.events.event import LeafId
from hetki.store.sheets import STARTS, json_lines, sheet
from hetki.store.system import SystemDisk

STORY = """
    09:00 web u=anna mail=anna@kauppa.fi Customer Identified email=anna@kauppa.fi name=Anna
    09:01 web u=anna a==cmd() Consent Granted purpose=marketing
    09:02 web u=anna g=kone Account Joined
    09:03 web u=bertta g=kone a=web1 Account Joined
    09:04 web u=bertta mail=bertta@kauppa.fi Customer Identified name=Bertta
    10:00 web u=anna Product Viewed product_id=p1
    10:01 web u=anna Product Viewed product_id=p1
    10:02 web u=anna Help Searched n_results=0
    10:03 web gpc u=anna Page Viewed
    10:20 web u=bertta Page Viewed
"""


def exported(world: World, user: str) -> dict[str, bytes]:
    done = export(world.engine, LeafId(world.node(user)))
    with zipfile.ZipFile(io.BytesIO(done.archive)) as packed:
        assert packed.testzip() is None
        files = {name: packed.read(name) for name in packed.namelist()}
    lines = {name[:-6]: data.count(b"\n") for name, data in files.items() if name.endswith(".jsonl")}
    assert done.n_rows == lines
    return files


def rows(files: dict[str, bytes], table: str) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for line in files[f"{table}.jsonl"].splitlines()]


def lived() -> World:
    world = World()
    world.live(STORY)
    world.deliver()
    return world


def test_all_of_a_customer_is_in_it_and_nothing_of_another() -> None:
    world = lived()
    files = exported(world, "anna")
    events = rows(files, "events")
    names = [str(row["name"]) for row in events if row["source"] == "web"]
    assert names == [
        "Customer Identified",
        "Consent Granted",
        "Account Joined",
        *["Product Viewed"] * 2,
        "Help Searched",
        "Page Viewed",
    ]
    assert events[0]["properties"] == {"email": "anna@kauppa.fi", "name": "Anna"}
    assert {"user_id anna", "email anna@kauppa.fi", "anonymous_id =cmd()"} == {
        f"{row['namespace']} {row['value']}" for row in rows(files, "identifiers")
    }
    assert ("email", "anna@kauppa.fi", True, "web") in {
        (row["trait"], row["value"], row["stands"], row["source"]) for row in rows(files, "traits")
    }
    assert [(row["said"], row["purpose"]) for row in rows(files, "consents")] == [
        ("Consent Granted", "marketing"),
        ("Sec-GPC", "marketing"),
    ]
    assert [(row["purpose"], row["in_force"], row["because"]) for row in rows(files, "purposes")] == [
        ("marketing", False, "refused"),
        ("service", True, "nothing was said, and its basis is contract"),
    ]
    assert {row["moment"] for row in rows(files, "occurrences")} == {"again", "help"}
    decisions = rows(files, "decisions")
    assert {row["moment"] for row in decisions} == {"again", "help"}
    assert all("What was chosen, and why" in str(row["in_words"]) for row in decisions)
    messages = rows(files, "messages")
    assert [(row["recipient"], row["status"]) for row in messages] == [("anna", "sent")] * len(messages)
    assert messages and [row["group_id"] for row in rows(files, "accounts")] == ["kone"]
    assert not [name for name, data in files.items() if b"bertta" in data.lower()]


@pytest.mark.parametrize("who", ["anna", "bertta"])
def test_it_is_of_one_instant_whatever_is_folded_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """One of the two is the other from then on, and has no state of its own any more."""
    disk = SystemDisk(tmp_path / "data", durable=False)
    world = World(disk=disk)
    world.live(STORY)
    before, real = exported(world, who), exporting.load_facts
    other = World(disk=disk, seed=2, starts="11:00")

    def merged_meanwhile(*given: object) -> object:
        found = real(*given)
        if not other.rows("SELECT 1 FROM links WHERE kind = 'merge'"):
            other.merge("anna", "bertta")
            other.live("11:00 web u=bertta g=other Account Joined")
        return found

    monkeypatch.setattr(exporting, "load_facts", merged_meanwhile)
    after = exported(world, who)
    assert {name: rows(after, name[:-6]) for name in before if name.endswith(".jsonl")} == {
        name: rows(before, name[:-6]) for name in before if name.endswith(".jsonl")
    }


def test_the_manifest_has_the_hash_of_every_file() -> None:
    files = exported(lived(), "anna")
    manifest = msgspec.json.decode(files.pop("manifest.json"))
    assert {each["name"]: (each["n_bytes"], each["sha256"]) for each in manifest["files"]} == {
        name: (len(data), sha256(data).hexdigest()) for name, data in files.items()
    }
    assert len(files) == 20


def test_csv_and_json_lines_have_the_same_rows() -> None:
    files = exported(lived(), "anna")
    for name in [each[:-6] for each in files if each.endswith(".jsonl")]:
        read = list(csv.DictReader(io.StringIO(files[f"{name}.csv"].decode(), newline="")))
        assert len(read) == len(rows(files, name))
        assert all(set(row) <= set(line) for row, line in zip(rows(files, name), read, strict=True))
    named = csv.DictReader(io.StringIO(files["identifiers.csv"].decode(), newline=""))
    assert "'=cmd()" in {row["value"] for row in named}


def test_who_was_erased_or_never_known_has_no_export() -> None:
    world = lived()
    leaf = LeafId(world.node("anna"))
    erase(world.engine, leaf, "desk")
    for each in (leaf, LeafId(bytes(16))):
        with pytest.raises(NotFound):
            export(world.engine, each)


starts = st.sampled_from([*STARTS, " =", "\u00a0+", '"', ",", ";", "'", "\x00", "", "\ufeff@"])


@given(st.lists(st.tuples(starts, st.text()), min_size=1), st.floats(), st.integers())
@example([("=", "cmd|' /C calc'!A0")], -1.5, -2)
@example([("=", "")], float("inf"), 0)
@example([("=", "")], float("nan"), 0)
def test_no_text_becomes_a_formula_and_none_is_lost(
    parts: list[tuple[str, str]], real: float, whole: int
) -> None:
    texts = [start + rest for start, rest in parts]
    lines = [{"=text": x, "real": real, "whole": whole} for x in texts]
    data = sheet(["=text", "real", "whole", "none"], lines)
    read = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert read[0] == ["'=text", "real", "whole", "none"]
    for text, (cell, *numbers) in zip(texts, read[1:], strict=True):
        assert not cell.lstrip(" \u00a0\ufeff").startswith(STARTS)
        kept = text.replace("\x00", "\ufffd").encode("utf-8", "backslashreplace").decode()
        assert cell in (kept, f"'{kept}")
        assert int(numbers[1]) == whole and numbers[2] == ""
        assert float(numbers[0]) == real if math.isfinite(real) else numbers[0] == ""
    told = json_lines([{"text": x} for x in texts])
    assert [msgspec.json.decode(x)["text"] for x in told.splitlines()] == texts


def test_nothing_else_writes_csv() -> None:
    assert [file.path for file in house() if "csv.writer" in file.text or "DictWriter" in file.text] == [
        "hetki/store/sheets.py"
    ]
