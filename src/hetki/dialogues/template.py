"""Templates: Liquid texts with limits, one per language, rendered as plain text.

A template sees `step.field`, `customer.trait`, `context.name` and nothing else: no files, no clock, no other
template.
Start at `parse`; `render` is what the engine calls.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Mapping
from zoneinfo import ZoneInfo

from liquid import BoundTemplate, Environment, RenderContext
from liquid.exceptions import FilterArgumentError, LiquidError, ResourceLimitError, UndefinedError
from liquid.filter import with_context
from liquid.undefined import FalsyStrictUndefined

from hetki.dialogues.ranges import RANGE_MAX, ShortForTag, of_short_ranges
from hetki.errors import Fault, Invalid, nearest, shown

SOURCE_CHARS_MAX = 64 * 1024
OUTPUT_BYTES_MAX = 64 * 1024
VALUE_CHARS_MAX = 4_000
SUBJECT_CHARS_MAX = 200

#: What a template may use. Left out: other templates, HTML, and filters whose result can outgrow their input.
TAGS = frozenset("if unless case for break continue assign capture comment #".split())
FILTERS = frozenset(
    "abs append at_least at_most capitalize ceil compact date default divided_by downcase first floor last "
    "lstrip minus modulo plus prepend remove reverse round rstrip size slice sort squish strip "
    "strip_newlines times truncate truncatewords uniq upcase url_encode".split()
)
_INTERNAL_TAGS = frozenset({"content", "output", "illegal"})
#: A name that no template can spell.
_ZONE = " zone"
#: The library resolves these two from the clock unless something stands before them.
_NO_CLOCK = {"now": None, "today": None}
_DATE_PARTS = {
    "%Y": "{0.year:04}",
    "%m": "{0.month:02}",
    "%d": "{0.day:02}",
    "%H": "{0.hour:02}",
    "%M": "{0.minute:02}",
    "%S": "{0.second:02}",
    "%-d": "{0.day}",
    "%-m": "{0.month}",
    "%-H": "{0.hour}",
    "%%": "%",
}

Use = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Text:
    """One language of a template; `subject` is None where the text begins without a `Subject:` line."""

    subject: BoundTemplate | None
    body: BoundTemplate


@dataclass(frozen=True, slots=True)
class Template:
    """A template that parsed. `texts` maps a locale to its text, "" to the one used when no other fits.

    `uses` maps each (root, field) to where it is first used.
    """

    name: str
    texts: dict[str, Text]
    uses: dict[Use, str]

    @property
    def has_subject(self) -> bool:
        return self.texts[""].subject is not None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message in words, and the locale of the text it was made from."""

    subject: str
    body: str
    locale: str


class _Bounded(Environment):
    block_nesting_limit = 20
    context_depth_limit = 20
    loop_iteration_limit = RANGE_MAX
    local_namespace_limit = OUTPUT_BYTES_MAX
    output_stream_limit = OUTPUT_BYTES_MAX


def parse(name: str, sources: Mapping[str, str]) -> tuple[Template | None, list[Fault]]:
    """A template from its texts by locale ("" is `NAME.liquid`), or every fault with its line and column."""
    faults: list[Fault] = []
    texts: dict[str, Text] = {}
    uses: dict[Use, str] = {}
    for locale, source in sorted(sources.items()):
        path = f"templates/{name}.{locale}.liquid" if locale else f"templates/{name}.liquid"
        text = _parse_text(path, source, uses, faults)
        if text is not None:
            texts[_locale(locale)] = text
    if "" not in sources:
        faults.append(Fault(f"templates/{name}.liquid", "no such file", "the text for any other language"))
    elif len({text.subject is None for text in texts.values()}) > 1:
        must = "a first line Subject: in every language or in none"
        faults.append(Fault(f"templates/{name}.liquid", "some texts with a subject", must))
    return (None, faults) if faults else (Template(name, texts, uses), [])


def render(
    template: Template,
    locale: str,
    values: Mapping[str, Mapping[str, object]],
    time_zone: str = "UTC",
) -> Rendered:
    """The message in the nearest language (`fi-FI`, else `fi`, else the default).

    `values` are fields by root. An absent or null one may be tested with `if` and given a `default`;
    printing it raises `Invalid`, as does any limit: a broken text is never sent.
    """
    fitting = next(each for each in (*_wider(_locale(locale)), "") if each in template.texts)
    text = template.texts[fitting]
    seen: dict[str, dict[str, object]] = {}
    for root, field in template.uses:
        value = values.get(root, {}).get(field.removeprefix("last."))
        which, _, name = field.rpartition(".")
        inner = seen.setdefault(f"{root}.{which}" if which else root, {})
        if which:
            seen.setdefault(root, {})[which] = inner
        if value is not None:
            inner[name] = _bounded(f"{root}.{field}", value)
    where = f"template {template.name}" + (f" ({fitting})" if fitting else "")
    subject = ""
    if text.subject is not None:
        words = " ".join(_printable(_run(text.subject, seen, time_zone, where), " ").split())
        subject = words if len(words) <= SUBJECT_CHARS_MAX else words[: SUBJECT_CHARS_MAX - 1] + "…"
        if not subject:
            raise Invalid(Fault(f"{where}: Subject", "nothing", "some words"))
    body = _printable(_run(text.body, seen, time_zone, where).replace("\r\n", "\n"), "").strip()
    if not body:
        raise Invalid(Fault(where, "an empty text", "some words"))
    return Rendered(subject, body, fitting)


