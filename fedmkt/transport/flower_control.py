"""The operator's side of Flower: nodes, runs, and the one bundle that a run is started with.

Talks to SuperLink's Control API, which has no authentication of its own and is therefore reachable on the
coordinator's loopback only. Flower sends a bundle of code to the nodes; ours holds nothing but the names of
modules that each party installed itself, and a party refuses any other (`flower_tasks`).
"""

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import user_config_to_proto
from flwr.proto import control_pb2 as control
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from fedmkt.errors import PeerError, TransportError

_PYPROJECT = b"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fedmkt-run"
version = "1.0.0"
description = "Names of modules that every participant installed itself"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedmkt"

[tool.flwr.app.components]
serverapp = "fedmkt.transport.flower_tasks:nothing"
clientapp = "fedmkt.transport.flower_tasks:nothing"

[tool.flwr.app.config]
run = ""
"""
_once = threading.Lock()


def bundle() -> bytes:
    """Build the bundle: the same bytes on every machine."""
    with _once, warnings.catch_warnings():
        # Flower calls a pattern of pathspec by its old name.
        warnings.simplefilter("ignore", DeprecationWarning)
        return bytes(build_fab_from_files({"pyproject.toml": _PYPROJECT})[0])


def bundle_digest() -> str:
    """Return the bundle's SHA-256, hexadecimal: the only one that a party accepts."""
    return hashlib.sha256(bundle()).hexdigest()


@dataclass(frozen=True)
class Node:
    """A node that SuperLink knows: its public key (PEM), its number, and whether it is there now."""

    key: bytes
    number: int
    is_online: bool


class Control:
    """SuperLink's Control API at a loopback address; TransportError if it does not answer."""

    def __init__(self, address: str, authority: bytes) -> None:
        self._client = ControlHttpClient.from_server_address(
            address, False, authority, [RuntimeVersionHttpInterceptor(component_name="fedmkt")]
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def nodes(self) -> tuple[Node, ...]:
        """List the nodes that may take part; Flower goes on listing those that may not any more."""
        with _as_ours():
            found = self._client.ListNodes(control.ListNodesRequest()).nodes_info
        known = [n for n in found if n.status != "unregistered"]
        return tuple(Node(_text(n.public_key), n.node_id, n.status == "online") for n in known)

    def register(self, key: bytes) -> None:
        """Let the node with this public key (PEM) take part; nothing changes if it already may."""
        if key.strip() not in {node.key.strip() for node in self.nodes()}:
            with _as_ours():
                self._client.RegisterNode(control.RegisterNodeRequest(public_key=key))

    def unregister(self, key: bytes) -> None:
        """Let the node with this public key take part no longer."""
        for node in self.nodes():
            if node.key.strip() == key.strip():
                with _as_ours():
                    self._client.UnregisterNode(control.UnregisterNodeRequest(node_id=node.number))

    def start(self, run: str) -> int:
        """Start a run of ours; returns Flower's number for it."""
        content = bundle()
        request = control.StartRunRequest(
            fab=Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content),
            override_config=user_config_to_proto({"run": run}),
        )
        with _as_ours():
            answer = self._client.StartRun(request)
        if not answer.HasField("run_id"):
            raise PeerError("SuperLink did not take the run")
        return int(answer.run_id)

    def stop(self, number: int) -> None:
        """Stop a run."""
        with _as_ours():
            self._client.StopRun(control.StopRunRequest(run_id=number))

    def status(self, number: int) -> str:
        """Return Flower's word for a run's state, with its reason if it is finished, or an empty text."""
        with _as_ours():
            found = self._client.ListRuns(control.ListRunsRequest(run_id=number)).run_dict
        run = found.get(number)
        return "" if run is None else ":".join(filter(None, (run.status.status, run.status.sub_status)))


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise PeerError(f"SuperLink refused: status {error.response.status_code}") from None
    except (httpx.HTTPError, OSError) as error:
        raise TransportError(
            f"SuperLink does not answer ({type(error).__name__})", "is `fedmkt coordinator up` running?"
        ) from None


def _text(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else bytes(key)
