"""Around: what conditions may look up at one instant, beside events: traits, aggregates, consents, staffing.

Each value is worked out when a condition asks for it. The fold makes one of these only for moments that ask
for more than traits.
"""

from __future__ import annotations

from typing import Callable, Iterator, Mapping, Sequence

from hetki.events.event import OrderKey
from hetki.patterns.aggregates import Aggregate, figure, open_to
from hetki.patterns.run import OPEN_TO, Window
from hetki.patterns.staffing import Timeline


class Around(Mapping[str, object]):
    """A customer's traits by name, and by names with a dot all that was known at a place in the order.

    `consents` gives the purposes that are in force there. A name with a dot is worked out once, however many
    tries ask for it: nothing of it may change while this is in use.
    """

    __slots__ = ("_aggregates", "_consents", "_key", "_staffing", "_traits", "_windows", "_worked_out")

    def __init__(
        self,
        traits: Mapping[str, object],
        aggregates: Sequence[Aggregate],
        windows: Sequence[Window],
        key: OrderKey,
        consents: Callable[[], frozenset[str]],
        staffing: Timeline,
    ) -> None:
        self._traits = traits
        self._aggregates = aggregates
        self._windows = windows
        self._key = key
        self._consents = consents
        self._staffing = staffing
        self._worked_out: dict[str, object] = {}

    def __getitem__(self, name: str) -> object:
        if "." not in name:
            return self._traits[name]
        if name not in self._worked_out:
            self._worked_out[name] = self._looked_up(name)
        return self._worked_out[name]

    def _looked_up(self, name: str) -> object:
        if name == OPEN_TO:
            return open_to(self._aggregates, self._windows, self._key[0])
        head, _, rest = name.partition(".")
        if head == "aggregate":
            for place, each in enumerate(self._aggregates):
                if each.name == rest:
                    return figure(each, self._windows[place] if self._windows else None, self._key[0])
        if head == "consent":
            return rest in self._consents()
        if head == "staffing":
            return self._staffing.share(rest, self._key)
        if head == "account":  # whose traits these are
            return self._traits[rest]
        return self._traits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._traits)

    def __len__(self) -> int:
        return len(self._traits)
