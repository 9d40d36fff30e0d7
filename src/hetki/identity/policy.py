"""Policy: how far each namespace of identifiers may be believed. `[identity.NAMESPACE]` in `hetki.toml`.

A user id is one person's, for ever. An e-mail address, a phone or a device is a person's for a while, and
may be shared; what too many share joins nobody. What nobody declared joins nobody either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final

import msgspec

from hetki.declarations.durations import seconds
from hetki.errors import Fault, Invalid, shown
from hetki.identity.identifier import Namespace
from hetki.settings import DAY, SECOND

#: More others than this beside one identifier: a robot or junk; where two users already are too many, fewer.
LINKS_MAX: Final = 500
OTHERS_MAX: Final = 50
#: More identifiers than this that evidence connects, however weakly: nobody can say who is who.
CROWD_MAX: Final = 1_000
BLOCKED_MAX: Final = 1_000

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class NamespaceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[identity.NAMESPACE]` as it is written; what is left out stays as it is by default.

    `per_customer`: how many values one customer may have, within any period of `within` if that is given
    (0: any number). `joins`: whether it makes one customer of two at all. `unique_ids_max`: a value beside
    more identifiers that are unique for ever is quarantined (0: never). `blocked`: values, `*` for any text.
    """

    per_customer: int | None = None
    within: str = ""
    joins: bool | None = None
    unique_ids_max: int | None = None
    blocked: tuple[str, ...] = ()


class Rule(msgspec.Struct, frozen=True):
    """What holds for a namespace. `within` is in microseconds, None for ever; 0 means no bound."""

    per_customer: int = 0
    within: int | None = None
    joins: bool = True
    unique_ids_max: int = 0
    blocked: tuple[str, ...] = ()

    @property
    def is_unique(self) -> bool:
        """Whether a customer has one value, for ever."""
        return self.per_customer == 1 and self.within is None


#: A value beside two unique ids is claimed by two, and nobody can say whose it is. The bounds were chosen
#: with simulated hostility in view (docs/identity.md has the figures).
SAFE: Final[Mapping[Namespace, Rule]] = {
    "user_id": Rule(per_customer=1),
    "anonymous_id": Rule(unique_ids_max=1),
    "record": Rule(per_customer=25),
    "event": Rule(),
    "email": Rule(
        per_customer=1,
        within=365 * DAY,
        unique_ids_max=1,
        blocked=(
            *("noreply@*", "no-reply@*", "donotreply@*", "nobody@*", "none@*", "nomail@*", "noemail@*"),
            *("test@*", "asdf@*", "qwerty@*", "na@na.*", "a@a.*", "x@x.*"),
        ),
    ),
    "phone": Rule(
        per_customer=1,
        within=365 * DAY,
        unique_ids_max=1,
        blocked=(
            *(str(digit) * n for digit in range(10) for n in range(7, 16)),
            *("1234567*", "+1234567*", "01234567*", "+01234567*", "+0000*", "*0000000"),
        ),
    ),
    "device": Rule(per_customer=5, within=30 * DAY, unique_ids_max=1),
}
#: Whatever else senders tell as an id.
UNDECLARED: Final = Rule(joins=False)


class Policy(msgspec.Struct, frozen=True):
    """The rules of every namespace; two policies with one version are the same.

    `values` are the blocked values that are written out, `patterns` those with a star.
    """

    rules: dict[Namespace, Rule]
    version: str
    values: dict[Namespace, frozenset[str]]
    patterns: dict[Namespace, tuple[str, ...]]

    def of(self, namespace: Namespace) -> Rule:
        """The rule of a namespace."""
        return self.rules.get(namespace, UNDECLARED)

    def is_blocked(self, namespace: Namespace, value: str) -> bool:
        """Whether a normalised value is one that names nobody."""
        if value.lower() in self.values.get(namespace, ()):
            return True
        return any(fits(pattern, value) for pattern in self.patterns.get(namespace, ()))


def compile_policy(specs: Mapping[Namespace, NamespaceSpec]) -> Policy:
    """The safe rules with what a project changes of them. Raises `Invalid` for a duration that is none."""
    rules = dict(SAFE)
    for name, spec in specs.items():
        was = SAFE.get(name, Rule())
        rules[name] = Rule(
            was.per_customer if spec.per_customer is None else spec.per_customer,
            _within(was, spec),
            was.joins if spec.joins is None else spec.joins,
            was.unique_ids_max if spec.unique_ids_max is None else spec.unique_ids_max,
            (*was.blocked, *(pattern.strip().lower() for pattern in spec.blocked)),
        )
    ordered = msgspec.json.encode(sorted(rules.items()))
    return Policy(
        rules,
        blake2b(ordered, digest_size=8).hexdigest(),
        {name: frozenset(each for each in rule.blocked if "*" not in each) for name, rule in rules.items()},
        {name: tuple(each for each in rule.blocked if "*" in each) for name, rule in rules.items()},
    )


def _within(was: Rule, spec: NamespaceSpec) -> int | None:
    return seconds(spec.within) * SECOND if spec.within else was.within


def check_policy(specs: Mapping[Namespace, NamespaceSpec], where: Callable[..., str]) -> list[Fault]:
    """What is wrong with the `[identity]` tables. `where` gives the place of a key."""
    faults: list[Fault] = []
    for name, spec in specs.items():
        if not _NAME.fullmatch(name):
            must = "a namespace: small letters, digits and _, such as loyalty_card"
            faults.append(Fault(where("identity", name), shown(name), must))
        for key in ("per_customer", "unique_ids_max"):
            given = getattr(spec, key)
            if given is not None and not 0 <= given <= LINKS_MAX:
                faults.append(Fault(where("identity", name, key), shown(given), f"0 to {LINKS_MAX}"))
        if spec.within:
            try:
                seconds(spec.within, where("identity", name, "within"))
            except Invalid as error:
                faults += error.faults
            if spec.per_customer is None and not SAFE.get(name, Rule()).per_customer:
                got, must = "within without per_customer", "how many in that time, too"
                faults.append(Fault(where("identity", name, "within"), got, must))
        if len(spec.blocked) > BLOCKED_MAX:
            got, must = f"{len(spec.blocked)} patterns", f"{BLOCKED_MAX} at most"
            faults.append(Fault(where("identity", name, "blocked"), got, must))
        for number, pattern in enumerate(spec.blocked):
            if not pattern.strip().strip("*"):
                must = "a value, perhaps with * for any text: more than *"
                faults.append(Fault(where("identity", name, "blocked", number), shown(pattern), must))
    return faults


def fits(pattern: str, value: str) -> bool:
    """Whether a value is what a pattern says, in which `*` is any text; in time linear in both.

    >>> fits("noreply@*", "noreply@shop.example"), fits("*@shop.example", "anna@home.example")
    (True, False)
    """
    head, *parts = pattern.split("*")
    text = value.lower()
    if not parts:
        return text == head
    *middle, tail = parts
    if not text.startswith(head) or not text.endswith(tail) or len(text) < len(head) + len(tail):
        return False
    place, end = len(head), len(text) - len(tail)
    for part in middle:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True
