"""Signing: the way into the console and out of it, by a one-time token or by a name and its password.

The form of sign-in carries no token, as there is no session yet; another site cannot send it, because the
browser says from which site a form comes.
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hetki.errors import HetkiError
from hetki.server.access import Access
from hetki.server.desk import Desk
from hetki.server.forms import Form, check_origin, read_form, signed_in
from hetki.server.pages import Pages
from hetki.server.rates import Rates
from hetki.server.status import retry_after, status_of
from hetki.server.visit import visit_of

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"


class Signing:
    """The handlers of signing in and out."""

    def __init__(self, access: Access, pages: Pages, rates: Rates) -> None:
        self._access = access
        self._pages = pages
        self._rates = rates

    async def look(self, request: Request) -> Response:
        """The form; a token in the address is exchanged, once. A look ahead (HEAD) does not use it up."""
        token = request.query_params.get("token", "")
        if not token or request.method != "GET":
            if visit_of(request).visitor:
                return RedirectResponse("/", 303)
            return self._form()
        try:
            self._rates.sign_in(visit_of(request).address)
            session = await run_in_threadpool(self._access.sign_in, token)
        except HetkiError as error:
            return self._form(error)
        return await self._let_in(request, session)

    async def enter(self, request: Request) -> Response:
        """Exchange a name and a password for a session."""
        check_origin(request)
        form = await read_form(request)
        name, password = form.get("name", ""), form.get("password", "")
        try:
            self._rates.sign_in(visit_of(request).address, name)
            session = await run_in_threadpool(self._access.enter, name, password)
        except HetkiError as error:
            return self._form(error, name)
        return await self._let_in(request, session)

    async def _let_in(self, request: Request, session: str) -> Response:
        """Give the browser its session; the one that it had before ends."""
        await run_in_threadpool(self._access.sign_out, visit_of(request).session)
        return signed_in(request, session)

    def leave(self, desk: Desk, request: Request, form: Form) -> Response:
        """End the session."""
        self._access.sign_out(visit_of(request).session)
        return signed_in(request, "")

    def _form(self, error: HetkiError | None = None, name: str = "") -> Response:
        status = status_of(error) if error else 200
        page = self._pages.page("sign_in", status, refused=str(error) if error else "", name=name)
        page.headers.update(retry_after(error) if error else {})
        return page
