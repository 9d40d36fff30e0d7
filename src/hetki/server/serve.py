"""Serve: the accepting process with its console, and the worker process beside it."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import cast

import msgspec
import uvicorn

from hetki.engine.engine import open_folder
from hetki.errors import Conflict, Fault, Invalid
from hetki.server.access import Access
from hetki.server.app import Served
from hetki.server.committer import Committer
from hetki.server.door import LINGERING_MAX, Door
from hetki.server.doorkeeper import Doorkeeper
from hetki.server.following import Follower
from hetki.server.logs import set_up
from hetki.server.site import Site
from hetki.server.worker import Keeper
from hetki.settings import Connections, Server
from hetki.store.sqlite import alone

#: One server for a project: two would each keep sessions of their own.
LOCK = "serving.db"
BACKLOG_MAX = 512
#: Files and sockets of the process beside its connections.
OWN_FILES = 200
STOPPING_S = 5
#: uvicorn asks the clock of the machine how long ago deadlines were looked at; as that may be set back by any
#: time, no answer is too short.
EACH_TICK_S = -(10**12)
#: The status of a process that met what it does not know.
FAILED = 1

log = logging.getLogger("hetki.server")


def serve(folder: str, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the project in a folder until interrupted; port 0 takes one that is free.

    `say` is told the console's address, on the first run with a one-time token. Raises what `open_folder`
    raises, `Invalid` for no address, and `Conflict` if the project is served already or the address is taken.
    """
    set_up()
    engine = open_folder(folder)
    bounds = _within_files(engine.project.settings.connections)
    server = uvicorn.Server(_config(host, bounds, engine.project.server))
    taken = Fault(f"project {folder}", "a server that runs already", "served by one", "stop the other")
    with alone(engine.disk, LOCK, taken), _listening(host, port, bounds) as listening:
        committer = Committer(engine.acceptor.accept)
        access = Access(engine.disk, engine.clock, engine.chance)
        token = access.first_token()
        served = Served(engine, committer, access, lambda: server.should_exit)
        server.config.app = served
        _stop_on_signals(server)
        keeper = Keeper(folder, engine.project.settings.data)
        follower = Follower(served)
        keeper.start()
        follower.start()
        committer.start()
        opening = f"sign-in?token={token}   (opens once)" if token else "   (hetki token signs you in)"
        shown = f"[{host}]" if ":" in host else host
        here = f"http://{shown}:{listening.getsockname()[1]}"
        origin = engine.project.server.origin
        say(f"Console: {origin or here}/{opening}" + (f"; listening at {here}" if origin else ""))
        try:
            server.run(sockets=[listening])
        except Exception:
            log.exception("server=failed")
            raise SystemExit(FAILED) from None
        finally:
            follower.stop()
            committer.stop()
            keeper.stop()


def _config(host: str, bounds: Connections, reached: Server) -> uvicorn.Config:
    keeper = Doorkeeper(bounds, Site(reached))
    return uvicorn.Config(
        "",
        host=host,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        http=cast(type[asyncio.Protocol], partial(Door, keeper)),
        ws="none",
        proxy_headers=False,  # only declared proxies are believed: server/site.py
        timeout_keep_alive=bounds.idle_s,
        callback_notify=keeper.sweep,
        timeout_notify=EACH_TICK_S,
        timeout_graceful_shutdown=STOPPING_S,
        backlog=BACKLOG_MAX,
    )


def _within_files(bounds: Connections) -> Connections:
    """Bounds that the process has files for, once it has been allowed as many as they ask for."""
    wanted = bounds.connections_max + LINGERING_MAX + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    if soft != endless and soft < wanted:
        soft = wanted if hard == endless else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == endless or soft >= wanted:
        return bounds
    connections_max = max(1, bounds.connections_max - (wanted - soft))
    log.warning("connections_max=%d files_max=%d", connections_max, soft)
    return msgspec.structs.replace(bounds, connections_max=connections_max)


def _listening(host: str, port: int, bounds: Connections) -> socket.socket:
    """A socket that listens; raises `Invalid` or `Conflict`. Connections inherit how long a silent peer is
    believed in."""
    if not host:  # to the system it would be all of them
        raise Invalid(Fault("--host", "nothing", "an address of this machine", "0.0.0.0 is all of them"))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG_MAX)
    except OSError as error:
        got = (error.strerror or str(error)).partition(" (")[0].lower()
        must = "a free address of this machine"
        raise Conflict(Fault(f"{host}:{port}", got, must, "name another with --port")) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, bounds.answer_s * 1_000)
    return listening


def _stop_on_signals(server: uvicorn.Server) -> None:
    """End in order on SIGTERM and Ctrl-C.

    uvicorn does so by itself and then raises the signal again, for whoever had a handler before it: with
    none, that would kill this process in the middle of its last steps.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
