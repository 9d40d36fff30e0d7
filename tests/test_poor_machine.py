"""A machine that lacks what it needs: no room, a disk that refuses to be written, little memory.

A true server and its worker, on a disk that `refusing_disk.c` has refuse (no root is needed for that), and on
a small file system in memory that is really full. What is lacking comes back while they run.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import gzip
import json
import logging
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import duckdb
import pytest
from anyio import to_thread
from anyio._backends._asyncio import WorkerThread
from called import called
from serving import Command, Forking, Warm, eventually
from test_kill import FILES, SECRET

from hetki.engine.advance import advance
from hetki.engine.engine import Engine, open_folder
from hetki.engine.folding import read_event
from hetki.engine.rebuilding import rebuild
from hetki.errors import Unavailable
from hetki.server.threads import N_BODIES, N_PAGES, start_threads
from hetki.server.trouble import AGAIN_S_MAX, TOLD_MAX, Trouble
from hetki.store.journal import Kind
from hetki.store.shortage import shortage
from hetki.store.sqlite import transaction
from hetki.store.system import SystemDisk

FAULT = re.compile(r"^\S.*: got .+, must be .+\.$", re.DOTALL)
HERE = Path(__file__).parent
PAGES = ("/", "/customers", "/moments", "/moments/twice", "/rejected", "/outbox")
MAP = "import: desk\nsource: web\nevent: Help Viewed\noccurred_at: at\nuser_id: customer\n"


class Poor:
    """A project on a disk that can be made to refuse, its processes, and what was acknowledged."""

    def __init__(self, folder: Path, warm: Warm, by: Path) -> None:
        self.folder = folder / "project"
        self.data = self.folder / "data"
        self._warm = warm
        self._by = by
        self.acknowledged: set[str] = set()
        self._n = 0
        self._session = ""
        for name, text in FILES.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("PORT", "9").replace("SECRET", SECRET))

    def hetki(self, *words: str) -> Command:
        return self._warm.start(*words, "-C", str(self.folder))

    def serve(self) -> Command:
        self.server = self.hetki("serve", "--port", "0")
        self.address = self.server.address()
        found = re.search(r"token=(\w+)", self.server.text())
        assert found is not None
        _, headers, _ = self.get(f"/sign-in?token={found[1]}")
        self._session = headers["set-cookie"].partition(";")[0]
        return self.server

    def refuse(self, number: int) -> None:
        """From now on whatever would write fails with this errno; 0: nothing fails."""
        with self._by.open("r+b") as file:
            file.write(struct.pack("i", number))

    def send(self, n_events: int = 2, n_bytes: int = 10) -> tuple[int, dict[str, str], dict[str, object]]:
        """One body of events, packed; what is acknowledged is noted."""
        self._n += 1
        ids = [f"m{self._n}-{n}" for n in range(n_events)]
        event = {
            "type": "track",
            "event": "Help Searched",
            "userId": f"u{self._n}",
            "properties": {"n_results": 0, "text": "x" * n_bytes},
        }
        batch = [{**event, "messageId": each} for each in ids]
        body = gzip.compress(json.dumps({"batch": batch, "writeKey": "key-web"}).encode(), 1)
        said = self._ask("POST", "/v1/batch", body, {"content-encoding": "gzip"})
        if said[0] == 200:
            self.acknowledged.update(ids)
        return said[0], said[1], json.loads(said[2])

    def is_refused(self) -> bool:
        """Whether the server refuses, and as it should: 503, when to come back, and why in our words."""
        status, headers, said = self.send()
        if status == 200:
            return False
        assert (status, said["code"]) == (503, "unavailable") and int(headers["retry-after"]) > 0
        assert FAULT.match(str(said["message"])), said
        return True

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        return self._ask("GET", path, b"", {"cookie": self._session})

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, body, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def folds_all(self) -> None:
        """Until it has; if it never does, what the server said is told."""
        try:
            eventually("what was acknowledged, folded", self.is_folded)
        finally:
            print(self.server.text()[-5_000:])

    def is_folded(self) -> bool:
        """Whether the worker has folded all that was acknowledged."""
        time.sleep(0.1)
        with closing(SystemDisk(self.data).connect("state.db")) as db:
            row = db.execute("SELECT n FROM counts WHERE name = 'events'").fetchone()
        return row is not None and row[0] >= len(self.acknowledged)

    def opened(self) -> Engine:
        engine = open_folder(str(self.folder))
        advance(engine)
        return engine

    def is_whole(self) -> None:
        """Nothing acknowledged is missing or told twice, and nothing is harmed."""
        engine = self.opened()
        events = [each for each in engine.journal.read(0, 10**9) if each.kind is Kind.EVENT]
        stored = {event.message_id for each in events if (event := read_event(each)) is not None}
        assert self.acknowledged and self.acknowledged <= stored
        assert engine.db.execute("SELECT count(*) FROM events").fetchone() == (len(stored),)
        assert engine.journal.verify() > 0 and (again := rebuild(engine)).before == again.after
        for name in ("journal.db", "state.db", "secrets.db"):
            assert engine.disk.connect(name).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Warm, Path, Path]]:
    """Where commands are forked from, under the refusing disk; by which file it refuses, and where."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc (scripts/install-test-tools)")
    folder = tmp_path_factory.mktemp("poor").resolve()
    library, by = folder / "refusing_disk.so", folder / "errno"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "refusing_disk.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    by.write_bytes(struct.pack("i", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        patch.setenv("REFUSING_BY", str(by))
        patch.setenv("REFUSING_IN", str(folder / "work"))
        (folder / "out").mkdir()
        forking = Forking()  # whose disk refuses, as no other's does
        found = Warm(folder / "out", forking.address)
    yield found, by, folder / "work"
    found.stop()
    forking.stop()


