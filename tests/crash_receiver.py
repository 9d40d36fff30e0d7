"""The destinations of a life on the faulty disk: one effect per message id, and a mood of their own."""

from __future__ import annotations

import random
import re
from typing import Protocol

import msgspec
from world import SECRET

from hetki.dialogues.webhook import verify
from hetki.store.ports import Sent


class Looking(Protocol):
    """What the destinations see of the life that they are part of."""

    is_rough: bool

    def must_be_sent(self, message_id: str) -> None: ...

    def point(self, place: str) -> None: ...


class Receiver:
    """The destinations: one effect per message id, and a mood of their own."""

    def __init__(self, life: Looking, seed: int) -> None:
        self._life = life
        self._dice = random.Random(seed)
        self.effects: dict[str, str] = {}
        self.n_repeats = 0
        self._under_way: set[str] = set()

    def post(self, url: str, headers: dict[str, str], body: bytes) -> Sent:
        message_id = verify(SECRET, headers, body, int(headers["webhook-timestamp"]))
        return self._take(message_id, msgspec.json.decode(body)["data"]["decision_id"])

    def mail(self, server: str, sender: str, recipient: str, letter: bytes) -> Sent:
        found = re.search(rb"Message-ID: <(\w+)@", letter)
        assert found is not None
        return self._take(found[1].decode(), "")

    def _take(self, message_id: str, decision_id: str) -> Sent:
        life = self._life
        assert message_id not in self._under_way, "two processes send one message at a time"
        life.must_be_sent(message_id)
        life.point("send")
        self._under_way.add(message_id)
        try:
            mood = self._dice.random() if life.is_rough else 1.0
            if mood < 0.08:
                return Sent(False, 503, "down")
            if mood < 0.10:
                return Sent(False, 410, "gone")
            self.n_repeats += message_id in self.effects
            assert self.effects.setdefault(message_id, decision_id) == decision_id, "a repeat says the same"
            life.point("sent")
        finally:
            self._under_way.discard(message_id)
        return Sent(False, 0, "timed out") if mood < 0.16 else Sent(True, 200)
