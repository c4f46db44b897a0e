"""Hashed ids (row 9): everything that was sent, told or logged is searched for ids under twenty recipes.

Numbers of a phone are few: whoever holds their hashes tries all. So no recipe that a reader can compute may stand on
any wire. Searched are the messages that each party got from others for the others' ids, all public values, and the
logs and pages of the run for everybody's. Undefended: a list of SHA-256 of phone numbers, as marketing partners
upload them.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.attack_lab.views import arrays_of
from fedmkt.contract.canonical import digest
from fedmkt.protocol import wire

Recipe = Callable[[bytes, bytes], bytes]
_PLAIN = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "sha3_512", "blake2b", "blake2s")


def _hash(name: str) -> Recipe:
    return lambda text, salt: hashlib.new(name, text).digest()


RECIPES: Mapping[str, Recipe] = {
    "plain": lambda text, salt: text,
    **{name: _hash(name) for name in _PLAIN},
    "sha256 hex": lambda text, salt: hashlib.sha256(text).hexdigest().encode(),
    "md5 hex": lambda text, salt: hashlib.md5(text, usedforsecurity=False).hexdigest().encode(),
    "sha1 hex": lambda text, salt: hashlib.sha1(text, usedforsecurity=False).hexdigest().encode(),
    "sha256 of sha256": lambda text, salt: hashlib.sha256(hashlib.sha256(text).digest()).digest(),
    "sha256, contract before": lambda text, salt: hashlib.sha256(salt + text).digest(),
    "sha256, contract after": lambda text, salt: hashlib.sha256(text + salt).digest(),
    "hmac of contract": lambda text, salt: hmac.digest(salt, text, "sha256"),
    "hmac without key": lambda text, salt: hmac.digest(b"", text, "sha256"),
    "little-endian number": lambda text, salt: int(b"0" + _digits(text)).to_bytes(32, "little"),
}
"""What ids might be sent as; each also of the digits alone, and of the last eleven."""


def hashed_ids(subject: Subject, effort: Effort) -> Finding:
    """Row 9: how many ids stand in anything that another party, or a reader of logs, holds."""
    salt = digest(subject.contract)
    found: set[str] = set()
    searched = 0
    everybody = {p.name: _chosen(subject.tables[p.name].people, effort) for p in subject.config.parties}
    needles = {name: Needles(ids, salt) for name, ids in everybody.items()}
    for reader in subject.views.moments:
        data = b"\0".join(_received(subject, reader))
        searched += len(data)
        for owner, ones in needles.items():
            if owner != reader:
                found |= ones.find(data)
    public = b"\0".join((*_told(subject), *_files(subject)))
    for ones in needles.values():
        found |= ones.find(public)
    searched += len(public)
    uploaded = b"".join(hashlib.sha256(i.encode()).digest() for i in everybody[subject.partner])
    return Finding(
        9, "hashed ids on the wire", "ids found", float(len(needles[subject.partner].find(uploaded))),
        float(len(found)), Limit(0),
        f"{len(RECIPES)} recipes of {sum(map(len, everybody.values())):,} ids in {searched / 1e6:.1f} MB",
    )  # fmt: skip


class Needles:
    """Ids under all recipes, of which eight bytes are looked for at every place, then the rest."""

    def __init__(self, ids: Iterable[str], salt: bytes) -> None:
        self._by_start: dict[int, tuple[bytes, str]] = {}
        for person in ids:
            for text in _spellings(person):
                for name, recipe in RECIPES.items():
                    needle = recipe(text, salt)[: 16 if name != "plain" else None]
                    if len(needle.rstrip(b"\0")) >= (5 if name == "little-endian number" else 8):
                        needle = needle[:8] if name == "little-endian number" else needle
                        self._by_start[int.from_bytes(needle[:8], "little")] = (needle, person)
        self._starts = np.sort(np.fromiter(self._by_start, np.uint64, len(self._by_start)))
        self._filter = np.zeros(1 << 22, np.bool_)
        self._filter[_low(self._starts)] = True

    def find(self, data: bytes) -> set[str]:
        """Return the ids that stand anywhere in the data."""
        found = set()
        for offset in range(min(8, max(0, len(data) - 7))):
            words = np.frombuffer(data, "<u8", (len(data) - offset) // 8, offset)
            near = np.flatnonzero(self._filter[_low(words)])
            place = np.minimum(np.searchsorted(self._starts, words[near]), len(self._starts) - 1)
            for hit in near[self._starts[place] == words[near]].tolist():
                needle, person = self._by_start[int(words[hit])]
                at = offset + 8 * hit
                if data[at : at + len(needle)] == needle:
                    found.add(person)
        return found


def _low(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (words ^ (words >> np.uint64(29))) & np.uint64((1 << 22) - 1)


def _digits(text: bytes) -> bytes:
    return bytes(c for c in text if 48 <= c <= 57)


def _spellings(person: str) -> set[bytes]:
    text = person.encode()
    return {text, _digits(text) or text, _digits(text)[-11:] or text}


def _chosen(ids: tuple[str, ...], effort: Effort) -> list[str]:
    """Take as many ids as the effort allows, from the whole list: lists leak, not single ids."""
    picked = effort.random.permutation(len(ids))[: effort.ids]
    return [ids[i] for i in picked.tolist()]


def _received(subject: Subject, reader: str) -> Iterator[bytes]:
    for moment in subject.views.of(reader):
        for _, message in moment.received:
            yield b"\0".join(array.tobytes() for array in arrays_of(message))


def _told(subject: Subject) -> Iterator[bytes]:
    yield from (wire.encode(moment.told) for moment in subject.views.all)


def _files(subject: Subject) -> Iterator[bytes]:
    """Give the logs of all participants, and what lies beside them for people to read."""
    for path in sorted(subject.given.rglob("*")):
        inside = path.relative_to(subject.given).parts
        if path.is_file() and inside[0] not in ("parties", "world"):
            yield Path(path).read_bytes()
