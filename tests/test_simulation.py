"""The simulated restaurants: the same bytes for the same seed, and a planted truth that is really planted."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from hetki.consent.purpose import Purpose
from hetki.declarations.durations import seconds
from hetki.declarations.read import read
from hetki.dialogues import mail, webhook
from hetki.events.catalogue import SHIPPED, Catalogue, EventSpec
from hetki.events.event import Event, EventId, LeafId, instant
from hetki.events.segment import parse
from hetki.identity.survival import Survival
from hetki.moments.fold import Fact, Folded, Program, step
from hetki.moments.moment import Moment, MomentSpec, compile_moment
from hetki.settings import DAY, SECOND, Limits
from hetki.simulation.restaurants import Restaurants
from hetki.simulation.restaurants_people import Person, people
from hetki.simulation.restaurants_reactions import Episode
from hetki.simulation.restaurants_receiver import DEMO_SECRET
from hetki.simulation.restaurants_truth import IN_TIME_S, REACTIONS, UNTREATED_AFTER_S
from hetki.simulation.restaurants_wire import WireBody
from hetki.store.ports import Sent

EXAMPLE = Path(__file__).parent.parent / "examples" / "restaurants"
STARTED_AT = instant(datetime(2026, 3, 2, tzinfo=UTC))
SLICE = 600 * SECOND
CHANNELS = {"web": "web", "app": "app", "desk": "contact_centre", "kitchen": "delivery"}
BY_MAIL = {"book_call_back", "basket_reminder"}


@cache
def everyone() -> list[Person]:
    """The customers of all small worlds here."""
    return people(3, 1_500)


def hand_over(world: Restaurants, episode: Episode, at: int, copies: int = 1) -> list[Sent]:
    """Send the first answer of the episode's moment as Hetki would, and again until it is taken."""
    action = next(each.actions[0] for each in REACTIONS if each.moment == episode.moment)
    message_id = f"m-{episode.visit}"
    if action in BY_MAIL:
        to = everyone()[episode.person].email
        text = f"Kysy lisää: https://restaurants.example/x?utm_medium=email&utm_campaign={action}"
        letter = mail.compose(message_id, at, "hello@restaurants.example", to, "Hei, täällä", text)
        return [world.receive_mail("hello@restaurants.example", to, letter) for _ in range(copies)]
    body = webhook.payload("moment.answered", at, {"action": action, "recipient": episode.user_id})
    headers = webhook.sign(DEMO_SECRET, message_id, at // SECOND, body)
    sent = [world.receive_webhook(headers, body)]
    while not sent[-1].ok or sum(each.ok for each in sent) < copies:
        sent.append(world.receive_webhook(headers, body))
    return sent


Lived = dict[int, list[Event]]  # the events of each customer, by the simulation's knowledge of who is who


@cache
def lived(answer: bool) -> tuple[Lived, list[Episode], Restaurants]:
    """Two weeks of 1,500 customers and the week after, every episode answered or none."""
    world = Restaurants(3, 1_500, STARTED_AT, 14)
    customers = everyone()
    owner = {name: each.number for each in customers for name in (each.user_id, each.app_id, *each.cookies)}
    events: Lived = {}
    waiting: list[Episode] = []
    n_seen = 0
    for n in range(1, 22 * 144 + 1):
        now = STARTED_AT + n * SLICE
        for body in world.until(now):
            for event in events_of(body):
                name = event.identifiers.get("user_id") or event.identifiers.get("anonymous_id", "")
                if name in owner:
                    events.setdefault(owner[name], []).append(event)
        if answer:
            waiting += world.episodes[n_seen:]
            n_seen = len(world.episodes)
            for episode in [each for each in waiting if each.occurred_at <= now]:
                hand_over(world, episode, now)
                waiting.remove(episode)
    return events, world.episodes, world


def events_of(body: WireBody) -> list[Event]:
    limits = Limits()
    parsed = parse(body.body, "batch", body.source, CHANNELS[body.source], body.received_at, limits, body.gpc)
    return parsed.events


def moments() -> dict[str, Moment]:
    specs = [read(path.read_text(), path.name, EventSpec).value for path in EXAMPLE.glob("events/*.yaml")]
    catalogue: Catalogue = SHIPPED.extended(each for each in specs if each is not None)
    found: dict[str, Moment] = {}
    for path in sorted(EXAMPLE.glob("moments/*.yaml")):
        moment, faults = compile_moment(read(path.read_text(), path.name, MomentSpec), catalogue)
        assert moment is not None, [str(fault) for fault in faults]
        found[moment.name] = moment
    return found


def test_the_same_seed_tells_the_same_bytes_and_another_does_not() -> None:
    def told(seed: int) -> list[WireBody]:
        world = Restaurants(seed, 200, STARTED_AT, 3)
        return [body for n in range(1, 60) for body in world.until(STARTED_AT + n * 6 * SLICE)]

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_a_month_of_ten_thousand_customers_has_the_events_that_are_promised() -> None:
    world = Restaurants(7, 10_000, STARTED_AT, 30)
    sources: Counter[str] = Counter()
    for n in range(1, 30 * 24 + 1):
        received_at = STARTED_AT + (n - 1) * 6 * SLICE
        for body in world.until(STARTED_AT + n * 6 * SLICE):
            assert received_at <= body.received_at <= STARTED_AT + n * 6 * SLICE, "in time order"
            received_at = body.received_at
            sources[body.source] += body.body.count(b'"messageId"')
    assert 200_000 <= sources.total() <= 260_000
    assert set(sources) == set(CHANNELS)
    assert len(world.episodes) > 8_000


def test_some_events_are_late_some_come_twice_and_a_few_are_broken() -> None:
    world = Restaurants(5, 1_000, STARTED_AT, 10)
    bodies = [body for n in range(1, 10 * 144 + 1) for body in world.until(STARTED_AT + n * SLICE)]
    ids: Counter[tuple[str, str]] = Counter()
    n_late = n_rejected = n_events = 0
    for body in bodies:
        channel = CHANNELS[body.source]
        parsed = parse(body.body, "batch", body.source, channel, body.received_at, Limits(), body.gpc)
        n_rejected += len(parsed.rejected)
        for event in parsed.events:
            n_events += 1
            ids[event.source, event.message_id] += 1
            is_first = ids[event.source, event.message_id] == 1
            n_late += is_first and event.received_at - event.occurred_at > 660 * SECOND
    n_twice = sum(n > 1 for n in ids.values())
    assert 0.002 < n_twice / n_events < 0.01
    assert 0.002 < n_late / n_events < 0.02
    assert n_rejected >= 5
    assert any(body.gpc for body in bodies)


def happened(events: list[Event], episode: Episode, text: str) -> bool:
    """An outcome as the moment's file declares it, judged by this test's own few lines."""
    declared = re.fullmatch(r"(no )?(.+) within (.+)", text)
    assert declared is not None
    negated, name, within = declared.groups()
    ends_at = episode.occurred_at + seconds(within) * SECOND
    after = episode.occurred_at + IN_TIME_S * SECOND
    return any(e.name == name and after < e.occurred_at <= ends_at for e in events) != bool(negated)


def test_forced_answers_against_none_show_the_planted_truth() -> None:
    untreated, episodes, world = lived(answer=False)
    treated, same_episodes, _ = lived(answer=True)
    assert episodes == same_episodes, "which episodes there are does not depend on answers"
    declared = moments()
    planted = {(each.moment, each.measure): each.effect_points for each in world.truth}
    realised = {(each.moment, each.measure): each.effect_points for each in world.realised_truth}
    for name, moment in declared.items():
        mine = [each for each in episodes if each.moment == name]
        analyse = moment.spec.analyse
        for measure, text in (("solved", analyse.solved), ("business", analyse.business)):
            effects = [
                happened(treated[each.person], each, text) - happened(untreated[each.person], each, text)
                for each in mine
            ]
            n, mean = len(effects), sum(effects) / len(effects)
            error = (sum((each - mean) ** 2 for each in effects) / n / (n - 1)) ** 0.5
            truth = planted[name, measure]  # type: ignore[index]
            assert abs(100 * mean - truth) <= 300 * error + 1e-9, (name, measure, 100 * mean, truth)
            assert 100 * mean == pytest.approx(realised[name, measure], abs=0.5)  # type: ignore[index]
            assert n > 50


def test_the_reminder_is_planted_as_useless_and_the_others_are_not() -> None:
    truth = {(each.moment, each.measure): each.effect_points for each in Restaurants(1, 10, 0, 1).truth}
    assert truth["basket_left", "solved"] == truth["basket_left", "business"] == 0
    solved = [points for (name, what), points in truth.items() if what == "solved" and name != "basket_left"]
    assert min(solved) >= 15


def test_the_moments_of_the_example_catch_the_episodes_and_little_else() -> None:
    """The declarations and the simulation were written apart: here they must agree."""
    events, episodes, _ = lived(answer=False)
    declared = moments()
    assert set(declared) == {reaction.moment for reaction in REACTIONS}
    business = {each.number for each in everyone() if each.plan == "business"}
    program = _program(declared)
    caught: set[tuple[int, str, int]] = set()
    for number, mine in events.items():
        leaf = LeafId(number.to_bytes(16, "big"))
        ordered = sorted({(e.source, e.message_id): e for e in mine}.values(), key=lambda e: e.order_key)
        facts = [Fact(e, EventId(f"{e.source} {e.message_id}".encode()), leaf) for e in ordered]
        _, occurrences = step(program, Folded(), facts, STARTED_AT + 60 * DAY)
        caught |= {(number, each.moment, each.occurred_at // (60 * SECOND)) for each in occurrences}
    expected = [each for each in episodes if each.moment != "basket_left"]
    expected = [e for e in expected if e.moment != "where_is_my_order" or e.person not in business]
    near = {(n, moment, minute + d) for n, moment, minute in caught for d in (-1, 0, 1)}
    found = [e for e in expected if (e.person, e.moment, e.occurred_at // (60 * SECOND)) in near]
    assert len(found) >= 0.97 * len(expected)
    n_caught = sum(moment != "basket_left" for _, moment, _ in caught)
    assert n_caught <= 1.03 * len(expected)
    # Only those who agreed to marketing are caught with a basket left.
    n_baskets = sum(each.moment == "basket_left" for each in episodes)
    assert 0.5 < sum(moment == "basket_left" for _, moment, _ in caught) / n_baskets < 0.8


def _program(declared: dict[str, Moment]) -> Program:
    purposes = (("marketing", Purpose("", "consent", gpc=True)), ("service", Purpose("", "contract")))
    bits = {"marketing": 1, "service": 2}
    return Program(
        moments=tuple(declared.values()),
        purposes=purposes,
        contracts=dict.fromkeys(CHANNELS, 3),
        traits={"plan": Survival()},
        lateness_s=60,
        version="",
        bits={name: bits[each.purpose] for name, each in declared.items()},
        listening={
            event: tuple(each for each in declared.values() if event in each.pattern.names)
            for event in {event for each in declared.values() for event in each.pattern.names}
        },
    )


def test_a_message_with_a_bad_signature_is_refused_and_changes_nothing() -> None:
    world = Restaurants(3, 1_500, STARTED_AT, 14)
    world.until(STARTED_AT + DAY)
    body = webhook.payload("moment.answered", STARTED_AT, {"action": "tell_new_time", "recipient": "c-0"})
    headers = webhook.sign(DEMO_SECRET, "m1", (STARTED_AT + DAY) // SECOND, body)
    assert world.receive_webhook(headers, body + b" ").status == 401
    assert world.receive_webhook({}, body).status == 401
    assert world.receive_webhook(headers, body).status in (200, 429, 500)


def test_a_message_that_comes_twice_is_taken_once() -> None:
    def after(copies: int) -> tuple[list[Sent], list[WireBody]]:
        world = Restaurants(3, 1_500, STARTED_AT, 14)
        now = STARTED_AT + DAY
        world.until(now)
        episode = world.episodes[0]
        sent = hand_over(world, episode, now, copies)
        return sent, world.until(now + DAY)

    _, told_once = after(1)
    thrice, told_thrice = after(3)
    assert told_once == told_thrice
    assert [each.detail for each in thrice if each.ok][1:] == ["taken before"] * 2


def test_an_answer_that_comes_too_late_changes_nothing() -> None:
    def contacts(delay_s: int) -> list[bytes]:
        world = Restaurants(3, 1_500, STARTED_AT, 14)
        world.until(STARTED_AT + 5 * DAY)
        changed = [e for e in world.episodes if e.moment == "promise_broken"]
        changed = [e for e in changed if e.outcomes.solved_1 and not e.outcomes.solved_0]
        world, episode = Restaurants(3, 1_500, STARTED_AT, 14), changed[0]
        world.until(episode.occurred_at + delay_s * SECOND)
        if delay_s:
            hand_over(world, episode, episode.occurred_at + delay_s * SECOND)
        told = [body.body for body in world.until(episode.occurred_at + DAY)]
        messages = [json.loads(body)["batch"] for body in told]
        return [m["userId"] for batch in messages for m in batch
                if m.get("event") == "Contact Started" and m.get("userId") == episode.user_id]  # fmt: skip

    assert contacts(0) and not contacts(IN_TIME_S) and contacts(IN_TIME_S + 1)
    assert IN_TIME_S < UNTREATED_AFTER_S
