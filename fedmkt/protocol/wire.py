"""The one place where messages become bytes and bytes become messages.

A message is a frozen dataclass whose fields are integers, text, bytes, booleans, floats, numpy arrays of a
declared type, tuples and mappings of these, or other such dataclasses. Layout, version 1:
4 bytes header length (big-endian), header (JSON), then the bytes of all arrays in order, each padded to 8.
Nothing in a header chooses code: the reader says which class it expects, and every field is checked
against that class before it is used. There is no pickle.
"""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

VERSION = 1
_MAX_HEADER = 4 << 20  # small objects take thirty times the bytes in which they are written
_DTYPES = {"u8": "<u8", "u4": "<u4", "i8": "<i8", "i4": "<i4", "u1": "|u1", "f8": "<f8", "b1": "|b1"}
_AS_THEY_ARE = (str, int)  # a truth value is an integer
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_CODES = {np.dtype(v): k for k, v in _DTYPES.items()}

T = TypeVar("T")


def encode(value: object) -> bytes:
    """Encode a frozen dataclass; the same value always gives the same bytes."""
    return b"".join(encode_pieces(value))


def encode_pieces(value: object) -> list[bytes | memoryview]:
    """Encode a frozen dataclass as the buffers that `encode` joins: arrays are not copied."""
    buffers: list[Any] = []
    size = [0]
    body = _pack(value, buffers, size)
    raw = _JSON.encode({"v": VERSION, "t": type(value).__name__, "b": body, "n": size[0]}).encode()
    raw += b" " * (-(len(raw) + 4) % 8)
    return [len(raw).to_bytes(4, "big") + raw, *buffers]


def decode(data: bytes | memoryview, *expected: type[T]) -> T:
    """Decode bytes that must hold exactly one of the expected classes; arrays are read-only views.

    Raises ValueError for anything else: another class, a missing or foreign field, a wrong type, bytes left
    over.
    """
    view = memoryview(data)
    if len(view) < 4:
        raise ValueError("message is shorter than its header length")
    length = int.from_bytes(view[:4], "big")
    if length > _MAX_HEADER or 4 + length > len(view):
        raise ValueError("message header is longer than the message")
    try:
        header = json.loads(bytes(view[4 : 4 + length]))
    except (ValueError, RecursionError):
        raise ValueError("message header is not JSON") from None
    if not isinstance(header, dict) or set(header) != {"v", "t", "b", "n"} or header["v"] != VERSION:
        raise ValueError("message header has a foreign version or foreign fields")
    reader = _Reader(view[4 + length :])
    for cls in expected:
        if cls.__name__ == header["t"]:
            value: T = reader.unpack(header["b"], cls)
            reader.finish(header["n"])
            return value
    raise ValueError(f"message is not one of {', '.join(c.__name__ for c in expected)}")


