"""The real ports: this machine's clock, chance, disk and network (law 11), as `hetki.store.ports` promises.

What a destination says is never kept word for word: a status and our own words, because answers echo
personal data. The simulated twins are in `hetki.simulation.world`. Start at `SystemDisk`.
"""

from __future__ import annotations

import gc
import http.client
import os
import re
import shutil
import smtplib
import socket
import sqlite3
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from hetki.dialogues.destination import host_port, is_address, is_loopback
from hetki.errors import Fault, Invalid, NotFound, shown
from hetki.store.ports import Sent
from hetki.store.shortage import refused

#: How long a statement waits for another connection's lock.
BUSY_S = 10.0
#: Page cache of one connection.
CACHE_KB = 64 * 1024
#: Pages in the write-ahead log before they are copied into the file: fewer copies of hot pages.
CHECKPOINT_PAGES = 8_000
#: A destination's answer is read this far and dropped; the status is all that counts.
ANSWER_BYTES_MAX = 64 * 1024
RETRY_AFTER_S_MAX = 7 * 86_400.0

_SQLITE_TAILS = ("", "-wal", "-shm", "-journal")
_creating = threading.Lock()  # while it is held, no connection of this process may be opened


class SystemClock:
    """The machine's clock, held at its highest reading when the machine sets it back."""

    def __init__(self) -> None:
        self._latest = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        with self._lock:
            self._latest = max(self._latest, time.time_ns() // 1_000)
            return self._latest

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


class SystemChance:
    """The operating system's source of randomness."""

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)


def collect_rarely() -> None:
    """Let the process look for cycles of garbage less often (a sixth of the time from accept to decision)."""
    gc.set_threshold(100_000, 50, 100)


def environment() -> Mapping[str, str]:
    """The process's environment: where secrets stand that declarations name as `env:NAME`."""
    return os.environ


def plain_name(name: str) -> str:
    """A file's name inside a disk, in its one spelling; raises `Invalid` if it could lead out of the root.

    >>> plain_name("lake/./events//1.parquet")
    'lake/events/1.parquet'
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        raise Invalid(Fault("file name", shown(name), "a relative path inside the data folder"))
    return str(PurePosixPath(name))


def listed(name: str, pattern: str) -> bool:
    """Whether a relative name matches a glob; `**` is any number of folders, a leading dot never matches.

    >>> listed("moments/late.yaml", "moments/*.yaml"), listed("a/b/c.db", "**/*.db"), listed("a/b.db", "*.db")
    (True, True, False)
    """

    def fits(parts: tuple[str, ...], globs: tuple[str, ...]) -> bool:
        if not globs:
            return not parts
        if globs[0] == "**":
            return any(fits(parts[n:], globs[1:]) for n in range(len(parts) + 1))
        return bool(parts) and fnmatchcase(parts[0], globs[0]) and fits(parts[1:], globs[1:])

    parts = PurePosixPath(name).parts
    return not any(part.startswith(".") for part in parts) and fits(parts, PurePosixPath(pattern).parts)


class SystemDisk:
    """Files under one folder of this machine, readable by their owner alone.

    `durable=False` leaves the moment of writing to the operating system: for simulations and tests, where
    a power cut costs nothing.
    """

    def __init__(self, root: str | Path, durable: bool = True) -> None:
        self._root = Path(root).resolve()
        self._durable = durable

    def connect(self, name: str) -> sqlite3.Connection:
        """A connection in autocommit (write `BEGIN IMMEDIATE` yourself), for one thread at a time."""
        path = self._inside(name)
        with _as_unavailable(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _creating:
                created = _created(path)
                connection = sqlite3.connect(
                    path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
                )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
                connection.execute("PRAGMA secure_delete=ON")
                connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
                connection.execute("PRAGMA temp_store=MEMORY")
                connection.execute(f"PRAGMA cache_size=-{CACHE_KB}")
                if created:
                    _sync_folder(path.parent)
            except (sqlite3.Error, OSError):
                connection.close()
                raise
            return connection

    def read(self, name: str) -> bytes:
        path = self._inside(name)
        with _as_unavailable(name):
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFound(Fault(name, "no such file", "an existing file")) from None

    def write(self, name: str, data: bytes) -> None:
        path = self._inside(name)
        beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}.new")
        with _as_unavailable(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, path)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)

    def names(self, pattern: str) -> list[str]:
        """Files only, no folders; names with a leading dot are never listed."""
        with _as_unavailable(pattern):
            found: list[str] = []
            n_parts = 0 if "**" in pattern else len(PurePosixPath(pattern).parts)  # no deeper than asked
            for folder, folders, files in os.walk(self._root):
                depth = len(Path(folder).relative_to(self._root).parts) + 1
                folders[:] = [each for each in folders if depth != n_parts and not each.startswith(".")]
                names = (Path(folder, file).relative_to(self._root).as_posix() for file in files)
                found.extend(name for name in names if listed(name, pattern))
            return sorted(found)

    def path(self, name: str) -> str:
        """An absolute path whose folder exists."""
        path = self._inside(name)
        with _as_unavailable(name):
            path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    def remove(self, name: str) -> None:
        """A database goes with its log: SQLite would play a log left behind into the next one."""
        path = self._inside(name)
        with _as_unavailable(name):
            if path.is_dir():
                shutil.rmtree(path)
            for tail in _SQLITE_TAILS:
                path.with_name(path.name + tail).unlink(missing_ok=True)
            if path.parent.is_dir():
                _sync_folder(path.parent)

    def tidy(self, folder: str) -> None:
        with _as_unavailable(folder):
            for left in self._inside(folder).rglob(".*.new"):
                left.unlink(missing_ok=True)

    def _inside(self, name: str) -> Path:
        path = self._root / plain_name(name)
        if not path.resolve().is_relative_to(self._root):
            raise Invalid(Fault("file name", shown(name), "a path that no link leads out of the data folder"))
        return path


@contextmanager
def _as_unavailable(name: str) -> Iterator[None]:
    """Turn what the disk or SQLite says into `Unavailable`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise refused(error, name) from error


