"""The coordinator's own programs: `python -m fedmkt.deploy.serve front|hub|register FOLDER`.

Each is a process of its own below the supervisor, so that one that dies takes no other along.
"""

import base64
import functools
import logging
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import FrameType

from fedmkt.crypto.certificates import serial_of
from fedmkt.deploy.admission import register_all
from fedmkt.deploy.folders import (
    CoordinatorFolder,
    load_coordinator_folder,
    read_file,
    read_identity,
    read_secret,
)
from fedmkt.deploy.provision import our_versions
from fedmkt.deploy.registry import Registry, read_registry
from fedmkt.errors import FedmktError, TransportError

HUB_LISTENS = "hub: listens on"
_REGISTER_SECONDS = 30.0
_FILES = 65_536
_LOGGER = logging.getLogger("fedmkt.serve")


def serve_front_of(root: Path) -> None:
    """Serve the front of a coordinator's folder until SIGTERM."""
    from fedmkt.transport.front import Front, FrontFacts, serve_front

    folder = CoordinatorFolder(root)
    settings = load_coordinator_folder(folder)
    read_secret(folder.server_key)  # refused if others can read it
    registry = _Fresh(folder.registry)
    ours = our_versions()

    def is_registered(name: str) -> bool:
        party = registry.get().find(name)
        return party is not None and party.revoked is None

    def is_node(key: bytes) -> bool:
        return key in _keys_as_shown(registry.get().node_keys())

    facts = FrontFacts(ours.fedmkt, ours.flwr, is_registered, is_node)
    upstream = f"https://127.0.0.1:{settings.superlink_port}"
    front = Front(upstream, folder.authority, settings.hosts, facts)
    serve_front(front, settings.listen, settings.front_port, folder.server_certificate, folder.server_key)


def serve_hub_of(root: Path) -> None:
    """Serve the hub of a coordinator's folder until SIGTERM."""
    from fedmkt.transport.hub_identity import Admitted, ServerTls
    from fedmkt.transport.hub_server import Hub

    folder = CoordinatorFolder(root)
    settings = load_coordinator_folder(folder)
    registry = _Fresh(folder.registry)
    identity = read_identity(folder.identity).public
    serial = int(serial_of(read_file(folder.tls_certificate)), 16)
    ourselves = Admitted(settings.name, identity, serial)

    def admitted() -> Mapping[str, Admitted]:
        parties = {
            party.name: Admitted(
                party.name, bytes.fromhex(party.identity), int(party.serial, 16), party.revoked is not None
            )
            for party in registry.get().parties
        }
        return {**parties, settings.name: ourselves}

    keys = (read_secret(folder.server_key), read_file(folder.server_certificate), read_file(folder.authority))
    address = f"{bracketed(settings.listen)}:{settings.hub_port}"
    hub = Hub(admitted, ServerTls(*keys), address, settings.name)
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        # Not set here: this may run while the main thread holds the lock of `ended`.
        threading.Thread(target=ended.set).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    hub.start()
    print(f"{HUB_LISTENS} {address}", flush=True)
    try:
        ended.wait()
    finally:
        hub.stop()


def register_nodes_of(root: Path) -> None:
    """Tell a running SuperLink which nodes may take part, and which may not any more."""
    from fedmkt.deploy.executor import control_of

    folder = CoordinatorFolder(root)
    with closing(control_of(folder)) as control:
        _until_heard(control.nodes)
        count = register_all(folder, control)
    print(f"{count} nodes registered", flush=True)


def _until_heard(ask: Callable[[], object]) -> None:
    deadline = time.monotonic() + _REGISTER_SECONDS
    while True:
        try:
            ask()
            return
        except TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@functools.lru_cache(maxsize=1)
def _keys_as_shown(keys: tuple[bytes, ...]) -> frozenset[bytes]:
    """Write node keys as Flower's nodes show them in a header."""
    return frozenset(map(base64.b64encode, keys))


class _Fresh:
    """The registry as it is on disk now; while it cannot be read, as it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = _mark(path)
        self._registry = read_registry(path)

    def get(self) -> Registry:
        """Return the registry, read again if its file is another one."""
        mark = _mark(self._path)
        if mark != self._mark:
            try:
                self._registry, self._mark = read_registry(self._path), mark
            except FedmktError as error:
                _LOGGER.error("%s", error)
        return self._registry


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def bracketed(host: str) -> str:
    """Write a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


_SERVICES = {"front": serve_front_of, "hub": serve_hub_of, "register": register_nodes_of}


def main(arguments: list[str]) -> int:
    """Run one program of a folder; one line and an exit code for what goes wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if len(arguments) != 2 or arguments[0] not in _SERVICES:
        print(__doc__)
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        _SERVICES[arguments[0]](Path(arguments[1]))
    except FedmktError as error:
        print(f"fedmkt: error: {error}" + (f"; {error.hint}" if error.hint else ""), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
