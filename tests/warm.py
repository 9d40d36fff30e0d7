"""Forks `hetki` commands from a process that has loaded everything: `python warm.py`, told by standard input.

Each line is JSON: `words` starts a command and prints its process id, `wait` prints how one ended. The worker
of a server, which is a process spawned afresh, is forked here as well: from a process that has loaded
everything and has opened nothing, so that it shares no more with its server than a spawned one does.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

import hetki.cli.running  # noqa: F401  loaded ahead: it is what commands run
from hetki.cli.main import main
from hetki.server import worker

#: What a worker's process is called, by which it is found.
WORKER = "hetki-worker"


class Parent:
    """A worker's server, which is alive as long as the process is that forks its workers."""

    pid: int

    def is_alive(self) -> bool:
        return os.getppid() == self.pid


class Forked:
    """A worker, as `multiprocessing.Process` shows one; `start` has it forked elsewhere."""

    line: socket.socket

    def __init__(self, target: object, args: tuple[str, str], daemon: bool) -> None:
        self._args = args
        self._pid = 0

    def start(self) -> None:
        self.line.sendall(json.dumps(self._args).encode())
        self._pid = int(self.line.recv(100))

    def is_alive(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True

    def join(self, timeout: float = 1e9) -> None:
        ends = time.monotonic() + timeout
        while self.is_alive() and time.monotonic() < ends:
            time.sleep(0.01)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.is_alive():
            os.kill(self._pid, number)

    exitcode = None


class Forking:
    """What stands for a context of `multiprocessing`."""

    Process = Forked


def fork_workers() -> None:
    """From here on this process has its workers forked by another, which ends with it."""
    Forked.line, line = socket.socketpair()
    if os.fork():
        line.close()
        worker.get_context = lambda method: Forking()
        return
    Forked.line.close()
    Parent.pid = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as where workers are started
    while told := line.recv(10_000):
        pid = os.fork()
        if pid == 0:
            line.close()
            with open("/proc/self/comm", "w") as name:
                name.write(WORKER)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            worker.parent_process = Parent
            worker.work(*json.loads(told))
            os._exit(0)
        line.sendall(str(pid).encode())
    os._exit(0)


def command(told: dict[str, Any]) -> None:
    """Become one command."""
    os.setsid()
    out = os.open(told["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (told["bytes_max"], told["bytes_max"]))
    sys.argv = ["hetki", *told["words"]]
    if told["words"][0] == "serve":
        fork_workers()
    main()
    sys.exit(0)


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        if "wait" in told:
            print(os.waitstatus_to_exitcode(os.waitpid(told["wait"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            command(told)
        print(pid, flush=True)
