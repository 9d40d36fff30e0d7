"""The real network: one connection per message, over HTTP or SMTP, to an address that was looked at first.

A name is resolved once. All of its addresses must be fit (`hetki.dialogues.reach`), and the connection goes
to one of those, so that a resolver that changes its mind leads nowhere else. No redirect is followed and no
proxy asked. What a destination says is never kept word for word: a status and our own words, because answers
echo personal data. Start at `SystemNet`.
"""

from __future__ import annotations

import http.client
import queue
import re
import smtplib
import socket
import ssl
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from types import TracebackType
from typing import BinaryIO, Callable, Sequence

from hetki.dialogues.destination import host_port, is_address
from hetki.dialogues.reach import THIS_MACHINE, Endpoint, Reach, address_of, endpoint, is_this_machine, reach
from hetki.errors import Invalid
from hetki.store.ports import Sent

#: A destination's answer is read this far and dropped; the status is all that counts.
ANSWER_BYTES_MAX = 64 * 1024
RETRY_AFTER_S_MAX = 7 * 86_400.0

Resolve = Callable[[str], Sequence[str]]


def resolved(name: str) -> list[str]:
    """The addresses of a name, as this machine's resolver gives them; raises `OSError`. It may take long."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class SystemNet:
    """HTTP and SMTP from the standard library, with verified TLS, for one destination.

    `inside` is what the destination has opened (`Destination.inside`). `timeout_s` bounds the whole
    exchange from the look-up of the name on, not each read, so that a destination that drips bytes cannot
    hold a sender. `tls` and `resolve` are this machine's unless given.
    """

    def __init__(
        self, inside: Sequence[str] = (), tls: ssl.SSLContext | None = None, resolve: Resolve = resolved
    ) -> None:
        self._inside = tuple(inside)
        self._tls = tls or ssl.create_default_context()
        self._resolve = resolve

    def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Sent:
        """Plain HTTP reaches this machine and no other, whatever its name resolves to."""
        try:
            aim = endpoint(url)
            opened = reach(self._inside, aim.host)
        except Invalid:
            return Sent(False, 0, "url refused")
        with _Line(timeout_s) as line:
            try:
                line.dial(aim.host, aim.port, opened, self._resolve)
                if aim.is_tls:
                    line.secure(self._tls, aim.host)
                elif not is_this_machine(line.address):
                    raise _Refused("http without TLS goes to this machine only")
                answer = self._request(line, aim, headers, body)
                if line.is_over:  # a head that was cut short reads like a whole one
                    return Sent(False, 0, "timed out")
                with suppress(OSError, http.client.HTTPException):
                    answer.read(ANSWER_BYTES_MAX)
            except (OSError, http.client.HTTPException, ValueError) as error:
                return Sent(False, 0, "timed out" if line.is_over else _failure(error))
        retry_after_s = _retry_after(answer.getheader("Retry-After"), answer.getheader("Date"))
        return Sent(200 <= answer.status < 300, answer.status, _phrase(answer.status), retry_after_s)

    def mail(self, server: str, sender: str, recipient: str, message: bytes, timeout_s: float) -> Sent:
        """TLS from the start on port 465, else STARTTLS where it is offered, but none to this machine."""
        # smtplib would pick one address out of a list and send to that
        if not (is_address(sender) and is_address(recipient)):
            return Sent(False, 0, "address refused")
        try:
            host, port = host_port(server)
            opened = reach(self._inside, host)
        except Invalid:
            return Sent(False, 0, "server refused")
        with _Line(timeout_s) as line:
            try:
                line.dial(host, port, opened, self._resolve)
                if port == 465:
                    line.secure(self._tls, host)
                return self._hand_over(line, host, sender, recipient, message)
            except (OSError, smtplib.SMTPException, ValueError) as error:
                if line.is_over:
                    return Sent(False, 0, "timed out")
                status, said = _smtp_refusal(error)
                return Sent(False, status, said or _failure(error))

    def _request(
        self, line: _Line, aim: Endpoint, headers: dict[str, str], body: bytes
    ) -> http.client.HTTPResponse:
        """The answer to a POST over an open line; its body is still unread."""
        connection = (
            http.client.HTTPSConnection(aim.host, aim.port, context=self._tls)
            if aim.is_tls
            else http.client.HTTPConnection(aim.host, aim.port)
        )
        connection.auto_open = 0  # it has the line or nothing
        connection.sock = line.sock
        connection.request("POST", aim.path, body=body, headers=headers)
        return connection.getresponse()

    def _hand_over(self, line: _Line, host: str, sender: str, recipient: str, message: bytes) -> Sent:
        """Once the server took the message the rest of the talk cannot turn it into a failure."""
        smtp = _Smtp(line)
        status, _ = smtp.getreply()
        if status != 220:
            return Sent(False, status, f"SMTP {status}")
        smtp.ehlo()
        if smtp.has_extn("starttls") and not is_this_machine(line.address):
            if (status := smtp.docmd("STARTTLS")[0]) != 220:
                return Sent(False, status, f"SMTP {status}")
            line.secure(self._tls, host)
            smtp = _Smtp(line)  # what was heard in plain is forgotten (RFC 3207, 4.2)
            smtp.ehlo()
        smtp.sendmail(sender, [recipient], message)
        with suppress(OSError, smtplib.SMTPException):
            smtp.quit()
        return Sent(True, 250, "SMTP 250")


class _Refused(OSError):
    """Not sent, for a reason of ours, which is the message."""


class _Line:
    """One connection that is cut at its deadline, whatever is going on with it then.

    `address` is where it leads; `sock` the open socket, that of TLS once it is secured.
    """

    def __init__(self, timeout_s: float) -> None:
        self.sock: socket.socket | None = None
        self.address = ""
        self._ends_at = time.monotonic() + timeout_s
        self._over = threading.Event()
        self._timer = threading.Timer(max(0.0, timeout_s), self._cut)
        self._timer.daemon = True

    def __enter__(self) -> _Line:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        del self._timer  # it holds this line
        if self.sock is not None:
            self.sock.close()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def dial(self, host: str, port: int, opened: Reach, resolve: Resolve) -> None:
        """Resolve a host once, and connect to the first of its addresses that answers.

        Raises `OSError`; before any connection if one of the addresses is not fit: a name that leads outside
        and inside at once is a mistake or a trap.
        """
        addresses = [host] if address_of(host) is not None else self._look_up(host, resolve)
        for each in addresses:
            if refusal := opened.refusal(host, ip_address(each)):
                raise _Refused(f"not sent: {refusal}")
        failure: OSError = _Refused("the name has no address")
        for self.address in addresses:
            family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
            self.sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                self.sock.settimeout(self._left_s())
                self.sock.connect((self.address, port))
                self._left_s()
                return
            except OSError as error:
                self.sock.close()
                failure = error
        try:
            raise failure
        finally:
            del failure  # it holds this frame, which would hold it in turn

    def secure(self, tls: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on, with whom a certificate for `host` names. Raises `OSError`."""
        assert self.sock is not None, "the line is open"
        secured = tls.wrap_socket(self.sock, server_hostname=host, do_handshake_on_connect=False)
        self.sock = secured
        self._left_s()
        secured.do_handshake()

    def _look_up(self, host: str, resolve: Resolve) -> Sequence[str]:
        """The addresses of a name, asked in a thread of its own: a resolver cannot be cut at the deadline."""
        told: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

        def ask() -> None:
            try:
                told.put(resolve(host))
            except (OSError, ValueError) as error:
                told.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            found = told.get(timeout=self._left_s())
        except queue.Empty:
            raise TimeoutError from None
        if not isinstance(found, Exception):
            return found
        try:
            raise found
        finally:
            del found  # as in `dial`

    def _left_s(self) -> float:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _cut(self) -> None:
        self._over.set()
        if self.sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _Smtp(smtplib.SMTP):
    """smtplib's talk over a line that is open already. It hears so much and no more."""

    def __init__(self, line: _Line) -> None:
        super().__init__(local_hostname=socket.gethostname() or THIS_MACHINE)
        assert line.sock is not None, "the line is open"
        self.sock = line.sock
        self.file = _Bounded(line.sock.makefile("rb"))


