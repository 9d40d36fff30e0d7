"""Forms: what a browser sends to change something, read within bounds and checked to come from our own page.

A page that is not ours can make a browser send a form, and the browser would add the cookie. So a form
carries a token that only our pages know (a hash of the session's id, which no page can read), and what the
browser says of its origin must be us. Whoever writes goes through `acting`; there is no other way to write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from hmac import compare_digest
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hetki.errors import Exhausted, Fault, Invalid, shown
from hetki.server.desk import Desk

COOKIE = "hetki_session"
#: Who speaks, as they said it last, so that nobody has to say it twice.
NAME_COOKIE = "hetki_name"
NAME_CHARS_MAX = 80
NAME_S = 365 * 24 * 3_600
BODY_BYTES_MAX = 16 * 1024
FIELDS_MAX = 20
FORM_TYPE = "application/x-www-form-urlencoded"

Form = Mapping[str, str]
Handler = Callable[[Desk, Request, Form], Response]


def session_of(request: Request) -> str:
    """The session's id that a browser sends; empty if none."""
    return request.cookies.get(COOKIE, "")


def token_of(session: str) -> str:
    """What the forms of a session carry; nobody can make it who does not know the session's id."""
    return blake2b(session.encode("utf-8", "replace"), digest_size=32, person=b"hetki form").hexdigest()


def name_of(request: Request) -> str:
    """Who speaks, as they said it last; empty if they never did."""
    return unquote(request.cookies.get(NAME_COOKIE, ""))[:NAME_CHARS_MAX]


def acting(handler: Handler, desk_of: Callable[[Request], Desk]) -> Callable[[Request], Awaitable[Response]]:
    """A handler that may write, behind the checks; it runs in a thread, as those that only read do."""

    async def act(request: Request) -> Response:
        _check_origin(request)
        form = await read_form(request)
        if not compare_digest(form.get("token", "").encode(), token_of(session_of(request)).encode()):
            raise HTTPException(403, "This form was not made by this console for you. Open the page again.")
        return await run_in_threadpool(handler, desk_of(request), request, form)

    return act


def _check_origin(request: Request) -> None:
    """A browser says of a form from which site it came; who says nothing must still know the token."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise HTTPException(403, f"This form came from {shown(origin)}, which is another site.")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises `Invalid` or `Exhausted`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise Invalid(Fault("form", shown(kind), FORM_TYPE))
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise Exhausted(Fault("form", f"more than {BODY_BYTES_MAX} bytes", "shorter"))
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError as error:  # bytes that are no text, or too many fields
        raise Invalid(Fault("form", str(error), f"at most {FIELDS_MAX} fields in UTF-8")) from error


def speaker(form: Form) -> str:
    """Who says so, from a form. Raises `Invalid` when nobody does."""
    name = " ".join(form.get("said_by", "").split())
    if not name or len(name) > NAME_CHARS_MAX or not name.isprintable():
        must = f"a name of at most {NAME_CHARS_MAX} characters"
        raise Invalid(Fault("who says so", shown(name), must, "it is kept with the evidence"))
    return name


def answered(request: Request, address: str, name: str) -> Response:
    """Send the browser on to a page of ours, and have it keep the name of who spoke."""
    answer = RedirectResponse(address, 303)
    answer.set_cookie(
        NAME_COOKIE,
        quote(name, safe=""),
        max_age=NAME_S,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer
