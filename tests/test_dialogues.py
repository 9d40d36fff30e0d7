"""Dialogues: what is said, to which address, signed how, and when it is tried again."""

from __future__ import annotations

import email
import email.policy
import resource
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetki.dialogues.destination import Destination, host_port, is_address
from hetki.dialogues.mail import compose
from hetki.dialogues.message import message_id
from hetki.dialogues.retry import (
    FAILURES_MAX,
    JITTER_SHARE,
    PAUSE_S_MAX,
    RETRY_AFTER_S_MAX,
    SCHEDULE_S,
    Breaker,
    admit,
    is_permanent,
    next_attempt,
    report,
)
from hetki.dialogues.template import OUTPUT_BYTES_MAX, SUBJECT_CHARS_MAX, Template, parse, render
from hetki.dialogues.webhook import payload, sign, verify
from hetki.errors import Fault, Forbidden, Invalid
from hetki.settings import SECOND

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

# --- destinations -------------------------------------------------------------------------------------


def destination(text: str) -> Destination:
    return msgspec.convert(tomllib.loads(text), Destination)


@pytest.mark.parametrize(
    "text",
    [
        'kind="webhook"\nurl="http://localhost:9000/hook"\ninside=["localhost"]\nsecret="env:APP_SECRET"',
        f'kind="webhook"\nurl="https://app.example/hook?a=1"\nsecret="{SECRET} {SECRET}"',
        'kind="email"\nserver="localhost:1025"\nsender="kitchen@restaurants.example"\nper_s=0.5\ninside=["localhost"]',
    ],
)
def test_a_whole_destination_has_no_faults(text: str) -> None:
    assert destination(text).faults("destinations.app") == []


def test_every_fault_of_a_destination_is_told_at_once() -> None:
    wrong = Destination(
        "webhook", "http://app.example/", "whsec_c2hvcnQ=", sender="a@b.fi", per_s=0, timeout_s=900
    )
    faults = {fault.where: fault for fault in wrong.faults("app")}
    assert set(faults) == {"app.url", "app.secret", "app.sender", "app.per_s", "app.timeout_s"}
    assert "c2hvcnQ" not in str(faults["app.secret"])


@pytest.mark.parametrize(
    "url", ["", "ftp://a.example/", "http://10.0.0.1/", "https://", "https://u:p@a.fi/", "https://a b/", "https://[::1",
            "https://a.fi:99999/", "https://a.fi/\n", "https://ä.fi/", "http://localhost.evil.example/"]
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    assert [each.where for each in Destination("webhook", url, "env:S").faults("d")] == ["d.url"]


@pytest.mark.parametrize(
    "secret", ["", "MfKQ", "env:", "env:A-B", "whsec_", "whsec_!!!!", f"{SECRET} x", "whsec_" + "A" * 88]
)
def test_secrets_that_are_refused(secret: str) -> None:
    faults = Destination("webhook", "https://a.example/", secret).faults("d")
    assert [each.where for each in faults] == ["d.secret"]
    assert "MfKQ" not in str(faults[0]) and "AAAA" not in str(faults[0])


def test_a_mail_server_needs_its_port_and_a_plain_sender() -> None:
    faults = Destination("email", url="https://a/", server="mail", sender="A <a@b.fi>").faults("d")
    assert [each.where for each in faults] == ["d.url", "d.server", "d.sender"]


@pytest.mark.parametrize(
    "server", ["", "a", "a:", ":25", "a:0", "a:b", "a:25/x", "u@a:25", "a :25", "[::1:25", "a\n:25"]
)
def test_servers_that_are_refused(server: str) -> None:
    with pytest.raises(Invalid, match="must be host:port"):
        host_port(server)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "@b.fi",
        "a@",
        "a@b.fi ",
        "a@b.fi\n",
        "a b@c.fi",
        "ä@b.fi",
        "a@b.fi,c@d.fi",
        "a@@b",
        "<a@b.fi>",
    ],
)
def test_what_is_not_one_plain_address(text: str) -> None:
    assert not is_address(text)


# --- templates ----------------------------------------------------------------------------------------

