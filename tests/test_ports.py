"""One suite for every port: the real one and its simulated twin keep the same promises."""

from __future__ import annotations

import socket
import socketserver
import sqlite3
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable, Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given
from hypothesis import strategies as st

from hetki.errors import Fault, Invalid, NotFound, Unavailable
from hetki.simulation.world import LocalNet, MemoryDisk, SeededChance, SimulatedClock
from hetki.store.network import SystemNet
from hetki.store.ports import Chance, Clock, Disk, Net, Sent
from hetki.store.system import SystemChance, SystemClock, SystemDisk, listed, plain_name

# --- clock and chance ---------------------------------------------------------------------------------


#: The receivers of this file are on this machine.
HERE = partial(SystemNet, ["localhost"])


@pytest.fixture(params=["system", "simulated"])
def clock(request: pytest.FixtureRequest) -> Clock:
    return SystemClock() if request.param == "system" else SimulatedClock(1_700_000_000_000_000)


def test_a_clock_gives_microseconds_and_never_runs_backwards(clock: Clock) -> None:
    readings = [clock.now() for _ in range(1_000)]
    assert readings == sorted(readings)
    assert 1_600_000_000_000_000 < readings[0] < 4_000_000_000_000_000


def test_sleeping_moves_a_clock_at_least_that_far(clock: Clock) -> None:
    before = clock.now()
    clock.sleep(0.002)
    clock.sleep(-1)
    assert clock.now() >= before + 2_000


