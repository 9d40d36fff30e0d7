"""A real destination over HTTP that checks signatures and keeps one effect of each message."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hetki.dialogues.webhook import verify
from hetki.errors import Forbidden

SECRET = "whsec_aGV0a2kta2lsbC10ZXN0LWhldGtpLWtpbGwtdGVzdA=="


class Receiver:
    """A destination that has one effect per message id, and is now and then slow, broken or rude.

    While a process is its `victim`, it kills that one now and then: before the effect, or after it.
    """

    def __init__(self, seed: int) -> None:
        self.effects: dict[str, bytes] = {}
        self.n_repeats = 0
        self.wrong: list[str] = []
        self.victim = 0
        self.n_killed = 0
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def take(self, request: BaseHTTPRequestHandler) -> None:
        n_bytes = int(request.headers["content-length"])
        body = request.rfile.read(n_bytes)
        if len(body) < n_bytes:  # the sender was killed in the middle of it
            request.close_connection = True
            return
        try:
            message_id = verify(SECRET, dict(request.headers), body, time.time_ns() // 1_000_000_000, 10**9)
        except Forbidden as error:
            self.wrong.append(str(error))
            message_id = ""
        with self._lock:
            self._kill(0.1)
            mood = self._dice.random()
            told = mood > 0.05  # else it fails before it has done anything
            if told:
                self.n_repeats += message_id in self.effects
                if self.effects.setdefault(message_id, body) != body:
                    self.wrong.append(f"{message_id}: a repeat that says something else")
            self._kill(0.1)
        if mood < 0.03:
            request.send_response(503)
            request.end_headers()
        elif mood < 0.05 or mood > 0.97:
            request.close_connection = True  # no answer: before the effect, or after it
        else:
            if mood > 0.95:
                time.sleep(0.2)
            with suppress(OSError):
                request.send_response(200)
                request.end_headers()

    def _kill(self, share: float) -> None:
        if self.victim and self._dice.random() < share:
            with suppress(ProcessLookupError):
                os.kill(self.victim, signal.SIGKILL)
            self.victim = 0
            self.n_killed += 1

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
