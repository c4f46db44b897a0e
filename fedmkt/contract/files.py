"""The file of a signed contract: one TOML text for each, with sorted keys."""

import json
from collections.abc import Mapping
from datetime import datetime

from pydantic import ValidationError

from fedmkt.contract.canonical import plain_values, zulu
from fedmkt.contract.signatures import SignedContract
from fedmkt.mistakes import config_error, read_toml


def to_toml(signed: SignedContract) -> str:
    """Write the one TOML text of a signed contract: keys sorted, plain values before tables."""
    values = plain_values(signed.contract)
    values["signatures"] = dict(signed.signatures)
    return "".join(_toml_lines(values, ()))


def _toml_value(value: object) -> str:
    if isinstance(value, datetime):
        return zulu(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON and TOML write text, truth values and numbers of our ranges alike; control characters are refused.
    return json.dumps(value, ensure_ascii=False)


def _is_table(value: object) -> bool:
    return isinstance(value[0] if isinstance(value, tuple) and value else value, Mapping)


def _toml_lines(table: Mapping[str, object], path: tuple[str, ...]) -> list[str]:
    plain = [key for key in sorted(table) if not _is_table(table[key])]
    lines = [f"{key} = {_toml_value(table[key])}\n" for key in plain]
    for key in sorted(set(table) - set(plain)):
        value = table[key]
        inner = (*path, key)
        if isinstance(value, Mapping):
            lines += [f"\n[{'.'.join(inner)}]\n", *_toml_lines(value, inner)]
        elif isinstance(value, tuple):
            for item in value:
                lines += [f"\n[[{'.'.join(inner)}]]\n", *_toml_lines(item, inner)]
    return lines


def from_toml(text: str, path: str) -> SignedContract:
    """Read a contract file; `path` is only used to say where a mistake is."""
    values = read_toml(text, path)
    signatures = values.pop("signatures", {})
    try:
        return SignedContract.model_validate({"contract": values, "signatures": signatures})
    except ValidationError as error:
        raise config_error(path, SignedContract, error, skip="contract") from None
