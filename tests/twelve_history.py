"""A random history for the twelve moments: dense walks over the events of each, so that all bounds are met.

A walk takes the events of one moment in random order, with gaps that add up to the moment's bounds exactly,
to a second more, and to nothing at all; several walks of one customer overlap. Nothing here knows what a
moment is: which walks fire is for the matcher to say, and for SQL.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from world import ORIGIN

from hetki.declarations.durations import seconds
from hetki.events.event import Event, utc
from hetki.settings import DAY, SECOND

N_CUSTOMERS, N_DAYS = 600, 120

#: Which source tells of an event; some of them by chance, of several.
SOURCES = {
    "Agent Joined": "desk",
    "Complaint Opened": "desk",
    "Complaint Solved": "desk",
    "Contact Ended": "desk",
    "Contact Started": "desk",
    "Delivery Failed": "orders",
    "Delivery Promised": "orders marketplace",
    "Feedback Answered": "desk",
    "Order Completed": "web app stores marketplace",
    "Order Confirmed": "orders",
    "Order Delivered": "orders",
    "Order Paid": "orders",
    "Post Noticed": "listening",
    "Staffing Reported": "stores",
    "Store Visited": "stores",
}

#: Of each walk: its gaps, and one event in a line: how often, its name, its fields with their choices.
#: `K` in a value is the walk's own key, so that it is the same only within the walk.
WALKS = {
    "cart": (
        "0s, 5 min, 10 min, 20 min, 30 min, 40 min, 60 min, 3601 s, 26 h",
        """
        5 Product Added product_id=Ka,Kb,common device=mobile
        1 Product Added product_id=Ka,Kb device=desktop
        5 Products Searched product_id=Ka,Kb,common,-
        1 Order Completed order_id=K
        """,
    ),
    "help": (
        "0s, 1 h, 1 h, 2 h, 4 h, 8 h, 11 h, 12 h, 12 h, 1 s, 24 h, 86401 s",
        """
        5 Help Searched n_results=0,0,0,2,- topic=-,refund
        3 Help Viewed helpful=true,false,false,-
        2 Contact Started topic=-,refund
        1 Chat Started topic=-,refund
        """,
    ),
    "late": (
        "0s, 1 s, 1 h, 12 h, 12 h, 1 day, 1 day, 2 days, 26 days",
        """
        4 Order Completed affiliation=marketplace,marketplace,marketplace,shop,- order_id=Kx,Kx,Ky
        6 Delivery Promised order_id=Kx,Kx,Ky promised_at=+1d,+1d,+2d,+13h,-1d,-
        1 Order Delivered order_id=Kx,Ky,Kz
        7 Post Noticed mood=negative,negative,positive
        """,
    ),
    "detractor": (
        "0s, 1 day, 3 days, 4 days, 7 days, 604801 s, 10 days, 23 days",
        """
        6 Survey Answered survey_id=K nps=0,3,6,6,7,9,-
        1 Feedback Answered survey_id=K
        1 Contact Started topic=-,refund
        1 Chat Started
        1 Order Completed order_id=K
        1 Store Visited store_id=north,south
        """,
    ),
    "paid": (
        "0s, 2 min, 5 min, 8 min, 10 min, 601 s, 1 day",
        """
        4 Order Paid order_id=Kx,Ky,-
        3 Order Confirmed order_id=Kx,Ky,-
        """,
    ),
    "channels": (
        "0s, 1 s, 15 min, 15 min, 30 min, 30 min, 45 min, 1 h, 2 h, 7201 s, 25 h",
        """
        3 Contact Started topic=refund,invoice,-
        3 Chat Started topic=refund,refund,invoice
        5 Help Searched topic=refund,refund,invoice n_results=0,3
        1 Contact Ended topic=refund,invoice solved=true,false,-
        1 Chat Ended topic=refund,invoice solved=true,false
        """,
    ),
    "price": (
        "0s, 1 s, 1 h, 12 h, 12 h, 24 h, 24 h, 36 h, 48 h, 7 days",
        """
        9 Product Viewed product_id=Ka,Ka,Ka,Ka,Kb price=10,20,20,20,-
        1 Product Added product_id=Ka,Kb device=mobile,desktop
        """,
    ),
    "handover": (
        "0s, 30s, 60s, 90s, 120s, 121s, 1 day",
        """
        4 Handover Requested conversation_id=K1,K2,-
        2 Agent Joined conversation_id=K1,K2,-
        1 Live Chat Conversation Ended conversation_id=K1,K2
        """,
    ),
    "complaint": (
        "0s, 1 day, 6 days, 7 days, 8 days, 13 days, 14 days, 1209601 s",
        """
        3 Complaint Solved complaint_id=K1,K2,common,-
        3 Complaint Opened complaint_id=K1,K2,common,-
        """,
    ),
    "failed": (
        "0s, 10 min, 20 min, 30 min, 40 min, 60 min, 3601 s, 23 h, 24 h",
        """
        3 Delivery Failed order_id=Kx,Ky
        3 Contact Ended n_waiting_s=0,600,601,900,- topic=refund solved=true,false
        """,
    ),
    "loyal": (
        "0s, 1 s, 1 day, 10 days, 20 days, 30 days, 30 days, 60 days",
        """
        9 Order Completed total=100,100,100,90,60,60,61,20,- order_id=K
        2 Survey Answered nps=7,9,9,10,-
        """,
    ),
    "campaign": (
        "0s, 1 h, 1 h, 1 day, 3 days, 4 days, 6 days, 7 days, 604801 s",
        """
        3 Email Link Clicked campaign_id=spring,-
        4 Store Visited store_id=north,north,south,-
        """,
    ),
}

#: Walks that rarely come to an end are taken more often.
OFTEN = {"late": 5, "help": 3, "channels": 3, "cart": 2, "price": 2, "loyal": 2, "campaign": 3}

Told = tuple[int, str, dict[str, object]]


def history(seed: int) -> list[Event]:
    """Events of all customers in their total order; chance decides it among those of one instant."""
    chance = random.Random(seed)
    walks = [walk for walk in WALKS for _ in range(OFTEN.get(walk, 1))]
    events: list[Event] = []
    for number in range(N_CUSTOMERS):
        told = _consents(chance)
        for nth in range(3):
            told += _walk(chance, chance.choice(walks), f"{number}.{nth}")
        events += [_event(chance, {"user_id": f"c{number:03}"}, each) for each in told]
    events += [_event(chance, {}, each) for each in _reports(chance)]
    return sorted(events, key=lambda each: each.order_key)


def table(events: Sequence[Event]) -> list[dict[str, object]]:
    """The events as rows for SQL: who, when, what, and every field that any event has."""
    fields = [msgspec.json.decode(each.properties) for each in events]
    names = sorted({name for each in fields for name in each})
    return [
        {
            "c": each.identifiers.get("user_id"),
            "t": utc(each.occurred_at).replace(tzinfo=None),
            "source": each.source,
            "message_id": each.message_id,
            "channel": each.channel,
            "name": each.name,
            "device": msgspec.json.decode(each.context)["device"]["type"],
            **{name: _told(name, properties.get(name)) for name in names},
        }
        for each, properties in zip(events, fields, strict=True)
    ]


def _told(name: str, value: object) -> object:
    is_time = name.endswith("_at") and isinstance(value, str)
    return datetime.fromisoformat(str(value)).replace(tzinfo=None) if is_time else value


def _consents(chance: random.Random) -> list[Told]:
    """Most customers grant at once; some later, some never, and some take it back."""
    told: list[Told] = []
    kind = chance.random()
    if kind < 0.9:
        granted_at = 0 if kind < 0.7 else chance.randrange(N_DAYS * 86_400)
        told.append((granted_at, "Consent Granted", {"purpose": "marketing"}))
        if chance.random() < 0.2:
            withdrawn_at = chance.randrange(granted_at + 1, N_DAYS * 86_400 + 2)
            told.append((withdrawn_at, "Consent Withdrawn", {"purpose": "marketing"}))
    return told


def _reports(chance: random.Random) -> list[Told]:
    """Every few hours each store tells of its staff; at times nobody is planned, or one too many is there."""
    told: list[Told] = []
    for pool in ("north", "south"):
        for at_h in range(0, N_DAYS * 24, 3):
            present, planned = chance.choice([(4, 5), (3, 5), (5, 5), (5, 5), (6, 5), (0, 0)])
            staff = {"pool": pool, "n_present": present, "n_planned": planned}
            told.append((at_h * 3_600, "Staffing Reported", staff))
    return told


def _walk(chance: random.Random, walk: str, key: str) -> list[Told]:
    gaps, lines = WALKS[walk]
    gaps_s = [seconds(gap, walk) for gap in gaps.split(",")]
    kinds = [line.split() for line in lines.strip().splitlines()]
    at = chance.randrange(N_DAYS * 24) * 3_600
    told: list[Told] = []
    for _ in range(chance.randrange(8, 30)):
        _, *words = chance.choices(kinds, weights=[int(each[0]) for each in kinds])[0]
        fields = {}
        for given in (word for word in words if "=" in word):
            name, _, values = given.partition("=")
            value = _value(chance.choice(values.split(",")), key, at)
            if value is not None:
                fields[name] = value
        told.append((at, " ".join(word for word in words if "=" not in word), fields))
        at += chance.choice(gaps_s)
    return told


def _value(text: str, key: str, at: int) -> object:
    """One value: nothing, a time from the event on, a number, true or false, else text."""
    if text == "-":
        return None
    if text[0] in "+-":
        unit = {"d": timedelta(days=1), "h": timedelta(hours=1)}[text[-1]]
        return (utc(ORIGIN + at * SECOND) + int(text[:-1]) * unit).isoformat()
    if text.isdigit():
        return int(text)
    return {"true": True, "false": False}.get(text, text.replace("K", key))


def _event(chance: random.Random, identifiers: dict[str, str], told: Told) -> Event:
    at_s, name, fields = told
    source = chance.choice(SOURCES.get(name, "web app").split())
    properties: Mapping[str, object] = {key: value for key, value in fields.items() if key != "device"}
    return Event(
        source=source,
        message_id=f"{chance.getrandbits(64):016x}",
        channel=chance.choice(["phone", "store"]) if source == "desk" else source,
        name=name,
        occurred_at=ORIGIN + at_s * SECOND,
        received_at=ORIGIN + at_s * SECOND,
        identifiers=identifiers,
        properties=msgspec.json.encode(properties),
        context=msgspec.json.encode({"device": {"type": fields.get("device")}}),
    )


#: After the last event of any walk and every silence that it could open.
ENDS_AT = ORIGIN + (N_DAYS + 800) * DAY
