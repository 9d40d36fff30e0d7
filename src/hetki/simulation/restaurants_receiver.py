"""The receiving end of what Hetki sends: the app's back end (webhook) and a mail server.

It verifies signatures, takes each webhook once, and now and then fails as real ones do: about one in
forty first attempts is answered 500 or 429, and always taken when it is sent again.
"""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from hashlib import blake2b
from typing import Iterator

import msgspec

from hetki.dialogues import webhook
from hetki.errors import HetkiError
from hetki.settings import SECOND
from hetki.simulation.restaurants_people import Person
from hetki.simulation.restaurants_truth import REACTIONS
from hetki.store.ports import Sent

#: The signing secret of the simulated app: known to all, worth nothing.
DEMO_SECRET = "whsec_aGV0a2ktcmVzdGF1cmFudHMtZGVtby1zZWNyZXQtMDE="

#: The app asks for slices of at most a quarter of an hour, so its clock may be this much behind the sender's.
_TOLERANCE_S = 900
_CAMPAIGN = re.compile(r"utm_campaign=([a-z_]+)")


class Message(msgspec.Struct, frozen=True):
    """A message that a customer has got, and the moments whose need it meets."""

    message_id: str
    person: int
    action: str
    moments: tuple[str, ...]
    by_mail: bool


class _Body(msgspec.Struct, frozen=True):
    data: dict[str, object]


def _texts(value: object) -> Iterator[str]:
    """Every text inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _moments(action: str) -> tuple[str, ...]:
    return tuple(reaction.moment for reaction in REACTIONS if action in reaction.actions)


class Receiver:
    """Takes messages for the customers given; `n_duplicates` counts webhooks that came again."""

    def __init__(self, seed: int, secret: str, customers: list[Person]) -> None:
        self._seed = seed
        self._secret = secret
        self._taken: set[str] = set()
        self._failed: set[str] = set()
        self.n_duplicates = 0
        self._persons: dict[str, int] = {}
        for person in customers:
            for known in (person.user_id, person.email, person.app_id, *person.cookies):
                if known:
                    self._persons[known] = person.number

    def webhook(self, headers: dict[str, str], body: bytes, now: int) -> tuple[Sent, Message | None]:
        """Answer as the app's back end would; the message only the first time that it is taken."""
        try:
            message_id = webhook.verify(self._secret, headers, body, now // SECOND, _TOLERANCE_S)
        except HetkiError as error:
            return Sent(False, 401, str(error)), None
        if message_id in self._taken:
            self.n_duplicates += 1
            return Sent(True, 200, "taken before"), None
        refusal = self._fails(message_id)
        if refusal is not None:
            return refusal, None
        self._taken.add(message_id)
        return Sent(True, 200), self._understood(message_id, body)

    def mail(self, recipient: str, message: bytes) -> tuple[Sent, Message | None]:
        """Take a letter. Its campaign link says what it is about, as in any real letter."""
        person = self._persons.get(recipient)
        if person is None:
            return Sent(False, 550, "no such mailbox"), None
        letter = message_from_bytes(message, policy=policy.default)
        part = letter.get_body(("plain",))
        found = _CAMPAIGN.search(str(part.get_content())) if part else None
        message_id = str(letter["Message-ID"] or blake2b(message, digest_size=16).hexdigest()).strip("<> ")
        if message_id in self._taken:
            self.n_duplicates += 1
            return Sent(True, 250, "taken before"), None
        self._taken.add(message_id)
        action = found.group(1) if found else ""
        return Sent(True, 250), Message(message_id, person, action, _moments(action), by_mail=True)

    def _understood(self, message_id: str, body: bytes) -> Message | None:
        """`data.action` says what to show; any identifier in `data` whom to show it."""
        data = msgspec.json.decode(body, type=_Body).data
        action = data.get("action")
        persons = [self._persons[text] for text in _texts(data) if text in self._persons]
        if not isinstance(action, str) or not persons:
            return None
        return Message(message_id, persons[0], action, _moments(action), by_mail=False)

    def _fails(self, message_id: str) -> Sent | None:
        """A first attempt fails by a draw from its id; the second never does."""
        draw = blake2b(f"{self._seed} {message_id}".encode(), digest_size=2).digest()
        if message_id in self._failed or draw[0] >= 6:
            return None
        self._failed.add(message_id)
        if draw[0] < 3:
            return Sent(False, 429, "too many at once", retry_after_s=20.0)
        return Sent(False, 500, "the app's back end stumbled")
