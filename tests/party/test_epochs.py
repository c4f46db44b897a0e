"""Attacks on the main job's epochs: masks used twice, secrets on disk, contracts that must not be served."""

import base64
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmkt.config.settings import PartyConfig
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto import seal as sealing
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PolicyRefused
from fedmkt.party import handle
from fedmkt.party.handle import Party
from fedmkt.party.journal import Journal
from fedmkt.party.node import Place, Sources, open_data, open_party
from fedmkt.protocol import wire
from fedmkt.protocol.core import Masked, Name, State
from fedmkt.protocol.pipeline import Finished
from fedmkt.protocol.session import AddressedMasks, Invitation, Opening
from fedmkt.ring import kernels, sigmoid
from fedmkt.simulation.run import party_settings, read_job
from tests.engine import BANK, Killed, Tap, World, begin, job_config, job_world, world_of

SHOP = Name("partner")
Arrays = list[np.ndarray[Any, Any]]
NARROW = ("range.open_lookup", "range.open_count")
"""Steps whose openings are one word masked modulo 2^16 or less: two of them are equal by chance."""
DEALT_SHARES = ("/high", "/top")
"""Streams that are a party's share of a dealt value and mask no opening: with them a rounded share may be kept."""


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.compile_all()
    sigmoid.compile_all()


# ------------------------------------------------------------------------------------------- what the tests hear


@dataclass
class Step:
    """One step that ran at a party with data: what it drew and what it opened."""

    party: Name
    epoch: bytes
    name: str
    drawn: list[tuple[bytes, bytes]] = field(default_factory=list)
    opened: dict[Name, Arrays] = field(default_factory=dict)


@dataclass
class Ear:
    """All steps, all mask words and all stored states of the runs of one test."""

    steps: list[Step] = field(default_factory=list)
    masks: Arrays = field(default_factory=list)
    stored: list[Mapping[type[State], State]] = field(default_factory=list)


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Ear:
    heard = Ear()
    run, key, save = Party._run, AddressedMasks._key, Journal.save
    words, halves = AddressedMasks.words, AddressedMasks.half_words

    def hear_run(self: Party, live: Any, call: Any, inbox: Any, reads: Any) -> Any:
        heard.steps.append(Step(self.me, live.epoch.id, call.step.name))
        outcome = run(self, live, call, inbox, reads)
        heard.steps[-1].opened = {r: list(masked_arrays(m)) for r, m in outcome.send.items()}
        return outcome

    def hear_key(self: AddressedMasks, of: Name, address: Any) -> bytes:
        made = key(self, of, address)
        heard.steps[-1].drawn.append((of.encode() + b"/" + bytes(address), made))
        return made

    def hear_save(self: Journal, index: int, start: int, transcript: bytes, states: Any) -> None:
        heard.stored.append({k: v for k, v in states.items() if k.durable})
        save(self, index, start, transcript, states)

    def hear(original: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(self: AddressedMasks, of: Name, label: str, *args: Any, **options: Any) -> Any:
            made = original(self, of, label, *args, **options)
            if not label.endswith(DEALT_SHARES):
                heard.masks.append(made.copy())
            return made

        return drawn

    monkeypatch.setattr(Party, "_run", hear_run)
    monkeypatch.setattr(AddressedMasks, "_key", hear_key)
    monkeypatch.setattr(AddressedMasks, "words", hear(words))
    monkeypatch.setattr(AddressedMasks, "half_words", hear(halves))
    monkeypatch.setattr(Journal, "save", hear_save)
    return heard


def masked_arrays(value: object, inside: bool = False) -> Iterator[np.ndarray[Any, Any]]:
    """Find the arrays of all masked openings in a message."""
    if isinstance(value, np.ndarray):
        if inside:
            yield value.copy()
    elif dataclasses.is_dataclass(value):
        for f in dataclasses.fields(value):
            yield from masked_arrays(getattr(value, f.name), inside or isinstance(value, Masked))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from masked_arrays(item, inside)
    elif isinstance(value, tuple):
        for item in value:
            yield from masked_arrays(item, inside)


def keys_used_twice(steps: Sequence[Step], dealer: Name) -> int:
    """Count mask keys that parties with data drew more than once, over all epochs together."""
    keys = [key for step in steps if step.party != dealer for _, key in step.drawn]
    return len(keys) - len(set(keys))


def close_openings(steps: Sequence[Step]) -> tuple[int, int]:
    """Compare what a party opened in the same step of two epochs: words that are close, and words compared.

    Under unrelated masks a difference is uniform: it is that close to zero with probability 2^-23.
    """
    alike: dict[tuple[object, ...], list[tuple[bytes, np.ndarray[Any, Any]]]] = {}
    for step in steps:
        arrays = next(iter(step.opened.values()), [])  # every reader gets the same openings
        for place, array in enumerate(arrays):
            if step.name not in NARROW:
                alike.setdefault((step.party, step.name, place, array.shape), []).append((step.epoch, array))
    near = compared = 0
    for found in alike.values():
        for (epoch, a), (later, b) in combinations(found, 2):
            if epoch != later:
                signed = (a - b).view(np.dtype(f"i{a.itemsize}"))
                near += int((np.abs(signed) < 1 << (8 * a.itemsize - 24)).sum())
                compared += a.size
    return near, compared


def killed_before(world: World, boundaries: Sequence[int]) -> None:
    """Kill one run before each of these calls in turn, resume it each time, and at last let it end."""
    for at, boundary in enumerate(boundaries):
        with pytest.raises(Killed):
            world.run(Tap(stop_at=boundary), resume=at > 0)
        world.kill()
    assert isinstance(world.run(resume=True), Finished)


def check_masks(ear: Ear) -> None:
    dealer = Name("coordinator")
    epochs = {s.epoch for s in ear.steps}
    used = [(s.epoch, s.party, address) for s in ear.steps if s.party != dealer for address, _ in s.drawn]
    assert len(epochs) > 1 and len(used) > 100
    assert len(used) == len(set(used)), "an address was drawn twice in one epoch"
    assert keys_used_twice(ear.steps, dealer) == 0, "a mask was drawn in two epochs"
    near, compared = close_openings(ear.steps)
    assert compared > 10_000
    assert near <= 3 + 10 * compared * 2**-23, f"{near} of {compared} words of two epochs' openings are close"


# ------------------------------------------------------------------------------------------- masks and epochs


def test_no_mask_is_used_for_two_openings_when_a_run_is_killed_and_resumed(tmp_path: Path, ear: Ear) -> None:
    world = job_world(tmp_path)
    killed_before(world, [7, 28, 36, 58, 101, 114, 141, 171, 177])
    check_masks(ear)


@pytest.mark.slow
def test_no_mask_is_used_for_two_openings_where_the_match_is_hidden(tmp_path: Path, ear: Ear) -> None:
    """Two weights, or one weight and a share of another epoch, under one mask would tell who is common."""
    world = job_world(tmp_path, more='\n[align]\nmatch = "hidden"\n')
    killed_before(world, [24, 46, 50, 70, 151, 152, 186, 194, 232, 242, 254])
    check_masks(ear)
    shown = [a for s in ear.steps if s.name.endswith("hide_weight") for a in s.opened[SHOP]]
    assert len(shown) > 6 and not any(np.array_equal(a, b) for a, b in combinations(shown, 2))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(6))
