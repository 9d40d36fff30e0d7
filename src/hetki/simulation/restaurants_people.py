"""The simulated customers: who they are, what they carry, when they like to eat.

Bulk draws with NumPy from one seed; nothing here happens in time (see `restaurants_plan`).
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

Channel = Literal["web", "app", "desk"]

N_KITCHENS = 12
_FIRST = "aino eero elli emil hanna ida ilmari juha kaisa lauri liisa matti noora olli paula sami".split()
_LAST = "korhonen virtanen nieminen laine heikkinen koskinen lindberg nyman smith salo aalto ek".split()
_WEEKDAY_SHARES = (0.08, 0.08, 0.10, 0.12, 0.30, 0.20, 0.12)


class Person(msgspec.Struct, frozen=True):
    """One customer. `user_id` is empty for those who never say who they are.

    `cookies` are the web's anonymous ids (one per browser), `app_id` the installation's, "" without one.
    `weekday` (0 Monday) and `hour` (local) are the favourite ones; `n_visits` is a mean per 30 days.
    `skew_s` is how wrong the clock of the customer's device is. `shares` a browser with someone else.
    """

    number: int
    user_id: str
    cookies: tuple[str, ...]
    app_id: str
    email: str
    phone: str
    locale: str
    plan: str
    channel: Channel
    device: str
    weekday: int
    hour: float
    n_visits: float
    kitchen: int
    gpc: bool
    marketing: str
    skew_s: int
    shares: bool
    installs: bool


def _some_id(prefix: str, salt: int, number: int) -> str:
    scrambled = (number * 2_654_435_761 + salt * 40_503) & 0xFFFFFFFF
    return f"{prefix}-{scrambled:08x}-{salt & 0xFFFF:04x}-{number:06x}"


def _cookies(number: int, salt: int, two: bool, shared_with: int) -> tuple[str, ...]:
    owner = shared_with if shared_with >= 0 else number
    own = _some_id("w", salt, owner)
    return (own, _some_id("v", salt, number)) if two else (own,)


def people(seed: int, n: int) -> list[Person]:
    """`n` customers; the same seed gives the same ones."""
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    known = rng.random(n) < 0.93
    channel = rng.choice(np.array(["web", "app", "desk"]), n, p=[0.44, 0.47, 0.09]).tolist()
    device = rng.choice(np.array(["mobile", "desktop", "tablet"]), n, p=[0.62, 0.30, 0.08]).tolist()
    locale = rng.choice(np.array(["fi-FI", "sv-FI", "en-GB"]), n, p=[0.72, 0.14, 0.14]).tolist()
    marketing = rng.choice(np.array(["granted", "refused", ""]), n, p=[0.68, 0.17, 0.15]).tolist()
    weekday = rng.choice(7, n, p=_WEEKDAY_SHARES).tolist()
    hour = np.clip(rng.normal(18.0, 1.6, n), 10.5, 21.0).tolist()
    n_visits = np.clip(rng.lognormal(1.0, 0.55, n), 0.8, 14.0).tolist()
    kitchen = rng.choice(N_KITCHENS, n).tolist()
    skew = np.where(rng.random(n) < 0.02, rng.integers(-5400, 5400, n), 0).tolist()
    u = rng.random((n, 5)).tolist()
    salt = seed & 0xFFFF
    n_sharing = n // 250
    made: list[Person] = []
    for i in range(n):
        named = bool(known[i])
        app = (channel[i] == "app" or u[i][0] < 0.25) and (named or u[i][0] < 0.9)
        shares = i < 2 * n_sharing
        made.append(
            Person(
                number=i,
                user_id=f"c-{i:06d}" if named else "",
                cookies=_cookies(
                    i, salt, u[i][1] < 0.22, i - n_sharing if n_sharing <= i < 2 * n_sharing else -1
                ),
                app_id=_some_id("a", salt, i) if app else "",
                email=f"{_FIRST[i % 16]}.{_LAST[i % 12]}{i}@example.com",
                phone=f"+35840{1_000_000 + i * 37 % 8_999_999:07d}",
                locale=locale[i],
                plan="business" if u[i][2] < 0.10 else "private",
                channel=channel[i] if app or channel[i] != "app" else "web",
                device=device[i],
                weekday=weekday[i],
                hour=hour[i],
                n_visits=n_visits[i],
                kitchen=kitchen[i],
                gpc=u[i][3] < 0.06,
                marketing=marketing[i] if named else "",
                skew_s=skew[i],
                shares=shares,
                installs=app and named and not shares and u[i][4] < 0.32,
            )
        )
    return made
