"""Wording: codes and values in plain words, for the analyst who runs Hetki and for the customer.

Decisions return codes (`Reason`); only this file turns them into clauses. `explaining` makes a whole
explanation of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from hetki.consent.statements import NoEffect, Why
from hetki.decisions.question import Reason, Scalar
from hetki.declarations.durations import spoken
from hetki.events.event import FIRST, LAST, utc
from hetki.identity.survival import Survival
from hetki.settings import DAY

Reader = Literal["analyst", "customer"]


class Titles(msgspec.Struct, frozen=True):
    """How declared names are spoken; a name without a title is said as it is.

    `conditions` maps a condition's text to its words.
    """

    moments: Mapping[str, str] = {}
    initiatives: Mapping[str, str] = {}
    actions: Mapping[str, str] = {}
    purposes: Mapping[str, str] = {}
    sources: Mapping[str, str] = {}
    conditions: Mapping[str, str] = {}
    time_zone: str = "UTC"


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: Names as they are declared, times in UTC.
PLAIN = Titles()


def spoken_at(at: int, time_zone: str) -> str:
    """An instant as people of a time zone say it; the first and the last day of the calendar, which not every
    zone has whole, as the days beside them.

    >>> spoken_at(0, "Europe/Helsinki")
    'Thu 1 Jan 1970, 02:00:00'
    """
    local = utc(min(max(at, FIRST + DAY), LAST - DAY)).astimezone(ZoneInfo(time_zone))
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M:%S}"


def gate_words(gate: str) -> str:
    """A gate's name as people say it."""
    return gate.replace("_", " ")


def reason_words(reason: Reason, titles: Titles = PLAIN, reader: Reader = "analyst") -> str:
    """A reason as a clause that fits after "because".

    >>> reason_words(Reason("no_basis", {"purpose": "marketing"}))
    "no lawful basis for 'marketing' is in force for this customer"
    >>> reason_words(Reason("cap_reached", {"of": "all", "n_max": 3, "period_s": 604800, "n_contacts": 3}))
    '3 messages were made in the last 7 days, and 3 is the most'
    """
    return _WORDS[reason.code][reader](reason.values, titles)


#: Nouns that take more than an `s`.
PLURALS = {"leaf": "leaves", "try": "tries", "entry": "entries", "rejected body": "rejected bodies"}


def counted(n: float, noun: str) -> str:
    """A number with its noun."""
    plural = PLURALS.get(noun, noun + "s")
    return f"{n:,.0f} {noun if n == 1 else plural}"


def points(score: float) -> str:
    """A score in words."""
    return f"{round(score, 2):g} {'point' if round(score, 2) == 1 else 'points'}"


def purpose_words(name: Scalar, titles: Titles) -> str:
    """A purpose by its title, in quotes."""
    return f"'{titles.purposes.get(str(name), str(name))}'"


def in_one_line(value: object) -> str:
    """A value as text that commands no terminal: a sign for each control character and line break.

    >>> in_one_line("Anna\\x1b[2J"), in_one_line(7)
    ('Anna�[2J', '7')
    """
    return _CONTROL.sub("\ufffd", str(value))


def values_words(values: Mapping[str, Scalar]) -> str:
    """What values were, by their names."""
    told = {True: "true", False: "false", None: "unknown"}
    return ", ".join(
        f"{name} was {told[value] if value is None or isinstance(value, bool) else in_one_line(value)}"
        for name, value in sorted(values.items())
    )


def standing_words(because: Why, basis: str) -> str:
    """Why a purpose is open or closed, as a short phrase.

    >>> standing_words("basis", "contract"), standing_words("unknown", "consent")
    ('nothing was said, and its basis is contract', 'nothing was said, and that is no')
    """
    return {
        "granted": "granted",
        "basis": f"nothing was said, and its basis is {basis}",
        "refused": "refused",
        "ended": "granted, and the grant has ended",
        "unknown": "nothing was said, and that is no",
        "restricted": "all processing is restricted",
    }[because]


def own_standing_words(because: Why, basis: str) -> str:
    """The same in words for the customer.

    >>> own_standing_words("basis", "legitimate interests")
    'You have not said no. What lets us do it is this: legitimate interests.'
    """
    return {
        "granted": "You have allowed it.",
        "basis": f"You have not said no. What lets us do it is this: {basis}.",
        "refused": "You have said no.",
        "ended": "You allowed it, and the time for that has ended.",
        "unknown": "You have not allowed it, so we do not do it.",
        "restricted": "You have had us restrict everything.",
    }[because]


def no_effect_words(because: NoEffect) -> str:
    """Why a statement changes nothing, as a short phrase.

    >>> no_effect_words("no_such_purpose")
    'no such purpose is declared'
    """
    return {
        "": "",
        "no_such_purpose": "no such purpose is declared",
        "unreadable": "it cannot be read",
        "notice": "it was given under a notice that does not count for this purpose",
        "not_theirs_to_lift": "only staff can lift a restriction",
    }[because]


def survival_words(survival: Survival, titles: Titles = PLAIN) -> str:
    """The rule by which a value of a trait stands, as a short phrase.

    >>> survival_words(Survival("source", ["crm", "web"])), survival_words(Survival())
    ('by source: crm, web, others', 'the latest')
    """
    match survival.survives:
        case "most_recent":
            return "the latest"
        case "most_frequent":
            return "the most frequent"
        case "verified":
            return "verified first"
        case "source":
            listed = [titles.sources.get(each, each) for each in survival.sources]
            return f"by source: {', '.join([*listed, 'others'])}"


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