def test_no_mask_is_used_for_two_openings_whichever_call_a_run_is_killed_at(
    first: int, tmp_path: Path, ear: Ear
) -> None:
    world = job_world(tmp_path)
    tap = Tap()
    job_world(tmp_path / "whole").run(tap)
    killed_before(world, range(1 + first, len(tap.requests), 6))
    check_masks(ear)


def test_a_mask_that_survives_its_epoch_would_be_noticed(
    tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two tests above with the answer taken out: seeds that forget the epoch."""
    monkeypatch.setattr(handle, "dealer_seed", lambda prekey, peer, epoch_id, party: party.encode().ljust(32))
    killed_before(job_world(tmp_path), [171])
    assert keys_used_twice(ear.steps, Name("coordinator")) > 20
    near, compared = close_openings(ear.steps)
    assert near > 1000 * (3 + 10 * compared * 2**-23)


def test_no_mask_is_in_a_checkpoint(tmp_path: Path, ear: Ear) -> None:
    """A mask that is stored would be opened again in the next epoch, under another value."""
    job_world(tmp_path).run()
    drawn = np.unique(np.concatenate([_pairs(a) for a in ear.masks]))
    assert len(ear.stored) >= 6 and drawn.size > 10_000
    for states in ear.stored:
        for kind, state in states.items():
            for array in all_arrays(state):
                if array.dtype in (np.uint64, np.uint32) and array.size:
                    assert not np.intersect1d(_pairs(array), drawn).size, f"{kind.__name__} keeps a mask"


def _pairs(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return words of 64 bits; half words in pairs, so that none is found by chance."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat if array.dtype == np.uint64 else flat[: flat.size // 2 * 2].view(np.uint64)


def all_arrays(value: object) -> Iterator[np.ndarray[Any, Any]]:
    yield from masked_arrays(value, inside=True)


def test_no_message_crosses_a_checkpoint(tmp_path: Path) -> None:
    """What was sent before it could not be opened after a resume: its keys ended with their epoch."""
    tap = Tap()
    job_world(tmp_path).run(tap)
    made_at = {e.digest: a.receipt.index for a in tap.answers for e in a.envelopes}
    riders = {digest for a in tap.answers for _, digest, _ in a.receipt.riders}
    saves = [a.receipt.index for a in tap.answers if a.receipt.step == "checkpoint.save"]
    assert len(saves) >= 6
    for passing in tap.requests:
        for envelope in passing.message.inbox:  # type: ignore[union-attr]
            if envelope.digest in riders:
                continue  # what rides to somebody who is called later is given up with its epoch (`test_riders`)
            between = range(made_at[envelope.digest], passing.message.index)  # type: ignore[union-attr]
            assert not set(saves) & set(between)


# ------------------------------------------------------------------------------------------- secrets on disk


def spelled(secret: bytes) -> list[bytes]:
    """Write a secret as it might end up in a file."""
    return [
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        base64.b64encode(secret).rstrip(b"="),
    ]


def found_on_disk(folder: Path, secrets: Sequence[bytes]) -> list[str]:
    """Name the files that hold one of these secrets."""
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return [p.name for p, data in files.items() for s in secrets for w in spelled(s) if w in data]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All dealer seeds, prekeys and ephemeral keys that come into being."""
    heard: list[bytes] = []
    made = handle.dealer_seed

    class HeardPrekey(sealing.Prekey):
        def __init__(self, secret: bytes) -> None:
            heard.append(secret)
            super().__init__(secret)

    def hear_seed(*args: Any) -> bytes:
        heard.append(made(*args))
        return heard[-1]

    monkeypatch.setattr(handle, "dealer_seed", hear_seed)
    monkeypatch.setattr(handle, "Prekey", HeardPrekey)
    monkeypatch.setattr(sealing, "Prekey", HeardPrekey)
    return heard


def test_no_seed_and_no_prekey_ever_touches_a_disk(tmp_path: Path, secrets: list[bytes], ear: Ear) -> None:
    world = job_world(tmp_path)
    with pytest.raises(Killed):
        world.run(Tap(stop_at=153))
    assert len(secrets) > 100
    assert found_on_disk(tmp_path, secrets) == []
    world.run(resume=True)
    assert found_on_disk(tmp_path, secrets) == []
    stored = b"".join(wire.encode(s) for states in ear.stored for s in states.values())
    assert not any(w in stored for s in secrets for w in spelled(s))


def test_a_secret_that_is_on_disk_is_found(tmp_path: Path) -> None:
    for i, written in enumerate(spelled(b"\x07secret seed of thirty-two byte")):
        (tmp_path / f"{i}.bin").write_bytes(b"xx" + written + b"yy")
    assert len(set(found_on_disk(tmp_path, [b"\x07secret seed of thirty-two byte"]))) == 4


def test_a_killed_run_leaves_its_journals_unreadable_and_a_finished_one_leaves_none(
    tmp_path: Path, ear: Ear
) -> None:
    world = job_world(tmp_path)
    with pytest.raises(Killed):
        world.run(Tap(stop_at=153))
    journals = [p.read_bytes() for p in tmp_path.rglob("*.sealed")]
    assert len(journals) >= 4
    for states in ear.stored:
        for state in states.values():
            plain = wire.encode(state)
            assert not any(plain[:64] in data or plain[-64:] in data for data in journals)
    world.run(resume=True)
    assert list(tmp_path.rglob("*.sealed")) + list(tmp_path.rglob("journal.key")) == []


# ------------------------------------------------------------------------------------------- which contracts are served

Case = Callable[[SignedContract, dict[Name, Identity]], SignedContract]
MALLORY = Identity(b"\x77" * 32)


def _with(signed: SignedContract, identities: Mapping[Name, Identity], **changes: object) -> SignedContract:
    """Change a contract and have everybody sign it again."""
    contract = signed.contract.model_copy(update=changes)
    return SignedContract(
        contract=contract, signatures={n: sign(contract, n, i) for n, i in identities.items()}
    )


def _swapped_key(signed: SignedContract, identities: dict[Name, Identity]) -> SignedContract:
    parties = tuple(
        p.model_copy(update={"key": MALLORY.public.hex()}) if p.name == SHOP else p
        for p in signed.contract.parties
    )
    return _with(signed, identities | {SHOP: MALLORY}, parties=parties)


def _coordinator(organisation: str | None = None, party_key: bool = False) -> Case:
    def changed(signed: SignedContract, identities: dict[Name, Identity]) -> SignedContract:
        old = signed.contract.coordinator
        key = identities[SHOP].public.hex() if party_key else old.key
        coordinator = old.model_copy(update={"organisation": organisation or old.organisation, "key": key})
        signers = identities | ({Name(old.name): identities[SHOP]} if party_key else {})
        return _with(signed, signers, coordinator=coordinator)

    return changed


def _signatures(change: Callable[[dict[str, str]], dict[str, str]]) -> Case:
    def changed(signed: SignedContract, identities: dict[Name, Identity]) -> SignedContract:
        return SignedContract(contract=signed.contract, signatures=change(dict(signed.signatures)))

    return changed


REFUSED: dict[str, Case] = {
    "lacks_the_signature_of_a_party": _signatures(lambda s: {n: v for n, v in s.items() if n != SHOP}),
    "lacks_the_signature_of_the_coordinator": _signatures(
        lambda s: {n: v for n, v in s.items() if n != "coordinator"}
    ),
    "has_a_signature_too_many": _signatures(lambda s: s | {"mallory": s["bank"]}),
    "has_one_signature_twice": _signatures(lambda s: s | {"partner": s["bank"]}),
    "has_no_signature": _signatures(lambda s: {}),
    "was_changed_after_signing": lambda signed, _: SignedContract(
        contract=signed.contract.model_copy(update={"purpose": "other"}), signatures=signed.signatures
    ),
    "has_another_key_for_a_party": _swapped_key,
    "has_a_coordinator_of_the_banks_organisation": _coordinator("Example Bank"),
    "has_a_coordinator_of_the_banks_organisation_spelled_otherwise": _coordinator("  example   BANK "),
    "has_a_coordinator_with_a_partys_key": _coordinator(party_key=True),
    "is_for_another_purpose": lambda signed, ids: _with(signed, ids, purpose="credit decisions"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    return job_world(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("name", [BANK, SHOP])
@pytest.mark.parametrize("case", REFUSED)
def test_nothing_leaves_and_at_most_the_refusal_is_written_for_a_contract_that(
    case: str, name: Name, small: World, tmp_path: Path
) -> None:
    job = read_job(small.folder / "data" / "job.toml")
    settings: PartyConfig = party_settings(job, small.signed, name)  # pinned: the true keys
    table = open_data(job.party(name), small.folder / "data")
    place = Place(tmp_path / "private", tmp_path / "logs")
    bad = REFUSED[case](small.signed, dict(small.identities))
    with pytest.raises(PolicyRefused):
        open_party(name, bad, settings, table, place, Sources.of(None, name))
    # Only what exactly those signed whose keys are pinned has the log say that it was refused.
    assert _logged(place.logs) == (["policy.refused"] if case == "is_for_another_purpose" else [])
    assert case == "is_for_another_purpose" or list(tmp_path.iterdir()) == []


def _logged(folder: Path) -> list[str]:
    path = folder / "log.jsonl"
    return [json.loads(line)["type"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_party_pins_neither_more_nor_fewer_than_the_signers(small: World, tmp_path: Path) -> None:
    job = read_job(small.folder / "data" / "job.toml")
    settings = party_settings(job, small.signed, BANK)
    table = open_data(job.bank, small.folder / "data")
    for pinned in (
        {n: k for n, k in settings.pinned.items() if n != SHOP},
        {**settings.pinned, "mallory": MALLORY.public.hex()},
    ):
        other = settings.model_copy(update={"pinned": pinned})
        with pytest.raises(PolicyRefused, match="pinned"):
            place = Place(tmp_path / "private", tmp_path / "logs")
            open_party(BANK, small.signed, other, table, place, Sources.of(None, BANK))
    assert list(tmp_path.iterdir()) == []


def test_one_contract_is_served_by_one_process_of_a_party_at_a_time(small: World) -> None:
    first = dict(small.open())
    small.parties = {}
    run = begin(first)
    second = small.open()
    hellos = tuple(p.hello(Invitation(run, 2)) for p in second.values())
    for party in second.values():
        with pytest.raises(PolicyRefused, match="under way"):
            party.open_epoch(Opening(hellos, ()))
    for party in first.values():
        party.release()
    begin(second, run, 2)
    small.kill()


def test_a_shorter_list_than_agreed_is_refused_before_anything_leaves(tmp_path: Path) -> None:
    config = job_config(tmp_path / "data", minimum=100)
    tables = {p.name: open_data(p, tmp_path / "data") for p in config.parties}
    strict = config.model_copy(update={"limits": config.limits.model_copy(update={"min_list": 10_000})})
    world = world_of(strict, tmp_path, tables)
    with pytest.raises(PolicyRefused, match="lists this short"):
        world.open_one(BANK)
    assert _logged(tmp_path / "logs" / BANK) == ["policy.refused"]
