"""Targets: files that people write or pass on by hand: contracts, settings, admission papers, the registry."""

import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from fedmkt.config.files import parse_coordinator, parse_job, parse_party, parse_party_folder, parse_schema
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.deploy.papers import encode, parse_json, read_bundle, read_request
from fedmkt.deploy.registry import Registry
from fedmkt.errors import ConfigError, FedmktError
from tests.contract.agreed import contract, governance, signed
from tests.deploy.offices import bank, coordinator
from tests.fuzz.target import Target

ROOT = Path(__file__).resolve().parents[2]


def _as_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Read bytes as every caller does: what is not UTF-8 is refused before anything is parsed."""

    def decode(data: bytes) -> object:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise ConfigError("not UTF-8") from None
        return read(text)

    return decode


def _contracts() -> Sequence[bytes]:
    agreed = contract()
    return [to_toml(signed(agreed)).encode(), to_toml(signed(contract(governance=governance()))).encode()]


def _read_contract(text: str) -> None:
    found = from_toml(text, "contract.toml")
    digest(found.contract)
    assert from_toml(to_toml(found), "again") == found, "what is read is written as it means"


def _jobs() -> Sequence[bytes]:
    return [path.read_bytes() for path in sorted(ROOT.glob("examples/*/*.toml"))]


def _of_party(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(ROOT.glob(f"parties/*/{name}.toml"))]


def _read_policy(text: str) -> None:
    own = (ROOT / "parties/bank/party.toml").read_text(), (ROOT / "parties/bank/schema.toml").read_text()
    parse_party_folder(own[0], text, own[1], "bank")


@functools.cache
def _papers() -> tuple[bytes, bytes, bytes]:
    """Return a request, the bundle that answers it, and the registry."""
    with tempfile.TemporaryDirectory() as folder:
        office, asking = coordinator(Path(folder)), bank(Path(folder))
        request = asking.request()
        bundle = office.admit(request)
        (registry,) = Path(folder).rglob("registry.json")
        return encode(request), encode(bundle), registry.read_bytes()


def _rewritten(read: Callable[[bytes, str], object]) -> Callable[[bytes], object]:
    """Read a paper as it came; what is JSON also in the canonical form, so that checks behind it are reached."""

    def decode(data: bytes) -> object:
        try:
            again = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            read(again.encode(), "paper")
        except (FedmktError, ValueError, RecursionError):
            pass
        return read(data, "paper")

    return decode


TARGETS = (
    Target("contract-toml", _as_text(_read_contract), _contracts),
    Target("job-toml", _as_text(lambda t: parse_job(t, "job.toml")), _jobs),
    Target("party-toml", _as_text(lambda t: parse_party(t, "party.toml")), _of_party("party")),
    Target("policy-toml", _as_text(_read_policy), _of_party("policy")),
    Target(
        "schema-toml", _as_text(lambda t: parse_schema(t, "schema.toml", "bank", "B")), _of_party("schema")
    ),
    Target(
        "coordinator-toml",
        _as_text(lambda t: parse_coordinator(t, "coordinator.toml")),
        _of_party("coordinator"),
    ),
    Target("request-paper", _rewritten(read_request), lambda: [_papers()[0]]),
    Target("bundle-paper", _rewritten(read_bundle), lambda: [_papers()[1]]),
    Target("registry", lambda d: parse_json(Registry, d, "registry.json"), lambda: [_papers()[2]]),
)
