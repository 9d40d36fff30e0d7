"""How a process tells the one that forks commands (`warm.py`) what to run, and hears how it ended.

Of the standard library alone, and little of it: `bin/hetki` loads this each time that a page calls `hetki`.
"""

from __future__ import annotations

import json
import os
import socket

#: The variable that says where the process listens that all tests of one run share.
ADDRESS = "HETKI_FORKED_BY"
#: How an answer goes over the line: the process id, then the status (below zero: by which signal).
ANSWER_BYTES = 8


def tell(
    address: str, words: list[str], environment: dict[str, str], bounds: dict[int, int], ends: list[int]
) -> socket.socket:
    """Have `hetki WORDS` started in this folder, on these three ends; the line on which to hear of it.

    The command is killed if the line is closed before it has ended.
    """
    told = {"words": words, "folder": os.getcwd(), "environment": environment, "bounds": bounds}
    said = json.dumps(told).encode()
    line = socket.socket(socket.AF_UNIX)
    line.connect(address)
    line.sendall(len(said).to_bytes(4, "big"))
    socket.send_fds(line, [said[:1]], ends)
    line.sendall(said[1:])
    return line


def accepted(listener: socket.socket) -> tuple[socket.socket, bytes, list[int]]:
    """A new line, what `tell` said on it, and the ends that it gave."""
    line, _ = listener.accept()
    size = int.from_bytes(line.recv(4, socket.MSG_WAITALL), "big")
    said, ends, _, _ = socket.recv_fds(line, 1, 3)
    return line, said + line.recv(size - 1, socket.MSG_WAITALL), ends


def answer(line: socket.socket, number: int) -> None:
    line.sendall(number.to_bytes(ANSWER_BYTES, "big", signed=True))


def heard(line: socket.socket) -> int:
    """The next answer: the process id first, then the status."""
    said = line.recv(ANSWER_BYTES, socket.MSG_WAITALL)
    if len(said) != ANSWER_BYTES:
        raise ConnectionError("what forks commands has ended")
    return int.from_bytes(said, "big", signed=True)