@pytest.fixture
def poor(warm: tuple[Warm, Path, Path]) -> Iterator[Poor]:
    started, by, work = warm
    found = Poor(work, started, by)
    yield found
    found.refuse(0)
    started.stop()
    shutil.rmtree(work)


def log_of(server: Command, since: int) -> list[str]:
    lines = server.text().splitlines()[since:]
    return [re.sub(r"^level=\w+ log=[\w.]+ ", "", line) for line in lines]


def refused_and_back(poor: Poor, number: int) -> None:
    """Refused for a while, under load; then all that was acknowledged is folded, without help."""
    server = poor.server
    n_lines = len(log_of(server, 0))
    poor.refuse(number)
    for _ in range(30):
        assert poor.is_refused()
    for path in PAGES:
        assert poor.get(path)[0] == 200, path
    poor.refuse(0)
    assert not poor.is_refused()
    poor.folds_all()
    told = log_of(server, n_lines)
    assert sum(line.startswith("commit unavailable=") for line in told) == 2, "the first and the tenth"
    assert "commit works again n_failed=30" in told
    assert len(told) < 15 and not any("Traceback" in line for line in told), told


def test_a_disk_that_refuses_is_said_and_survived(poor: Poor) -> None:
    """Read-only, broken and beyond a quota, each come and gone under one running server."""
    poor.serve()
    poor.server.worker()
    assert not poor.is_refused()
    for number in (errno.EROFS, errno.EIO, errno.EDQUOT):
        refused_and_back(poor, number)
    little_memory_and_back(poor)
    assert poor.server.runs()
    poor.server.kill()
    poor.is_whole()
    for number, words in ((errno.EROFS, "serve"), (errno.EIO, "advance")):
        poor.refuse(number)
        command = poor.hetki(words)
        assert_for_want(command.wait(), command.text())


def little_memory_and_back(poor: Poor) -> None:
    """Server and worker may take no more memory, or a little: each request is answered, and none is lost."""
    statuses: list[int] = []
    for megabytes in (0, 16, 48):
        for pid in (poor.server.pid, poor.server.worker()):
            status = Path(f"/proc/{pid}/status").read_text()
            found = re.search(r"VmSize:\s+(\d+) kB", status)
            assert found is not None
            cap = (int(found[1]) + megabytes * 1_024) * 1_024
            resource.prlimit(pid, resource.RLIMIT_AS, (cap, resource.RLIM_INFINITY))
        for n_events in (1_200, 2, 2):
            status, headers, said = poor.send(n_events, 10_000 if n_events > 2 else 10)
            statuses.append(status)
            assert status == 200 or (status == 503 and int(headers["retry-after"]) > 0), said
        for path in PAGES:
            assert poor.get(path)[0] in (200, 503)
        for pid in (poor.server.pid, poor.server.worker()):
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert 503 in statuses and 200 in statuses
    assert poor.send(1_200, 10_000)[0] == 200
    assert poor.get("/")[0] == 200
    poor.folds_all()


