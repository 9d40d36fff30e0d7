"""What customers do by themselves (browse, order, track, call), and kitchens that promise and deliver."""

from __future__ import annotations

from hetki.events.event import utc
from hetki.settings import SECOND
from hetki.simulation.restaurants_scene import Branch, Scene

MINUTE = 60.0
_TOPICS = ("opening hours", "allergens", "invoice", "lost item", "gift card")
_WORDS = ("opening hours", "gluten free", "invoice", "where is my order", "change address")


def iso(at: int) -> str:
    """An instant as ISO 8601 text, whole seconds, UTC."""
    return utc(at - at % SECOND).isoformat().replace("+00:00", "Z")


def browse(scene: Scene, after_s: float = 0.0) -> float:
    """A few pages; returns when the customer has had enough (seconds after the start)."""
    scene.look(after_s, "/")
    for path in scene.rng.sample(("/menu", "/offers", "/restaurants", "/lunch"), scene.rng.choice((1, 2, 3))):
        after_s += scene.rng.uniform(10, 50)
        scene.look(after_s, path)
        if path == "/menu" and scene.rng.random() < 0.5:
            scene.tell(after_s + 6, "Products Searched", {"query": "soup", "n_results": 3}, path=path)
    return after_s + 12


def basket(scene: Scene) -> float:
    """Fill a basket and leave it; returns when the last dish was added first (seconds after the start)."""
    after_s = browse(scene) + 50
    scene.fill_basket(after_s)
    added = [told for told in scene.told if told.name == "Product Added"]
    return (added[0].happens_at - scene.starts_at) / SECOND


class Ordered:
    """When things were ordered and promised, in seconds after the scene's start."""

    __slots__ = ("order_id", "ordered_s", "promised_s")

    def __init__(self, order_id: str, ordered_s: float, promised_s: float) -> None:
        self.order_id = order_id
        self.ordered_s = ordered_s
        self.promised_s = promised_s


def order(scene: Scene, after_s: float = 0.0, mark: str = "", branch: Branch = "always") -> Ordered:
    """Order a meal in the customer's channel; the kitchen promises a time."""
    start, rng = len(scene.told), scene.rng
    order_id = f"o{scene.key}{mark}"
    total = 18.0
    if scene.system in ("web", "app"):
        scene.look(after_s, "/")
        scene.look(after_s + 12, "/menu")
        total = scene.fill_basket(after_s + 55)
        scene.tell(
            after_s + 170, "Checkout Started", {"order_id": order_id, "value": total}, path="/checkout"
        )
    ordered_s = after_s + 240 + int(rng.random() * 120)
    facts: dict[str, object] = {"order_id": order_id, "total": total, "currency": "EUR"}
    scene.tell(
        ordered_s, "Order Completed", facts | {"kitchen": f"k{scene.person.kitchen}"}, path="/checkout"
    )
    promised_s = ordered_s + rng.choice((40, 40, 45, 50)) * MINUTE
    promise: dict[str, object] = {
        "order_id": order_id,
        "promised_at": iso(scene.starts_at + int(promised_s) * SECOND),
    }
    scene.tell(ordered_s + 20, "Delivery Promised", promise, system="kitchen")
    if branch != "always":
        scene.told[start:] = [told._replace(branch=branch) for told in scene.told[start:]]
    return Ordered(order_id, ordered_s, promised_s)


