"""Survival: which of the values that were told of one trait stands, who told it, and what else was told.

A correction that staff enter stands over every rule until it is taken back.
`hear` takes one event into what was heard so far, `learned` does so for one trait; events come in total
order. Nothing here looks at purposes or contracts: a trait is no more and no less open than it was told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal

import msgspec

from hetki.errors import Fault, nearest, shown
from hetki.events.event import OWN_SOURCE, Event, EventId
from hetki.events.fields import json_object, part_of
from hetki.patterns.evaluate import INTEGER_MAX

Rule = Literal["most_recent", "most_frequent", "verified", "source"]
Scalar = str | int | float | bool

#: Traits that answers need of every customer: where and how to reach them. A context may tell these, too.
REACH: Final = frozenset({"email", "locale", "timezone"})
#: Words that are kept of one trait of one customer; each is one value of one source.
WORDS_MAX: Final = 8
#: Longer texts are not kept: no declaration can hold one to compare it with.
CHARS_MAX: Final = 2_000
#: What the name of a trait ends in where a source says whether it has verified the value beside it.
VERIFIED: Final = "_verified"
_NOTHING: Final[dict[str, object]] = {}
#: Types of fields whose values are kept as traits.
_KEPT: Final = ("text", "number", "integer", "boolean", "time")


class Survival(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[traits.NAME]` table of `hetki.toml`: by which rule one value stands where several were told.

    Under `source` the first of `sources` is believed before the second, and those that are not listed come
    last. Under `verified` they are those that may say that a value is verified; none listed: every source.
    """

    survives: Rule = "most_recent"
    sources: list[str] = []