def _created(path: Path) -> bool:
    """Make an empty file for its owner alone, unless there is one.

    A database that exists is never opened here: closing any handle of a file drops every lock that this
    process holds on it, and another process would take away the write-ahead log under our connections.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make a new or replaced name in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class SystemNet:
    """HTTP and SMTP from the standard library: one connection per message, verified TLS, no redirects.

    `timeout_s` bounds the whole exchange, not each read, so that a destination that drips bytes cannot
    hold a sender.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls or ssl.create_default_context()

    def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Sent:
        try:
            connection = self._http(url, timeout_s)
        except (ValueError, http.client.InvalidURL):
            return Sent(False, 0, "url refused")
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            with _deadline(timeout_s, lambda: connection.sock) as over:
                try:
                    connection.connect()
                    connection.request("POST", target, body=body, headers=headers)
                    answer = connection.getresponse()
                    if over.is_set():  # a head that was cut short reads like a whole one
                        return Sent(False, 0, "timed out")
                    with suppress(OSError, http.client.HTTPException):
                        answer.read(ANSWER_BYTES_MAX)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    return Sent(False, 0, "timed out" if over.is_set() else _failure(error))
        finally:
            connection.close()
        retry_after_s = _retry_after(answer.getheader("Retry-After"), answer.getheader("Date"))
        return Sent(200 <= answer.status < 300, answer.status, _phrase(answer.status), retry_after_s)

    def mail(self, server: str, sender: str, recipient: str, message: bytes, timeout_s: float) -> Sent:
        """TLS from the start on port 465, else STARTTLS where it is offered; loopback is trusted in plain."""
        # smtplib would pick one address out of a list and send to that
        if not (is_address(sender) and is_address(recipient)):
            return Sent(False, 0, "address refused")
        try:
            host, port = host_port(server)
            name = socket.gethostname() or "localhost"
            smtp = (
                smtplib.SMTP_SSL(local_hostname=name, timeout=timeout_s, context=self._tls)
                if port == 465
                else smtplib.SMTP(local_hostname=name, timeout=timeout_s)
            )
            with _deadline(timeout_s, lambda: smtp.sock) as over:
                try:
                    return self._hand_over(smtp, (host, port), sender, recipient, message)
                except (OSError, smtplib.SMTPException, ValueError) as error:
                    if over.is_set():
                        return Sent(False, 0, "timed out")
                    status, said = _smtp_refusal(error)
                    return Sent(False, status, said or _failure(error))
                finally:
                    smtp.close()
        except (Invalid, ValueError):
            return Sent(False, 0, "server refused")

    def _http(self, url: str, timeout_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in ("http", "https"):
            raise ValueError("it is neither http nor https")
        if timeout_s <= 0:
            raise ValueError("it was given no time")
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=self._tls)

    def _hand_over(
        self, smtp: smtplib.SMTP, server: tuple[str, int], sender: str, recipient: str, message: bytes
    ) -> Sent:
        """Once the server took the message the rest of the talk cannot turn it into a failure."""
        # The name that TLS verifies; smtplib sets it only in the constructor form that connects at once.
        smtp._host = server[0]  # type: ignore[attr-defined]
        status, _ = smtp.connect(*server)
        if status != 220:
            return Sent(False, status, f"SMTP {status}")
        smtp.ehlo()
        if smtp.has_extn("starttls") and not is_loopback(server[0]):
            smtp.starttls(context=self._tls)
            smtp.ehlo()
        smtp.sendmail(sender, [recipient], message)
        with suppress(OSError, smtplib.SMTPException):
            smtp.quit()
        return Sent(True, 250, "SMTP 250")


@contextmanager
def _deadline(timeout_s: float, open_socket: Callable[[], socket.socket | None]) -> Iterator[threading.Event]:
    """Cut the socket after `timeout_s`; the event says that this has happened."""
    over = threading.Event()

    def cut() -> None:
        over.set()
        sock = open_socket()
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


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
