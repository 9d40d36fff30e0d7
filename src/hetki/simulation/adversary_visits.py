"""What happens in one visit of the hostile stream, call by call as a tracking client sends it.

Each kind of hostility is one function of a scene, named as in `adversary_people.Hostility`.
"""

from __future__ import annotations

from random import Random
from typing import Callable, NamedTuple, Sequence

import msgspec

from hetki.events.event import utc
from hetki.settings import SECOND
from hetki.simulation import adversary_people as those
from hetki.simulation.adversary_people import Person

LATE_SHARE = 0.03
#: One kiosk and one desk for so many people.
SHARED_FOR = 1_000
#: The true number of the attacker of person 0; that of person 1 is one less.
ATTACKER = -1


class Told(NamedTuple):
    """One call: when it arrives, which person is truly behind it, what hostility it is of ("" for none)."""

    arrives_at: int
    person: int
    kind: str
    message_id: str
    body: bytes


class Scene:
    """Collects the calls of one visit. `at` is the time since the start, and goes on with each call."""

    __slots__ = (
        "anonymous_id",
        "at",
        "device_id",
        "key",
        "kind",
        "person",
        "rng",
        "started_at",
        "told",
        "user_id",
    )

    def __init__(self, started_at: int, at: int, rng: Random, person: Person, key: str, kind: str) -> None:
        self.started_at, self.at, self.rng, self.key, self.kind = started_at, at, rng, key, kind
        self.told: list[Told] = []
        self.person = person
        self.anonymous_id = self.user_id = self.device_id = ""

    def takes(self, anonymous_id: str, device_id: str = "") -> None:
        """Go to a device; nobody is logged in there."""
        self.anonymous_id, self.device_id, self.user_id = anonymous_id, device_id, ""

    def takes_own(self) -> None:
        """Go to one of the person's own devices; the app remembers who logged in."""
        person = self.person
        if person.device_id and self.rng.random() < 0.5:
            self.takes(person.app_cookie, person.device_id)
            self.user_id = person.user_id
        else:
            self.takes(self.own_cookie())

    def own_cookie(self) -> str:
        """The anonymous id of one of the person's browsers."""
        person = self.person
        return person.cookie(self.rng.randrange(len(person.cookie_days)), self.at)

    def call(self, kind: str, by: int | None = None, card: str = "", **fields: object) -> None:
        """One call; `by` is the person who is truly behind it, where that is not the scene's."""
        self.at += self.rng.randint(5, 90) * SECOND
        context: dict[str, object] = {}
        if self.device_id:
            context["device"] = {"id": self.device_id, "type": "android"}
        if card:
            context["externalIds"] = [
                {"id": card, "type": "loyalty_card", "collection": "users", "encoding": "none"}
            ]
        occurred_at = self.started_at + self.at
        delay = self.rng.randint(1, 60) * SECOND
        if self.rng.random() < LATE_SHARE:
            delay = self.rng.randint(600, 2 * 86_400) * SECOND
        message_id = f"{self.key}-{len(self.told)}"
        message = {"type": kind, "messageId": message_id, "timestamp": utc(occurred_at).isoformat()}
        body = msgspec.json.encode(
            message
            | ({"anonymousId": self.anonymous_id} if self.anonymous_id else {})
            | ({"userId": self.user_id} if self.user_id else {})
            | ({"context": context} if context else {})
            | fields
        )
        person = self.person.number if by is None else by
        self.told.append(Told(occurred_at + delay, person, self.kind, message_id, body))

    def browse(self, n_max: int = 3, by: int | None = None) -> None:
        """Look at some pages."""
        for _ in range(self.rng.randint(1, n_max)):
            self.call("track", by, event="Product Viewed", properties={"product_id": self.rng.randrange(99)})

    def log_in(self, user_id: str | None = None, by: int | None = None) -> None:
        """Say who one is; who has no account says nothing."""
        self.user_id = self.person.user_id if user_id is None else user_id
        if self.user_id:
            self.call("identify", by, traits={"email": self.person.emails[0]} if user_id is None else {})

    def order(self, email: str | None = None, phone: str | None = None, card: str | None = None) -> None:
        """Order, with the person's own address, number and card, or with others."""
        person = self.person
        contact = {
            "email": self.rng.choice(person.emails) if email is None else email,
            "phone": person.phone(self.at) if phone is None else phone,
        }
        card = person.card if card is None else card
        told = {key: value for key, value in contact.items() if value and self.rng.random() < 0.8}
        card = card if self.rng.random() < 0.5 else ""
        self.call("track", card=card, event="Order Completed", properties={"order_id": self.key, **told})


