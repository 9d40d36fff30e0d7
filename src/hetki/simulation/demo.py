"""The demo: a simulated month of restaurants through the same code that runs live.

Bodies are parsed, accepted, folded, decided and delivered exactly as in the server; only clock, chance and
network are simulated, and the disk does not wait for the platter. Start at `run`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from hetki.engine.advance import advance
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.project import load
from hetki.engine.report import report
from hetki.events import segment
from hetki.events.event import instant
from hetki.measurement.effect import Effect
from hetki.measurement.outcome import measured
from hetki.settings import DAY, SECOND
from hetki.simulation.restaurants import Restaurants
from hetki.simulation.restaurants_truth import PlantedTruth
from hetki.simulation.world import LocalNet, SeededChance, SimulatedClock
from hetki.store.lake import ask, refresh
from hetki.store.ports import Disk
from hetki.store.views import Views

STARTED_AT = instant(datetime(2026, 3, 1, tzinfo=UTC))
#: The simulated world moves in slices: the app and the mail server answer within one.
SLICE_S = 900
#: Days after the month in which its last episodes come to their end, so that every result is known.
TAIL_DAYS = 8
MESSAGES_MAX = 10_000


class Story(msgspec.Struct, frozen=True):
    """What the month came to. `counts` are those of the state (`State.counts`).

    `funnel` counts candidates by moment, then by the gate that closed.
    """

    counts: dict[str, int]
    n_rejected: int
    n_caught: dict[str, int]
    funnel: dict[str, dict[str, int]]
    n_messages: dict[str, int]
    n_posts: int
    n_mails: int
    effects: list[Effect]
    truths: list[PlantedTruth]


def run(
    project_disk: Disk,
    data: Disk,
    seed: int,
    n_customers: int,
    days: int,
    progress: Callable[[str, float], None] = lambda label, share: None,
) -> tuple[Engine, Story]:
    """Simulate `days` days of `n_customers` customers into an empty data disk.

    `progress` is told what is going on and the share of it that is done.
    """
    project = load(project_disk)
    clock = SimulatedClock(STARTED_AT)
    engine = open_engine(project, data, clock, SeededChance(seed), {})
    world = Restaurants(seed, n_customers, STARTED_AT, days)
    net = LocalNet(
        post=lambda url, headers, body: world.receive_webhook(headers, body),
        mail=lambda server, sender, recipient, message: world.receive_mail(sender, recipient, message),
    )
    ends_at = STARTED_AT + (days + TAIL_DAYS) * DAY
    for now in range(STARTED_AT + SLICE_S * SECOND, ends_at + 1, SLICE_S * SECOND):
        live_through(engine, world, net, clock, now)
        progress("simulating", (now - STARTED_AT) / (ends_at - STARTED_AT))
    last, _ = engine.journal.head()
    refresh(data, engine.journal, engine.state, lambda position: progress("lake", position / last))
    progress("measuring", 0.0)
    moments = [measured(each) for each in project.moments.values()]
    effects = ask(data, lambda lake: report(lake, moments, clock.now()))
    progress("measuring", 1.0)
    return engine, _told(engine, world, net, effects)


def live_through(engine: Engine, world: Restaurants, net: LocalNet, clock: SimulatedClock, now: int) -> None:
    """One slice: what arrived is accepted, folded and decided, and the answers are delivered."""
    bodies = world.until(now)
    clock.move(now)
    limits = engine.project.settings.limits
    parsed = [
        segment.parse(
            each.body,
            "batch",
            each.source,
            engine.project.sources[each.source].channel,
            each.received_at,
            limits,
            each.gpc,
        )
        for each in bodies
    ]
    if parsed:
        engine.acceptor.accept(parsed)
    advance(engine)
    for destination in engine.project.destinations:
        deliver(engine, net, destination, MESSAGES_MAX)


def _told(engine: Engine, world: Restaurants, net: LocalNet, effects: list[Effect]) -> Story:
    views = Views(engine.disk)
    funnel: dict[str, Counter[str]] = {}
    for moment in engine.project.moments:
        counts = funnel.setdefault(moment, Counter())
        for each in views.funneled(moment, MESSAGES_MAX * 100):
            counts.update(weighed.dropped_by or "open" for weighed in each.weighed)
            counts[f"arm {each.arm}"] += 1
    story = Story(
        counts=engine.state.counts(),
        n_rejected=views.n_rejected(),
        n_caught={name: views.n_occurrences(name, 0) for name in engine.project.moments},
        funnel={name: dict(counts) for name, counts in funnel.items()},
        n_messages=views.n_messages(),
        n_posts=net.n_posts,
        n_mails=net.n_mails,
        effects=effects,
        truths=world.truth,
    )
    views.close()
    return story