def test_the_machine_set_back_does_not_set_the_clock_back(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([5_000_000, 3_000_000, 6_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(readings))
    clock = SystemClock()
    assert [clock.now() for _ in range(3)] == [5_000, 5_000, 6_000]


def test_a_simulated_clock_stands_still_until_it_is_moved_forward() -> None:
    clock = SimulatedClock(100)
    clock.move(250)
    clock.move(40)
    assert clock.now() == clock.now() == 250


@pytest.mark.parametrize("chance", [SystemChance(), SeededChance(7)])
def test_chance_gives_the_length_asked_and_others_each_time(chance: Chance) -> None:
    drawn = [chance.bytes(16) for _ in range(1_000)]
    assert {len(each) for each in drawn} == {16}
    assert len(set(drawn)) == 1_000
    assert chance.bytes(0) == b""


def test_a_seed_gives_the_same_bytes_again_and_another_seed_gives_others() -> None:
    first, again, other = SeededChance(1), SeededChance(1), SeededChance(2)
    assert [first.bytes(8) for _ in range(3)] == [again.bytes(8) for _ in range(3)]
    assert first.bytes(8) != other.bytes(8)


# --- disk ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["system", "memory", "memory with a folder"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    if request.param == "system":
        return SystemDisk(tmp_path / "data")
    return MemoryDisk() if request.param == "memory" else MemoryDisk(str(tmp_path / "files"))


def test_a_second_connection_sees_what_the_first_committed(disk: Disk) -> None:
    first = disk.connect("state.db")
    first.execute("CREATE TABLE t(a)")
    first.execute("BEGIN IMMEDIATE")
    first.execute("INSERT INTO t VALUES (1)")
    first.execute("COMMIT")
    assert disk.connect("./state.db").execute("SELECT a FROM t").fetchall() == [(1,)]
    first.close()
    assert disk.connect("state.db").execute("SELECT a FROM t").fetchall() == [(1,)]


def test_a_rollback_leaves_nothing(disk: Disk) -> None:
    db = disk.connect("state.db")
    db.execute("CREATE TABLE t(a)")
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES (1)")
    db.execute("ROLLBACK")
    assert disk.connect("state.db").execute("SELECT count(*) FROM t").fetchall() == [(0,)]


def test_statements_outside_a_transaction_commit_by_themselves(disk: Disk) -> None:
    db = disk.connect("state.db")
    assert db.isolation_level is None
    db.execute("CREATE TABLE t(a)")
    assert not db.in_transaction


def test_a_connection_may_pass_to_another_thread(disk: Disk) -> None:
    db = disk.connect("state.db")
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(db.execute("SELECT 1").fetchall()))
    thread.start()
    thread.join()
    assert seen == [[(1,)]]


def test_writers_in_threads_wait_for_each_other(disk: Disk) -> None:
    disk.connect("state.db").execute("CREATE TABLE t(a)")
    failed: list[BaseException] = []

    def write() -> None:
        db = disk.connect("state.db")
        try:
            for n in range(20):
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT INTO t VALUES (?)", (n,))
                db.execute("COMMIT")
        except sqlite3.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert disk.connect("state.db").execute("SELECT count(*) FROM t").fetchall() == [(60,)]


def test_settling_changes_nothing_that_can_be_read(disk: Disk) -> None:
    disk.settle("state.db")
    assert disk.names("*") == []
    held = disk.connect("state.db")
    held.execute("CREATE TABLE t(a)")
    held.execute("INSERT INTO t VALUES (1)")
    for _ in range(2):
        disk.settle("state.db")
        held.execute("INSERT INTO t VALUES (2)")
    held.close()
    disk.settle("state.db")
    assert disk.connect("state.db").execute("SELECT a FROM t").fetchall() == [(1,), (2,), (2,)]


def test_databases_of_other_names_are_others(disk: Disk) -> None:
    disk.connect("a.db").execute("CREATE TABLE t(a)")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        disk.connect("b.db").execute("SELECT * FROM t")


def test_a_removed_database_starts_empty(disk: Disk) -> None:
    held = disk.connect("state.db")
    held.execute("CREATE TABLE t(a)")
    disk.remove("state.db")
    disk.remove("state.db")
    assert disk.connect("state.db").execute("SELECT count(*) FROM sqlite_master").fetchall() == [(0,)]


def test_a_file_reads_as_last_written(disk: Disk) -> None:
    disk.write("lake/events/1.parquet", b"one")
    disk.write("lake/events/1.parquet", b"\x00two")
    assert disk.read("lake//events/./1.parquet") == b"\x00two"


def test_a_file_may_come_in_pieces_and_stays_if_one_cannot_be_made(disk: Disk) -> None:
    def pieces(n: int) -> Iterator[bytes]:
        for number in range(n):
            yield b"%d," % number
        if n > 3:
            raise Invalid(Fault("piece", "4", "at most 3"))

    disk.write("lake/1", pieces(3))
    disk.write("lake/2", pieces(0))
    with pytest.raises(Invalid):
        disk.write("lake/1", pieces(4))
    assert disk.read("lake/1") == b"0,1,2," and disk.read("lake/2") == b""


@pytest.mark.parametrize("name", ["no.txt", "lake", "lake/1.parquet/below"])
def test_reading_what_is_no_file_is_not_found(disk: Disk, name: str) -> None:
    disk.write("lake/1.parquet", b"")
    with pytest.raises(NotFound, match=f"{name}: got no such file, must be an existing file"):
        disk.read(name)


def test_names_match_a_glob_and_come_sorted(disk: Disk) -> None:
    for name in ["b.yaml", "a.yaml", "moments/c.yaml", "moments/deep/d.yaml", ".hidden.yaml", ".git/e.yaml"]:
        disk.write(name, b"")
    disk.connect("journal.db")
    assert disk.names("*.yaml") == ["a.yaml", "b.yaml"]
    assert disk.names("moments/*.yaml") == ["moments/c.yaml"]
    assert disk.names("**/*.yaml") == ["a.yaml", "b.yaml", "moments/c.yaml", "moments/deep/d.yaml"]
    assert disk.names("*.db") == ["journal.db"]
    assert disk.names("none/*") == []


def test_removing_a_folder_removes_all_in_it_and_only_that(disk: Disk) -> None:
    for name in ["lake/1", "lake/deep/2", "lake2"]:
        disk.write(name, b"")
    disk.remove("lake")
    disk.remove("lake")
    disk.remove("never/was")
    assert disk.names("**") == ["lake2"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a\0b", "a\\b", "\ud800", "a\nb"]
)
def test_names_that_lead_out_of_the_root_are_refused(disk: Disk, name: str) -> None:
    deeds: list[Callable[[str], object]] = [disk.connect, disk.settle, disk.read, disk.path, disk.remove]
    deeds.append(lambda each: disk.write(each, b""))
    for deed in deeds:
        with pytest.raises(Invalid, match="a relative path inside the data folder"):
            deed(name)


@pytest.mark.parametrize("kind", ["system", "memory with a folder"])
def test_a_path_leads_to_the_same_file(kind: str, tmp_path: Path) -> None:
    disk: Disk = SystemDisk(tmp_path) if kind == "system" else MemoryDisk(str(tmp_path))
    path = Path(disk.path("lake/events/1.parquet"))
    path.write_bytes(b"by a library")
    assert path.is_absolute()
    assert disk.read("lake/events/1.parquet") == b"by a library"
    assert disk.names("lake/**") == ["lake/events/1.parquet"]


def test_a_disk_in_memory_has_no_paths_without_a_folder() -> None:
    with pytest.raises(Unavailable, match="must be a disk with a folder for files"):
        MemoryDisk().path("lake")


def test_disks_in_memory_are_apart() -> None:
    one, other = MemoryDisk(), MemoryDisk()
    one.connect("a.db").execute("CREATE TABLE t(a)")
    one.write("f", b"")
    assert other.connect("a.db").execute("SELECT count(*) FROM sqlite_master").fetchall() == [(0,)]
    assert other.names("f") == []


def test_the_real_disk_commits_durably_and_overwrites_what_is_deleted(tmp_path: Path) -> None:
    db = SystemDisk(tmp_path).connect("journal.db")
    said = [
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "secure_delete")
    ]
    assert said == ["wal", 2, 1]
    assert (tmp_path / "journal.db").stat().st_mode & 0o077 == 0


