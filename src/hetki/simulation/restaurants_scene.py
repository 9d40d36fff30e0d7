"""A scene: one visit while it is being told, step by step, as the systems around the customer see it."""

from __future__ import annotations

from random import Random
from typing import Literal, NamedTuple

from hetki.settings import SECOND
from hetki.simulation.restaurants_people import Person

#: Told whatever happens; only if no answer came in time; only if one did.
Branch = Literal["always", "untreated", "treated"]
System = Literal["web", "app", "desk", "kitchen"]
Properties = dict[str, object]

_DISHES = ("salmon soup", "karelian pie", "reindeer stew", "mushroom risotto", "rye pizza", "blueberry pie")
_PRICES = (12.9, 6.5, 21.0, 15.5, 13.9, 7.0)


class Told(NamedTuple):
    """One event as it will be told by one system; ids are empty where that system does not know them."""

    happens_at: int
    system: System
    name: str
    properties: Properties
    user_id: str
    anonymous_id: str
    device: str
    path: str
    branch: Branch


class Scene:
    """Collects what happens in one visit. Offsets are seconds after `starts_at`."""

    __slots__ = (
        "anonymous_id",
        "device",
        "key",
        "login_after_s",
        "person",
        "rng",
        "starts_at",
        "system",
        "told",
    )

    def __init__(
        self, starts_at: int, person: Person, rng: Random, system: System, key: str, login_after_s: float
    ) -> None:
        self.starts_at = starts_at
        self.person = person
        self.rng = rng
        self.system = system
        self.key = key
        cookie = person.cookies[-1] if rng.random() < 0.15 else person.cookies[0]
        self.anonymous_id = person.app_id if system == "app" else cookie
        second = system == "web" and cookie != person.cookies[0]
        self.device = "mobile" if system == "app" or second else person.device
        self.login_after_s = login_after_s
        self.told: list[Told] = []

    def tell(
        self,
        after_s: float,
        name: str,
        properties: Properties | None = None,
        branch: Branch = "always",
        system: System | None = None,
        device: str = "",
        path: str = "",
    ) -> None:
        """Add one event. Systems behind the counter know the customer number, else what the browser said."""
        where = system or self.system
        user_id, anonymous_id = self.person.user_id, self.anonymous_id
        if where in ("desk", "kitchen"):
            anonymous_id = "" if user_id else anonymous_id
            device = ""
        else:
            device = device or self.device
            if after_s < self.login_after_s:
                user_id = ""
        at = self.starts_at + int(after_s * SECOND)
        self.told.append(Told(at, where, name, properties or {}, user_id, anonymous_id, device, path, branch))

    def log_in(self, state_marketing: bool) -> None:
        """The `identify` that joins the fragments, and once a statement about marketing."""
        person = self.person
        traits: Properties = {"email": person.email, "plan": person.plan, "language": person.locale[:2]}
        if person.number % 3 != 0:
            traits["phone"] = person.phone
        after_s = self.login_after_s
        if self.system == "app" and self.rng.random() < 0.1:  # an old version of the app
            self.tell(after_s, "alias", {"previous_id": self.anonymous_id})
        self.tell(after_s + 1, "identify", traits)
        if state_marketing and person.marketing:
            name = "Consent Granted" if person.marketing == "granted" else "Consent Refused"
            self.tell(after_s + 4, name, {"purpose": "marketing", "notice_version": "2026-02"})

    def look(self, after_s: float, path: str) -> None:
        """A page on the web, a screen in the app."""
        title = path.strip("/").replace("/", " ").title() or "Home"
        if self.system == "app":
            self.tell(after_s, "screen", {"name": title}, path=path)
        else:
            self.tell(after_s, "page", {"name": title, "path": path}, path=path)

    def fill_basket(self, after_s: float) -> float:
        """Look at dishes and add some; returns the basket's value in euros."""
        total = 0.0
        for n in range(self.rng.choice((1, 1, 2))):
            dish = self.rng.randrange(len(_DISHES))
            price = _PRICES[dish]
            product: Properties = {"product_id": f"d{dish}", "name": _DISHES[dish], "price": price}
            self.tell(after_s + 40 * n, "Product Viewed", product, path="/menu")
            added = {**product, "quantity": 1 + (self.rng.random() < 0.3), "cart_id": f"b{self.key}"}
            self.tell(after_s + 40 * n + 17, "Product Added", added, path="/menu")
            total += price
        return round(total, 2)
