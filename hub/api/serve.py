"""Running the API: one process, one address, no access log (an address could still carry what it must not)."""

from __future__ import annotations

import gc
import socket

from connectors.errors import FatalError
from hub import catalogue_standing, database, home

GENERATIONS = 10_000, 20, 20  # Python's own are made for programs that make little garbage at once


def serve(host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until interrupted. FatalError ``port-taken``; ``items-altered`` where the catalogue is not as it was published. An
    external database may still be away, ``/readyz`` tells; it is not used before it has been asked what was published."""
    import uvicorn

    from hub.api.app import create
    from hub.api.wire import Wire

    listener = listen(host, port)
    application = create()
    database.require(catalogue_standing.require)
    try:
        database.engine()
    except FatalError as error:
        if home.current().database_url is None or error.code == "items-altered":
            raise
    config = uvicorn.Config(
        application,
        http=Wire,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        log_level="warning",
        lifespan="off",
        proxy_headers=False,  # the application does it, where it matters
    )
    # What is here now stays: looking through it again and again would hold up whoever asks meanwhile.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GENERATIONS)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. FatalError ``port-taken``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise FatalError("port-taken", host=host, port=port) from None
    return listener
