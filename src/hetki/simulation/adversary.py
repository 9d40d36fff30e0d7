"""A seeded stream of events in a hostile world, with the person who is truly behind each event.

Ordinary people with several devices, cookies that change, logins, orders without an account; and beside
them what breaks identity: shared devices, junk addresses, broken clients, attackers. Start at `stream`;
`adversary_people` says who there is and how much of each hostility, `adversary_visits` what they do,
`adversary_truth` how customers are judged by the truth.
"""

from __future__ import annotations

from random import Random
from typing import Iterable, Iterator

from hetki.events.event import Event
from hetki.events.segment import parse
from hetki.settings import DAY, Limits
from hetki.simulation.adversary_people import DAYS, FAMILY, NONE, Hostility, Person, people
from hetki.simulation.adversary_visits import VISITS, Scene, Told, ordinary

#: The true numbers of bots and of the giant lie beyond those of people, and of attackers below 0.
BOT = 1_000_000_000
GIANT = BOT + 1_000_000
#: A crawler takes up another user id, a thief another anonymous id, after so many events.
BOT_EVENTS = 5_000
LIMITS = Limits()


def stream(seed: int, n_people: int, started_at: int, hostility: Hostility = NONE) -> list[Told]:
    """Every call of `DAYS` days from `started_at` on, in order of arrival; one seed tells the same bytes.

    The ordinary visits are the same whatever is hostile, but for those that become hostile.
    """
    everyone = people(seed, n_people, hostility)
    told: list[Told] = []
    n_visits = 0
    for person in everyone:
        rng = Random(f"{seed} visits {person.number}")
        first = person.number - person.number % FAMILY
        family = everyone[first : first + FAMILY]
        for visit in range(person.n_visits):
            at, draw, own_seed = rng.randrange(DAYS * DAY), rng.random(), rng.random()
            key = f"{seed:x}-{person.number:x}-{visit:x}"
            kind = _kind(hostility, draw)
            scene = Scene(started_at, at, Random(own_seed), person, key, kind)
            VISITS.get(kind, ordinary)(scene, family)
            told += scene.told
            n_visits += 1
    told += _bots(seed, everyone, started_at, hostility, n_visits)
    return sorted(told)


def events(calls: Iterable[Told]) -> Iterator[tuple[Event, Told]]:
    """Each call as the event that the server makes of it."""
    for told in calls:
        parsed = parse(told.body, "message", "web", "web", told.arrives_at, LIMITS)
        for event in parsed.events:
            yield event, told


def _kind(hostility: Hostility, draw: float) -> str:
    """What a visit is, by one draw: "" for an ordinary one."""
    for kind in VISITS:
        share: float = getattr(hostility, kind)
        if draw < share:
            return kind
        draw -= share
    return ""


def _bots(
    seed: int, everyone: list[Person], started_at: int, hostility: Hostility, n_visits: int
) -> list[Told]:
    """What is told by machines, and by the one person who has a new anonymous id each time."""
    told: list[Told] = []
    for kind in ("crawler", "thief", "giant"):
        for n in range(round(getattr(hostility, kind) * n_visits)):
            rng = Random(f"{seed} {kind} {n}")
            at = rng.randrange(DAYS * DAY)
            scene = Scene(started_at, at, rng, everyone[n % len(everyone)], f"{seed:x}-{kind}-{n:x}", kind)
            number = n // BOT_EVENTS
            scene.takes(f"{kind}-{n:x}")
            if kind == "crawler":
                scene.user_id = f"crawler-{number}"
                scene.call("page", BOT + number, name="Menu")
            elif kind == "thief":
                scene.takes(f"thief-{number}")
                victim = rng.choice(everyone).emails[0]
                scene.call(
                    "track", BOT + 1_000 + number, event="Signed In Failed", properties={"email": victim}
                )
            else:
                scene.user_id = "u-giant"
                scene.browse(2, GIANT)
            told += scene.told
    return told
