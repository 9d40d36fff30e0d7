"""A seeded chain of restaurants that delivers: its customers, its systems, and how both react to answers.

Start at `Restaurants`. `restaurants_people` says who the customers are, `restaurants_plan` when they come,
`restaurants_orders` and `restaurants_reactions` what then happens, `restaurants_truth` what is planted,
`restaurants_wire` how it is sent, `restaurants_receiver` how messages to customers are taken in.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Callable, NamedTuple

from hetki.settings import SECOND
from hetki.simulation import restaurants_orders as act
from hetki.simulation.restaurants_people import Person, people
from hetki.simulation.restaurants_plan import EPISODES, Visit, plan
from hetki.simulation.restaurants_reactions import Episode, play
from hetki.simulation.restaurants_receiver import DEMO_SECRET, Message, Receiver
from hetki.simulation.restaurants_scene import Scene, System, Told
from hetki.simulation.restaurants_truth import IN_TIME_S, PlantedTruth, planted, realised
from hetki.simulation.restaurants_wire import Arriving, Encoder, WireBody, broken, delay
from hetki.store.ports import Sent

_RETRIED = 0.005
_EVERYDAY: dict[str, Callable[[Scene], object]] = {
    "browse": act.browse,
    "order": act.order_on_time,
    "late_told": act.late_told,
    "help": act.look_for_help,
    "contact": act.call,
}


class _Waiting(NamedTuple):
    """An event on its way; `visit` decides which branch is sent, `copy` is 1 for a repeat by a retry."""

    arrives_at: int
    message_id: str
    copy: int
    visit: int
    person: int
    told: Told


class Restaurants:
    """`days` days of `n_customers` customers from `started_at` on; the same seed tells the same bytes.

    Ask `until` for slices of at most a quarter of an hour, and hand it every message before the next
    slice: an answer later than `restaurants_truth.IN_TIME_S` after its moment changes nothing.
    """

    def __init__(
        self, seed: int, n_customers: int, started_at: int, days: int, secret: str = DEMO_SECRET
    ) -> None:
        self._seed = seed
        self._people = people(seed, n_customers)
        self._visits = plan(seed, self._people, started_at, days)
        self._next_visit = 0
        self._until = started_at
        self._waiting: list[_Waiting] = []
        self._broken = broken(Random(f"{seed} broken"), started_at, days)[::-1]
        self._introduced: set[tuple[int, str]] = set()
        self._stated: set[int] = set()
        self._answered: set[int] = set()
        self._open: dict[tuple[int, str], Episode] = {}
        self._episodes: list[Episode] = []
        self._encoder = Encoder()
        self._receiver = Receiver(seed, secret, self._people)

    @property
    def truth(self) -> list[PlantedTruth]:
        """The true effect of every moment's answer, by design (see `restaurants_truth`)."""
        return planted()

    @property
    def realised_truth(self) -> list[PlantedTruth]:
        """The mean effect over the episodes that have begun so far, from both potential outcomes."""
        return realised([episode.outcomes for episode in self._episodes])

    @property
    def episodes(self) -> list[Episode]:
        """Every episode that has begun so far, in order of its visit."""
        return list(self._episodes)

    def until(self, instant: int) -> list[WireBody]:
        """The bodies that reach the server after the last slice and not later than `instant`, in order."""
        visits = self._visits
        while self._next_visit < len(visits) and visits[self._next_visit].starts_at <= instant:
            self._begin(visits[self._next_visit])
            self._next_visit += 1
        self._until = max(self._until, instant)
        arriving: list[Arriving] = []
        while self._waiting and self._waiting[0].arrives_at <= instant:
            waiting = heappop(self._waiting)
            branch = waiting.told.branch
            if branch == "always" or (branch == "treated") == (waiting.visit in self._answered):
                arriving.append(self._encoded(waiting))
        while self._broken and self._broken[-1].arrives_at <= instant:
            arriving.append(self._broken.pop())
        arriving.sort(key=lambda each: each.arrives_at)
        return self._encoder.bodies(arriving)

    def receive_webhook(self, headers: dict[str, str], body: bytes) -> Sent:
        """The local receiver of webhooks: verifies, drops repeats, sometimes fails; the customer reacts."""
        sent, message = self._receiver.webhook(headers, body, self._until)
        if message is not None:
            self._read(message)
        return sent

    def receive_mail(self, sender: str, recipient: str, message: bytes) -> Sent:
        """The local mail server: the customer whose address it is reads, and reacts."""
        sent, read = self._receiver.mail(recipient, message)
        if read is not None:
            self._read(read)
        return sent

    def _read(self, message: Message) -> None:
        """An open episode that is answered in time takes its other course; half of all messages are read."""
        for moment in message.moments:
            episode = self._open.get((message.person, moment))
            if episode and episode.occurred_at <= self._until <= episode.occurred_at + IN_TIME_S * SECOND:
                self._answered.add(episode.visit)
        person, rng = self._people[message.person], Random(f"{self._seed} {message.message_id}")
        at = self._until + rng.randint(60, 600) * SECOND
        facts: dict[str, object] = {"campaign_name": message.action}
        if rng.random() < 0.5 and message.by_mail:
            told = Told(
                at, "web", "Email Opened", facts, person.user_id, person.cookies[0], "mobile", "", "always"
            )
        elif rng.random() < 0.7 and person.app_id and not message.by_mail:
            told = Told(
                at,
                "app",
                "Push Notification Tapped",
                facts,
                person.user_id,
                person.app_id,
                "mobile",
                "",
                "always",
            )
        else:
            return
        message_id = f"{self._seed:x}-opened-{message.message_id}"[:100]
        heappush(self._waiting, _Waiting(at + SECOND, message_id, 0, -1, message.person, told))

    def _begin(self, visit: Visit) -> None:
        """Play a visit: everything that will follow from it joins the waiting events."""
        person = self._people[visit.person]
        rng = Random(self._seed * 1_000_003 + visit.visit)
        scene = self._scene(visit, person, rng)
        if visit.kind in EPISODES:
            episode = play(visit.kind, visit.visit, scene)
            self._episodes.append(episode)
            self._open[visit.person, episode.moment] = episode
        else:
            _EVERYDAY[visit.kind](scene)
        if person.marketing == "granted" and visit.person in self._stated and rng.random() < 0.008:
            scene.tell(30.0, "Consent Withdrawn", {"purpose": "marketing"}, system="web")
        for n, told in enumerate(scene.told):
            message_id = f"{self._seed:x}-{visit.visit:x}-{n}"
            waiting = _Waiting(
                told.happens_at + delay(told, rng), message_id, 0, visit.visit, visit.person, told
            )
            heappush(self._waiting, waiting)
            if rng.random() < _RETRIED:
                later = waiting.arrives_at + rng.randint(5, 900) * SECOND
                heappush(self._waiting, waiting._replace(arrives_at=later, copy=1))

    def _scene(self, visit: Visit, person: Person, rng: Random) -> Scene:
        """Where the visit takes place, and whether the customer says who he is on this device."""
        system: System = person.channel
        if visit.kind == "first_app" or (visit.kind == "late_searched" and person.app_id):
            system = "app"
        elif system == "desk" and visit.kind not in ("order", "contact", "unresolved"):
            system = "web"
        scene = Scene(visit.starts_at, person, rng, system, f"{visit.visit:06x}", inf)
        if not person.user_id:
            return scene
        called = system == "desk" or visit.kind in ("contact", "unresolved")
        device, sure = (visit.person, scene.anonymous_id), visit.kind in EPISODES
        if called:
            scene.login_after_s = 0.0
        elif device not in self._introduced and (sure or rng.random() < 0.75):
            scene.login_after_s = rng.uniform(6, 25)
            scene.log_in(visit.person not in self._stated)
            self._introduced.add(device)
            self._stated.add(visit.person)
        elif device in self._introduced and (sure or rng.random() < 0.8):
            scene.login_after_s = 0.0
        return scene

    def _encoded(self, waiting: _Waiting) -> Arriving:
        told, person = waiting.told, self._people[waiting.person]
        message = self._encoder.message(told, person, waiting.message_id)
        at_device = told.device != ""
        gpc = person.gpc and told.system == "web"
        return Arriving(waiting.arrives_at, told.system, gpc, person.skew_s if at_device else 0, message)
