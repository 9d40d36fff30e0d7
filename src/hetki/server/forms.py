"""Forms: what a browser sends to change something, read within bounds and checked to come from our own page.

A page that is not ours can make a browser send a form, and the browser would add the cookie. So a form
carries a token that only our pages know (a hash of the session's id, which no page can read), and what the
browser says of its origin must be us. Whoever writes in the console goes through `acting`; there is no other
way. Customers' own pages have no session, and a check of their own (`mine.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from hetki.errors import Exhausted, Fault, Invalid, shown
from hetki.server.access import SESSION_S
from hetki.server.desk import Desk
from hetki.server.visit import visit_of
from hetki.store.staff import checked_name

NAME_S = 365 * 24 * 3_600
BODY_BYTES_MAX = 16 * 1024
FIELDS_MAX = 20
FORM_TYPE = "application/x-www-form-urlencoded"

Form = Mapping[str, str]
Handler = Callable[[Desk, Request, Form], Response]


def acting(handler: Handler, desk_of: Callable[[Request], Desk]) -> Callable[[Request], Awaitable[Response]]:
    """A handler that may write, behind the checks; it runs in a thread, as those that only read do."""

    async def act(request: Request) -> Response:
        check_origin(request)
        form = await read_form(request)
        if not compare_digest(form.get("token", "").encode(), visit_of(request).token.encode()):
            raise HTTPException(403, "This form was not made by this console for you. Open the page again.")
        return await run_in_threadpool(handler, desk_of(request), request, form)

    return act


def check_origin(request: Request) -> None:
    """A browser says of a form from which site it came; who says nothing must still know the token."""
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    if origin is not None and not visit_of(request).site.is_ours(origin, host):
        raise HTTPException(403, f"This form came from {shown(origin)}, which is another site.")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises `Invalid` or `Exhausted`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise Invalid(Fault("form", shown(kind), FORM_TYPE))
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES_MAX:
                raise Exhausted(Fault("form", f"more than {BODY_BYTES_MAX} bytes", "shorter"))
    except ClientDisconnect as error:
        raise Invalid(Fault("form", "one that ends too early", "whole")) from error
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError as error:  # bytes that are no text, or too many fields
        raise Invalid(Fault("form", str(error), f"at most {FIELDS_MAX} fields in UTF-8")) from error


def speaker(request: Request, form: Form) -> str:
    """Who says so: the one who has signed in, or what the operator, who has no account, says to be called.

    Raises `Invalid` when nobody does.
    """
    return visit_of(request).account or checked_name(form.get("said_by", ""), "who says so")


def answered(request: Request, address: str, name: str) -> Response:
    """Send the browser on to a page of ours, and have it keep the name that the operator gave."""
    answer, visit = RedirectResponse(address, 303), visit_of(request)
    if not visit.account:
        visit.site.keep(answer, visit.site.name_cookie, quote(name, safe=""), NAME_S)
    return answer


def signed_in(request: Request, session: str) -> Response:
    """Send the browser on to the first page, with a session; with an empty one to the sign-in."""
    answer, site = RedirectResponse("/" if session else "/sign-in", 303), visit_of(request).site
    site.keep(answer, site.cookie, session, SESSION_S if session else 0)
    return answer
