"""Pages: templates of ours (`pages/*.html`) and what they can say: instants, ids, numbers, names.

Everything is escaped; only what is made here of escaped parts is `Markup`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from hashlib import blake2b
from urllib.parse import quote

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from hetki.dialogues.wording import counted, no_effect_words, own_standing_words, spoken_at
from hetki.errors import HetkiError
from hetki.events.event import utc
from hetki.server.roles import navigation
from hetki.server.status import Busy, status_of
from hetki.server.visit import Visit

#: Files that pages load, and their types. They hold no data, so they need no session.
ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "feed.js": "text/javascript; charset=utf-8",
    "favicon.svg": "image/svg+xml",
}
SHORT_CHARS = 8
VALUE_CHARS_MAX = 60
#: When it makes sense to load a page again that was not available.
RETRY_AFTER_S = 5

_HEADLINES = {
    400: "Not understood",
    401: "Please sign in",
    403: "Not allowed",
    404: "Not found",
    405: "Not allowed",
    409: "Not possible",
    413: "Too much",
    429: "Too often",
    503: "Not available just now",
}


class Pages:
    """The pages of one project: its name and its time zone stand on each of them."""

    def __init__(self, name: str, time_zone: str) -> None:
        loader = PackageLoader("hetki.server", "pages")
        self._zone = time_zone
        self._environment = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._assets = {asset: loader.get_source(self._environment, asset)[0] for asset in ASSETS}
        self._environment.globals.update(project=name, time_zone=time_zone, asset=self._asset_path)
        self._reader = _about(Visit())
        self.sees_people = False
        self._environment.filters.update(
            at=self.at,
            short=short,
            n=number,
            percent=percent,
            value=value,
            spaced=spaced,
            addressed=addressed,
            counted=counted,
            no_effect=no_effect_words,
            own_standing=own_standing_words,
        )

    def read_by(self, visit: Visit) -> Pages:
        """The same pages as one browser may see them, whose forms carry the token of its session."""
        pages = copy(self)
        pages._reader = _about(visit)
        pages.sees_people = visit.sees_people
        return pages

    def page(self, template: str, status: int = 200, **values: object) -> Response:
        """A whole page."""
        return HTMLResponse(self.render(f"{template}.html", values), status)

    def render(self, template: str, values: Mapping[str, object]) -> str:
        """A template as text."""
        return self._environment.get_template(template).render({**self._reader, **values})

    def error(self, error: HetkiError) -> Response:
        """The page of an error, with its status."""
        page = self.failure(status_of(error), [str(fault) for fault in error.faults])
        if isinstance(error, Busy):
            page.headers["retry-after"] = str(error.retry_after_s)
        return page

    def failure(self, status: int, lines: list[str]) -> Response:
        """The page of a status that is not 200."""
        headline = _HEADLINES.get(status, "Something went wrong")
        answer = self.page("error", status, headline=headline, lines=lines)
        if status == 503:
            answer.headers["retry-after"] = str(RETRY_AFTER_S)
        return answer

    def asset(self, name: str) -> Response:
        """A file that pages load. Its address changes with its content, so it may be kept for long."""
        headers = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(self._assets[name], media_type=ASSETS[name], headers=headers)

    def at(self, instant: int | None) -> Markup:
        """An instant in the project's time zone, with UTC for who points at it."""
        if instant is None:
            return Markup("–")
        exact = utc(instant).isoformat().replace("+00:00", "Z")
        words = spoken_at(instant, self._zone)
        return Markup('<time datetime="{}" title="{}">{}</time>').format(exact, exact, words)

    def _asset_path(self, name: str) -> str:
        return f"/{name}?v={blake2b(self._assets[name].encode(), digest_size=6).hexdigest()}"


def _about(visit: Visit) -> dict[str, object]:
    """What every page knows of who reads it."""
    return {
        "signed_in": visit.visitor is not None,
        "token": visit.token,
        "account": visit.account,
        "role": visit.role,
        "called": visit.called,
        "sees_people": visit.sees_people,
        "nav": navigation(visit.role) if visit.role else [],
    }


def short(text: str | bytes) -> Markup:
    """An id in its first digits, whole for who points at it."""
    whole = text.hex() if isinstance(text, bytes) else text
    if len(whole) <= SHORT_CHARS:
        return Markup("<code>{}</code>").format(whole)
    return Markup('<code title="{}">{}</code>').format(whole, whole[:SHORT_CHARS])


def number(n: int | float) -> str:
    """A number with its thousands apart."""
    return f"{n:,}"


def percent(share: float | None) -> str:
    """A share as a percentage."""
    return "–" if share is None else f"{100 * share:.1f} %"


def value(raw: object) -> str:
    """A property of an event, cut to a bearable length."""
    text = raw if isinstance(raw, str) else msgspec.json.encode(raw).decode()
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def spaced(name: str) -> str:
    """A declared name as people read it."""
    return name.replace("_", " ")


def addressed(parts: Sequence[str]) -> str:
    """Parts of an address, made safe to stand in one."""
    return "/" + "/".join(quote(part, safe="") for part in parts)
