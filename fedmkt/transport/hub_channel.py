"""The gRPC channel between a member and the hub: how it is kept alive, and what its errors mean."""

from dataclasses import dataclass

import grpc

from fedmkt.transport.hub_frames import HUB_SAYS
from fedmkt.transport.hub_identity import ClientTls

KEEPALIVE = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),  # without it a silent cut goes unnoticed for a minute
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""How both ends notice within seconds that the other is gone."""
_OPTIONS = (
    *KEEPALIVE,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.min_reconnect_backoff_ms", 5000),  # which is also how long one attempt to connect may take
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
)
# What no further attempt would change. UNAUTHENTICATED and PERMISSION_DENIED: not admitted, or not named.
_FINAL = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}


@dataclass(frozen=True)
class Refusal:
    """Why a call to the hub ended.

    reason : what the hub itself said, else the name of the code; trouble : the same with a hint at its cause.
    is_final : no further attempt would change it. is_aborted : the hub ended what it had welcomed.
    """

    reason: str
    trouble: str
    is_final: bool
    is_aborted: bool


def open_channel(address: str, tls: ClientTls) -> grpc.Channel:
    """Open a channel on which both ends show their certificates; connects with the first call."""
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    return grpc.secure_channel(address, credentials, options=_OPTIONS)


def read_refusal(error: grpc.RpcError) -> Refusal:
    """Say in our words why a call ended."""
    code, details = error.code(), error.details() or ""
    said = details.removeprefix(HUB_SAYS)[:200] if details.startswith(HUB_SAYS) else ""
    name = code.name.lower()
    return Refusal(
        said or name, said or name + _hint_of(details), code in _FINAL, code == grpc.StatusCode.ABORTED
    )


def _hint_of(details: str) -> str:
    """Say in a word what gRPC's own text about a failed connection means."""
    known = {
        "CERTIFICATE_VERIFY_FAILED": "its certificate is not of the pinned CA",
        "Hostname Verification": "its certificate is for another address",
        "andshake": "the TLS handshake failed",
        "refused": "nobody listens there",
        "DNS": "its name is not known",
    }
    return next((f": {text}" for word, text in known.items() if word in details), "")
