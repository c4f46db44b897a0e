"""Looks through what a participant can read for things that it must not learn.

    secrets = Secrets(ids=..., labels=..., columns=..., aligned=...)
    Scanner(secrets).scan(view)        view : messages that a participant decrypted (`Seen`), and what it adds up

It searches for ids, plain or under some two hundred usual recipes; runs of 64 labels as bits, bytes, words, floats
or fixed point; runs and rows of plain columns; and numbers whose correlation with a label or column is above 0.2.
It is no proof: it finds careless mistakes, and the tests plant each kind to show that it does.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

LABEL_RUN = 64
COLUMN_RUN = 4
COLUMN_STRIDE = 16
ID_STRIDE = 64
CORRELATION = 0.2
LEAST_ROWS = 500
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Something that a participant can read: bytes, and the arrays in them."""

    where: str
    data: bytes
    arrays: tuple[NDArray[Any], ...] = ()


@dataclass(frozen=True)
class Found:
    """One thing that should not be there."""

    kind: str
    what: str
    where: str


@dataclass(frozen=True)
class Secrets:
    """What a reader must not learn.

    ids : in canonical spelling; contexts : bytes that a hash may be salted with; labels : vectors of 0 and 1 by
    name, in every order that a message might have; columns : likewise; aligned : vectors by length, for correlations;
    rows : matrices whose rows might be sent.
    """

    ids: Sequence[str] = ()
    contexts: Sequence[bytes] = ()
    labels: Mapping[str, Vector] = field(default_factory=dict)
    columns: Mapping[str, Vector] = field(default_factory=dict)
    rows: Mapping[str, Vector] = field(default_factory=dict)
    aligned: Mapping[str, Vector] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------ reading messages

_DTYPES = {
    "u8": "<u8",
    "u4": "<u4",
    "i8": "<i8",
    "i4": "<i4",
    "u1": "|u1",
    "f8": "<f8",
    "b1": "|b1",
    "B": "|u1",
}


def seen(where: str, data: bytes) -> Seen:
    """Read an encoded message without knowing its class: all arrays, and short bytes turned back from hex."""
    length = int.from_bytes(data[:4], "big")
    header = json.loads(data[4 : 4 + length])
    arrays, short, at = [], [], 4 + length
    for kind, value in _leaves(header["b"]):
        if kind == "bytes":
            short.append(bytes.fromhex(value))
            continue
        dtype = np.dtype(_DTYPES[value["a"]])
        size = int(np.prod(value["s"])) * dtype.itemsize
        arrays.append(np.frombuffer(data[at : at + size], dtype).reshape(value["s"]))
        at += size + (-size % 8)
    return Seen(where, data + b"".join(short), tuple(arrays))


