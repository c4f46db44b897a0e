"""Serve a party's console on this machine until Ctrl-C or SIGTERM."""

import logging
import socket
from collections.abc import Callable

import uvicorn

from fedmkt.console.door import LOOPBACK, Door
from fedmkt.console.site import Site
from fedmkt.console.visit import Commands
from fedmkt.deploy.folders import PartyFolder
from fedmkt.errors import ConfigError
from fedmkt.transport.front import FrontLimits, guarded

_LIMITS = FrontLimits(connections=64, connections_per_address=64)


def serve_console(
    folder: PartyFolder, port: int, commands: Commands, user: str, say: Callable[[str], None]
) -> None:
    """Serve until this process is told to end; ConfigError if the port is taken.

    port : 0 for any free one. say : told the address once it is open.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except OSError as error:
            raise ConfigError(f"port {port}: {error.strerror}", "--port N takes another one") from None
        bound: int = listening.getsockname()[1]
        site = Site(folder, commands, user, port=lambda: bound)
        config = uvicorn.Config(
            Door(site, lambda: bound),
            loop="asyncio",
            http=guarded(_LIMITS),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_LIMITS.connections,
            timeout_keep_alive=int(_LIMITS.idle_seconds),
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=_LIMITS.head_bytes,
        )
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        say(f"http://{LOOPBACK}:{bound}/")
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn ends first and then raises the signal again
            return
