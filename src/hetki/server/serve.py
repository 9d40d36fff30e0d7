"""Serve: the accepting process with its console, and the worker process beside it."""

from __future__ import annotations

from multiprocessing import get_context

import uvicorn

from hetki.engine.engine import open_folder
from hetki.server.access import Access, new_token
from hetki.server.app import app
from hetki.server.committer import Committer
from hetki.server.worker import work

#: Connections at once, and how long an idle one is kept: bounds that uvicorn leaves open.
CONNECTIONS_MAX = 1_000
IDLE_S = 30
BACKLOG_MAX = 512


def serve(folder: str, host: str, port: int) -> None:
    """Serve the project in a folder until interrupted. Raises what `open_folder` raises.

    The worker is a process of its own, started afresh so that it shares nothing with this one; it ends
    when this one does. On the first run a one-time token for the console is printed.
    """
    engine = open_folder(folder)
    committer = Committer(engine.acceptor.accept)
    worker = get_context("spawn").Process(target=work, args=(folder,), name="hetki-worker", daemon=True)
    worker.start()
    committer.start()
    address = f"http://{host}:{port}"
    if Access(engine.disk, engine.chance, engine.clock).is_new():
        token = new_token(engine.disk, engine.chance, engine.clock)
        print(f"Console: {address}/sign-in?token={token} (opens once; hetki token makes another)", flush=True)
    else:
        print(f"Console: {address}/ (hetki token makes a new token to sign in)", flush=True)
    try:
        uvicorn.run(
            app(engine, committer),
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=IDLE_S,
            backlog=BACKLOG_MAX,
        )
    finally:
        committer.stop()
        worker.terminate()
        worker.join()
