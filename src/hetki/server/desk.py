"""Desk: what every page of the console reads with, and the small sums that several of them need."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec
from starlette.requests import Request

from hetki.decisions.decide import GATES
from hetki.dialogues.wording import Titles, gate_words
from hetki.engine.accept import Acceptor
from hetki.engine.engine import Engine
from hetki.events.event import LeafId, instant, utc
from hetki.measurement.effect import Effect
from hetki.moments.moment import Moment
from hetki.server.drawing import axis_of, interval
from hetki.server.effects import Effects
from hetki.server.pages import Pages
from hetki.store.journal import Journal
from hetki.store.secrets import Secrets
from hetki.store.views import Funneled, Views, reading

#: Rows of one page of a list.
ROWS = 25
PAGES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Desk:
    """One opened project as the console sees it."""

    engine: Engine
    pages: Pages
    effects: Effects
    titles: Titles

    @contextmanager
    def views(self) -> Iterator[Views]:
        """The stores, on a connection of this request's own."""
        with reading(self.engine.disk) as views:
            yield views

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """The journal, opened anew: no key of an erased person is still remembered."""
        disk, chance = self.engine.disk, self.engine.chance
        with closing(Secrets(disk, chance)) as secrets, closing(Journal(disk, chance, secrets)) as journal:
            yield journal

    @contextmanager
    def acceptor(self) -> Iterator[Acceptor]:
        """A way into the journal of this request's own: the way in has another, in another thread."""
        engine = self.engine
        with self.journal() as journal:
            yield Acceptor(
                journal,
                engine.keys,
                engine.project.sources,
                engine.project.purposes,
                engine.clock,
                engine.chance,
                engine.acceptor.looked_at,
            )

    def midnight(self, days_ago: int = 0) -> int:
        """The instant at which a day began in the project's time zone."""
        return self.midnights(days_ago + 1)[0]

    def midnights(self, n_days: int, until: int | None = None) -> list[int]:
        """When each of some days began, in order; the last is that of `until` (None: today)."""
        zone = ZoneInfo(self.titles.time_zone)
        last = utc(self.engine.clock.now() if until is None else until).astimezone(zone).date()
        days = [last - timedelta(days=ago) for ago in range(n_days - 1, -1, -1)]
        return [instant(datetime.combine(day, time(), tzinfo=zone)) for day in days]


class Turning(msgspec.Struct, frozen=True):
    """Where a list is opened: pages are numbered from 1, the newest first."""

    page: int
    n_rows: int
    has_more: bool
    address: str

    @property
    def n_skipped(self) -> int:
        return (self.page - 1) * self.n_rows

    def to(self, page: int) -> str:
        """The address of another page."""
        return f"{self.address}{'&' if '?' in self.address else '?'}page={page}"


def page_of(request: Request) -> int:
    """The page that is asked for; anything unreadable is the first."""
    text = request.query_params.get("page", "")
    return min(max(int(text), 1), PAGES_MAX) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def entered_at(desk: Desk, request: Request) -> int | None:
    """The journal's position of what was entered just now, as the address says; None if it says none."""
    text = request.query_params.get("after", "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        return None
    with desk.journal() as journal:
        return int(text) if int(text) <= journal.head()[0] else None


def is_folded(views: Views, position: int) -> bool:
    """Whether the fold has come to a position of the journal."""
    progress = views.state.progress()
    return progress is not None and progress.position >= position


def leaf_in(text: str) -> LeafId | None:
    """A customer's id as it stands in an address; None if it cannot be one."""
    try:
        leaf = bytes.fromhex(text)
    except ValueError:
        return None
    return LeafId(leaf) if len(leaf) == 16 and text == leaf.hex() else None


class Stop(msgspec.Struct, frozen=True):
    """One candidate's way through the gates: how often weighed, dropped at each, left open, chosen."""

    action: str
    title: str
    n_weighed: int
    dropped: list[int]
    n_open: int
    n_chosen: int


class Funnel(msgspec.Struct, frozen=True):
    """Where answers were dropped. `n_held_out` decisions had an open answer and gave none, by the draw."""

    gates: list[str]
    stops: list[Stop]
    n_decisions: int
    n_answered: int
    n_held_out: int
    n_without: int


def funnel(moment: Moment, titles: Titles, decisions: Sequence[Funneled]) -> Funnel:
    """The candidates of decisions, counted at each gate."""
    gates = [name for name, _ in GATES]
    weighed: dict[str, list[str]] = {name: [] for name in moment.answers}
    for decision in decisions:
        for each in decision.weighed:
            weighed.setdefault(each.action, []).append(each.dropped_by)
    chosen = [decision.chosen for decision in decisions]
    stops = [
        Stop(
            action,
            titles.actions.get(action, action),
            len(drops),
            [drops.count(gate) for gate in gates],
            drops.count(""),
            chosen.count(action),
        )
        for action, drops in weighed.items()
    ]
    arms = [decision.arm for decision in decisions]
    n_answered = sum(stop.n_chosen for stop in stops)
    n_held_out = arms.count("holdout")
    n_without = len(decisions) - n_answered - n_held_out
    return Funnel([gate_words(each) for each in gates], stops, len(arms), n_answered, n_held_out, n_without)


class Figure(msgspec.Struct, frozen=True):
    """An effect as a page shows it: `measure` in words, `picture` as SVG (empty without an interval).

    `is_shown`: the interval leaves zero out, and the arms are to be believed.
    """

    measure: str
    kind: str
    effect: Effect
    points: str
    picture: str
    is_shown: bool


def figures(moment: Moment, effects: Sequence[Effect]) -> list[Figure]:
    """The effects of a moment, on one axis."""
    analyse = moment.spec.analyse
    declared = {"solved": analyse.solved, "business": analyse.business}
    axis = axis_of([bound for each in effects for bound in (each.low, each.high) if bound is not None])
    shown = []
    for each in effects:
        points = picture = ""
        is_shown = False
        if each.effect is not None and each.low is not None and each.high is not None:
            points = f"{100 * each.effect:+.1f} ({100 * each.low:+.1f} to {100 * each.high:+.1f})"
            is_shown = each.grade != "broken" and not each.low <= 0 <= each.high
            picture = interval(each.low, each.effect, each.high, axis, is_shown)
        kind = {"solved": "solved", "business": "business"}.get(each.measure, "guardrail: fewer is better")
        shown.append(Figure(declared.get(each.measure, each.measure), kind, each, points, picture, is_shown))
    return shown


def days(starts: Sequence[int], occurred_at: Sequence[int], time_zone: str) -> list[tuple[str, int]]:
    """How many instants fall on each of the days that begin at `starts`; the last day has no end."""
    zone = ZoneInfo(time_zone)
    counts = Counter(bisect_right(starts, at) - 1 for at in occurred_at)
    return [
        (f"{utc(start).astimezone(zone):%a %d %b}", counts[number]) for number, start in enumerate(starts)
    ]