def deliver(scene: Scene, ordered: Ordered, after_s: float, branch: Branch = "always") -> None:
    """The meal arrives."""
    late = max(0, int((after_s - ordered.promised_s) // MINUTE))
    facts: dict[str, object] = {"order_id": ordered.order_id, "n_minutes_late": late}
    scene.tell(after_s, "Order Delivered", facts, branch, system="kitchen")


def track(scene: Scene, ordered: Ordered, after_s: float, branch: Branch = "always") -> None:
    """The customer looks where the meal is."""
    scene.tell(after_s, "Order Tracked", {"order_id": ordered.order_id}, branch, path="/orders/track")


def order_on_time(scene: Scene, after_s: float = 0.0, mark: str = "", branch: Branch = "always") -> Ordered:
    """An order as it should be, some of it tracked and reviewed."""
    ordered = order(scene, after_s, mark, branch)
    rng = scene.rng
    arrives_s = ordered.promised_s - rng.uniform(2, 14) * MINUTE
    if scene.system != "desk" and rng.random() < 0.35:
        track(scene, ordered, ordered.ordered_s + rng.uniform(8, 20) * MINUTE, branch)
    deliver(scene, ordered, arrives_s, branch)
    if rng.random() < 0.12 and branch == "always":
        review: dict[str, object] = {"review_id": f"v{scene.key}", "order_id": ordered.order_id}
        scene.tell(
            arrives_s + rng.uniform(1, 3) * 3600,
            "Review Posted",
            review | {"rating": rng.choice((3, 4, 5, 5))},
        )
    return ordered


def delayed(scene: Scene, ordered: Ordered, n_minutes: int) -> float:
    """The kitchen says that it will be late; returns when it said so (seconds after the start)."""
    said_s = ordered.ordered_s + scene.rng.uniform(12, 24) * MINUTE
    expected_at = scene.starts_at + int(ordered.promised_s + n_minutes * MINUTE) * SECOND
    facts: dict[str, object] = {
        "order_id": ordered.order_id,
        "n_minutes": n_minutes,
        "reason": "kitchen busy",
    }
    scene.tell(said_s, "Delivery Delayed", facts | {"expected_at": iso(expected_at)}, system="kitchen")
    return said_s


def late_told(scene: Scene) -> None:
    """A late order that needs no answer: the customer tracks it, or opens a chat, or just waits."""
    ordered = order(scene)
    rng = scene.rng
    n_minutes = rng.randint(5, 50)
    said_s = delayed(scene, ordered, n_minutes)
    searched: dict[str, object] = {"query": "where is my order", "n_results": 0, "order_id": ordered.order_id}
    if scene.system != "desk" and rng.random() < 0.6:
        scene.tell(said_s + 120, "Help Searched", searched, path="/help")
        if rng.random() < 0.7:
            track(scene, ordered, said_s + 120 + rng.uniform(30, 400))
        else:
            scene.tell(said_s + 200, "Chat Started", {"order_id": ordered.order_id, "topic": "late order"})
            scene.tell(said_s + 500, "Chat Ended", {"order_id": ordered.order_id, "solved": True})
    deliver(scene, ordered, ordered.promised_s + n_minutes * MINUTE)


def contact(
    scene: Scene, after_s: float, topic: str, mark: str, branch: Branch = "always", ends: bool = True
) -> None:
    """The customer calls or writes to the contact centre; if `ends`, someone settles it at once."""
    facts: dict[str, object] = {"contact_id": f"t{scene.key}{mark}", "topic": topic}
    scene.tell(after_s, "Contact Started", facts, branch, system="desk")
    if ends:
        wait, work = scene.rng.randint(20, 420), scene.rng.randint(120, 700)
        more: dict[str, object] = {"solved": True, "n_waiting_s": wait, "n_handling_s": work}
        scene.tell(after_s + wait + work, "Contact Ended", facts | more, branch, system="desk")


def call(scene: Scene) -> None:
    """An everyday call that is settled at once; three in ten callers are known by their phone number only."""
    contact(scene, 0.0, scene.rng.choice(_TOPICS), "a")
    if scene.rng.random() < 0.3:
        number = scene.person.phone
        spoken: dict[str, object] = {"phone": f"{number[:4]} {number[4:6]} {number[6:9]}-{number[9:]}"}
        scene.tell(1.0, "identify", spoken, system="desk")
        caller = f"call-{scene.key}"
        scene.told[:] = [told._replace(user_id="", anonymous_id=caller) for told in scene.told]


def look_for_help(scene: Scene) -> None:
    """An everyday look into the help pages, which mostly have the answer."""
    scene.look(0.0, "/help")
    words = scene.rng.choice(_WORDS)
    scene.tell(
        20.0, "Help Searched", {"query": words, "n_results": scene.rng.choice((0, 2, 4, 7))}, path="/help"
    )
    scene.tell(45.0, "Help Viewed", {"article_id": "h1", "topic": words, "helpful": True}, path="/help")
