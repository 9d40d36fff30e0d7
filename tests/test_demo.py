"""The demo: its story, the same again from the same seed, and its estimates beside the planted truth."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from test_cli import FAULT, Hetki

from hetki.cli.main import EXIT
from hetki.cli.running import RESTAURANTS
from hetki.decisions.decide import decide
from hetki.decisions.question import Decision
from hetki.engine.engine import Engine
from hetki.engine.rebuilding import rebuild
from hetki.simulation.demo import Story, run
from hetki.store.system import SystemDisk

SMALL = ("--no-serve", "--customers", "400", "--days", "5")


@pytest.fixture
def hetki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hetki:
    return Hetki(tmp_path, monkeypatch, capsys)


class Month(NamedTuple):
    """A run of medium size."""

    engine: Engine
    story: Story

    def decisions(self) -> Iterator[Decision]:
        for row in self.engine.db.execute("SELECT record FROM decisions ORDER BY decision_id"):
            yield msgspec.json.decode(row[0], type=Decision)


def numbers(line: str) -> list[int]:
    return [int(text.replace(",", "")) for text in re.findall(r"\d[\d,]*", line)]


def test_the_demo_tells_its_story_and_its_last_line_works(hetki: Hetki) -> None:
    """What a newcomer sees, and then does as told: change one moment file, and look at the difference."""
    folder = hetki.project
    ended = hetki("demo", folder, *SMALL)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    said = {line.split()[0]: line for line in reversed(lines) if line and line[0] != " "}
    n_events, n_repeats, n_late, n_rejected = numbers(said["Events"])
    assert n_events > 1_000 and n_repeats > 0 and n_late > 0 and n_rejected > 0
    n_identifiers, n_customers, _ = numbers(said["Customers"])
    assert n_identifiers > n_customers > 100
    n_sent = re.search(r"([\d,]+) sent", said["Messages"])
    assert n_sent and numbers(n_sent[1])[0] > 10
    shown = [line.split()[0] for line in lines if re.match(r" +[a-z_]+ +(\d|solved|business)", line)]
    moments = sorted(path.stem for path in (folder / "moments").iterdir())
    assert shown[0] == "where_is_my_order" and Counter(shown) == dict.fromkeys(moments, 3)

    told = re.fullmatch(
        r"In (\S+) change '(.+)' to '(.+)', and see what would have been caught: hetki (.+)",
        " ".join(lines[-2:]),
    )
    assert told is not None, lines[-2:]
    file, before, after, command = told.groups()
    words = shlex.split(command)
    assert words == ["backtest", "-C", str(folder), "where_is_my_order"]
    was = hetki(*words).out
    assert caught(was) == next(numbers(line)[0] for line in lines if "where_is_my_order" in line)
    declared = Path(file).read_text()
    assert declared.count(before) == 1
    Path(file).write_text(declared.replace(before, after))
    now = hetki(*words).out
    assert now != was and caught(now) >= caught(was), "who gives up waiting sooner is caught sooner"
    hetki.on("advance")  # takes up what was changed
    assert "the same as before" in hetki.on("rebuild") and "unbroken" in hetki.on("verify")


def caught(text: str) -> int:
    """How often a backtest says that the moment fired."""
    found = re.search(r"^where_is_my_order: (once|twice|([\d,]+) times)", text, re.MULTILINE)
    assert found is not None, text
    return {"once": 1, "twice": 2}.get(found[1]) or numbers(found[1])[0]


def test_the_same_seed_tells_the_same_story_and_another_seed_another(hetki: Hetki) -> None:
    story, again, other = (hetki("demo", hetki.project, *SMALL, "--seed", seed).out for seed in (7, 7, 8))
    assert story == again != other, "an earlier demo's data makes way"


def test_a_demo_touches_nothing_that_no_demo_made(hetki: Hetki) -> None:
    hetki("init", hetki.project)
    kept = hetki.put("project/data/journal.db", b"years of work")
    hetki.put("elsewhere/data/thesis.txt", "years of work, too")
    for folder in (hetki.project, hetki.folder / "elsewhere", kept):
        ended = hetki("demo", folder, *SMALL)
        assert ended.code == EXIT["conflict"] and FAULT.match(ended.err.rstrip())
    assert kept.read_bytes() == b"years of work"
    assert (hetki.folder / "elsewhere/data/thesis.txt").exists()


def test_a_month_in_which_much_happens(tmp_path: Path) -> None:
    """One run of medium size, looked at from three sides."""
    data = SystemDisk(tmp_path, durable=False)
    month = Month(*run(SystemDisk(RESTAURANTS), data, seed=1, n_customers=3_000, days=20))
    every_decision_recomputes_from_its_record(month)
    truths_are_inside_the_intervals_and_a_planted_zero_is_said_to_be_none(month)
    nothing_is_left_open_and_all_can_be_made_again(month)


def every_decision_recomputes_from_its_record(month: Month) -> None:
    n = Counter[str]()
    for record in month.decisions():
        assert decide(record.question) == record
        n[record.arm] += 1
    assert min(n["answered"], n["holdout"], n["none"]) > 20


def truths_are_inside_the_intervals_and_a_planted_zero_is_said_to_be_none(month: Month) -> None:
    """Of n intervals at 95 % all but two hold the truth, unless chance is very unkind: the seed is fixed."""
    planted = {(each.moment, each.measure): each.effect_points for each in month.story.truths}
    inside: dict[tuple[str, str], bool] = {}
    for effect in month.story.effects:
        truth = planted.get((effect.moment, effect.measure)) if effect.moment else None
        if truth is None or effect.low is None or effect.high is None:
            continue
        inside[effect.moment, effect.measure] = 100 * effect.low <= truth <= 100 * effect.high
        if truth == 0:
            assert effect.low <= 0 <= effect.high and effect.verdict.startswith("no effect shown"), effect
    assert set(inside) == set(planted), "every planted effect is estimated"
    assert 0.0 in planted.values() and len(inside) == 12
    assert sum(inside.values()) >= len(inside) - 2, inside
    found = {each.measure: each for each in month.story.effects if each.moment == "first_app_order"}
    assert "points" in found["solved"].verdict, "a real effect with enough customers is shown"


def nothing_is_left_open_and_all_can_be_made_again(month: Month) -> None:
    engine, story = month
    assert set(story.n_messages) <= {"sent", "failed", "expired", "cancelled"}, "nothing waits"
    sent = engine.db.execute("SELECT count(*) FROM outbox WHERE status = 'sent'").fetchone()[0]
    told = engine.db.execute("SELECT count(DISTINCT message_id) FROM attempts WHERE ok").fetchone()[0]
    assert sent == told <= story.n_posts + story.n_mails
    assert engine.journal.verify() == engine.journal.head()[0]
    rebuilt = rebuild(engine)
    assert rebuilt.before == rebuilt.after
