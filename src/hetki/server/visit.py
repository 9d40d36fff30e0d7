"""Visit: what one request of a browser is known by: its session, who has signed in, what they are called.

`Guard` looks it up once and puts it into the request; everything behind it reads it there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from urllib.parse import unquote

from starlette.requests import Request
from starlette.types import Scope

from hetki.server.access import Access, Visitor
from hetki.server.roles import SEES_PEOPLE, is_enough
from hetki.server.site import Site
from hetki.settings import Server
from hetki.store.staff import NAME_CHARS_MAX, Role

_KEY = "hetki.visit"


@dataclass(frozen=True, slots=True)
class Visit:
    """One browser, at an address. `session` is empty and `visitor` None where nobody has signed in; `called`
    is what somebody without an account last said to be called."""

    session: str = ""
    visitor: Visitor | None = None
    called: str = ""
    site: Site = field(default_factory=lambda: Site(Server()))
    address: str = ""

    @property
    def role(self) -> Role | None:
        """The role of who has signed in."""
        return self.visitor.role if self.visitor else None

    @property
    def account(self) -> str:
        """The name of who has signed in with an account; empty for the operator, and for nobody."""
        return self.visitor.name if self.visitor else ""

    @property
    def sees_people(self) -> bool:
        """Whether pages may show personal data."""
        return is_enough(self.role, SEES_PEOPLE)

    @property
    def token(self) -> str:
        """What the forms of this session carry."""
        return token_of(self.session)


def begin_visit(scope: Scope, access: Access, site: Site) -> Visit:
    """Look up who sends a request, and keep it there."""
    cookies = Request(scope).cookies
    session = cookies.get(site.cookie, "")
    called = unquote(cookies.get(site.name_cookie, ""))[:NAME_CHARS_MAX]
    visitor = access.who(session) if session else None
    visit = Visit(session, visitor, called, site, site.address(scope))
    scope[_KEY] = visit
    return visit


def visit_of(request: Request) -> Visit:
    """Who sends a request, as `Guard` found."""
    visit: Visit = request.scope[_KEY]
    return visit


def token_of(session: str) -> str:
    """What the forms of a session carry; nobody can make it who does not know the session's id."""
    return blake2b(session.encode("utf-8", "replace"), digest_size=32, person=b"hetki form").hexdigest()