class Word(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value that a source told: when and in which event it did so last, and in how many events.

    `verified` is looked at under the rule of that name only.
    """

    value: Scalar
    source: str
    told_at: int
    event_id: EventId
    n_told: int = 1
    verified: bool = False

    @property
    def is_correction(self) -> bool:
        """Whether staff entered it for the customer: it stands over what sources tell."""
        return self.source == OWN_SOURCE


class Heard(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was told of one trait: words in the order in which they were last told, which of them `stands`
    (its place), and how many gave way to the bound. Without words it was told and is taken back."""

    words: tuple[Word, ...]
    stands: int
    n_dropped: int = 0

    @property
    def word(self) -> Word | None:
        """The word that stands, if anything does."""
        return self.words[self.stands] if self.words else None


def surviving(names: Collection[str], declared: Mapping[str, Survival]) -> dict[str, Survival]:
    """The traits that are kept: those named, and those that reach a customer, each under its rule."""
    return {name: declared.get(name, Survival()) for name in sorted({*names, *REACH})}


def standing(heard: Mapping[str, Heard]) -> dict[str, Scalar]:
    """The values that stand, by trait."""
    return {name: each.words[each.stands].value for name, each in heard.items() if each.words}


def is_taken_back(heard: Mapping[str, Heard], name: str) -> bool:
    """Whether a trait was told, and all who told it have taken it back."""
    return name in heard and not heard[name].words


def is_corrected(heard: Mapping[str, Heard], name: str) -> bool:
    """Whether what stands of a trait is a correction."""
    word = heard[name].word if name in heard else None
    return word is not None and word.is_correction


def hear(
    heard: dict[str, Heard], survivals: Mapping[str, Survival], event: Event, event_id: EventId
) -> dict[str, Heard]:
    """What is heard of all traits after one more event; what was given stays as it is."""
    after = dict(heard)
    properties, context = json_object(event.properties), json_object(event.context)
    parts = {name: part_of(properties, name) for name in survivals if "." in name}
    properties |= {name: part for name, part in parts.items() if part is not None}
    for name, survival in survivals.items():
        around = context if name in REACH else _NOTHING
        if name in properties or name in around:
            told = event.source, event.occurred_at, event_id
            found = learned(heard.get(name), name, survival, properties, around, *told)
            if found is not None:
                after[name] = found
    return after


def plain(value: object) -> Scalar | None:
    """A value as it is kept; None for what is not: lists, objects, texts and numbers beyond the bounds.

    >>> plain("club"), plain(["club"]), plain(2**70)
    ('club', None, None)
    """
    if isinstance(value, str):
        return value if len(value) <= CHARS_MAX else None
    if isinstance(value, int):
        return value if -INTEGER_MAX <= value <= INTEGER_MAX else None
    return value if isinstance(value, float) else None


def learned(
    heard: Heard | None,
    name: str,
    survival: Survival,
    properties: Mapping[str, object],
    context: Mapping[str, object],
    source: str,
    told_at: int,
    event_id: EventId,
) -> Heard | None:
    """What is heard of a trait after one more event, which may say nothing of it; None: nothing is.

    A null in the properties takes back what its own source told. A context only tells: libraries fill it in,
    and a null in it says nothing. What is not plain says nothing either.
    """
    is_told = name in properties
    given = properties[name] if is_told else context.get(name)
    value = plain(given)
    if value is not None:
        verified = None
        if is_told and survival.survives == "verified" and source in (survival.sources or (source,)):
            verified = properties.get(name + VERIFIED)
        return _told(heard, survival, Word(value, source, told_at, event_id), verified)
    if is_told and given is None and heard is not None:
        words = [each for each in heard.words if each.source != source]
        return _judged(words, survival, heard.n_dropped)
    return heard


def _told(heard: Heard | None, survival: Survival, word: Word, verified: object) -> Heard:
    """With one more word; `verified` is what was told beside it, anything but a boolean is silence."""
    words: list[Word] = []
    n_dropped, n_told, is_verified = 0, 1, verified is True
    if heard is not None:
        n_dropped = heard.n_dropped
        for each in heard.words:
            if each.source == word.source and _is_same(each.value, word.value):
                n_told = each.n_told + 1
                is_verified = is_verified if isinstance(verified, bool) else each.verified
            else:
                words.append(each)
    if n_told > 1 or is_verified:
        word = Word(word.value, word.source, word.told_at, word.event_id, n_told, is_verified)
    words.append(word)
    if len(words) > WORDS_MAX:
        del words[_weakest(words, survival)]
        n_dropped += 1
    return _judged(words, survival, n_dropped)


def _judged(words: Sequence[Word], survival: Survival, n_dropped: int) -> Heard:
    return Heard(tuple(words), _stands(words, survival), n_dropped)


def _stands(words: Sequence[Word], survival: Survival) -> int:
    """The place of the word that stands: the last correction, if there is one, else as the rule says."""
    for place in range(len(words) - 1, -1, -1):
        if words[place].is_correction:
            return place
    stands = len(words) - 1 if words else 0
    return _best(_worth(words, survival)) if stands and survival.survives != "most_recent" else stands


def _best(worth: Sequence[tuple[int, int]]) -> int:
    return max(range(len(worth)), key=worth.__getitem__)


def _worth(words: Sequence[Word], survival: Survival) -> list[tuple[int, int]]:
    """What each word counts under the rule, and of equals its place: the word that counts most stands."""
    match survival.survives:
        case "most_recent":
            counts = [0] * len(words)
        case "verified":
            counts = [int(each.verified) for each in words]
        case "source":
            rank = {source: -place for place, source in enumerate(survival.sources)}
            counts = [rank.get(each.source, -len(rank)) for each in words]
        case "most_frequent":
            n_told: dict[object, int] = {}
            for each in words:
                n_told[_key(each.value)] = n_told.get(_key(each.value), 0) + each.n_told
            counts = [n_told[_key(each.value)] for each in words]
    return [(count, place) for place, count in enumerate(counts)]


def _weakest(words: Sequence[Word], survival: Survival) -> int:
    """The place of the word that gives way: of those that neither stand nor were told last, the one that
    counts least.

    Unless values are counted, earlier values of a source go first: so a talkative source does not push out
    what another one has told once.
    """
    worth = _worth(words, survival)
    stays = {_stands(words, survival), len(words) - 1}
    latest = {each.source: place for place, each in enumerate(words)}.values()
    counts_values = survival.survives == "most_frequent"
    others = [place for place in range(len(words)) if place not in stays]
    return min(others, key=lambda place: (not counts_values and place in latest, worth[place]))


def _is_same(a: Scalar, b: Scalar) -> bool:
    """Whether two values are the same: 1 and 1.0 are, true and 1 are not."""
    return a == b and (a is b or isinstance(a, bool) == isinstance(b, bool))


def _key(value: Scalar) -> tuple[bool, Scalar]:
    """Equal for values that are the same."""
    return isinstance(value, bool), value


def survival_faults(
    traits: Mapping[str, Survival],
    fields: Mapping[str, str],
    sources: Collection[str],
    where: Callable[..., str],
) -> list[Fault]:
    """What is wrong with the `[traits.NAME]` tables: `fields` are those that tell traits, with their types,
    `sources` the declared ones, `where` gives the place of keys."""
    faults: list[Fault] = []
    for name, survival in traits.items():
        kind = fields.get(name)
        if kind is None:
            hint = nearest(name, fields) or "add it to the fields of 'Customer Identified' in events/"
            faults.append(Fault(where("traits", name), shown(name), "a trait of the catalogue", hint))
        elif kind not in _KEPT:
            must = "a trait with one plain value, as no other is kept"
            faults.append(Fault(where("traits", name), f"{shown(name)}, which is of type {kind}", must))
        elif survival.survives == "verified" and fields.get(name + VERIFIED) != "boolean":
            got, must = f"no field {shown(name + VERIFIED)}", "a boolean field beside the trait"
            hint = "add it to the fields of 'Customer Identified' in events/"
            faults.append(Fault(where("traits", name, "survives"), got, must, hint))
        faults += _source_faults(name, survival, sources, where)
    return faults


def _source_faults(
    name: str, survival: Survival, sources: Collection[str], where: Callable[..., str]
) -> list[Fault]:
    place, listed = where("traits", name, "sources"), survival.sources
    if survival.survives == "source" and not listed:
        return [Fault(place, "no sources", "the sources to believe, the first before the second")]
    if survival.survives in ("most_recent", "most_frequent") and listed:
        hint = 'write survives = "source" to believe one before another'
        return [Fault(place, f"sources under '{survival.survives}'", "no sources", hint)]
    faults = []
    for number, source in enumerate(listed):
        at = where("traits", name, "sources", number)
        if source not in sources:
            faults.append(Fault(at, shown(source), "a declared source", nearest(source, sources)))
        elif source in listed[:number]:
            faults.append(Fault(at, f"{shown(source)} again", "each source once"))
    return faults
