"""What travels as Flower messages: one invitation to serve a contract, and how the serving ended.

Both are small and hold nothing personal: a contract that all signed, a session's number, a branch of the error
tree and the name of a step.
"""

import json
import secrets
from dataclasses import asdict, dataclass

from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.signatures import SignedContract
from fedmkt.crypto.dsse import Envelope, to_json
from fedmkt.deploy.statement_files import MOST_STATEMENTS, parse_statement
from fedmkt.errors import PeerError
from fedmkt.transport.driver import Refusal

SERVE = "query.serve"
"""Message type: serve this contract; answered when the serving has ended."""
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Serve:
    """Serve this contract. session : of the hub, 16 bytes; empty if steps travel as Flower messages.

    statements : who approved or revoked it, as signed; each party counts for itself.
    seed, epoch : of a rehearsal, whose keys and masks follow from a number; absent in every real run.
    """

    contract: SignedContract
    session: bytes
    seed: int | None = None
    epoch: int = 0
    statements: tuple[Envelope, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a party's serving ended: empty texts, or the branch and the step of what went wrong."""

    branch: str = ""
    step: str = ""

    @property
    def refusal(self) -> Refusal | None:
        """What went wrong, if something did."""
        return Refusal(self.branch, self.step) if self.branch else None


def encode_serve(serve: Serve) -> bytes:
    """Write an invitation."""
    values = {
        "contract": to_toml(serve.contract),
        "session": serve.session.hex(),
        "seed": serve.seed,
        "epoch": serve.epoch,
        "statements": [to_json(envelope).decode() for envelope in serve.statements],
    }
    return json.dumps(values).encode()


def decode_serve(body: bytes) -> Serve:
    """Read an invitation; PeerError if it is none."""
    try:
        if len(body) > _LARGEST:
            raise ValueError
        found = json.loads(body)
        seed, epoch = found["seed"], found["epoch"]
        session = bytes.fromhex(found["session"])
        if not (seed is None or (type(seed) is int and 0 <= seed < 1 << 64)):
            raise ValueError
        if type(epoch) is not int or not 0 <= epoch < 256 or len(session) not in (0, 16):
            raise ValueError
        statements = found.get("statements", [])
        if not isinstance(statements, list) or len(statements) > MOST_STATEMENTS:
            raise ValueError
        contract = from_toml(found["contract"], "the coordinator's contract")
        return Serve(contract, session, seed, epoch, tuple(parse_statement(s.encode()) for s in statements))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PeerError("coordinator: sent something else than an invitation to serve") from None


def encode_outcome(outcome: Outcome) -> bytes:
    """Write an outcome; no two are equal, since SuperLink would not ask for what another party sent before."""
    return json.dumps(asdict(outcome) | {"nonce": secrets.token_hex(16)}).encode()


def decode_outcome(body: bytes) -> Outcome:
    """Read an outcome; PeerError if it is none."""
    try:
        found = json.loads(body[:4096])
        branch, step = str(found["branch"])[:64], str(found["step"])[:64]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PeerError("a party answered with something else than an outcome") from None
    return Outcome(ascii(branch)[1:-1], ascii(step)[1:-1])
