"""Forks `hetki` commands from a process that has loaded everything; its first argument is the socket, open.

Whoever connects says what to run and gives the ends that the command reads and writes (`line.py`), and hears
how it ended. If it hangs up before, the command and its group are killed; and so are all when this process's
own input ends, so that nothing is left running.

The worker of a server, which is a process spawned afresh, is forked here as well: from a process that has
loaded everything and has opened nothing, so that it shares no more with its server than a spawned one does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import cache
from typing import Any, NoReturn

from line import accepted, answer

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
    worker = importlib.import_module("hetki.server.worker")
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


def command(told: dict[str, Any], ends: list[int]) -> NoReturn:
    """Become one command."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, end in enumerate(ends):
        os.dup2(end, number)
        os.close(end)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    for kind, bound in told["bounds"].items():
        resource.setrlimit(int(kind), (bound, bound))
    sys.argv = ["hetki", *told["words"]]
    if told["words"][:1] == ["serve"]:
        fork_workers()
    status = 0
    try:
        importlib.import_module("hetki.cli.main").main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    leave(status)


def leave(status: int) -> NoReturn:
    """End as Python does, but do not take apart what is loaded: that takes longer than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        status = 120
    os._exit(status)


class Lines:
    """Who is connected, and for which command."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._running: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        wakes, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake.fileno())
        for end, meets in ((sys.stdin, self._end), (listener, self._begin), (wakes, self._reap)):
            self._selector.register(end, selectors.EVENT_READ, meets)

    def serve(self) -> NoReturn:
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _begin(self, listener: socket.socket) -> None:
        """Somebody connects: fork the command, in whose process this never returns."""
        try:
            line, said, ends = accepted(listener)
        except (OSError, ValueError):  # it has hung up before it had said all
            return
        load()
        pid = os.fork()
        if pid == 0:
            for each in (listener, line, self._wake, *self._running.values()):
                each.close()
            self._selector.close()
            command(json.loads(said), ends)
        for end in ends:
            os.close(end)
        self._running[pid] = line
        self._selector.register(line, selectors.EVENT_READ, self._hang_up)
        with suppress(OSError):  # it has hung up already
            answer(line, pid)

    def _reap(self, wakes: socket.socket) -> None:
        """Somebody has ended: tell how."""
        wakes.recv(1_000)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            line = self._running.pop(pid)
            with suppress(KeyError):
                self._selector.unregister(line)
            with suppress(OSError):
                answer(line, os.waitstatus_to_exitcode(status))
            line.close()

    def _hang_up(self, line: socket.socket) -> None:
        for pid in [pid for pid, each in self._running.items() if each is line]:
            self._selector.unregister(line)
            kill(pid)

    def _end(self, _: object) -> NoReturn:
        for pid in self._running:
            kill(pid)
        os._exit(0)


def kill(pid: int) -> None:
    """Kill a command that nobody has waited for, and its group if it leads one already."""
    os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@cache
def load() -> None:
    """Load what any command needs, once; a child then shares it, and its collector leaves it alone."""
    for module, _ in importlib.import_module("hetki.cli.main").COMMANDS.values():
        importlib.import_module(f"hetki.cli.{module}")
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    Lines(socket.socket(fileno=int(sys.argv[1]))).serve()
