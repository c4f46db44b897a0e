"""Mistakes in files that people write, as one line: file, key, value, what is accepted."""

import json
import tomllib
from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from fedmkt.errors import ConfigError


def read_toml(text: str, path: str) -> dict[str, object]:
    """Parse TOML; ConfigError with line and column where it is not TOML."""
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {_one_line(str(error))}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not TOML: nested too deeply") from None


def mistake(accepted: str, *where: str | int) -> PydanticCustomError:
    """Make the error of a check that looks at several keys; `where` : the key that is wrong, below the checked one."""
    return PydanticCustomError("value_error", "{accepted}", {"accepted": accepted, "where": where})


def missing(*where: str | int) -> PydanticCustomError:
    """Make the error of a key that only some files need."""
    return PydanticCustomError("missing", "Field required", {"where": where})


def config_error(path: str, model: type[BaseModel], error: ValidationError, skip: str = "") -> ConfigError:
    """Turn the first mistake that pydantic found into one line: file, key, value, what is accepted."""
    first = error.errors(include_url=False)[0]
    where = (*first["loc"], *first.get("ctx", {}).get("where", ()))
    shown_parts = where[1:] if where[:1] == (skip,) else where
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{_visible(p)}" for p in shown_parts).lstrip(".")
    if first["type"] == "extra_forbidden":
        accepted = ", ".join(_fields_beside(model, where))
        return ConfigError(f"{path}: {key}: unknown key; accepted: {accepted}")
    accepted = _one_line(first["msg"].removeprefix("Value error, ").removeprefix("Input should be "))
    if first["type"] == "missing":
        return ConfigError(f"{path}: {key}: missing; accepted: a value for this key")
    shown = "" if isinstance(first["input"], Mapping | BaseModel) else f" = {_short(first['input'])}"
    return ConfigError(f"{path}: {key or 'file'}{shown}: accepted: {accepted}")


def _visible(key: str) -> str:
    """Show a key that somebody else wrote: control characters could draw on the reader's screen."""
    return key if key.isprintable() else ascii(key)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields_beside(model: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    for part in where[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            inner = [annotation, *get_args(annotation)]
            nested = [kind for kind in inner if isinstance(kind, type)]
            model = next((kind for kind in nested if issubclass(kind, BaseModel)), model)
    return sorted(model.model_fields)