def _leaves(body: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(body, list):
        for item in body:
            yield from _leaves(item)
    elif isinstance(body, dict):
        if "a" in body:
            yield "array", body
        elif "x" in body:
            yield "bytes", body["x"]
        else:
            for item in body.values():
                yield from _leaves(item)


# ------------------------------------------------------------------------------------------ needles


class _Needles:
    """Many byte strings, of which eight bytes are looked for at every place of a message, then the rest."""

    def __init__(self) -> None:
        self._parts: dict[int, list[tuple[bytes, str]]] = {}

    def add(self, needle: bytes, what: str) -> None:
        if len(needle) >= 8 and len(set(needle)) > 2:
            self._parts.setdefault(int.from_bytes(needle[:8], "little"), []).append((needle, what))

    def freeze(self) -> None:
        self._sorted = np.sort(np.fromiter(self._parts, np.uint64, len(self._parts)))
        self._filter = np.zeros(1 << 24, bool)
        self._filter[_low(self._sorted)] = True

    def find(self, data: bytes) -> Iterator[str]:
        if not self._parts or len(data) < 16:
            return
        for offset in range(8):
            words = np.frombuffer(data, "<u8", max(0, len(data) - offset) // 8, offset)
            hits = np.flatnonzero(self._filter[_low(words)])
            near = np.minimum(np.searchsorted(self._sorted, words[hits]), len(self._sorted) - 1)
            for hit in hits[self._sorted[near] == words[hits]]:
                at = offset + 8 * int(hit)
                for needle, what in self._parts[int(words[hit])]:
                    if data[at : at + len(needle)] == needle:
                        yield what


def _low(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (words ^ (words >> np.uint64(31))) & np.uint64((1 << 24) - 1)


def id_spellings(value: str, contexts: Sequence[bytes]) -> dict[str, bytes]:
    """Spell an id in the ways in which it may be sent or hashed."""
    digits = "".join(c for c in value if c.isdigit())
    plain = {
        "raw": value,
        "upper case": value.upper(),
        "digits": digits,
        "national": digits[-11:],
        "without +": value.lstrip("+"),
        "00": "00" + digits,
        "phone:": f"phone:{value}",
        "kind": f"phone\0{value}",
        "reversed": value[::-1],
    }
    found = {name: text.encode() for name, text in plain.items()}
    for i, context in enumerate(contexts):
        found[f"context {i} before"] = context + value.encode()
        found[f"context {i} and kind before"] = context + b"phone\0" + value.encode()
        found[f"context {i} after"] = value.encode() + context
    return found


HASHES: dict[str, Callable[[bytes], bytes]] = {
    **{
        name: (lambda data, name=name: hashlib.new(name, data).digest())
        for name in (
            "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "sha3_512", "blake2b", "blake2s",
        )
    },
    "double sha256": lambda data: hashlib.sha256(hashlib.sha256(data).digest()).digest(),
    "hmac-sha256 without key": lambda data: hmac.digest(b"", data, "sha256"),
    "hmac-sha512 without key": lambda data: hmac.digest(b"", data, "sha512"),
    "blake2b-16": lambda data: hashlib.blake2b(data, digest_size=16).digest(),
}  # fmt: skip

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    "hex": lambda raw: raw.hex().encode(),
    "HEX": lambda raw: raw.hex().upper().encode(),
    "base64": base64.b64encode,
    "urlsafe base64": base64.urlsafe_b64encode,
}


def id_needles(value: str, contexts: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    """Give all byte strings that would betray an id, with the recipe's name; hashes by two stretches of 12 bytes."""
    for spelling, text in id_spellings(value, contexts).items():
        if "context" not in spelling:
            yield text, f"id {spelling}"
            yield text.decode().encode("utf-16-le"), f"id {spelling} utf-16"
            yield text.decode().encode("utf-32-le"), f"id {spelling} utf-32"
            yield ENCODINGS["hex"](text), f"id {spelling} hex"
            yield ENCODINGS["base64"](text)[: 4 * (len(text) // 3)], f"id {spelling} base64"
        for name, function in HASHES.items():
            raw = function(text)
            for encoding, encode in ENCODINGS.items():
                code = encode(raw)
                yield code[:12], f"id {spelling} {name} {encoding}".rstrip()
                if len(raw) >= 28 and not encoding:
                    yield raw[16:28], f"id {spelling} {name} second half"
    if value.lstrip("+").isdigit():
        number = int(value.lstrip("+"))
        for dtype in ("<u8", ">u8", "<f8", ">f8"):
            yield np.array([number], dtype).tobytes(), f"id as {dtype}"


def common_id_needles(value: str) -> Iterator[tuple[bytes, str]]:
    """Give the id itself, and its hashes under the recipes that people use first."""
    for text in {value, "".join(c for c in value if c.isdigit()), value.lstrip("+")}:
        yield text.encode(), "id raw"
        for name in ("md5", "sha1", "sha256"):
            raw = HASHES[name](text.encode())
            yield raw[:12], f"id raw {name}"
            yield raw.hex().encode()[:12], f"id raw {name} hex"


# ------------------------------------------------------------------------------------------ the scanner

_SCALES = (16, 20, 28, 32)
_LABEL_CODES: tuple[tuple[str, Any, Any], ...] = (
    ("<u1", 0, 1), ("<u1", 48, 49), ("<u2", 0, 1),
    *(("<u4", 0, 1 << s) for s in (0, 16, 20, 28)), *(("<u4", 0, 2**32 - (1 << s)) for s in (0, 16, 28)), (">u4", 0, 1),
    *(("<u8", 0, 1 << s) for s in (0, *_SCALES)), *(("<u8", 0, 2**64 - (1 << s)) for s in (0, *_SCALES)), (">u8", 0, 1),
    ("<f4", 0, 1), ("<f8", 0, 1), ("<f8", -1, 1), ("<i4", -1, 1), ("<i1", -1, 1),
)  # fmt: skip


class Scanner:
    """Everything that stands for the secrets, made once, to be looked for in many messages."""

    def __init__(self, secrets: Secrets) -> None:
        self._needles = _Needles()
        for i, value in enumerate(secrets.ids):
            # Whole lists leak, not single ids: every id under the commonest recipes, some under all.
            needles = id_needles(value, secrets.contexts) if i % ID_STRIDE == 0 else common_id_needles(value)
            for needle, what in needles:
                self._needles.add(needle, what)
        self._add_bits(secrets.labels)
        for name, vector in secrets.columns.items():
            self._add_column(name, vector)
        for name, matrix in secrets.rows.items():
            self._add_rows(name, matrix)
        self._needles.freeze()
        self._windows = _label_windows(secrets.labels)
        self._targets = _by_length(secrets.aligned)

    def _add_bits(self, labels: Mapping[str, Vector]) -> None:
        for name, vector in labels.items():
            for bitorder in ("little", "big"):
                for window in _packed(vector, bitorder):
                    # Small integers have bits in two or three of eight bytes: no evidence.
                    if sum(map(bool, window.tobytes())) >= 4:
                        self._needles.add(window.tobytes(), f"labels {name} as bits")

    def _add_column(self, name: str, vector: Vector) -> None:
        for code, array in _codes(vector):
            size = array.itemsize
            raw = array.tobytes()
            for start in range(0, len(vector) - COLUMN_RUN, COLUMN_STRIDE):
                run = vector[start : start + COLUMN_RUN]
                if len(np.unique(run)) >= 3:
                    at = start * size
                    self._needles.add(raw[at : at + COLUMN_RUN * size], f"column {name} as {code}")

    def _add_rows(self, name: str, matrix: Vector) -> None:
        for code, array in _codes(matrix):
            for i in range(0, len(matrix), COLUMN_STRIDE):
                row = array[i, :COLUMN_RUN]
                if len(np.unique(row)) >= 3:
                    self._needles.add(np.ascontiguousarray(row).tobytes(), f"row of {name} as {code}")

    def scan(self, view: Sequence[Seen]) -> list[Found]:
        """Return everything found, each kind of thing once per message."""
        # Products this small are slower on many threads, and far slower where tests run side by side.
        with threadpool_limits(1):
            return self._scan(view)

    def _scan(self, view: Sequence[Seen]) -> list[Found]:
        found: dict[Found, None] = {}
        for item in view:
            for what in self._needles.find(item.data):
                kind = what.split(" ")[0]
                found[
                    Found({"id": "id", "labels": "label", "row": "column"}.get(kind, kind), what, item.where)
                ] = None
            for what in self._find_label_runs(item.data):
                found[Found("label", what, item.where)] = None
            for array in item.arrays:
                for what in self._find_correlated(array):
                    found[Found("correlation", what, item.where)] = None
        return list(found)

    def _find_label_runs(self, data: bytes) -> Iterator[str]:
        if not len(self._windows) or len(data) < LABEL_RUN:
            return
        for dtype, zero, one in _LABEL_CODES:
            size = np.dtype(dtype).itemsize
            for offset in range(size):
                array = np.frombuffer(data, dtype, (len(data) - offset) // size, offset)
                if len(array) < LABEL_RUN:
                    continue
                is_one = array == np.array(one).astype(array.dtype)
                if np.count_nonzero(is_one) < 4:
                    continue
                is_label = is_one | (array == np.array(zero).astype(array.dtype))
                count = np.concatenate([[0], np.cumsum(is_label)])
                starts = np.flatnonzero(count[LABEL_RUN:] - count[:-LABEL_RUN] == LABEL_RUN)
                if len(starts) and np.isin(_packed_at(is_one, starts), self._windows).any():
                    yield f"labels as {dtype} {zero}/{one}"

    def _find_correlated(self, array: NDArray[Any]) -> Iterator[str]:
        for length, (names, targets) in self._targets.items():
            for matrix in _readings(array, length):
                r = matrix.T @ targets
                least = max(CORRELATION, 6.5 / np.sqrt(length))
                for i, j in zip(*np.nonzero(np.abs(r) > least), strict=True):
                    yield f"{names[j]} (r = {r[i, j]:.2f})"


def _codes(values: Vector) -> Iterator[tuple[str, NDArray[Any]]]:
    filled = np.nan_to_num(values)
    yield "f8", filled.astype("<f8")
    yield "big-endian f8", filled.astype(">f8")
    yield "f4", filled.astype("<f4")
    for scale in _SCALES:
        if scale < 28 and np.abs(filled).max(initial=0) * 2**scale < 2**31:
            yield f"i4 * 2^{scale}", np.rint(filled * 2**scale).astype("<i4")
        yield f"i8 * 2^{scale}", np.rint(filled * 2**scale).astype("<i8")


def _informative(bits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    ones = bits.sum(axis=-1)
    return (ones >= 4) & (ones <= LABEL_RUN - 4)


def _packed(vector: Vector, bitorder: Any) -> NDArray[np.uint64]:
    bits = sliding_window_view(np.asarray(vector) == 1, LABEL_RUN)
    packed = np.packbits(bits[_informative(bits)], axis=1, bitorder=bitorder)
    return np.ascontiguousarray(packed).view("<u8").reshape(-1)


def _packed_at(bits: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    windows = sliding_window_view(bits, LABEL_RUN)[starts]
    return np.packbits(windows[_informative(windows)], axis=1, bitorder="little").view("<u8").reshape(-1)


def _label_windows(labels: Mapping[str, Vector]) -> NDArray[np.uint64]:
    found = [_packed(v, "little") for vector in labels.values() for v in (vector, 1 - vector)]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)


def _by_length(aligned: Mapping[str, Vector]) -> dict[int, tuple[list[str], Vector]]:
    found: dict[int, tuple[list[str], list[Vector]]] = {}
    for name, vector in aligned.items():
        standard = _standardised(np.nan_to_num(vector).reshape(-1, 1))
        if len(vector) >= LEAST_ROWS and standard.any():
            names, vectors = found.setdefault(len(vector), ([], []))
            names.append(name)
            vectors.append(standard)
    return {length: (names, np.concatenate(vectors, axis=1)) for length, (names, vectors) in found.items()}


def _standardised(matrix: Vector) -> Vector:
    with np.errstate(all="ignore"):
        centred = matrix - matrix.mean(axis=0)
        size = np.sqrt((centred * centred).sum(axis=0))
        found = np.where(size > 0, centred / size, 0)
    return np.nan_to_num(found, posinf=0, neginf=0)


def _readings(array: NDArray[Any], length: int) -> Iterator[Vector]:
    """Read an array as vectors of one length, in every usual way: signed, unsigned, halves, by column or row.

    Random words read as floats are so heavy-tailed that one row decides a correlation: of floats, the ranks.
    """
    if array.size == 0 or array.size % length or array.dtype.kind not in "uifb":
        return
    raw = np.ascontiguousarray(array).reshape(-1)
    ways: list[NDArray[Any]] = [raw] if raw.dtype.kind != "f" else []
    if raw.dtype.itemsize == 8:
        ways = [raw.view(t) for t in ("<u8", "<i8")]
        ways += [raw.view("<u4")[::2], raw.view("<i4")[::2], raw.view("<i4")[1::2]]
    elif raw.dtype.itemsize == 4:
        ways = [raw.view("<u4"), raw.view("<i4")]
    for way in ways:
        yield from _both_ways(way.astype(np.float64), length)
    if raw.dtype.itemsize in (4, 8):
        with np.errstate(all="ignore"):
            values = np.nan_to_num(raw.view(f"<f{raw.dtype.itemsize}").astype(np.float64))
        yield from _both_ways(values, length, ranked=True)


def _both_ways(values: Vector, length: int, ranked: bool = False) -> Iterator[Vector]:
    ways = [values.reshape(length, -1)]
    if values.size > length:
        ways.append(values.reshape(-1, length).T)
    for way in ways:
        ranks = np.argsort(np.argsort(way, axis=0), axis=0).astype(np.float64) if ranked else way
        yield _standardised(ranks)


def places(needles: Iterable[bytes], view: Sequence[Seen]) -> list[str]:
    """Tell where any of the byte strings (16 bytes or more) stands in a view."""
    looked_for = _Needles()
    for needle in needles:
        looked_for.add(needle, "needle")
    looked_for.freeze()
    return [item.where for item in view if any(looked_for.find(item.data))]