_Values = Mapping[str, Scalar]
_Say = Callable[[_Values, Titles], str]


def _number(value: Scalar) -> float:
    return value if isinstance(value, int | float) else 0.0


def _time(at: Scalar, titles: Titles) -> str:
    return spoken_at(int(_number(at)), titles.time_zone)


def _condition(values: _Values, titles: Titles) -> str:
    text = str(values["condition"])
    seen = values_words({name: value for name, value in values.items() if name != "condition"})
    return titles.conditions.get(text, text) + (f" ({seen})" if seen else "")


def _sources(values: _Values, titles: Titles) -> str:
    return " and ".join(titles.sources.get(name, name) for name in str(values["sources"]).split(", "))


def _cap(values: _Values, titles: Titles) -> str:
    period = spoken(int(_number(values["period_s"])))
    made = counted(_number(values["n_contacts"]), "message")
    of = " of this answer" if values["of"] == "action" else ""
    were = "was" if values["n_contacts"] == 1 else "were"
    return f"{made}{of} {were} made in the last {period}, and {values['n_max']} is the most"


def _worth(values: _Values, titles: Titles) -> str:
    customer, business, cost = (f"{_number(values[name]):g}" for name in ("customer", "business", "cost"))
    parts = f"{customer} to the customer, {business} to the business, less {cost} for the contact"
    return f"it is worth most, {points(_number(values['score']))}: {parts}"


def _action(values: _Values, titles: Titles) -> str:
    return f"'{titles.actions.get(str(values['action']), str(values['action']))}'"


def _held_out(values: _Values, titles: Titles) -> str:
    name, unit = str(values["initiative"]), values.get("of", "customer")
    return (
        f"the {unit} is held out of '{titles.initiatives.get(name, name)}': "
        f"{_number(values['share']):.0%} of {unit}s get no answer, so that its effect can be known"
    )


#: Every reason code of `hetki.decisions.decide`: a clause for the analyst, a clause for the customer.
_WORDS: Final[dict[str, dict[Reader, _Say]]] = {
    "restricted": {
        "analyst": lambda v, t: "all processing of this customer's data is restricted",
        "customer": lambda v, t: "you have had us restrict what we do with your data",
    },
    "refused": {
        "analyst": lambda v, t: f"the customer has said no to {purpose_words(v['purpose'], t)}",
        "customer": lambda v, t: f"you have said no to {purpose_words(v['purpose'], t)}",
    },
    "no_basis": {
        "analyst": lambda v, t: (
            f"no lawful basis for {purpose_words(v['purpose'], t)} is in force for this customer"
        ),
        "customer": lambda v, t: f"we may not use your data for {purpose_words(v['purpose'], t)}",
    },
    "data_closed": {
        "analyst": lambda v, t: (
            f"it rests on data from {_sources(v, t)} that was not open to {purpose_words(v['purpose'], t)}"
        ),
        "customer": lambda v, t: f"what it rests on may not be used for {purpose_words(v['purpose'], t)}",
    },
    "not_eligible": {
        "analyst": lambda v, t: f"its condition is not true: {_condition(v, t)}",
        "customer": lambda v, t: "what we could have offered did not fit what had happened",
    },
    "no_address": {
        "analyst": lambda v, t: "no address of the customer is known there",
        "customer": lambda v, t: "we did not know where to reach you",
    },
    "cap_reached": {
        "analyst": _cap,
        "customer": lambda v, t: "we had written to you often enough lately",
    },
    "quiet": {
        "analyst": lambda v, t: (
            f"quiet hours last until {_time(v['quiet_until'], t)}, and the moment passes before, at "
            f"{_time(v['expires_at'], t)}"
        ),
        "customer": lambda v, t: "it was not a time of day to disturb you",
    },
    "expired": {
        "analyst": lambda v, t: (
            f"the moment passed at {_time(v['expires_at'], t)}, before it was decided at "
            f"{_time(v['decided_at'], t)}"
        ),
        "customer": lambda v, t: "it would have come too late to help you",
    },
    "holdout": {
        "analyst": _held_out,
        "customer": lambda v, t: (
            "chance put you into a group that gets no such message for now, "
            "so that we can learn whether these messages help"
        ),
    },
    "worth_nothing": {
        "analyst": lambda v, t: "no open answer is worth more than doing nothing",
        "customer": lambda v, t: "nothing that we could have said seemed worth your time",
    },
    "highest_value": {
        "analyst": _worth,
        "customer": lambda v, t: "it seemed to be worth most to you",
    },
    "instead_of": {
        "analyst": lambda v, t: f"the next best, {_action(v, t)}, is worth {points(_number(v['score']))}",
        "customer": lambda v, t: f"it seemed better for you than {_action(v, t)}",
    },
    "eligible": {
        "analyst": lambda v, t: f"its condition is true: {_condition(v, t)}",
        "customer": lambda v, t: "it fitted what had happened",
    },
    "waits_for_morning": {
        "analyst": lambda v, t: f"it waits, as quiet hours last until {_time(v['quiet_until'], t)}",
        "customer": lambda v, t: "we waited for a time of day that does not disturb you",
    },
}
