"""Serve: the accepting process with its console, and the worker process beside it."""

from __future__ import annotations

from multiprocessing import get_context

import uvicorn

from hetki.engine.engine import open_folder
from hetki.server.access import Access
from hetki.server.app import app
from hetki.server.committer import Committer
from hetki.server.worker import work

#: Connections at once, and how long an idle one is kept: bounds that uvicorn leaves open.
CONNECTIONS_MAX = 1_000
IDLE_S = 30
BACKLOG_MAX = 512
STOPPING_S = 5


def serve(folder: str, host: str, port: int) -> None:
    """Serve the project in a folder until interrupted. Raises what `open_folder` raises.

    The worker is a process of its own, started afresh so that it shares nothing with this one; it ends
    when this one does. On the first run a one-time token for the console is printed.
    """
    engine = open_folder(folder)
    committer = Committer(engine.acceptor.accept)
    access = Access(engine.disk, engine.clock, engine.chance)
    config = uvicorn.Config(
        "",
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=STOPPING_S,
        backlog=BACKLOG_MAX,
    )
    server = uvicorn.Server(config)
    config.app = app(engine, committer, access, lambda: server.should_exit)
    worker = get_context("spawn").Process(target=work, args=(folder,), name="hetki-worker", daemon=True)
    worker.start()
    committer.start()
    token = access.first_token()
    opening = f"sign-in?token={token}   (opens once)" if token else "   (hetki token signs you in)"
    print(f"Console: http://{host}:{port}/{opening}", flush=True)
    try:
        server.run()
    finally:
        committer.stop()
        worker.terminate()
        worker.join()