NEW_TIME = """Subject: Order {{ late.order_id }}

Hei {{ customer.name | default: 'there' }},
your order comes {{ late.n_minutes }} min later{% if late.at %}, at {{ late.at | date: '%H:%M' }}{% endif %}.
"""


def made(source: str, **others: str) -> Template:
    template, faults = parse("t", {"": source, **others})
    assert template is not None, [str(fault) for fault in faults]
    return template


def test_a_message_is_made_from_the_fields_of_a_moment_and_the_customer() -> None:
    values: dict[str, dict[str, object]] = {
        "late": {"order_id": "o1", "n_minutes": 20, "at": "2026-01-10T16:40:00Z"},
        "customer": {"name": "Aino"},
    }
    rendered = render(made(NEW_TIME), "en", values, "Europe/Helsinki")
    assert rendered.subject == "Order o1"
    assert rendered.body == "Hei Aino,\nyour order comes 20 min later, at 18:40."


def test_the_fields_a_template_reads_are_known_without_running_it() -> None:
    source = (
        "{% for r in late.rows %}{{ r.x }}{% if customer.vip and late['a b'] == 1 %}a{% endif %}{% endfor %}"
    )
    assert set(made(NEW_TIME).uses) == {
        ("late", "order_id"), ("late", "n_minutes"), ("late", "at"), ("customer", "name")
    }  # fmt: skip
    assert set(made(source, fi="{{ seen.at }}").uses) == {
        ("late", "rows"), ("customer", "vip"), ("late", "a b"), ("seen", "at")
    }  # fmt: skip
    assert made(NEW_TIME).uses[("customer", "name")] == "templates/t.liquid:3:8"


def test_a_step_with_several_events_has_a_first_and_a_last() -> None:
    source = (
        "{{ f.n }}: {{ f.first.topic }}, {{ f.last.topic }}{% if f.first.note %}!{% endif %}{{ f.topic }}"
    )
    template = made(source)
    assert set(template.uses) == {
        ("f", "n"), ("f", "first.topic"), ("f", "last.topic"), ("f", "first.note"), ("f", "topic")
    }  # fmt: skip
    values = {"f": {"n": 3, "first.topic": "refund", "topic": "parcel"}}
    assert render(template, "", values).body == "3: refund, parcelparcel"


@pytest.mark.parametrize(
    "locale, words",
    [
        ("fi-FI", "suomi"),
        ("fi", "suomi"),
        ("FI_fi", "suomi"),
        ("sv-FI", "ruotsi"),
        ("sv", "any"),
        ("", "any"),
        ("x-y-z", "any"),
    ],
)
def test_the_nearest_language_is_chosen(locale: str, words: str) -> None:
    template = made("any", **{"fi": "suomi", "sv-FI": "ruotsi"})
    assert render(template, locale, {}).body == words


@pytest.mark.parametrize("values", [{}, {"late": {}}, {"late": {"order_id": None}}])
def test_a_missing_value_stops_the_message(values: dict[str, dict[str, object]]) -> None:
    with pytest.raises(Invalid, match=r"template t: got late.order_id is undefined, must be a text"):
        render(made("Order {{ late.order_id }}"), "en", values)


def test_a_missing_value_may_be_tested_and_given_a_default() -> None:
    template = made("{% if c.name %}{{ c.name }}{% else %}friend{% endif %} {{ c.name | default: 'x' }}")
    assert render(template, "", {}).body == "friend x"
    assert render(template, "", {"c": {"name": "Aino"}}).body == "Aino Aino"


@pytest.mark.parametrize(
    "source, where, got",
    [
        ("a\n{{ x.y | upcas }}", "templates/t.liquid:2", "'upcas'"),
        ("Subject: {{ a.b | nope }}\n\nx", "templates/t.liquid:1:19", "'nope'"),
        ("Subject: a\n\nx\n {{ name }}", "templates/t.liquid:4:5", "'name'"),
        ("{{ late[other.field] }}", "templates/t.liquid:1:4", "'late[other.field]'"),
        ("{% if a.b == now %}x{% endif %}", "templates/t.liquid:1:14", "'now'"),
        ("a\n\n{% include 'x' %}", "templates/t.liquid:3", "unexpected tag 'include'"),
        ("{% render 'x' %}", "templates/t.liquid:1", "unexpected tag 'render'"),
        ("{% if a.b %}x", "templates/t.liquid:1", "expected tag endif"),
        ("{{ a.b ", "templates/t.liquid:1:1", "expected"),
        ("Subject: a\nb", "templates/t.liquid:2:1", "'b'"),
        ("x" * 70_000, "templates/t.liquid", "70000 characters"),
    ],
)  # fmt: skip
def test_a_fault_names_its_place(source: str, where: str, got: str) -> None:
    template, faults = parse("t", {"": source})
    assert template is None
    assert any(fault.where.startswith(where) and got in fault.got for fault in faults), faults


