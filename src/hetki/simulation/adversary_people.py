"""Who is behind the hostile stream: people with several devices, and how much of what is done to them.

Nothing here happens in time, but for cookies, which change by themselves. Start at `adversary`.
"""

from __future__ import annotations

from random import Random

import msgspec

from hetki.settings import DAY

#: The stream tells of this many days; a phone number is given to somebody else after more than a year.
DAYS = 730
PHONE_GIVEN_UP = 200 * DAY
PHONE_TAKEN_UP = 580 * DAY
#: Members of one family, who lend each other tablets, cards and addresses.
FAMILY = 3

#: What people and forms write where they have, or want to give, no address; the last ones no list knows.
JUNK_EMAILS = (
    *("test@test.com", "noreply@example.com", "a@a.fi", "asdf@asdf.com"),
    *("no.mail@mail.example", "customer@mail.example"),
)
JUNK_PHONES = ("000000", "0000000000", "1234567890", "+358400000000", "0405556666")
#: The shop's own, typed by its staff for customers who do not want to give theirs.
SHOP_EMAIL, SHOP_PHONE = "info@shop.example", "+358102345678"
#: Ids of nobody that broken clients send: those that every list knows, and those that none does.
NULL_IDS = ("null", "undefined", "0", "NaN", "[object Object]", "None", "")
ODD_IDS = ("(not set)", "${userId}", "test", "user", "logged_out")
#: Device ids that a broken build of an SDK sends for everybody; the second one is famous.
BROKEN_DEVICES = ("00000000-0000-0000-0000-000000000000", "9774d56d682e549c", "build-4711")


class Hostility(msgspec.Struct, frozen=True, kw_only=True):
    """How much of each hostile or broken thing there is; 0 switches it off.

    Shares of visits; `recycled_phone` and `broken_device` are shares of people, `crawler`, `thief` and
    `giant` are events for each ordinary visit. The defaults are guesses at a careless, attacked company.
    """

    kiosk: float = 0.003  # in a store, never reset, with hundreds of logins
    tablet: float = 0.010  # a family's
    call_centre: float = 0.010  # staff type for customers, in one browser
    junk_contact: float = 0.010  # test@test.com, 000000
    shop_contact: float = 0.005  # the shop's own address, typed by staff
    null_id: float = 0.010  # identify(null)
    odd_id: float = 0.0003  # a placeholder that no list knows, sent as a user id
    swapped: float = 0.002  # logged in on somebody else's device
    alias_user: float = 0.0005  # an attacker says that a victim's user id became his own
    alias_cookie: float = 0.0005  # the same of a victim's anonymous id
    no_reset: float = 0.002  # logged out, and the next person goes on under the same anonymous id
    family_email: float = 0.010  # ordered under the address of another of the family
    lent_card: float = 0.005  # paid with another's loyalty card, an external id
    recycled_phone: float = 0.010  # a number that belonged to somebody else a year ago
    broken_device: float = 0.010  # a device id that is everybody's
    crawler: float = 0.010  # one user id with thousands of anonymous ids
    thief: float = 0.005  # one anonymous id with thousands of addresses
    giant: float = 0.010  # one real person with thousands of anonymous ids

    def only(self, kind: str) -> Hostility:
        """The same with every other kind switched off."""
        return NONE if not kind else msgspec.structs.replace(NONE, **{kind: getattr(self, kind)})

    def times(self, factor: float) -> Hostility:
        """Every share times a factor."""
        return Hostility(**{kind: factor * getattr(self, kind) for kind in KINDS})


KINDS = Hostility.__struct_fields__
NONE = Hostility(**dict.fromkeys(KINDS, 0.0))


class Person(msgspec.Struct, frozen=True):
    """One person. `user_id` is empty for those who have no account, `card` for those without one.

    `emails` are one or two, the first told with the account; `phones` are the numbers with the instants
    (after the start) from and until which they are the person's. `cookie_days` says how long an anonymous
    id of each browser lives; `device_id` is the app's, empty without it.
    """

    number: int
    user_id: str
    emails: tuple[str, ...]
    phones: tuple[tuple[str, int, int], ...]
    card: str
    cookie_days: tuple[int, ...]
    device_id: str
    n_visits: int

    def cookie(self, browser: int, at: int) -> str:
        """The anonymous id of a browser at an instant after the start."""
        return f"w-{self.number:x}-{browser}-{at // (self.cookie_days[browser] * DAY):x}"

    @property
    def app_cookie(self) -> str:
        """The anonymous id of the app."""
        return f"a-{self.number:x}"

    def phone(self, at: int) -> str:
        """The phone number at an instant after the start, "" between two."""
        return next((number for number, since, until in self.phones if since <= at < until), "")


def people(seed: int, n: int, hostility: Hostility) -> list[Person]:
    """`n` people; the same seed gives the same ones, whatever is hostile."""
    rng = Random(f"{seed} people")
    made = []
    for number in range(n):
        u = [rng.random() for _ in range(5)]
        browsers = tuple(rng.choice((7, 30, 90, 400)) for _ in range(1 + (u[1] < 0.5)))
        second = (f"person{number}@work.example",) if rng.random() < 0.25 else ()
        device = f"device-{seed:x}-{number:x}" if u[2] < 0.45 else ""
        if device and u[3] < hostility.broken_device:
            device = BROKEN_DEVICES[number % len(BROKEN_DEVICES)]
        made.append(
            Person(
                number=number,
                user_id=f"u-{number:06d}" if u[0] < 0.85 else "",
                emails=(f"person{number}@mail.example", *second),
                phones=_phones(number, n, hostility.recycled_phone),
                card=f"card-{number:06d}" if u[4] < 0.4 else "",
                cookie_days=browsers,
                device_id=device,
                n_visits=1 + min(60, int(rng.expovariate(0.2))),
            )
        )
    return made


def _phones(number: int, n: int, share: float) -> tuple[tuple[str, int, int], ...]:
    """One number for all days, but for those at the end of the list, who take up that of one at its start."""
    never = 2 * DAYS * DAY
    own, n_recycled = _phone(number), round(share * n)
    if number < n_recycled:
        return (own, 0, PHONE_GIVEN_UP), (_phone(n + number), PHONE_GIVEN_UP, never)
    if number >= n - n_recycled:
        return (own, 0, PHONE_TAKEN_UP), (_phone(n - 1 - number), PHONE_TAKEN_UP, never)
    return ((own, 0, never),)


def _phone(number: int) -> str:
    return f"+35850{1_000_000 + number:07d}"