def assert_for_want(status: int, text: str) -> None:
    """A command that lacked something: status 7, and why in our words."""
    assert status == 7, (status, text)
    assert FAULT.match(text.splitlines()[-1]) and "Traceback" not in text, text


# -- a small file system in memory, which is really full


class Small:
    """A file system of a few megabytes. `fill` leaves so many bytes; `make_room` gives back the rest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._ballast = folder / "ballast"
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    def fill(self, n_left: int) -> None:
        self.make_room()
        free = os.statvfs(self._folder)
        with suppress(OSError):  # a server may take some of it just then
            self._ballast.write_bytes(bytes(max(free.f_bavail * free.f_frsize - n_left, 0)))

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self._folder)], check=True)

    def n_files(self) -> int:
        stat = os.statvfs(self._folder)
        return stat.f_files - stat.f_ffree

    def end(self) -> None:
        subprocess.run(["umount", "-l", str(self._folder)], check=True)


@pytest.fixture
def small(poor: Poor) -> Iterator[Small]:
    found = Small(poor.data)
    yield found
    found.end()


def test_a_full_disk_is_said_and_survived(poor: Poor, small: Small) -> None:
    poor.serve()
    poor.server.worker()
    assert not poor.is_refused()
    for n_left in (300_000, 0):  # it fills up under load; and there is nothing at all
        n_lines = len(log_of(poor.server, 0))
        small.fill(n_left)
        eventually("a full disk", lambda: poor.send(20, 2_000)[0] == 503)
        for _ in range(20):
            poor.send(20, 2_000)
        for path in PAGES:
            assert poor.get(path)[0] == 200, path
        small.make_room()
        assert not poor.is_refused()
        poor.folds_all()
        told = log_of(poor.server, n_lines)
        assert any(line.startswith("commit unavailable=") for line in told), told
        assert len(told) < 20 and not any("Traceback" in line for line in told), told
    assert poor.server.runs()
    poor.server.kill()
    poor.is_whole()


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(poor: Poor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """A command in this process: its status, and what it said."""
    gc.freeze()

    def ran(*words: str) -> tuple[int, str]:
        ended = called([*words, "-C", poor.folder], monkeypatch, capsys)
        return ended.code, ended.out + ended.err

    yield ran
    gc.unfreeze()


def test_commands_on_a_full_disk_say_so_and_end_what_they_began(poor: Poor, small: Small, run: Run) -> None:
    """With more and more room: whatever a command had begun, the same or `--finish` ends it."""
    folder = poor.folder.parent
    (folder / "map.yaml").write_text(MAP)
    rows = "".join(f"2026-03-02T10:{n % 60:02}:00Z,u{n}\n" for n in range(500))
    (folder / "rows.csv").write_text("at,customer\n" + rows)
    commands = (
        ("import", str(folder / "rows.csv"), "--map", str(folder / "map.yaml")),
        ("lake", "rebuild"),
        ("export", "u1", "--to", str(poor.data / "u1.zip")),
        ("rebuild",),
        ("backup", "--to", str(poor.data / "backups"), "--secrets", str(poor.folder / "copies")),
    )
    n_stopped = [stopped_at_every_size(small, run, words) for words in commands]
    assert all(n_stopped), n_stopped
    assert all(erased_in_spite_of(small, run))
    small.remount(f"nr_inodes={small.n_files()}")
    assert_for_want(*run("lake", "rebuild"))
    small.remount("nr_inodes=10000")
    assert run("lake", "rebuild")[0] == 0
    small.remount("ro")
    for words in (("advance",), ("serve",), ("erase", "u2", "--by", "Desk"), commands[0], commands[1]):
        assert_for_want(*run(*words))
    small.remount("rw")
    engine = poor.opened()
    assert engine.state.counts()["events"] == 500
    assert engine.journal.verify() > 0 and (again := rebuild(engine)).before == again.after


def stopped_at_every_size(small: Small, run: Run, words: tuple[str, ...]) -> int:
    """Run a command with more and more room until it ends well; how often it stopped, each time in order."""
    n_stopped = 0
    for kilobytes in (0, 16, 64, 160, 400, 1_000, 16_000):
        small.fill(kilobytes * 1_024)
        status, text = run(*words)
        if status == 0:
            break
        assert_for_want(status, text)
        n_stopped += 1
    assert status == 0, text
    small.make_room()
    return n_stopped


def erased_in_spite_of(small: Small, run: Run) -> tuple[int, int]:
    """Erasures that the disk stops before they have begun, and after: said again, or finished."""
    stopped = [0, 0]
    for number in range(100):
        small.fill(number * 12_000)
        words = ("erase", f"u{100 + number}", "--by", "Desk")
        status, text = run(*words)
        small.make_room()
        if status == 0:
            break
        assert_for_want(status, text)
        has_begun = "an erasure that has begun" in text
        assert run("erase", "--finish" if has_begun else words[1], *words[2:])[0] == 0
        assert run(*words)[0] == 3, "nobody is called so any more"
        stopped[has_begun] += 1
    assert run("erase", "--receipts")[1].count("(genuine)") == sum(stopped) + 1
    return stopped[0], stopped[1]


# -- the words


def test_each_shortage_says_what_must_be_done() -> None:
    said = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room",
        errno.EROFS: "read-only",
        errno.EIO: "broken",
        errno.EMFILE: "ulimit",
        errno.ENOMEM: "later",
    }
    for number, hint in said.items():
        found = shortage(OSError(number, os.strerror(number)))
        assert found is not None and hint in found.faults[0].hint
    assert shortage(OSError(errno.ENOENT, "no such file")) is None and shortage(ValueError("x")) is None
    assert isinstance(shortage(RuntimeError("can't start new thread")), Unavailable)
    assert shortage(RuntimeError("a mistake of ours")) is None
    with pytest.raises(duckdb.Error) as asked:
        duckdb.connect(config={"memory_limit": "1MB", "temp_directory": ""}).execute(
            "SELECT list(i) FROM range(1000000) t(i)"
        ).fetchall()
    assert isinstance(shortage(asked.value), Unavailable), "the lake's engine has errors of its own"


def test_memory_that_is_short_undoes_a_transaction(tmp_path: Path) -> None:
    db = SystemDisk(tmp_path).connect("x.db")
    db.execute("CREATE TABLE told(n INTEGER)")
    with pytest.raises(Unavailable, match="no more of it"), transaction(db):
        db.execute("INSERT INTO told VALUES (1)")
        raise MemoryError
    with transaction(db):
        assert db.execute("SELECT count(*) FROM told").fetchone() == (0,)


def test_threads_that_find_no_room_hold_up_no_other_and_are_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_tried, start = 0, WorkerThread.start

    def third_fails(thread: WorkerThread) -> None:
        nonlocal n_tried
        n_tried += 1
        if n_tried == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def story() -> None:
        monkeypatch.setattr(WorkerThread, "start", third_fails)
        with pytest.raises(RuntimeError, match="start new thread"):
            await start_threads()
        async with asyncio.timeout(30):
            await start_threads()
            await asyncio.gather(*(to_thread.run_sync(int) for _ in range(2 * N_PAGES)))

    asyncio.run(story())
    assert n_tried == N_PAGES + N_BODIES + 1


def test_trouble_is_told_once_and_rests_longer_and_longer(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble(logging.getLogger("hetki.test"), "loop=x")
    rests = []
    for _ in range(1_000):
        trouble.tell("unavailable=no room")
        rests.append(trouble.rest_s())
    assert rests == sorted(rests) and rests[:3] == [1, 2, 4] and rests[-1] == AGAIN_S_MAX
    assert [record.getMessage().rpartition("=")[2] for record in caplog.records] == ["1", "10", "100", "1000"]
    for number in range(50):
        trouble.tell(f"another {number}")
    assert len(caplog.records) == 4 + TOLD_MAX - 1
    trouble.over()
    trouble.over()
    assert caplog.records[-1].getMessage() == "loop=x works again n_failed=1050"
    assert trouble.rest_s() == rests[0]