def test_all_faults_of_all_languages_come_at_once() -> None:
    _, faults = parse("t", {"fi": "Subject: a\n\n{{ x }}{{ y }}", "sv": "{{ a.b | nope }}"})
    assert [fault.where for fault in faults] == [
        "templates/t.fi.liquid:3:4", "templates/t.fi.liquid:3:11", "templates/t.sv.liquid:1:10",
        "templates/t.liquid",
    ]  # fmt: skip
    assert parse("t", {"": "Subject: a\n\nb", "fi": "b"})[1] == [
        Fault(
            "templates/t.liquid",
            "some texts with a subject",
            "a first line Subject: in every language or in none",
        )
    ]


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in (1..100000000000) %}x{% endfor %}",
        "{% for i in (1..900) %}{% for j in (1..900) %}x{% endfor %}{% endfor %}",
        "{% for i in (1..900) %}{{ a.text }}{% endfor %}",
        "{% assign x = a.text %}{% for i in (1..900) %}{% assign x = x | append: x %}{% endfor %}{{ x }}",
        "{% assign x = 9 %}{% for i in (1..900) %}{% assign x = x | times: x %}{% endfor %}{{ x }}",
        "{% capture x %}{% for i in (1..900) %}{{ a.text }}{% endfor %}{% endcapture %}x",
        "{% for i in (1..a.many) reversed %}x{% endfor %}",
        "{% for i in (1..a.many) reversed limit: 3 offset: 90000000 %}x{% endfor %}",
        "{% for i in (1..a.many) limit: 3 offset: 90000000 %}x{% endfor %}",
        "{% for i in (1..a.more) %}x{% endfor %}",
        "{{ (1..a.many) | reverse | first }}",
        "{{ (1..a.many) | sort | last }}",
        "{{ (1..a.many) | uniq | size }}",
        "{{ (1..a.more) | compact | size }}",
        "{% assign x = (1..a.many) %}{{ 'x' | append: x }}",
        "{% assign y = a.all | times: a.all | times: a.all %}{{ y | plus: a.all }}",
        "{{ a.infinite | ceil }}",
        "{{ a.text | slice: a.infinite, a.infinite }}",
        "{{ a.n | divided_by: 0 }}",
        "{{ a.text | date: '%H:%M' }}",
        "{{ a.at | date: '%999999999d' }}",
        "{{ a.n | date }}",
        "{{ a.long }}",
        "{{ a.white }}",
        "Subject: {{ a.white }}\n\nx",
    ],
)
def test_a_template_that_goes_wrong_stops_the_message_and_nothing_else(source: str) -> None:
    values = {
        "a": {
            "text": "secret" * 20,
            "n": 1,
            "many": "99999999999",
            "more": 10**40,
            "all": "9" * 3_999,
            "infinite": "1e999999999",
            "at": "2026-01-10",
            "long": "x" * 5_000,
            "white": " \n",
        }
    }
    with bytes_max(256 * 1024 * 1024), pytest.raises(Invalid) as refused:
        render(made(source), "en", values)
    assert "secret" not in str(refused.value) and "99999999999" not in str(refused.value)


