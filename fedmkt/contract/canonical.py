"""The bytes of a contract, and the digest that goes into every message and every audit record.

The bytes are canonical JSON (RFC 8785), so that the same agreement has one digest whatever file it was read from.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime

import rfc8785

from fedmkt.contract.agreement import AlignTerms, Contract
from fedmkt.contract.model_terms import AdditiveTerms, BinTerms, ScorecardTerms, TreeTerms

DOMAIN = b"fedmkt contract v1\n"
_ADDED: Mapping[str, object] = {
    "align": AlignTerms().model_dump(), "task": "train", "channel": "hub", "rehearsal": False,
    "trees": TreeTerms().model_dump(exclude_none=True), "bins": BinTerms().model_dump(exclude_none=True),
    "scorecard": ScorecardTerms().model_dump(),
    "additive": AdditiveTerms().model_dump(),
}  # fmt: skip
"""Terms that came after the first contracts: left out at these values, so that their bytes stay what they were."""
_ADDED_TO_MODEL: Mapping[str, object] = {
    "max_offset": 8.0, "penalties": (), "path_passes": 8, "validation_fraction": 0.2,
}  # fmt: skip
"""The same of the section `model`; what is absent is left out anyway."""
_ADDED_TO_TREES: Mapping[str, object] = {
    "checked_shares": False, "patience": 0, "validation_fraction": 0.1,
}  # fmt: skip
"""The same of the section `trees`."""
_ADDED_TO_LIMITS: Mapping[str, object] = {"max_epsilon": 8.0}
"""The same of the section `limits`."""


def plain_values(contract: Contract) -> dict[str, object]:
    """Return what bytes and file say: absent values left out, and later terms at what was meant before them."""
    values = contract.model_dump(mode="python", exclude_none=True)
    for party in values["parties"]:
        if not party["more_kinds"]:
            del party["more_kinds"]
    for section, usual_values in (("model", _ADDED_TO_MODEL), ("limits", _ADDED_TO_LIMITS)):
        for name, usual in usual_values.items():
            if values[section][name] == usual:
                del values[section][name]
    values = {key: value for key, value in values.items() if key not in _ADDED or value != _ADDED[key]}
    if "trees" in values:
        added = _ADDED_TO_TREES.items()
        values["trees"] = {k: v for k, v in values["trees"].items() if (k, v) not in added}
    return values


def zulu(value: datetime) -> str:
    """Write a time of a contract: UTC, whole seconds."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical_bytes(contract: Contract) -> bytes:
    """Encode as canonical JSON (RFC 8785): times as text in UTC, absent values left out."""
    return rfc8785.dumps(_times_as_text(plain_values(contract)))  # type: ignore[arg-type]  # now JSON values


def _times_as_text(value: object) -> object:
    if isinstance(value, datetime):
        return zulu(value)
    if isinstance(value, Mapping):
        return {key: _times_as_text(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_times_as_text(item) for item in value]
    return value


def digest(contract: Contract) -> bytes:
    """Hash the canonical bytes: the 32 bytes that all sign and that name the contract everywhere."""
    return hashlib.sha256(DOMAIN + canonical_bytes(contract)).digest()
