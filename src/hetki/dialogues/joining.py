"""Joining in words: what a link says, what became of it, and why two are one customer or are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hetki.dialogues.wording import spoken_at
from hetki.identity.identifier import NodeId
from hetki.identity.joining import Answer, Judged, Look
from hetki.identity.link import DESPITE_UNIQUE, LinkKind
from hetki.identity.resolve import Refusal

LINK_WORDS: Final[dict[LinkKind, str]] = {
    "merge": "a person said that they are one customer",
    "alias": "a system said that one id became the other",
    "login": "both ids came with one event",
    "declared": "another system's id came with this id",
    "email": "the address came with this id",
    "phone": "the number came with this id",
    "device": "the device came with this id",
    "probable": "their records are so much alike that they were taken for one customer's",
    "possible": "their records are alike, but not enough to join them",
    "cannot": "a person said that they are two customers",
}
#: The same where there is little room.
LINK_NAMES: Final[dict[LinkKind, str]] = {
    "merge": "a person",
    "alias": "alias",
    "login": "login",
    "declared": "other id",
    "email": "e-mail",
    "phone": "phone",
    "device": "device",
    "probable": "alike",
    "possible": "perhaps alike",
    "cannot": "not one",
}
REFUSAL_WORDS: Final[dict[Refusal, str]] = {
    "two_unique_ids": "it would join two user ids, or others that are unique for ever",
    "too_many_values": "the customer would have more values of one kind than the policy allows",
    "cannot_link": "a person said that they are two customers",
    "overruled": "a person said otherwise later",
    "crowd": "too many identifiers hang together here to say who is who",
    "never_alone": "an identifier of this kind joins nobody",
    "blocked_value": "the value is blocked, as it names nobody",
    "shared_value": "too many share the value",
    "unknown_identifier": "one of the two has not been seen in any event yet",
    "needs_review": "a person has to look at it",
}
#: Why an identifier joins nobody.
QUARANTINE_WORDS: Final[dict[str, str]] = {
    "blocked_value": "its value is blocked, as it names nobody",
    "shared_value": "too many share it",
    "crowd": "too many identifiers hang together here to say who is who; only people's word joins them",
    "too_many_alike": "too many records are alike in what linkage compares",
}
LOOK_WORDS: Final[dict[Look, str]] = {
    "stands": "stands",
    "apart": "holds them apart",
    "waits": "waits",
    "refused": "refused",
    "revoked": "taken back",
}
_RULES: Final = {DESPITE_UNIQUE: "although both have an id of their own"}
NOTHING: Final = (
    "No evidence links them: there is no link between their identifiers,"
    " and no identifier that both are linked with."
)


def reason_words(each: Judged) -> str:
    """Why a link joins nothing; empty for one that stands or was taken back.

    A refusal that this version does not know is said as it is.
    """
    if each.look not in ("waits", "refused"):
        return ""
    return next((words for code, words in REFUSAL_WORDS.items() if code == each.refusal), each.refusal)


def status_words(each: Judged) -> str:
    """What became of a link, with the reason if it joins nothing."""
    reason = reason_words(each)
    return f"{LOOK_WORDS[each.look]}: {reason}" if reason else LOOK_WORDS[each.look]


def basis_words(each: Judged) -> str:
    """What a link rests on besides its kind: its rule or model, its weight, who said it; may be empty."""
    link = each.link
    parts = [
        f"{link.weight:+.1f} bits" if link.weight else "",
        _RULES.get(link.rule, f"by {link.rule}") if link.rule else "",
        f"said by {link.said_by}" if link.said_by else "",
    ]
    return ", ".join(part for part in parts if part)


def link_words(each: Judged, names: Mapping[NodeId, str], time_zone: str) -> str:
    """A link as a sentence: its ends, its kind, its basis, when, and what became of it."""
    a, b = (names.get(node, "an identifier that is gone") for node in each.ends)
    parts = [f"{a} and {b}: {LINK_WORDS[each.link.kind]}", basis_words(each)]
    parts.append(spoken_at(each.link.linked_at, time_zone))
    status = status_words(each)
    if each.revoked_at is not None:
        by = f" by {each.revoked_by}" if each.revoked_by else ""
        status += f" {spoken_at(each.revoked_at, time_zone)}{by}"
    return ", ".join(part for part in parts if part) + f"; {status}."


def why_words(told: Answer, a: str, b: str, names: Mapping[NodeId, str], time_zone: str) -> list[str]:
    """Why two identifiers (`a` and `b`, by name) are one customer's, or are not, line by line."""

    def said(links: list[Judged]) -> list[str]:
        return ["  " + link_words(each, names, time_zone) for each in links]

    if told.is_one:
        if not told.path:
            return [f"{a} and {b} are the same identifier."]
        return [f"{a} and {b} are one customer's. What joins them:", *said(told.path)]
    lines = [f"{a} and {b} are two customers'."]
    if told.apart:
        lines += ["A person holds them apart:", *said(told.apart)]
    if told.direct:
        lines += ["What links them, and why it did not join them:", *said(told.direct)]
    for ours, theirs in told.by_way:
        lines += ["Both are linked with an identifier of neither:", *said([ours, theirs])]
    return lines if len(lines) > 1 else [*lines, NOTHING]
