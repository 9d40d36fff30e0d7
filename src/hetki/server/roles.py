"""Roles: the one table of who may open what in the console. A route that is not in it cannot be served.

A viewer sees moments, effects and totals, and nobody's data. An agent also sees customers and says what
people say of them. An admin may do all.
"""

from __future__ import annotations

from collections.abc import Iterable

from hetki.store.staff import ROLES, Role

#: The least role that opens each route; None: everybody, also without a session.
LEAST: dict[str, Role | None] = {
    "/sign-in": None,
    "/style.css": None,
    "/feed.js": None,
    "/favicon.svg": None,
    "/openapi.json": None,
    "/my/{token}": None,  # a customer's own page: the token in the address opens it, and no session helps
    "/my/{token}/erase": None,
    "/my/{token}/data.zip": None,
    "/my/{token}/say": None,
    "/my/{token}/erased": None,
    "/sign-out": "viewer",
    "/": "viewer",
    "/moments": "viewer",
    "/moments/{name}": "viewer",
    "/feed": "agent",
    "/customers": "agent",
    "/customers/{customer}": "agent",
    "/customers/{customer}/identities": "agent",
    "/customers/{customer}/why": "agent",
    "/customers/{customer}/undo": "agent",
    "/customers/{customer}/merge": "agent",
    "/customers/{customer}/restrict": "agent",
    "/customers/{customer}/object": "agent",
    "/customers/{customer}/rectify": "agent",
    "/accounts/{account}": "agent",
    "/review": "agent",
    "/review/{link}": "agent",
    "/review/{link}/answer": "agent",
    "/decisions/{decision_id}": "agent",
    "/rejected": "admin",
    "/outbox": "admin",
}
#: From this role on, pages show personal data.
SEES_PEOPLE: Role = "agent"
#: The pages that stand at the top of each page.
NAVIGATION = (
    ("/", "Live"),
    ("/customers", "Customers"),
    ("/review", "Review"),
    ("/moments", "Moments"),
    ("/rejected", "Rejected"),
    ("/outbox", "Outbox"),
)


def is_enough(role: Role | None, least: Role | None) -> bool:
    """Whether a role (None: nobody has signed in) may do what asks for `least`.

    >>> is_enough("agent", "viewer"), is_enough("viewer", "agent"), is_enough(None, "viewer")
    (True, False, False)
    """
    return least is None or (role is not None and ROLES.index(role) >= ROLES.index(least))


def navigation(role: Role) -> list[tuple[str, str]]:
    """The pages that a role may open, with their titles."""
    return [(path, title) for path, title in NAVIGATION if is_enough(role, LEAST[path])]


def unlisted(paths: Iterable[str]) -> set[str]:
    """The routes of which nobody said who may open them."""
    return set(paths) - LEAST.keys()