def _pack(value: object, buffers: list[Any], size: list[int]) -> Any:
    if value is None or isinstance(value, _AS_THEY_ARE):
        return value
    if isinstance(value, float):
        return {"f": value.hex()}
    if isinstance(value, bytes):
        return (
            {"x": value.hex()}
            if len(value) <= 64
            else _pack_array(np.frombuffer(value, np.uint8), "B", buffers, size)
        )
    if isinstance(value, np.ndarray) and value.dtype in _CODES:
        return _pack_array(value, _CODES[value.dtype], buffers, size)
    if isinstance(value, tuple | list):
        return [_pack(v, buffers, size) for v in value]
    if isinstance(value, Mapping):
        return {"m": [[str(k), _pack(v, buffers, size)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        return {"d": [_pack(getattr(value, name), buffers, size) for name in _field_names(kind)]}
    raise ValueError(f"a message cannot hold a {type(value).__name__}")


def _pack_array(array: np.ndarray[Any, Any], code: str, buffers: list[Any], size: list[int]) -> Any:
    flat = np.ascontiguousarray(array)
    buffers.append(flat.reshape(-1).view(np.uint8).data)
    pad = -flat.nbytes % 8
    if pad:
        buffers.append(bytes(pad))
    size[0] += flat.nbytes + pad
    return {"a": code, "s": list(array.shape)}


class _Reader:
    """Reads the arrays of one message in order and checks every value against its declared type."""

    def __init__(self, body: memoryview) -> None:
        self.body = body
        self.at = 0

    def finish(self, declared: object) -> None:
        if not self.at == len(self.body) == declared:
            raise ValueError("message has bytes left over, or another length than it declares")

    def unpack(self, value: Any, hint: Any) -> Any:
        origin = typing.get_origin(hint)
        if origin in (typing.Union, types.UnionType):
            return self._unpack_union(value, typing.get_args(hint))
        if origin is np.ndarray:
            return self._unpack_array(value, np.dtype(typing.get_args(typing.get_args(hint)[1])[0]))
        if origin is tuple:
            return self._unpack_tuple(value, typing.get_args(hint))
        if origin in (dict, Mapping):
            return self._unpack_mapping(value, typing.get_args(hint)[1])
        target = origin or hint
        if dataclasses.is_dataclass(target):
            return self._unpack_dataclass(value, target, typing.get_args(hint))
        return self._unpack_scalar(value, _plain(hint))

    def _unpack_union(self, value: Any, hints: tuple[Any, ...]) -> Any:
        if value is None and type(None) in hints:
            return None
        (hint,) = [h for h in hints if h is not type(None)]
        return self.unpack(value, hint)

    def _unpack_scalar(self, value: Any, hint: Any) -> Any:
        if hint is float:
            if isinstance(value, dict) and set(value) == {"f"} and isinstance(value["f"], str):
                return _float(value["f"])
        elif hint is bytes:
            if isinstance(value, dict) and set(value) == {"x"} and isinstance(value["x"], str):
                return bytes.fromhex(value["x"])
            if isinstance(value, dict) and value.get("a") == "B":
                return self._take(value, np.dtype(np.uint8)).tobytes()
        elif hint in (int, str, bool) and type(value) is hint:
            return value
        raise ValueError(f"a field is not a {getattr(hint, '__name__', hint)}")

    def _unpack_array(self, value: Any, dtype: np.dtype[Any]) -> Any:
        if not isinstance(value, dict) or value.get("a") != _CODES.get(dtype):
            raise ValueError(f"a field is not an array of {dtype}")
        return self._take(value, np.dtype(_DTYPES[_CODES[dtype]])).astype(dtype, copy=False)

    def _take(self, value: Any, dtype: np.dtype[Any]) -> Any:
        shape = value.get("s")
        if set(value) != {"a", "s"} or not isinstance(shape, list) or len(shape) > 3:
            raise ValueError("an array has a wrong header")
        count = 1
        for side in shape:
            if type(side) is not int or side < 0 or side > 1 << 40:
                raise ValueError("an array has a wrong shape")
            count *= side
        nbytes = count * dtype.itemsize
        end = self.at + nbytes + (-nbytes % 8)
        if end > len(self.body):
            raise ValueError("an array is longer than the message")
        array = np.frombuffer(self.body[self.at : self.at + nbytes], dtype=dtype).reshape(shape)
        if any(self.body[self.at + nbytes : end]):
            raise ValueError("an array is padded with something else than zeros")
        self.at = end
        if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
            raise ValueError("a truth value is neither 0 nor 1")
        array.flags.writeable = False
        return array

    def _unpack_tuple(self, value: Any, hints: tuple[Any, ...]) -> Any:
        if not isinstance(value, list):
            raise ValueError("a field is not a tuple")
        if len(hints) == 2 and hints[1] is Ellipsis:
            return tuple(self.unpack(v, hints[0]) for v in value)
        if len(value) != len(hints):
            raise ValueError("a tuple has a wrong length")
        return tuple(self.unpack(v, h) for v, h in zip(value, hints, strict=True))

    def _unpack_mapping(self, value: Any, hint: Any) -> Any:
        if not isinstance(value, dict) or set(value) != {"m"} or not isinstance(value["m"], list):
            raise ValueError("a field is not a mapping")
        pairs = [(_key(pair), self.unpack(pair[1], hint)) for pair in value["m"]]
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a mapping repeats a key")
        return dict(pairs)

    def _unpack_dataclass(self, value: Any, cls: Any, args: tuple[Any, ...]) -> Any:
        if not isinstance(value, dict) or set(value) != {"d"} or not isinstance(value["d"], list):
            raise ValueError(f"a field is not a {cls.__name__}")
        hints = _field_hints(cls, args)
        if len(value["d"]) != len(hints):
            raise ValueError(f"a {cls.__name__} has a wrong number of fields")
        return cls(*[self.unpack(v, h) for v, h in zip(value["d"], hints, strict=True)])


@functools.cache
def _field_names(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


@functools.cache
def _field_hints(cls: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    hints = typing.get_type_hints(cls)
    known = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    return tuple(known.get(hints[f.name], hints[f.name]) for f in dataclasses.fields(cls))


def _float(text: str) -> float:
    try:
        return float.fromhex(text)
    except OverflowError:
        raise ValueError("a field is no float") from None


def _key(pair: Any) -> str:
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        raise ValueError("a field is not a mapping")
    return pair[0]


def _plain(hint: Any) -> Any:
    return _plain(hint.__supertype__) if hasattr(hint, "__supertype__") else hint
