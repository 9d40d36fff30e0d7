"""From a template to a real receiver and back: HTTP that checks signatures, SMTP that keeps letters, TLS."""

from __future__ import annotations

import email
import email.policy
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hetki.dialogues.mail import compose
from hetki.dialogues.message import message_id
from hetki.dialogues.retry import SCHEDULE_S, Breaker, admit, is_permanent, next_attempt, report
from hetki.dialogues.template import parse, render
from hetki.dialogues.webhook import payload, sign, verify
from hetki.errors import Forbidden
from hetki.settings import SECOND
from hetki.simulation.world import SimulatedClock
from hetki.store.network import SystemNet
from hetki.store.ports import Sent

#: The receivers of this file are on this machine.
HERE = partial(SystemNet, ["localhost"])
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
START = 1_767_225_600 * SECOND
TEMPLATE = "Subject: Tilaus {{ late.order_id }}\n\nHyvää iltaa! Tilaus tulee {{ late.at | date: '%H:%M' }}."
VALUES = {"late": {"order_id": "o1\r\nBcc: all@there.example", "at": "2026-01-10T16:40:00Z"}}


class Receiver(BaseHTTPRequestHandler):
    """A customer's endpoint as the specification asks: check, answer 204, keep one of each id."""

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Endpoint)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.n_requests += 1
        if server.refusals:
            self.send_response(server.refusals.pop(0))
            self.end_headers()
            return
        try:
            name = verify(SECRET, dict(self.headers), body, server.clock.now() // SECOND)
        except Forbidden:
            self.send_response(401)
        else:
            server.kept.setdefault(name, []).append(body)
            self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


class Endpoint(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.clock = SimulatedClock(START)
        self.refusals: list[int] = []
        self.kept: dict[str, list[bytes]] = {}
        self.n_requests = 0

    @property
    def url(self) -> str:
        return f"://127.0.0.1:{self.server_port}/hook"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def words() -> tuple[str, str]:
    template, faults = parse("new_time", {"": TEMPLATE})
    assert template is not None, faults
    rendered = render(template, "fi", VALUES, "Europe/Helsinki")
    return rendered.subject, rendered.body


def post(endpoint: Endpoint, name: str, body: bytes, secret: str = SECRET) -> Sent:
    headers = sign(secret, name, endpoint.clock.now() // SECOND, body)
    return HERE().post("http" + endpoint.url, headers, body, 5)


def test_a_signed_webhook_is_accepted_and_says_what_the_template_says(endpoint: Endpoint) -> None:
    subject, text = words()
    name = message_id("d1", "app")
    body = payload("moment.answered", START, {"subject": subject, "body": text})
    assert post(endpoint, name, body) == Sent(True, 204, "204 No Content")
    assert msgspec.json.decode(endpoint.kept[name][0]) == {
        "type": "moment.answered",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {
            "subject": "Tilaus o1 Bcc: all@there.example",
            "body": "Hyvää iltaa! Tilaus tulee 18:40.",
        },
    }


def test_a_repeat_has_the_same_id_so_the_receiver_can_tell(endpoint: Endpoint) -> None:
    for _ in range(2):
        assert post(endpoint, message_id("d1", "app"), b"{}").ok
    assert [len(bodies) for bodies in endpoint.kept.values()] == [2]


def test_a_wrong_key_is_refused_for_good(endpoint: Endpoint) -> None:
    sent = post(endpoint, "m1", b"{}", "whsec_" + "B" * 32)
    assert (sent.ok, sent.status) == (False, 401)
    assert is_permanent("webhook", sent.status)
    assert endpoint.kept == {}


def test_a_captured_message_cannot_be_played_again_later(endpoint: Endpoint) -> None:
    headers = sign(SECRET, "m1", START // SECOND, b"{}")
    assert HERE().post("http" + endpoint.url, headers, b"{}", 5).ok
    endpoint.clock.sleep(301)
    assert HERE().post("http" + endpoint.url, headers, b"{}", 5).status == 401


@pytest.mark.parametrize(
    "refusals, kept", [([], 1), ([503, 429, 500], 1), ([503, 410], 0), ([500] * (len(SCHEDULE_S) + 1), 0)]
)
def test_a_message_is_tried_until_it_is_taken_or_given_up(
    endpoint: Endpoint, refusals: list[int], kept: int
) -> None:
    """The loop that the engine runs, in simulated time against a real socket."""
    clock, breaker, n_attempts = endpoint.clock, Breaker(), 0
    endpoint.refusals = list(refusals)
    while True:
        admitted, breaker = admit(breaker, clock.now())
        assert admitted
        sent = post(endpoint, "m1", b"{}")
        n_attempts += 1
        gone = is_permanent("webhook", sent.status)
        breaker = report(breaker, sent.ok or gone, clock.now())
        again_at = (
            None if sent.ok or gone else next_attempt(n_attempts, clock.now(), "m1", sent.retry_after_s)
        )
        if again_at is None:
            break
        clock.move(max(again_at, breaker.retry_at))
    assert len(endpoint.kept.get("m1", [])) == kept
    assert endpoint.n_requests == n_attempts == len(refusals) + kept


# --- TLS ----------------------------------------------------------------------------------------------


class Certificate(msgspec.Struct, frozen=True):
    """A certificate for 127.0.0.1 that signs itself, and a context that trusts it."""

    path: str

    def of_server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path: Path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return Certificate(str(path))


def test_https_reaches_only_whom_the_certificate_names(endpoint: Endpoint, certificate: Certificate) -> None:
    endpoint.socket = certificate.of_server().wrap_socket(endpoint.socket, server_side=True)
    headers = sign(SECRET, "m1", START // SECOND, b"{}")
    trusting = HERE(tls=certificate.trusting())
    assert trusting.post("https" + endpoint.url, headers, b"{}", 5).ok
    stranger = HERE().post("https" + endpoint.url, headers, b"{}", 5)
    assert (stranger.ok, stranger.status) == (False, 0)
    assert stranger.detail.startswith("certificate refused: ")
    misnamed = trusting.post("https" + endpoint.url.replace("127.0.0.1", "localhost"), headers, b"{}", 5)
    assert misnamed.detail.startswith("certificate refused: ")
    assert len(endpoint.kept["m1"]) == 1


# --- mail ---------------------------------------------------------------------------------------------


class Postbox:
    """A real SMTP server's handler that keeps what comes, and whether it came under TLS."""

    def __init__(self) -> None:
        self.letters: list[tuple[Envelope, bool]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.letters.append((envelope, session.ssl is not None))
        return "250 OK"


def opened(box: Postbox, tls: ssl.SSLContext | None = None) -> tuple[Controller, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(
        box, hostname="127.0.0.1", port=port, tls_context=tls, require_starttls=tls is not None
    )
    controller.start()
    return controller, f"127.0.0.1:{port}"


def a_letter() -> bytes:
    subject, body = words()
    return compose(message_id("d1", "mail"), START, "us@hetki.example", "aino@there.example", subject, body)


def test_a_letter_arrives_as_the_template_says_and_to_nobody_else() -> None:
    box = Postbox()
    controller, server = opened(box)
    try:
        sent = HERE().mail(server, "us@hetki.example", "aino@there.example", a_letter(), 5)
    finally:
        controller.stop()
    assert sent == Sent(True, 250, "SMTP 250")
    [(envelope, _)] = box.letters
    assert envelope.rcpt_tos == ["aino@there.example"]
    read = email.message_from_bytes(envelope.original_content or b"", policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    assert (read["Subject"], read["Bcc"]) == ("Tilaus o1 Bcc: all@there.example", None)
    assert read.get_content().strip() == "Hyvää iltaa! Tilaus tulee 18:40."
    assert read["Message-ID"] == f"<{message_id('d1', 'mail')}@hetki.example>"


def test_mail_leaves_this_machine_under_tls_where_it_is_offered_and_verified(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetki.store.network.is_this_machine", lambda host: False)
    box = Postbox()
    controller, server = opened(box, certificate.of_server())
    try:
        sender, recipient = "us@hetki.example", "aino@there.example"
        trusted = HERE(tls=certificate.trusting()).mail(server, sender, recipient, a_letter(), 5)
        stranger = HERE().mail(server, sender, recipient, a_letter(), 5)
    finally:
        controller.stop()
    assert trusted == Sent(True, 250, "SMTP 250")
    assert stranger.detail.startswith("certificate refused: ")
    assert [under_tls for _, under_tls in box.letters] == [True]
