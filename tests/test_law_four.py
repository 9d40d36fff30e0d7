"""Law 4 whole: random histories of consent through every way of sending, judged by an oracle of its own.

`make test` lives 10,000 histories, `make torture` 100,000 (`histories.py` says what is in one). An oracle
that finds nothing proves nothing, so bugs are planted that it must find.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import pytest
from histories import Broken, Many

from hetki.consent import statements
from hetki.consent.purpose import Purpose
from hetki.consent.statements import Said, Statement, Statements
from hetki.engine import deliver
from hetki.events.event import Event
from hetki.moments import fold
from hetki.store.journal import Journal
from hetki.store.system import collect_rarely

TORTURE = float(os.environ.get("HETKI_TORTURE", "0"))
N_SLOTS = 500
N_ENGINES = max(20, int(200 * TORTURE))
PARTS = 4


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Garbage is looked for as rarely as the server does."""
    were = gc.get_threshold()
    collect_rarely()
    yield
    gc.set_threshold(*were)


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_sent_without_a_basis_and_nothing_is_held_back_that_has_one(part: int) -> None:
    counts: Counter[str] = Counter()
    engines = range(part, N_ENGINES, PARTS)
    for seed in engines:
        counts += Many(seed, N_SLOTS).run()
    for purpose, n_least in {"service": 100, "care": 80, "marketing": 10, "profile": 20}.items():
        assert counts[f"sent for {purpose}"] > n_least * len(engines), "silence keeps every law"
    least = min(counts[name] for name in ("held back", "merges", "unmerges", "erasures"))
    assert min(least, counts["died while sending"]) > 2 * len(engines)


def _sent_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "second_look", lambda engine, message, now: ("", None))


def _not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "has_statements_after", lambda journal, position: False)


def _latest_wins_at_a_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    def loosest(a: Statements, b: Statements) -> Statements:
        return {**a, **{name: b[name] for name in b if b[name].granted or name not in a}}

    monkeypatch.setattr(fold, "strictest", loosest)


def _restriction_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "is_restricted", lambda standing: False)


def _any_notice_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = statements._given

    def under_any(event: Event, words: statements._Given, purposes: dict[str, Purpose]) -> Said:
        return given(
            event, words, {name: msgspec.structs.replace(each, notices=[]) for name, each in purposes.items()}
        )

    monkeypatch.setattr(statements, "_given", under_any)


def _every_category_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Statement, "covers", lambda statement, category: True)


def _grants_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    given = statements._given

    def for_ever(event: Event, words: statements._Given, purposes: dict[str, Purpose]) -> Said:
        words.until = None
        return given(event, words, purposes)

    monkeypatch.setattr(statements, "_given", for_ever)


def _nothing_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "in_force", lambda program, folded, now: 0)


def _signal_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = fold.spoken

    def deaf(event: Event, purposes: dict[str, Purpose], standing: Statements) -> Statements:
        return spoken(msgspec.structs.replace(event, gpc=False), purposes, standing)

    monkeypatch.setattr(fold, "spoken", deaf)


PLANTED = [
    _sent_anyway,
    _not_waited_for,
    _latest_wins_at_a_merge,
    _restriction_is_ignored,
    _any_notice_counts,
    _every_category_is_open,
    _grants_never_end,
    _nothing_is_open,
    _signal_is_ignored,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Broken):
        for seed in range(12):
            Many(seed, N_SLOTS // 2).run()  # the sooner it is found, the less was lived
