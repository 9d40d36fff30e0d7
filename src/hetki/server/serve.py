"""Serve: the accepting process with its console, and the worker process beside it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from hetki.engine.engine import open_folder
from hetki.errors import Conflict, Fault
from hetki.server.access import Access
from hetki.server.app import Served
from hetki.server.committer import Committer
from hetki.server.following import Follower
from hetki.server.worker import Keeper
from hetki.store.sqlite import alone

#: One server for a project: two would each keep sessions of their own.
LOCK = "serving.db"
#: Connections at once, and how long an idle one is kept: bounds that uvicorn leaves open.
CONNECTIONS_MAX = 1_000
IDLE_S = 30
BACKLOG_MAX = 512
STOPPING_S = 5


def serve(folder: str, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the project in a folder until interrupted; port 0 takes one that is free.

    `say` is told the console's address, on the first run with a one-time token. Raises what `open_folder`
    raises, and `Conflict` if the project is served already or the address is taken.
    """
    engine = open_folder(folder)
    server = uvicorn.Server(_config(host))
    taken = Fault(f"project {folder}", "a server that runs already", "served by one", "stop the other")
    with alone(engine.disk, LOCK, taken), _listening(host, port) as listening:
        committer = Committer(engine.acceptor.accept)
        access = Access(engine.disk, engine.clock, engine.chance)
        served = Served(engine, committer, access, lambda: server.should_exit)
        server.config.app = served
        _stop_on_signals(server)
        keeper = Keeper(folder, engine.project.settings.data)
        follower = Follower(served)
        keeper.start()
        follower.start()
        committer.start()
        token = access.first_token()
        opening = f"sign-in?token={token}   (opens once)" if token else "   (hetki token signs you in)"
        shown = f"[{host}]" if ":" in host else host
        here = f"http://{shown}:{listening.getsockname()[1]}"
        origin = engine.project.server.origin
        say(f"Console: {origin or here}/{opening}" + (f"; listening at {here}" if origin else ""))
        try:
            server.run(sockets=[listening])
        finally:
            follower.stop()
            committer.stop()
            keeper.stop()


def _config(host: str) -> uvicorn.Config:
    return uvicorn.Config(
        "",
        host=host,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        proxy_headers=False,  # only declared proxies are believed: server/site.py
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=STOPPING_S,
        backlog=BACKLOG_MAX,
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens; raises `Conflict`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG_MAX)
    except OSError as error:
        got = (error.strerror or str(error)).partition(" (")[0].lower()
        must = "a free address of this machine"
        raise Conflict(Fault(f"{host}:{port}", got, must, "name another with --port")) from error


def _stop_on_signals(server: uvicorn.Server) -> None:
    """End in order on SIGTERM and Ctrl-C.

    uvicorn does so by itself and then raises the signal again, for whoever had a handler before it: with
    none, that would kill this process in the middle of its last steps.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