class _Bounded:
    """The lines that a server says, up to a bound: then `OSError`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._n_left = ANSWER_BYTES_MAX

    def readline(self, n_max: int) -> bytes:
        line = self._file.readline(n_max)
        self._n_left -= len(line)
        if self._n_left < 0:
            raise OSError("it says too much")
        return line

    def close(self) -> None:
        self._file.close()


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status}"


def _failure(error: Exception) -> str:
    """A network failure in our words: no text of the other side, no address."""
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, OSError) and error.strerror and not isinstance(error, smtplib.SMTPException):
        return error.strerror.lower()
    return type(error).__name__


def _smtp_refusal(error: Exception) -> tuple[int, str]:
    """Status and our words for an SMTP refusal, `(0, "")` if the server gave none.

    The enhanced code (RFC 3463, `5.1.1`) is kept; the text beside it repeats addresses and is not.
    """
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        refusals: list[tuple[int, bytes]] = list(error.recipients.values())
        status, text = refusals[0]
    elif isinstance(error, smtplib.SMTPResponseException) and error.smtp_code > 0:
        status = error.smtp_code
        text = error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode()
    else:
        return 0, ""
    enhanced = re.match(rb"[245]\.\d{1,3}\.\d{1,3}\b", text)
    return status, f"SMTP {status}" + (f" {enhanced.group().decode()}" if enhanced else "")


def _retry_after(given: str | None, answered: str | None) -> float | None:
    """`Retry-After` in seconds (RFC 9110, 10.2.3): a number, or a date measured from the answer's own."""
    if given is None:
        return None
    given = given.strip()
    if given.isascii() and given.isdigit():
        return min(float(given[:12]), RETRY_AFTER_S_MAX)
    try:
        until = parsedate_to_datetime(given).timestamp()
        since = parsedate_to_datetime(answered).timestamp() if answered else time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, until - since), RETRY_AFTER_S_MAX)
