"""Flower's tasks, executed by us: what Flower's own executor would do, without its two dangers.

Flower's executor starts a new process for each task with the task's token on its command line, and that process
unpacks and runs the code bundle that came over the network. Ours hands the token over in memory or by a pipe,
compares the bundle with the one that this installation would send, and runs no code but its own.

`TaskQueue` is what an executor asks for work; `ClientTask` and `ServerTask` are one task under way.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto, fab_from_proto, run_from_proto
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message

from fedmkt.errors import PeerError, PolicyRefused, TransportError
from fedmkt.transport.flower_control import bundle_digest
from fedmkt.transport.flower_words import BODY, RECORD

Kind = Literal["flwr-serverapp", "flwr-clientapp"]
_PATIENCE = 60.0
nothing = None
"""What the bundle names as its components: nobody loads it."""

_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})


@dataclass(frozen=True)
class RuntimeAddress:
    """Where a SuperLink or SuperNode gives out its tasks: on loopback, with a certificate of its own."""

    address: str
    authority: Path


class TaskQueue:
    """Asks a SuperLink or SuperNode for tasks; `secret` is what the two share."""

    def __init__(self, runtime: RuntimeAddress, secret: bytes, kind: Kind) -> None:
        self._kind = kind
        self._client = RuntimeHttpClient.from_server_address(
            runtime.address, False, runtime.authority.read_bytes(),
            [
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_ACQUIRE),
            ],
        )  # fmt: skip

    def take(self) -> tuple[int, str] | None:
        """Take the oldest task: Flower's number of its run, and its token; None if there is nothing to do."""
        try:
            answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[self._kind]))
        except (httpx.HTTPError, OSError) as error:
            raise TransportError(f"the runtime API does not answer ({type(error).__name__})") from None
        return (int(answer.task.run_id), answer.token) if answer.HasField("task") and answer.token else None

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def check_bundle(content: bytes) -> None:
    """Refuse a bundle that is not, byte for byte, the one of this installation."""
    found, ours = hashlib.sha256(content).hexdigest(), bundle_digest()
    if found != ours:
        raise PolicyRefused(
            f"a run came with the bundle {found[:16]}, this installation accepts {ours[:16]} only",
            "a party runs nothing but the fedmkt that it installed; compare the versions of all sides",
        )


def _patient(retries: RetryInvoker) -> RetryInvoker:
    """Let calls fail that Flower would repeat for ever."""
    retries.max_time = _PATIENCE
    return retries


class ClientTask:
    """One message to this node: read it, answer it, all within `with`."""

    def __init__(self, runtime: RuntimeAddress, token: str) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            runtime.address, False, runtime.authority.read_bytes(),
            [
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                RuntimeTokenHttpInterceptor(token),
            ],
            retry_invoker=_patient(make_simple_http_retry_invoker()),
        )  # fmt: skip
        self._heart = HeartbeatSender(make_task_heartbeat_fn_http(self._client))
        self._context: Context | None = None
        self._message: Message | None = None

    def __enter__(self) -> Self:
        """Begin: Flower hears from now on that we are at work."""
        self._heart.start()
        return self

    def receive(self) -> tuple[str, bytes]:
        """Return the message's type and body; PolicyRefused if the run came with code that is not ours."""
        self._message, self._context, _, fab = pull_task_input(self._client)
        check_bundle(fab.content)
        record = self._message.content.config_records.get(RECORD, ConfigRecord())
        body = record.get(BODY)
        if not isinstance(body, bytes):
            raise PeerError("coordinator: sent something else than a message of fedmkt")
        return self._message.metadata.message_type, body

    def reply(self, body: bytes) -> None:
        """Send the answer."""
        if self._message is None or self._context is None:
            raise ValueError("no message was received")
        content = RecordDict({RECORD: ConfigRecord({BODY: body})})
        push_message(self._client, Message(content, reply_to=self._message), self._context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell Flower that the task is done; a failure's text stays here."""
        _finish(self._client, self._heart, self._context, error is None)


class ServerTask:
    """The coordinator's side of one run: its name, and the grid that reaches the nodes."""

    def __init__(self, runtime: RuntimeAddress, token: str) -> None:
        self.grid = HttpGrid(
            runtime_api_address=runtime.address, insecure=False,
            root_certificates=runtime.authority.read_bytes(), token=token,
        )  # fmt: skip
        _patient(self.grid._retry_invoker)
        self._heart = HeartbeatSender(make_task_heartbeat_fn_http(self.grid._runtime_client))
        self._context: Context | None = None

    def __enter__(self) -> Self:
        """Begin: Flower hears from now on that we are at work."""
        self._heart.start()
        return self

    def run(self) -> str:
        """Return the name that the run was started with; PolicyRefused if it came with code that is not ours."""
        task = self.grid._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = task.context.node_id
        run = run_from_proto(task.run)
        self._context = context_from_proto(task.context)
        check_bundle(fab_from_proto(task.fab).content)
        self.grid.set_run(run)
        return str(run.override_config.get("run", ""))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell Flower that the task is done; a failure's text stays here."""
        _finish(self.grid._runtime_client, self._heart, self._context, error is None)
        with contextlib.suppress(httpx.HTTPError, OSError):
            self.grid.close()


def _finish(
    client: RuntimeHttpClient, heart: HeartbeatSender, context: Context | None, is_done: bool
) -> None:
    output = PushTaskOutputRequest(
        context=context_to_proto(context) if context is not None else None,
        sub_status="completed" if is_done else "failed",
        details="" if is_done else "see the participant's own log",
    )
    with contextlib.suppress(httpx.HTTPError, OSError):
        client.PushTaskOutput(output)
    if heart.is_running:
        heart.stop()
    client.close()
