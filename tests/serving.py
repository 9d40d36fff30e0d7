"""`hetki` as real processes, for tests: started, asked, killed; nothing is left running.

`Warm` forks commands from a process that has loaded everything, so that a restart costs no seconds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

PATIENCE_S = 60.0

#: Forks commands from itself.
FORKING = Path(__file__).with_name("warm.py")
#: How the command line of a worker begins that was spawned, and what one is called that was forked.
SPAWNED, FORKED = b"spawn_main", b"hetki-worker"


def eventually(what: str, ask: Callable[[], bool]) -> None:
    """Ask until it is so; fails with `what` if it never is."""
    ends = time.monotonic() + PATIENCE_S
    while not ask():
        assert time.monotonic() < ends, f"never: {what}"
        time.sleep(0.01)


def n_stores_open() -> int:
    """Files of databases that this process has open."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += ".db" in os.readlink(each)
    return found


class Command:
    """One running command, the leader of its own process group, with what it printed."""

    def __init__(self, pid: int, out: Path, wait: Callable[[], int]) -> None:
        self.pid = pid
        self._out = out
        self._wait = wait
        self._code: int | None = None

    def text(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    def address(self) -> tuple[str, int]:
        """Where a server listens, as soon as it does."""
        found: list[re.Match[str]] = []

        def listens() -> bool:
            found.extend(re.finditer(r"http://([^/\s]+):(\d+)/", self.text()))
            assert found or self.runs(), self.text()
            return bool(found)

        eventually("a server that listens", listens)
        return found[0][1].strip("[]"), int(found[0][2])

    def runs(self) -> bool:
        return _state(self.pid) not in ("", "Z")

    def worker(self) -> int:
        """The process id of the server's worker, as soon as there is one."""
        found: list[int] = []

        def is_there() -> bool:
            found.extend(pid for pid in group(self.pid) if _is_worker(pid))
            return bool(found)

        eventually("a worker", is_there)
        return found[0]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        if self._code is None:
            eventually("the end of a command", lambda: not self.runs())
            self._code = self._wait()
        return self._code

    def kill(self) -> None:
        """kill -9 for the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def group(leader: int) -> list[int]:
    """The living processes of a group."""
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    return [pid for pid in pids if _state(pid) not in ("", "Z") and _fields(pid)[2:3] == [str(leader)]]


def is_alive(pid: int) -> bool:
    return _state(pid) not in ("", "Z")


def _fields(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the state on: state, parent, group ..."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _state(pid: int) -> str:
    return (_fields(pid) or [""])[0]


def _is_worker(pid: int) -> bool:
    with suppress(OSError):
        of_process = Path(f"/proc/{pid}")
        is_forked = (of_process / "comm").read_bytes().strip() == FORKED
        return is_forked or SPAWNED in (of_process / "cmdline").read_bytes()
    return False


class Warm:
    """A process that forks commands from itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._n = 0
        self._started: list[Command] = []
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(FORKING)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def start(self, *words: str, bytes_max: int = -1) -> Command:
        """`hetki WORDS`; no file that it writes may be larger than `bytes_max` (-1: no bound)."""
        self._n += 1
        out = self._folder / f"out-{self._n}.txt"
        pid = self._tell({"words": words, "out": str(out), "bytes_max": bytes_max})
        command = Command(pid, out, lambda: self._tell({"wait": pid}))
        self._started.append(command)
        return command

    def end_all(self) -> None:
        """kill -9 for every command that runs still."""
        for each in self._started:
            each.kill()
        self._started.clear()

    def stop(self) -> None:
        self.end_all()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _tell(self, told: dict[str, object]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


def start(folder: Path, *words: str, environment: dict[str, str] | None = None) -> Command:
    """`hetki WORDS` as a process of its own; what it prints goes to a file in `folder`."""
    out = folder / f"out-{len(list(folder.glob('out-*')))}.txt"
    with out.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "hetki", *words],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    return Command(process.pid, out, process.wait)


@contextmanager
def running(folder: Path, *words: str) -> Iterator[Command]:
    """`start`, and the end of the whole group when the block ends."""
    command = start(folder, *words)
    try:
        yield command
    finally:
        command.kill()


def post(
    address: tuple[str, int], path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, object]]:
    """POST to a server: the status, and the JSON that came back."""
    connection = HTTPConnection(*address, timeout=30)
    try:
        connection.request("POST", path, body, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
