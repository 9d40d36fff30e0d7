"""Crashes at every point of our own commits: nothing acknowledged is lost, no effect is doubled.

Lives on a faulty disk in memory, each from a seed (`crashing.py`, `faults.py`); what must hold of each is in
`holding.py`. Bugs that are planted on purpose (`planted.py`) show that the lives see.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from crash_scene import STORIES, merge_early, read_once
from crashing import ERASING, REACH, Life
from faults import Strike
from forgotten import receipts_are_true
from holding import everything_holds
from planted import BUGS
from planted_backups import BACKUP_BUGS
from planted_erasures import ERASING_BUGS

from hetki.store.system import collect_rarely

#: `make torture` sets the share of the full number; without it, the small one.
TORTURE = float(os.environ.get("HETKI_TORTURE", "0"))
N_LIVES = round(200_000 * TORTURE) or 1_270
N_CHUNK = 250
#: A planted bug that so many lives do not find is one that the simulation cannot see.
N_LIVES_MAX = 120
ABOUT = list(STORIES)
BLANK = 15


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Declarations are read and compiled once, files of the lake merged early, and garbage is looked for
    rarely."""
    read_once(monkeypatch)
    merge_early(monkeypatch)
    were = gc.get_threshold()
    collect_rarely()
    yield
    gc.set_threshold(*were)


@pytest.mark.parametrize("first", range(0, N_LIVES, N_CHUNK))
def test_whatever_strikes_nothing_is_lost_and_nothing_doubled(first: int) -> None:
    struck: Counter[str] = Counter()
    n_repeats = n_lives = 0
    for seed in range(first, min(first + N_CHUNK, N_LIVES)):
        life = Life(seed)
        life.opened = receipts_are_true
        try:
            life.live()
            everything_holds(life)
        except BaseException as error:
            error.add_note(f"seed {seed}, about {life.about}: {dict(life.fate.struck)}")
            raise
        struck.update(what for _, _, _, what in life.fate.struck)
        n_repeats += life.receiver.n_repeats
        n_lives += 1
    assert set(struck) == {"crash", "full", "lost", "unsure", "visit"}
    assert struck["crash"] > n_lives // 4 and n_repeats > 0
    print({"lives": n_lives, **struck})


@pytest.mark.parametrize("seed", [*range(len(STORIES)), BLANK])
def test_a_crash_at_every_single_point_of_each_story(seed: int) -> None:
    about = ABOUT[seed % len(STORIES)]
    n_operations = len(STORIES[about].split()) or 3
    # All that writes a lake, and all that comes before a restore, is looked at in other stories.
    aim = {"forget": "erase", "restore": "restore"}.get(about, "")
    plain = Life(seed, [], n_operations)
    plain.live()
    everything_holds(plain)
    places = set()
    n_points = 0
    for n_points in range(1, 10_000):
        life = Life(seed, [Strike(n_points, "crash", aim)], n_operations)
        life.live()
        everything_holds(life)
        if not life.fate.struck:
            break
        places.update(life.fate.struck)
    assert {place[:3] for place in places} >= {
        each for each in plain.fate.points if each[0] == (aim or about)
    }
    print({"about": plain.about, "points": n_points - 1})


@pytest.mark.parametrize(
    ("bug", "about"), BUGS + ERASING_BUGS + BACKUP_BUGS, ids=lambda each: getattr(each, "__name__", each)
)
def test_a_planted_bug_is_found(bug: Callable[[pytest.MonkeyPatch], None], about: str) -> None:
    assert found_after(bug, about) <= N_LIVES_MAX, "the simulation does not see it"


def plan_for(n: int, about: str) -> list[Strike] | None:
    """The strike of the n-th life that is to find a bug of erasing: a crash at each point in turn, one around
    the command, and a visit while it is looked up what is known of a person. Of backups: a visit at each
    point in turn, and every other life as it is drawn."""
    if about == "backup":
        return [Strike(1 + n // 2 * 7 % REACH[about], "visit", about)] if n % 2 else None
    if about not in ERASING:
        return None
    turn = n // 3
    if n % 3 == 0:
        return [Strike(1 + turn * 7 % REACH[about], "crash", "erase")]
    return [Strike(9 + turn % 6, "crash", "erase") if n % 3 == 1 else Strike(1 + turn % 8, "visit", "erase")]


def found_after(bug: Callable[[pytest.MonkeyPatch], None], about: str) -> int:
    """The number of lives after which a bug is found; one more than there are if it is not."""
    for n in range(1, N_LIVES_MAX + 1):
        with pytest.MonkeyPatch.context() as patch:
            bug(patch)
            life = Life(ABOUT.index(about) + (n - 1) * len(ABOUT), plan_for(n, about))
            life.opened = receipts_are_true
            try:
                life.live()
                everything_holds(life)
            except (AttributeError, NameError, TypeError):
                raise  # the patch no longer fits the code
            except Exception as error:
                print({"bug": bug.__name__, "lives": n, "found as": f"{type(error).__name__} {error}"[:100]})
                return n
    return N_LIVES_MAX + 1