def _run(text: BoundTemplate, values: dict[str, dict[str, object]], time_zone: str, where: str) -> str:
    try:
        return text.render({**_NO_CLOCK, **values, _ZONE: time_zone})
    except (UndefinedError, ResourceLimitError) as error:
        raise Invalid(Fault(where, str(error.message), "a text that its values can fill")) from error
    except (LiquidError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        got = f"a value that cannot be used there ({type(error).__name__})"  # without it: it is personal
        raise Invalid(Fault(where, got, "a text that its values can fill")) from error


def _parse_text(path: str, source: str, uses: dict[Use, str], faults: list[Fault]) -> Text | None:
    if len(source) > SOURCE_CHARS_MAX:
        faults.append(Fault(path, f"{len(source)} characters", f"at most {SOURCE_CHARS_MAX}"))
        return None
    source = source.replace("\r\n", "\n")
    first, _, rest = source.partition("\n")
    if not first.startswith("Subject:"):
        body = _parse_part(path, source, 1, 0, uses, faults)
        return None if body is None else Text(None, body)
    blank, _, after = rest.partition("\n")
    if blank.strip():
        faults.append(Fault(f"{path}:2:1", shown(blank), "a blank line between the subject and the text"))
    subject = _parse_part(path, first.removeprefix("Subject:"), 1, len("Subject:"), uses, faults)
    body = _parse_part(path, after, 3, 0, uses, faults)
    return None if subject is None or body is None else Text(subject, body)


def _parse_part(
    path: str, source: str, line: int, column: int, uses: dict[Use, str], faults: list[Fault]
) -> BoundTemplate | None:
    """Parse one piece of a file that begins at a line and after `column` characters; note its uses."""

    def at(index: int) -> str:
        before = source[: max(0, index)]
        n_lines = before.count("\n")
        return f"{path}:{line + n_lines}:{len(before) - before.rfind(chr(10)) + (0 if n_lines else column)}"

    try:
        parsed = _LIQUID.from_string(source, name=path)
    except LiquidError as error:
        index = error.token.start_index if error.token else 0
        hint = f"tags are {', '.join(sorted(TAGS))}" if "tag" in str(error.message) else ""
        faults.append(Fault(at(index), str(error.message), "Liquid that can be parsed", hint))
        return None
    found = parsed.analyze(include_partials=False)
    for name, spans in found.filters.items():
        if name not in FILTERS:
            faults.append(Fault(at(spans[0].index), shown(name), "a known filter", nearest(name, FILTERS)))
    for variable in (each for same in found.globals.values() for each in same):
        root, *inner = variable.segments
        field: object = (*inner, None)[0]
        if inner[1:] and (root == "context" or field in ("first", "last")):
            field = ".".join(map(str, inner[:2]))  # `context.consent.marketing`, `failed.first.order_id`
        if not isinstance(root, str) or not isinstance(field, str):
            must = "step.field, customer.trait or context.name, with the name written out"
            faults.append(Fault(at(variable.span.index), shown(str(variable)), must))
        else:
            uses.setdefault((root, field), at(variable.span.index))
    return parsed


@with_context
def _date(value: object, form: object = "%d.%m.%Y %H:%M", *, context: RenderContext) -> str:
    """A time (ISO 8601) in the given form, in the customer's zone if it carries one of its own.

    Not the library's filter: that one reads the clock and hands any form to the C library.
    """
    if not isinstance(value, str):
        raise FilterArgumentError("date expects a time in ISO 8601", token=None)
    at = datetime.fromisoformat(value)
    if at.tzinfo is not None:
        at = at.astimezone(ZoneInfo(str(context.globals[_ZONE])))

    def part(found: re.Match[str]) -> str:
        if found.group() not in _DATE_PARTS:
            raise FilterArgumentError(f"date knows {', '.join(_DATE_PARTS)}", token=None)
        return _DATE_PARTS[found.group()].format(at)

    return re.sub(r"%-?.?", part, str(form), flags=re.DOTALL)


def _environment() -> Environment:
    made = _Bounded(undefined=FalsyStrictUndefined)
    made.tags = {name: tag for name, tag in made.tags.items() if name in TAGS | _INTERNAL_TAGS}
    made.add_tag(ShortForTag)
    made.filters = {name: of_short_ranges(each) for name, each in made.filters.items() if name in FILTERS}
    made.add_filter("date", _date)
    return made


_LIQUID = _environment()


def _locale(given: str) -> str:
    return given.replace("_", "-").lower()


def _wider(locale: str) -> list[str]:
    """`fi-fi-savo` -> `fi-fi-savo`, `fi-fi`, `fi`."""
    parts = locale.split("-")
    return ["-".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _bounded(where: str, value: object) -> object:
    if len(str(value)) > VALUE_CHARS_MAX:
        raise Invalid(
            Fault(where, f"{len(str(value))} characters", f"at most {VALUE_CHARS_MAX} in a message")
        )
    return value


def _printable(text: str, instead: str) -> str:
    """Without control characters (but line breaks and tabs) and broken halves of characters."""
    return "".join(
        each if each in "\n\t" or unicodedata.category(each) not in ("Cc", "Cs") else instead for each in text
    )