@contextmanager
def bytes_max(n: int) -> Iterator[None]:
    """No more memory than `n` bytes above what there is; what would write a range out fails by it at once."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    "value",
    [
        "{{ a.secret }}",
        "{% for i in (1..9) %}{{ i }}{% endfor %}",
        "{%- assign x = 1 -%}{{- x -}}",
        "}}{{ a.secret }}{{",
        "{% endif %}{% if true %}",
        "{% comment %}",
        "{{ 'x' | upcase }}",
    ],
)
def test_what_a_value_says_in_liquid_is_text(value: str) -> None:
    text = "Subject: {{ a.v }}!\n\n{% if a.v %}{{ a.v }}{% endif %}{% assign w = a.v | append: a.v %}{{ w }}"
    found = render(made(text), "", {"a": {"v": value, "secret": "seen"}})
    assert found.subject == f"{value}!" and found.body == value * 3


def test_no_template_reads_the_clock() -> None:
    template = made(
        "x{% if a.never %}{% assign now = 1 %}{% assign today = 1 %}{% endif %}{{ now }}{{ today }}"
    )
    assert render(template, "", {}).body == "x"
    with pytest.raises(Invalid):
        render(made("{{ a.b | date: '%Y' }}"), "", {"a": {"b": "now"}})


@given(st.text(max_size=400), st.text(max_size=400))
def test_no_value_breaks_out_of_the_subject(first: str, second: str) -> None:
    template = made("Subject: Order {{ a.first }}{{ a.second | upcase }}\n\nx {{ a.first }}")
    rendered = render(template, "", {"a": {"first": first, "second": second}})
    assert rendered.subject.splitlines() == [rendered.subject]
    assert all(each.isprintable() or each.isspace() or ord(each) > 127 for each in rendered.subject)
    assert 5 <= len(rendered.subject) <= SUBJECT_CHARS_MAX
    rendered.body.encode()


@given(
    st.lists(
        st.sampled_from(
            [
                "{% for i in (1..300) %}",
                "{% endfor %}",
                "{{ a.b }}",
                "{{ x }}",
                "{% assign x = a.b | append: a.b %}",
                "text",
            ]
        ),
        max_size=12,
    ),
    st.text(max_size=300),
)
def test_a_text_never_exceeds_its_limit(pieces: list[str], value: str) -> None:
    template, _ = parse("t", {"": "".join(pieces)})
    if template is None:
        return
    try:
        assert len(render(template, "", {"a": {"b": value}}).body.encode()) <= OUTPUT_BYTES_MAX
    except Invalid as refused:
        assert refused.faults


@given(st.text(max_size=200))
def test_any_text_parses_or_has_faults(source: str) -> None:
    template, faults = parse("t", {"": source})
    assert (template is None) == bool(faults)


# --- webhooks -----------------------------------------------------------------------------------------


def test_the_published_example_of_the_specification() -> None:
    headers = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


OTHER = "whsec_" + "B" * 32


def test_a_receiver_with_either_key_accepts_while_keys_are_changed() -> None:
    headers = sign(f"{SECRET} {OTHER}", "m1", 1_000, b"{}")
    assert len(headers["webhook-signature"].split()) == 2
    assert verify(SECRET, headers, b"{}", 1_000) == verify(OTHER, headers, b"{}", 1_000) == "m1"
    assert verify(f"{OTHER} {SECRET}", sign(SECRET, "m1", 1_000, b"{}"), b"{}", 1_000) == "m1"


def test_header_names_may_come_in_any_case() -> None:
    headers = {name.title(): text for name, text in sign(SECRET, "m1", 1_000, b"{}").items()}
    assert verify(SECRET, headers, b"{}", 1_300) == "m1"


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "m2"},
        {"webhook-id": ""},
        {"webhook-timestamp": "1001"},
        {"webhook-timestamp": "01000"},
        {"webhook-timestamp": "-1000"},
        {"webhook-timestamp": "1e3"},
        {"webhook-timestamp": "9" * 5_000},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,é v1, v2,AAAA"},
    ],
)
def test_anything_changed_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(Forbidden):
        verify(SECRET, {**sign(SECRET, "m1", 1_000, b"{}"), **change}, b"{}", 1_000)


def test_another_body_another_key_and_a_replay_are_refused() -> None:
    headers = sign(SECRET, "m1", 1_000, b"{}")
    for secret, body, now_s in [
        (SECRET, b"{ }", 1_000),
        (OTHER, b"{}", 1_000),
        (SECRET, b"{}", 1_301),
        (SECRET, b"{}", 699),
    ]:
        with pytest.raises(Forbidden):
            verify(secret, headers, body, now_s)
    with pytest.raises(Forbidden):
        verify(SECRET, {}, b"{}", 1_000)


def test_the_body_has_the_form_of_the_specification() -> None:
    body = payload("moment.answered", 1_667_507_170_344_522, {"subject": "ä"})
    assert msgspec.json.decode(body) == {
        "type": "moment.answered",
        "timestamp": "2022-11-03T20:26:10.344522Z",
        "data": {"subject": "ä"},
    }


# --- mail ---------------------------------------------------------------------------------------------


def letter(subject: str = "Hei", body: str = "x", to: str = "aino@there.example") -> EmailMessage:
    data = compose("0" * 32, 86_400 * SECOND, "us@hetki.example", to, subject, body)
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def test_a_letter_says_from_whom_to_whom_and_when() -> None:
    read = letter("Tilaus myöhästyy", "Hyvää iltaa,\nruoka tulee klo 18.40.\n.\nFrom us")
    assert dict(read.items()) == {
        "Message-ID": "<" + "0" * 32 + "@hetki.example>",
        "Date": "Fri, 02 Jan 1970 00:00:00 +0000",
        "From": "us@hetki.example",
        "To": "aino@there.example",
        "Subject": "Tilaus myöhästyy",
        "Auto-Submitted": "auto-generated",
        "MIME-Version": "1.0",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "quoted-printable",
    }
    assert read.get_content() == "Hyvää iltaa,\r\nruoka tulee klo 18.40.\r\n.\r\nFrom us\r\n"


@pytest.mark.parametrize("to", ["", "Aino <a@b.fi>", "a@b.fi\r\nBcc: c@d.fi", "a@b.fi, c@d.fi", "ä@b.fi"])
def test_a_letter_goes_to_one_plain_address(to: str) -> None:
    with pytest.raises(Invalid) as refused:
        letter(to=to)
    assert str(refused.value) == "recipient: got another text, must be one plain e-mail address."


def test_a_letter_has_a_subject() -> None:
    with pytest.raises(Invalid, match="subject: got nothing"):
        letter(subject=" \r\n")


INJECTIONS = st.one_of(
    st.text(min_size=1),
    st.sampled_from(
        ["\r\nBcc: x@y.fi", "\r\n\r\n<body>", "=?utf-8?q?a=0d=0aBcc:_x@y.fi?=", "a\n b", "x" * 3_000, "=?"]
    ),
)


@given(INJECTIONS, INJECTIONS)
def test_no_subject_or_body_adds_a_header(subject: str, body: str) -> None:
    try:
        data = compose("0" * 32, 0, "us@hetki.example", "aino@there.example", subject, body)
    except Invalid:
        assert not subject.strip() or not subject.isprintable()
        return
    head, _, _ = data.partition(b"\r\n\r\n")
    names = [line.split(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert names == [
        b"Message-ID", b"Date", b"From", b"To", b"Subject", b"Auto-Submitted", b"MIME-Version",
        b"Content-Type", b"Content-Transfer-Encoding",
    ]  # fmt: skip
    assert data.isascii()
    assert b"\n" not in data.replace(b"\r\n", b"") and b"\r" not in data.replace(b"\r\n", b"")
    assert max(len(line) for line in data.split(b"\r\n")) <= 998


@given(st.text(alphabet="aäö €日\n =?.", min_size=1, max_size=300))
def test_what_is_written_can_be_read(text: str) -> None:
    words = " ".join(text.split())
    read = letter("s " + words, "b " + text)
    assert read.get_content().splitlines() == ("b " + text).splitlines()
    raw = email.header.make_header(email.header.decode_header(str_of_subject("s " + words)))
    assert "".join(str(raw).split()) == "".join(("s " + words).split())


def str_of_subject(subject: str) -> str:
    data = compose("0" * 32, 0, "us@hetki.example", "aino@there.example", subject, "x")
    return str(email.message_from_bytes(data, policy=email.policy.compat32)["Subject"])


# --- messages and retries -----------------------------------------------------------------------------


def test_a_message_id_is_the_same_for_the_same_decision_and_destination() -> None:
    assert message_id("d1", "app") == message_id("d1", "app")
    assert len({message_id(d, c) for d in ("d1", "d2", "d1a") for c in ("app", "mail", "aapp")}) == 9
    assert len(message_id("d1", "app")) == 32


@given(
    st.text(max_size=32),
    st.integers(1, len(SCHEDULE_S)),
    st.integers(0, 2**52),
    st.floats(-10, 1e9) | st.none(),
)
def test_waits_follow_the_schedule_within_the_jitter(
    message: str, n_attempts: int, failed_at: int, retry_after_s: float | None
) -> None:
    at = next_attempt(n_attempts, failed_at, message, retry_after_s)
    assert at is not None and at == next_attempt(n_attempts, failed_at, message, retry_after_s)
    wait_s = (at - failed_at) / SECOND
    floor_s = min(max(0.0, retry_after_s or 0.0), RETRY_AFTER_S_MAX)
    planned_s = SCHEDULE_S[n_attempts - 1]
    assert max(planned_s, floor_s) - 0.001 <= wait_s <= max(planned_s * (1 + JITTER_SHARE), floor_s) + 0.001


def test_messages_that_failed_together_come_back_apart() -> None:
    assert len({next_attempt(4, 0, f"m{n}") for n in range(100)}) == 100


def test_after_the_last_wait_a_message_is_given_up() -> None:
    assert next_attempt(len(SCHEDULE_S), 0, "m") is not None
    assert next_attempt(len(SCHEDULE_S) + 1, 0, "m", retry_after_s=5) is None


def test_which_refusals_are_permanent() -> None:
    statuses = [0, 200, 302, 400, 401, 404, 408, 410, 422, 425, 429, 499, 500, 503]
    assert [each for each in statuses if is_permanent("webhook", each)] == [400, 401, 404, 410, 422, 499]
    assert [each for each in [0, 250, 421, 450, 500, 550, 554] if is_permanent("email", each)] == [
        500,
        550,
        554,
    ]


def test_a_destination_that_fails_is_left_in_peace_and_then_tried_with_one_message() -> None:
    breaker, now = Breaker(), 0
    for _ in range(FAILURES_MAX):
        admitted, breaker = admit(breaker, now)
        assert admitted
        breaker = report(breaker, False, now)
    assert admit(breaker, now + 9 * SECOND)[0] is False
    admitted, probing = admit(breaker, now + 10 * SECOND)
    assert admitted and not admit(probing, now + 10 * SECOND)[0]
    assert report(probing, True, now) == Breaker()
    again = report(probing, False, now + 11 * SECOND)
    assert not admit(again, now + 30 * SECOND)[0] and admit(again, now + 31 * SECOND)[0]


def test_a_late_failure_does_not_lengthen_the_pause() -> None:
    opened = Breaker(FAILURES_MAX, 1, 10 * SECOND)
    assert report(opened, False, 5 * SECOND) == opened


def test_a_message_that_never_reports_does_not_close_a_destination_for_ever() -> None:
    _, probing = admit(Breaker(FAILURES_MAX, 1, 0), 0)
    assert not admit(probing, 0)[0] and admit(probing, probing.retry_at)[0]


@given(
    st.lists(st.tuples(st.sampled_from(["ok", "fail", "silent", "late"]), st.integers(0, 2_000)), max_size=60)
)
def test_a_breaker_in_any_weather(story: list[tuple[str, int]]) -> None:
    breaker, now, n_in_a_row = Breaker(), 0, 0
    for outcome, wait_s in story:
        now += wait_s * SECOND
        before = breaker
        admitted, breaker = admit(breaker, now)
        assert admitted == (not before.is_open or now >= before.retry_at)
        assert breaker.is_open == before.is_open
        if (outcome in ("ok", "fail") and admitted) or outcome == "late":
            ok = outcome == "ok"
            breaker = report(breaker, ok, now)
            n_in_a_row = 0 if ok else n_in_a_row + 1
        assert breaker.is_open == (n_in_a_row >= FAILURES_MAX)
        assert breaker.retry_at <= now + PAUSE_S_MAX * SECOND