def ordinary(scene: Scene, friends: Sequence[Person]) -> None:
    """Look around, perhaps log in, perhaps order, with or without an account."""
    scene.takes_own()
    _shops(scene)


def kiosk(scene: Scene, friends: Sequence[Person]) -> None:
    """At a shared screen that is never reset."""
    scene.takes(f"kiosk-{scene.person.number // SHARED_FOR}")
    if scene.rng.random() < 0.3:
        scene.browse(1)
    scene.log_in()
    scene.browse()
    scene.order()


def tablet(scene: Scene, friends: Sequence[Person]) -> None:
    """At the family's tablet."""
    scene.takes(f"tablet-{friends[0].number:x}")
    _shops(scene)


def call_centre(scene: Scene, friends: Sequence[Person]) -> None:
    """By phone: staff type, in one browser for hundreds of customers."""
    scene.takes(f"desk-{scene.person.number // SHARED_FOR}")
    scene.user_id = scene.person.user_id
    scene.order()


def junk_contact(scene: Scene, friends: Sequence[Person]) -> None:
    """Order under an address of nobody."""
    scene.takes(scene.own_cookie())
    scene.browse(2)
    scene.order(scene.rng.choice(those.JUNK_EMAILS), scene.rng.choice(those.JUNK_PHONES))


def shop_contact(scene: Scene, friends: Sequence[Person]) -> None:
    """Staff type the shop's own address."""
    scene.takes(f"receipt-{scene.key}")
    if scene.rng.random() < 0.5:
        scene.user_id = scene.person.user_id
    scene.order(those.SHOP_EMAIL, those.SHOP_PHONE)


def null_id(scene: Scene, friends: Sequence[Person]) -> None:
    """A broken client sends null for an id."""
    scene.takes(scene.own_cookie())
    scene.log_in(scene.rng.choice(those.NULL_IDS))
    scene.browse(2)


def odd_id(scene: Scene, friends: Sequence[Person]) -> None:
    """A broken client sends a placeholder for an id."""
    scene.takes(scene.own_cookie())
    scene.log_in(scene.rng.choice(those.ODD_IDS))
    scene.browse(2)


def swapped(scene: Scene, friends: Sequence[Person]) -> None:
    """Log in on a friend's device."""
    scene.takes(_other(scene, friends).cookie(0, scene.at))
    scene.log_in()
    scene.browse(2)
    scene.order()


def alias_user(scene: Scene, friends: Sequence[Person]) -> None:
    """An attacker, a person of his own, aliases the victim's user id to his."""
    _aliases(scene, scene.person.user_id)


def alias_cookie(scene: Scene, friends: Sequence[Person]) -> None:
    """An attacker aliases the victim's anonymous id to his user id."""
    _aliases(scene, scene.own_cookie())


def no_reset(scene: Scene, friends: Sequence[Person]) -> None:
    """Log out without a reset; a friend goes on, and may log in."""
    scene.takes(scene.own_cookie())
    scene.log_in()
    scene.browse(2)
    scene.user_id, other = "", _other(scene, friends)
    scene.browse(2, other.number)
    if other.user_id and scene.rng.random() < 0.5:
        scene.log_in(other.user_id, other.number)


def family_email(scene: Scene, friends: Sequence[Person]) -> None:
    """Order under the address of another of the family."""
    scene.takes_own()
    scene.order(friends[0].emails[0])


def lent_card(scene: Scene, friends: Sequence[Person]) -> None:
    """Pay in the store with the card of another of the family."""
    scene.takes(f"receipt-{scene.key}")
    scene.order(card=next((each.card for each in friends if each.card), ""))


VISITS: dict[str, Callable[[Scene, Sequence[Person]], None]] = {
    visit.__name__: visit
    for visit in (
        *(kiosk, tablet, call_centre, junk_contact, shop_contact, null_id, odd_id, swapped),
        *(alias_user, alias_cookie, no_reset, family_email, lent_card),
    )
}


def _shops(scene: Scene) -> None:
    draw = scene.rng.random
    scene.browse()
    if not scene.user_id and draw() < 0.5:
        scene.log_in()
        scene.browse(2)
    if draw() < 0.4:
        scene.order()


def _other(scene: Scene, friends: Sequence[Person]) -> Person:
    return next((each for each in friends if each.number != scene.person.number), scene.person)


def _aliases(scene: Scene, previous_id: str) -> None:
    attacker = ATTACKER - scene.person.number
    scene.takes(f"attacker-{scene.key}")
    scene.user_id = f"x-{scene.key}"
    scene.browse(1, attacker)
    if previous_id:
        scene.call("alias", attacker, previousId=previous_id)
    scene.browse(1, attacker)