def test_on_the_real_disk_a_reader_keeps_its_view_while_another_writes(tmp_path: Path) -> None:
    disk = SystemDisk(tmp_path)
    writer, reader = disk.connect("a.db"), disk.connect("a.db")
    writer.execute("CREATE TABLE t(a)")
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    writer.execute("INSERT INTO t VALUES (1)")
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(1,)]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SystemDisk(tmp_path)
    disk.write("receipt", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(Unavailable, match="receipt: got No space left on device"):
            disk.write("receipt", b"new")
    with pytest.raises(ZeroDivisionError):
        disk.write("receipt", (bytes(1 // each) for each in (1, 0)))
    assert disk.read("receipt") == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["receipt"]


def test_what_is_no_database_is_unavailable_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database, but a letter to a friend" * 100)
    (tmp_path / "folder.db").mkdir()
    for name in ("a.db", "folder.db"):
        with pytest.raises(Unavailable, match=name):
            SystemDisk(tmp_path).connect(name)
    assert (tmp_path / "a.db").read_bytes().startswith(b"not a database")


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "out").symlink_to(tmp_path)
    disk = SystemDisk(tmp_path / "data")
    for deed in (disk.read, disk.path, disk.connect, disk.remove):
        with pytest.raises(Invalid, match="no link leads out"):
            deed("out/secret")
    assert (tmp_path / "secret").exists()


@given(st.text(alphabet="ab./*\\~ é", min_size=1, max_size=12))
def test_a_plain_name_stays_inside_and_is_its_own_plain_name(name: str) -> None:
    try:
        plain = plain_name(name)
    except Invalid:
        return
    assert plain_name(plain) == plain
    assert Path("/data/of/all", plain).resolve().is_relative_to("/data/of/all")
    assert listed(plain, "**") == (not any(part.startswith(".") for part in plain.split("/")))


# --- network ------------------------------------------------------------------------------------------


class Receiver(BaseHTTPRequestHandler):
    """Answers by path: /200, /500, /429?retry-after, /huge, /drip, /redirect, /cut."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        kind, _, after = self.path.lstrip("/").partition("?")
        if kind == "drip":
            self._drip()
            return
        self.send_response({"huge": 200, "redirect": 302, "cut": 200}.get(kind) or int(kind))
        if after:
            self.send_header("Retry-After", after.replace("%20", " "))
        if kind == "redirect":
            self.send_header("Location", "/200")
        self.send_header("Content-Length", str(10**12) if kind in ("huge", "cut") else "0")
        self.end_headers()
        if kind == "huge":
            self._pour()

    def _pour(self) -> None:
        try:
            for _ in range(10_000):
                self.wfile.write(b"x" * 65_536)
                self.server.n_poured += 65_536  # type: ignore[attr-defined]
        except OSError:
            self.close_connection = True

    def _drip(self) -> None:
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for n in range(600):
                self.wfile.write(f"X-{n}: slow\r\n".encode())
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def receiver() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    server.seen, server.n_poured = [], 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def address(receiver: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{receiver.server_port}"


def test_a_post_arrives_whole(receiver: ThreadingHTTPServer, address: str) -> None:
    sent = HERE().post(f"{address}/204?", {"webhook-id": "m1", "Content-Type": "application/json"}, b"{}", 5)
    path, headers, body = receiver.seen[-1]  # type: ignore[attr-defined]
    assert sent == Sent(True, 204, "204 No Content")
    assert (path, headers["webhook-id"], body) == ("/204", "m1", b"{}")


def test_an_answer_outside_200_to_299_is_a_failure_with_its_status(address: str) -> None:
    net = HERE()
    assert net.post(f"{address}/500", {}, b"", 5) == Sent(False, 500, "500 Internal Server Error")
    assert net.post(f"{address}/410", {}, b"", 5) == Sent(False, 410, "410 Gone")
    assert net.post(f"{address}/799", {}, b"", 5) == Sent(False, 799, "799")


@pytest.mark.parametrize(
    "given, seconds",
    [
        ("120", 120.0),
        ("0", 0.0),
        ("99999999999999999999", 604_800.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
    ],
)
def test_retry_after_is_read(address: str, given: str, seconds: float | None) -> None:
    sent = HERE().post(f"{address}/429?{given.replace(' ', '%20')}", {}, b"", 5)
    assert (sent.ok, sent.status, sent.retry_after_s) == (False, 429, seconds)


def test_a_redirect_is_not_followed(receiver: ThreadingHTTPServer, address: str) -> None:
    n_before = len(receiver.seen)  # type: ignore[attr-defined]
    assert HERE().post(f"{address}/redirect", {}, b"", 5) == Sent(False, 302, "302 Found")
    assert len(receiver.seen) == n_before + 1  # type: ignore[attr-defined]


def test_a_huge_answer_is_not_read_to_its_end(receiver: ThreadingHTTPServer, address: str) -> None:
    assert HERE().post(f"{address}/huge", {}, b"", 30).status == 200
    assert receiver.n_poured < 100_000_000  # type: ignore[attr-defined]


def test_an_answer_whose_body_breaks_off_still_has_its_status(address: str) -> None:
    assert HERE().post(f"{address}/cut", {}, b"", 0.3).status == 200


def test_a_destination_that_drips_bytes_is_cut_at_the_deadline(address: str) -> None:
    assert HERE().post(f"{address}/drip", {}, b"", 0.3) == Sent(False, 0, "timed out")


@pytest.fixture
def half_open() -> Iterator[str]:
    """A listener that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_half_open_destination_times_out(half_open: str) -> None:
    assert HERE().post(f"http://{half_open}/", {}, b"", 0.2) == Sent(False, 0, "timed out")
    assert HERE().post(f"https://{half_open}/", {}, b"", 0.2) == Sent(False, 0, "timed out")
    assert HERE().mail(half_open, "a@b.fi", "c@d.fi", b"", 0.2) == Sent(False, 0, "timed out")


def test_a_refused_connection_is_a_failure(nobody: str) -> None:
    assert HERE().post(f"http://{nobody}/", {}, b"", 5) == Sent(False, 0, "connection refused")
    assert HERE().mail(nobody, "a@b.fi", "c@d.fi", b"", 5) == Sent(False, 0, "connection refused")


def test_plain_http_behind_https_is_a_failure(address: str) -> None:
    sent = HERE().post(address.replace("http:", "https:"), {}, b"", 5)
    assert (sent.ok, sent.status) == (False, 0)


class Gibberish(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(65_536)
        self.request.sendall(b"\x00\xff\r\n\r\n" * 1_000)


def test_a_destination_that_speaks_no_http_is_a_failure() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Gibberish) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        sent = HERE().post(f"http://127.0.0.1:{server.server_address[1]}/", {}, b"", 5)
    assert (sent.ok, sent.status) == (False, 0)


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://a/", "file:///etc/passwd", "http://", "http://a:b/", "http://a:99999/", "http://[::1"),
        *("http://a b/", "http://127.0.0.1:1/\r\nX: y", "http://\ud800/", "http://" + "a" * 70 + ".fi/"),
    ],
)
def test_a_url_of_any_shape_is_a_failure_and_never_an_exception(url: str) -> None:
    sent = HERE().post(url, {}, b"", 1)
    assert (sent.ok, sent.status) == (False, 0)
    assert sent.detail


def test_headers_cannot_be_broken_out_of(receiver: ThreadingHTTPServer, address: str) -> None:
    n_before = len(receiver.seen)  # type: ignore[attr-defined]
    for headers in ({"a": "x\r\nb: y"}, {"a\r\nb": "x"}, {"a": "€"}):
        assert not HERE().post(f"{address}/200", headers, b"", 5).ok
    assert len(receiver.seen) == n_before  # type: ignore[attr-defined]


@pytest.mark.parametrize("timeout_s", [0, -1])
def test_no_time_is_a_failure(address: str, timeout_s: float) -> None:
    assert not HERE().post(f"{address}/200", {}, b"", timeout_s).ok
    assert not HERE().mail(address.removeprefix("http://"), "a@b.fi", "c@d.fi", b"", timeout_s).ok


# --- mail ---------------------------------------------------------------------------------------------


class Postbox:
    """A real SMTP server's handler: keeps what came and refuses the recipients named after a status."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.letters: list[Envelope] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith(("4", "5")):
            return f"{address[:3]} {address[0]}.1.1 <{address}> is unknown here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if b"refuse me" in (envelope.original_content or b""):
            return "554 no"
        self.letters.append(envelope)
        return "250 OK"


@pytest.fixture(scope="module")
def postbox() -> Iterator[Postbox]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    box = Postbox(f"127.0.0.1:{port}")
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box
    controller.stop()


def test_a_letter_arrives_with_its_envelope(postbox: Postbox) -> None:
    letter = b"Subject: hi\r\n\r\n.a line with a dot\r\n"
    sent = HERE().mail(postbox.server, "us@hetki.example", "you@there.example", letter, 5)
    assert sent == Sent(True, 250, "SMTP 250")
    got = postbox.letters[-1]
    assert (got.mail_from, got.rcpt_tos, got.content) == ("us@hetki.example", ["you@there.example"], letter)


def test_a_refusal_keeps_its_status_and_no_address(postbox: Postbox) -> None:
    net, server = HERE(), postbox.server
    assert net.mail(server, "us@a.fi", "550gone@a.fi", b"", 5) == Sent(False, 550, "SMTP 550 5.1.1")
    assert net.mail(server, "us@a.fi", "450busy@a.fi", b"", 5) == Sent(False, 450, "SMTP 450 4.1.1")
    assert net.mail(server, "us@a.fi", "you@a.fi", b"refuse me\r\n", 5) == Sent(False, 554, "SMTP 554")


@pytest.mark.parametrize(
    "server", ["", "localhost", "localhost:", "localhost:port", "localhost:99999", "[::1:25"]
)
def test_a_server_of_any_shape_is_a_failure_and_never_an_exception(server: str) -> None:
    sent = HERE().mail(server, "a@b.fi", "c@d.fi", b"", 1)
    assert (sent.ok, sent.status) == (False, 0)


@pytest.mark.parametrize(
    "recipient", ["a@b.fi>\r\nRCPT TO:<x@y.fi", "ä@b.fi", "\ud800@b.fi", "a@b.fi, x@y.fi", "", "a"]
)
def test_addresses_cannot_break_out_of_their_command(postbox: Postbox, recipient: str) -> None:
    n_before = len(postbox.letters)
    assert not HERE().mail(postbox.server, "a@b.fi", recipient, b"x", 5).ok
    assert len(postbox.letters) == n_before


def test_a_local_network_counts_and_carries_to_functions() -> None:
    seen: list[tuple[str, bytes]] = []

    def post(url: str, headers: dict[str, str], body: bytes) -> Sent:
        seen.append((url, body))
        return Sent(True, 200)

    def mail(server: str, sender: str, recipient: str, message: bytes) -> Sent:
        raise TimeoutError

    net: Net = (local := LocalNet(post, mail))
    assert net.post("http://app/", {}, b"{}", 1) == Sent(True, 200)
    assert net.mail("mail:25", "a@b.fi", "c@d.fi", b"", 1) == Sent(False, 0, "TimeoutError")
    assert (seen, local.n_posts, local.n_mails) == ([("http://app/", b"{}")], 1, 1)
    assert LocalNet().post("http://app/", {}, b"", 1) == Sent(False, 0, "connection refused")
    assert LocalNet().mail("mail:25", "a@b.fi", "c@d.fi", b"", 1) == Sent(False, 0, "connection refused")
