"""Console: what each page shows, but for customers (`people`). Nothing here writes.

Handlers run in threads; a page's handler and its template have one name.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hetki.dialogues.explaining import chosen_words, explain
from hetki.dialogues.message import Status
from hetki.dialogues.retry import Breaker
from hetki.engine.telling import used_events
from hetki.errors import Fault, NotFound, nearest, shown
from hetki.events.event import LeafId
from hetki.events.wire import Rejected
from hetki.measurement.effect import Effect
from hetki.moments.moment import Moment
from hetki.moments.sentence import sentence
from hetki.server.desk import ROWS, Desk, Turning, days, figures, funnel, page_of
from hetki.server.drawing import per_day
from hetki.server.lines import Line, lines
from hetki.store.shadow import Shadow
from hetki.store.views import RejectedRow, Views

#: The newest occurrences on the first page.
LIVE_ROWS = 30
DAYS_SHOWN = 30
#: The funnel of a moment counts its newest decisions.
FUNNEL_MAX = 20_000
REVISIONS_MAX = 20
BODY_CHARS_MAX = 4_000
STATUSES: tuple[Status, ...] = ("waiting", "claimed", "sent", "failed", "expired", "cancelled")

_breaker = msgspec.json.Decoder(Breaker)
_rejected = msgspec.msgpack.Decoder(Rejected)


class Counted(msgspec.Struct, frozen=True):
    """How often a moment occurred since midnight, in 7 days, in 30 and in all; what was done today."""

    name: str
    title: str
    n_today: int
    n_week: int
    n_month: int
    n_all: int
    n_answered: int
    n_held_out: int
    last_at: int | None


class Body(msgspec.Struct, frozen=True):
    """A rejected body as it can be shown: cut, or gone once its secret is."""

    row: RejectedRow
    text: str
    is_gone: bool


def live(desk: Desk, request: Request) -> Response:
    """What is happening: counts, and for who may see people the newest occurrences as they come."""
    with desk.views() as views:
        newest = newest_lines(desk, views, 0, LIVE_ROWS) if desk.pages.sees_people else []
        counts = counted(desk, views)
        facts = {"n_events": views.n_events(), "n_customers": views.n_customers()}
    after = max((line.handled_at or 0 for line in newest), default=0)
    return desk.pages.page("live", newest=newest, counts=counts, after=after, **facts)


def newest_lines(desk: Desk, views: Views, since: int, n_max: int) -> list[Line]:
    """What was decided or missed at an instant or later, newest first."""
    return lines(views, desk.titles, views.handled_since(desk.engine.project.moments, since, n_max))


def counted(desk: Desk, views: Views) -> list[Counted]:
    """Every declared moment with its counts, the most frequent today first."""
    today, week, month = desk.midnight(), desk.midnight(6), desk.midnight(29)
    found = []
    for moment in desk.engine.project.moments.values():
        chosen = views.n_chosen(moment.name, today)
        found.append(
            Counted(
                moment.name,
                moment.title,
                views.n_occurrences(moment.name, today),
                views.n_occurrences(moment.name, week),
                views.n_occurrences(moment.name, month),
                views.n_occurrences(moment.name, 0),
                sum(n for (arm, answer), n in chosen.items() if answer in moment.answers),
                sum(n for (arm, _), n in chosen.items() if arm == "holdout"),
                views.last_occurred_at(moment.name),
            )
        )
    return sorted(found, key=lambda each: (-each.n_today, -each.n_all, each.name))


def moments(desk: Desk, request: Request) -> Response:
    """Every declared moment; what is being warmed, and what of the folder was refused."""
    version = desk.engine.program.version
    with desk.views() as views:
        shadow = Shadow(views.db)
        return desk.pages.page(
            "moments",
            counts=counted(desk, views),
            moments=desk.engine.project.moments,
            version=version,
            since=views.ledger.taken_up_at(version),
            warming=shadow.warming(),
            refused=shadow.refused(),
            n_customers=views.n_customers(),
        )


def moment(desk: Desk, request: Request) -> Response:
    """One moment: what it says, what became of it, and what it did; of whom, for who may see people."""
    found = _moment(desk, request.path_params["name"])
    page = page_of(request)
    turning = Turning(page, ROWS, False, request.url.path)
    with desk.views() as views:
        sees_people = desk.pages.sees_people
        handled = views.of_moment(found.name, ROWS + 1, turning.n_skipped) if sees_people else []
        shown_lines = lines(views, desk.titles, handled[:ROWS])
        revisions = views.revisions(found.name, REVISIONS_MAX) if sees_people else []
        names = views.identities.names(each.customer for each in revisions)
        counts = next(each for each in counted(desk, views) if each.name == found.name)
        n_missed = views.n_missed(found.name)
        told = funnel(found, desk.titles, views.funneled(found.name, FUNNEL_MAX))
        starts = desk.midnights(DAYS_SHOWN, counts.last_at)
        when = views.occurred_at(found.name, starts[0])
    estimated = desk.effects.load()
    effects = estimated.effects if estimated else []
    return desk.pages.page(
        "moment",
        moment=found,
        sentence=sentence(found, desk.titles.actions),
        initiative=desk.titles.initiatives.get(found.initiative, found.initiative),
        purpose=desk.titles.purposes.get(found.purpose, found.purpose),
        answers=[(name, desk.titles.actions[name]) for name in found.answers],
        counts=counts,
        n_missed=n_missed,
        bars=per_day(days(starts, when, desk.titles.time_zone)),
        n_days=DAYS_SHOWN,
        funnel=told,
        until=estimated.until if estimated else None,
        figures=figures(found, [each for each in effects if each.moment == found.name]),
        figures_of_all=figures(found, _of_initiative(found, effects)),
        newest=shown_lines,
        is_one_moment=True,
        revisions=revisions,
        names=names,
        turning=msgspec.structs.replace(turning, has_more=len(handled) > ROWS),
    )


def _of_initiative(found: Moment, effects: list[Effect]) -> list[Effect]:
    """The effects of the whole initiative, if it has other moments too."""
    mine = [each for each in effects if each.initiative == found.initiative]
    if {each.moment for each in mine} == {"", found.name}:
        return []
    return [each for each in mine if not each.moment]


def _moment(desk: Desk, name: str) -> Moment:
    declared = desk.engine.project.moments
    if name not in declared:
        raise NotFound(Fault("moment", shown(name), "one that is declared", nearest(name, declared)))
    return declared[name]


def decision(desk: Desk, request: Request) -> Response:
    """One decision: the whole of why, what was sent, and the record itself."""
    decision_id = request.path_params["decision_id"]
    with desk.views() as views:
        found = views.ledger.decision(decision_id)
        if found is None:
            must = "the id of a decision or of its occurrence"
            hint = "it may have been missed, not decided"
            raise NotFound(Fault("decision", shown(decision_id), must, hint))
        leaf = LeafId(bytes.fromhex(found.question.customer))
        customer = views.present_customers([leaf])[leaf]
        with desk.journal() as journal:
            told = explain(found, desk.titles, used_events(views, journal, found))
        message = views.message_of(found.decision_id, leaf)
        return desk.pages.page(
            "decision",
            decision=found,
            chosen=chosen_words(found, desk.titles),
            told=told,
            title=desk.titles.moments.get(found.question.moment, found.question.moment),
            is_declared=found.question.moment in desk.engine.project.moments,
            customer=customer.hex(),
            name=views.identities.names([customer]).get(customer, ""),
            message=message,
            attempts=views.attempts([message.message_id] if message else []),
            revisions=views.revisions_of(found.question.occurrence_id),
            record=msgspec.json.format(msgspec.json.encode(found), indent=2).decode(),
        )


def rejected(desk: Desk, request: Request) -> Response:
    """What was rejected, why, and how to repair it."""
    page = page_of(request)
    turning = Turning(page, ROWS, False, request.url.path)
    with desk.views() as views:
        rows = views.rejected(ROWS + 1, turning.n_skipped)
        n_rejected = views.n_rejected()
    return desk.pages.page(
        "rejected",
        bodies=_bodies(desk, rows[:ROWS]),
        n_rejected=n_rejected,
        turning=msgspec.structs.replace(turning, has_more=len(rows) > ROWS),
    )


def _bodies(desk: Desk, rows: list[RejectedRow]) -> list[Body]:
    with desk.journal() as journal:
        stored = journal.entries([(row.position, row.frame_offset) for row in rows])
    bodies = []
    for row, entry in zip(rows, stored, strict=True):
        text = _rejected.decode(entry.body).body.decode(errors="replace") if entry.body else ""
        cut = text if len(text) <= BODY_CHARS_MAX else text[:BODY_CHARS_MAX] + "…"
        bodies.append(Body(row, cut, entry.body is None))
    return bodies


def outbox(desk: Desk, request: Request) -> Response:
    """Messages by status, with their attempts, and how each destination is doing."""
    status = request.query_params.get("status", "")
    if status and status not in STATUSES:
        raise NotFound(Fault("status", shown(status), "one of a message", nearest(status, STATUSES)))
    page = page_of(request)
    address = f"{request.url.path}?status={status}" if status else request.url.path
    turning = Turning(page, ROWS, False, address)
    with desk.views() as views:
        messages = views.messages(status, ROWS + 1, turning.n_skipped)
        mine = [each.customer for each in messages[:ROWS]]
        customers = views.present_customers(mine)
        names = views.identities.names(customers.values())
        attempts = views.attempts(each.message_id for each in messages[:ROWS])
        n_messages = views.n_messages()
        breakers = []
        for name, declared in desk.engine.project.destinations.items():
            stored = views.ledger.breaker(name)
            breakers.append((name, declared.kind, _breaker.decode(stored) if stored else Breaker()))
    return desk.pages.page(
        "outbox",
        messages=messages[:ROWS],
        customers=customers,
        names=names,
        attempts=attempts,
        breakers=breakers,
        asked=status,
        statuses=[(each, n_messages.get(each, 0)) for each in STATUSES],
        titles=desk.titles,
        turning=msgspec.structs.replace(turning, has_more=len(messages) > ROWS),
    )
