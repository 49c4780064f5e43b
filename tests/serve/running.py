"""A real server in a thread, for real clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from conjure.serve import listening
from conjure.serve.app import build
from conjure.serve.settings import Settings


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The address of a server with these settings, on a free port of this machine."""
    config = listening.config(build(settings), settings, host="127.0.0.1", port=0, log_level="error",
                              timeout_graceful_shutdown=2)  # fmt: skip
    server = uvicorn.Server(config)
    taken = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        taken.close()
