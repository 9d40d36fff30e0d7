"""`hetki` as real processes, for tests: started, asked, killed; nothing is left running.

`Warm` has commands forked by a process that has loaded everything, so that a restart costs no seconds. All
tests of one run share that process (`conftest.py`), and so does `tests/bin/hetki`, which the pages call.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

from line import ADDRESS, heard, tell

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
        self.out = out
        self._wait = wait
        self._code: int | None = None

    def text(self) -> str:
        return self.out.read_text() if self.out.exists() else ""

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


class Forking:
    """The process that forks commands from itself, and where it is told of them."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="hetki-")
        self.address = f"{self._folder.name}/line"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            words, end = [sys.executable, str(FORKING), str(listener.fileno())], listener.fileno()
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[end]
            )

    def stop(self) -> None:
        """End it, and with it all that it runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


class Warm:
    """Starts commands that are forked, in the environment that it was made in."""

    def __init__(self, folder: Path, address: str = "", bounds: dict[int, int] | None = None) -> None:
        self._folder = folder
        self._address = address or os.environ[ADDRESS]
        self._environment = dict(os.environ)
        self._bounds = bounds or {}
        self._n = 0
        self._started: list[Command] = []

    def start(self, *words: str, bytes_max: int = -1) -> Command:
        """`hetki WORDS`; no file that it writes may be larger than `bytes_max` (-1: no bound)."""
        self._n += 1
        out = self._folder / f"out-{self._n}.txt"
        bounds = {resource.RLIMIT_FSIZE: bytes_max, **self._bounds}
        with open(os.devnull, "rb") as nothing, out.open("ab") as said:
            ends = [nothing.fileno(), said.fileno(), said.fileno()]
            line = tell(self._address, list(words), self._environment, bounds, ends)
        command = Command(heard(line), out, lambda: heard(line))
        self._started.append(command)
        return command

    def stop(self) -> None:
        """kill -9 for every command that runs still."""
        for each in self._started:
            each.kill()
        self._started.clear()


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
