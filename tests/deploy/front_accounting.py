"""Where every byte went that a tap saw between a party's SuperNode and the coordinator's front.

    account = account_of_front(tap.connections)
    account.remainder("up") == 0

Every request is one of Flower's fleet API, every body one of the protobuf messages below without unknown fields;
what is not Flower's in them are the objects in `FrontAccount.ours`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from google.protobuf.message import Message as Protobuf
from google.protobuf.unknown_fields import UnknownFieldSet

from fedmkt.transport.flower_words import BODY, RECORD, SECONDS
from tests.deploy.accounting import WAYS, Account, Way
from tests.deploy.wire_tap import Connection, HttpMessage, read_http1

_FLEET: dict[str, tuple[type[Protobuf], type[Protobuf]]] = {
    "activate-node": (fleet_pb2.ActivateNodeRequest, fleet_pb2.ActivateNodeResponse),
    "deactivate-node": (fleet_pb2.DeactivateNodeRequest, fleet_pb2.DeactivateNodeResponse),
    "send-node-heartbeat": (heartbeat_pb2.SendNodeHeartbeatRequest, heartbeat_pb2.SendNodeHeartbeatResponse),
    "pull-messages": (fleet_pb2.PullMessagesRequest, fleet_pb2.PullMessagesResponse),
    "push-messages": (fleet_pb2.PushMessagesRequest, fleet_pb2.PushMessagesResponse),
    "pull-object": (message_pb2.PullObjectRequest, message_pb2.PullObjectResponse),
    "push-object": (message_pb2.PushObjectRequest, message_pb2.PushObjectResponse),
    "confirm-message-received": (
        message_pb2.ConfirmMessageReceivedRequest,
        message_pb2.ConfirmMessageReceivedResponse,
    ),
    "get-run": (run_pb2.GetRunRequest, run_pb2.GetRunResponse),
    "get-fab": (fab_pb2.GetFabRequest, fab_pb2.GetFabResponse),
}
HEAD_FIELDS: dict[Way, frozenset[str]] = {
    "up": frozenset(
        {
            "host", "accept-encoding", "connection", "user-agent", "content-type", "accept", "content-length",
            "flwr-package-name", "flwr-package-version", "flwr-component-name", "flwr-public-key",
            "flwr-timestamp", "flwr-signature",
        }
    ),
    "down": frozenset({"content-type", "content-length", "connection"}),
}  # fmt: skip
"""Everything that a head may hold."""


@dataclass
class FrontAccount(Account):
    """What a party's SuperNode and the front said to each other."""

    ours: dict[Way, list[bytes]] = field(default_factory=lambda: {"up": [], "down": []})
    """The contents of our messages that passed here: invitations down, outcomes up."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Flower's objects that passed here, by their digest."""
    named: dict[Way, list[str]] = field(default_factory=lambda: {"up": [], "down": []})
    """Digests of the objects that Flower's messages consist of; an object that SuperLink has is not sent again."""
    bundles: list[bytes] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    exchanges: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """Exchanges that were answered: path, bytes of the two bodies; what the front's own log says."""
    unanswered: int = 0
    _asked: int = 0

    def read(self, connection: Connection) -> None:
        """Book one connection; what is no exchange of Flower's fleet API is a ValueError."""
        for way, flow in zip(WAYS, (connection.up, connection.down), strict=True):
            self.add_tls(flow, way)
        requests = list(read_http1(bytes(connection.up.plain)))
        answers = list(read_http1(bytes(connection.down.plain)))
        # The last may have gone unanswered, when one of the two was told to end.
        for request, answer in zip(
            requests, [*answers, *[None] * (len(requests) - len(answers))], strict=True
        ):
            method, path, version = request.line.split(" ")
            kind = path.removeprefix("/v1/fleet/")
            if (method, version) != ("POST", "HTTP/1.1") or path == kind or kind not in _FLEET:
                raise ValueError(f"a request that is none of the fleet API: {request.line}")
            asked, answered = _FLEET[kind]
            self._book(request, asked, kind, "up")
            if answer is None:
                self.unanswered += 1
            else:
                self.statuses[answer.line] += 1
                self._book(answer, answered, kind, "down")

    def _book(self, message: HttpMessage, kind: type[Protobuf], path: str, way: Way) -> None:
        if foreign := {name for name, _ in message.fields} - HEAD_FIELDS[way]:
            raise ValueError(f"a head has {', '.join(sorted(foreign))}")
        self.add("HTTP/1.1: heads", way, message.head)
        parsed = kind.FromString(message.body)
        check_known(parsed)
        if parsed.ByteSize() != len(message.body):
            raise ValueError(f"a {kind.__name__} has another form than Flower's")
        ours = self._content_of(parsed, way)
        if isinstance(parsed, fab_pb2.GetFabResponse):
            self.bundles.append(parsed.fab.content)
        self.add(f"Flower: {path}", way, len(message.body) - ours)
        if way == "down":
            self.exchanges[path, self._asked, len(message.body)] += 1
        self._asked = len(message.body)

    def _content_of(self, parsed: Protobuf, way: Way) -> int:
        """Find what is ours in an object of a Flower message; returns how many bytes that is."""
        if isinstance(parsed, fleet_pb2.PullMessagesResponse | fleet_pb2.PushMessagesRequest):
            for message in parsed.messages_list:
                if message.HasField("content") and message.content.ByteSize():
                    raise ValueError("a message has its content inside")
                if message.HasField("error") and message.error.ByteSize():
                    raise ValueError("a message says an error")
            self.named[way] += [i for tree in parsed.message_object_trees for i in _digests(tree)]
        if not isinstance(parsed, message_pb2.PullObjectResponse | message_pb2.PushObjectRequest):
            return 0
        content = parsed.object_content
        if not content:
            return 0
        self.objects[hashlib.sha256(content).hexdigest()] = content
        kind, children, size = get_object_head_values_from_object_content(content)
        if kind in ("Message", "RecordDict"):
            self._check_frame_object(kind, content, size)
            return 0
        if kind != "ConfigRecord" or children:
            raise ValueError(f"an object of the kind {kind}")
        body = our_content(content)
        self.ours[way].append(body)
        self.add("ours: invitation to serve" if way == "down" else "ours: outcome", way, len(body))
        return len(body)

    @staticmethod
    def _check_frame_object(kind: str, content: bytes, size: int) -> None:
        body = content[len(content) - size :]
        if kind == "RecordDict":
            # Names of records and numbers of objects.
            if json.loads(body).keys() != {RECORD}:
                raise ValueError("a message has a record that is not ours")
            return
        parsed = message_pb2.Message.FromString(body)
        check_known(parsed)
        if parsed.ByteSize() != size or parsed.HasField("content") or parsed.HasField("error"):
            raise ValueError("a message holds more than its metadata")


def our_content(content: bytes) -> bytes:
    """Return our bytes in an object of Flower's; ValueError if it holds anything else but their deadline."""
    record = ConfigRecord.inflate(content)
    body = record.get(BODY)
    if not set(record) <= {BODY, SECONDS} or not isinstance(body, bytes) or record.deflate() != content:
        raise ValueError("a record has more than our body and its deadline")
    return body


def _digests(tree: message_pb2.ObjectTree) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from _digests(child)


def check_known(message: Protobuf) -> None:
    """Raise ValueError for fields that Flower's own classes do not know, at any depth."""
    if len(UnknownFieldSet(message)):
        raise ValueError(f"a {type(message).__name__} has unknown fields")
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        for item in value if isinstance(value, Sequence) or hasattr(value, "add") else [value]:
            check_known(item)


def account_of_front(connections: Sequence[Connection]) -> FrontAccount:
    """Account for the connections of a party to the front."""
    account = FrontAccount()
    for connection in connections:
        account.read(connection)
    return account
