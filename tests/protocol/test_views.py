"""What each participant can read in a whole run, searched for what it must not learn."""

import base64
import dataclasses
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedmkt.contract.canonical import digest
from fedmkt.crypto.seal import Envelope, Place, Prekey, open_sealed
from fedmkt.learn.prepare import Preparation
from fedmkt.party import handle
from fedmkt.party.node import open_data
from fedmkt.party.table import Table
from fedmkt.protocol import wire
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Masked, Name, data_parties, dealer
from fedmkt.protocol.layout import FIT, SCORE, layout
from fedmkt.protocol.linear.predictor import VectorOpening
from fedmkt.protocol.prepare import Columns, Prepared, Shape, prepared_rows
from fedmkt.protocol.session import AddressedMasks, Hello, dealer_seed
from tests.engine import Tap, World, job_config, world_of
from tests.protocol.leak_scanner import LABEL_RUN, Found, Scanner, Secrets, Seen, places, seen
from tests.protocol.plain_caller import chi_square


@dataclasses.dataclass(frozen=True)
class Opened:
    """One envelope with the place it belongs to and what its reader read in it."""

    envelope: Envelope
    place: Place
    data: bytes


@dataclasses.dataclass
class Run:
    """A finished run of the main job and all that was read in it."""

    world: World
    tables: Mapping[str, Table]
    tap: Tap
    opened: list[Opened]
    prekeys: dict[bytes, bytes]

    @property
    def overlap(self) -> Overlap:
        return self.public(data_parties(self.world.contract)[0], Overlap)

    def public(self, party, kind):
        found = [a.receipt.public for a in self.tap.answers if a.receipt.party == party]
        (value,) = [wire.decode(p, kind) for p in found if f'"t":"{kind.__name__}"'.encode() in p]
        return value

    def layout(self, stage):
        columns = {p: self.public(p, Shape).columns for p in data_parties(self.world.contract)}
        return layout(self.world.contract, self.overlap, columns, stage)


def watched(folder: Path, rows: tuple[int, int, int], partners: int) -> Run:
    """Run the main job and keep what every envelope held, and every prekey."""
    config = job_config(folder / "data", rows=rows, partners=partners, checkpoint_every=2)
    tables = {p.name: open_data(p, folder / "data") for p in config.parties}
    opened, prekeys = [], {}
    with pytest.MonkeyPatch.context() as patch:

        def open_and_keep(envelope, place, sender_public, prekey):
            plain = open_sealed(envelope, place, sender_public, prekey)
            opened.append(Opened(envelope, place, bytes(plain)))
            return plain

        def make_and_keep(secret):
            made = Prekey(secret)
            prekeys[made.public] = secret
            return made

        patch.setattr(handle, "open_sealed", open_and_keep)
        patch.setattr(handle, "Prekey", make_and_keep)
        world, tap = world_of(config, folder, tables, seed=11), Tap()
        world.run(tap)
    return Run(world, tables, tap, opened, prekeys)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return watched(tmp_path_factory.mktemp("views"), (2000, 2200, 1800), 1)


@pytest.fixture(scope="module")
def run_of_three(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return watched(tmp_path_factory.mktemp("views"), (900, 900, 800), 2)


def participants(run: Run) -> list[Name]:
    return [*data_parties(run.world.contract), dealer(run.world.contract)]


# ------------------------------------------------------------------------------------------ views


def view_of(run: Run, reader: Name) -> list[Seen]:
    """All that a participant reads: messages to it, what it can add to its own of the same step, all receipts."""
    found = [seen(f"{o.place.step} from {o.place.sender}", o.data) for o in to(run, reader)]
    found += [
        Seen(f"receipt {a.receipt.step}", wire.encode(a.receipt) + a.receipt.public) for a in run.tap.answers
    ]
    return found + list(sums(run, reader))


def to(run: Run, reader: Name) -> list[Opened]:
    return [o for o in run.opened if o.place.reader == reader]


def sums(run: Run, reader: Name) -> Iterator[Seen]:
    """Add up the openings of one step and round: the own ones and those of all others."""
    others = len(data_parties(run.world.contract)) - 1
    received: dict[str, list[Opened]] = {}
    for o in to(run, reader):
        received.setdefault(o.place.step, []).append(o)
    own: dict[str, list[Opened]] = {}
    for o in run.opened:
        if o.place.sender == reader:
            own.setdefault(o.place.step, []).append(o)
    for step, messages in received.items():
        mine = own.get(step, [])
        for i in range(0, min(len(messages), len(mine)) // others * others, others):
            columns = [seen("", o.data).arrays for o in [*messages[i : i + others], mine[i]]]
            for arrays in zip(*columns, strict=False):
                if len({(a.shape, a.dtype) for a in arrays}) == 1 and arrays[0].dtype.kind == "u":
                    added = sum(arrays[1:], arrays[0])
                    yield Seen(f"sum of {step}", added.tobytes(), (added,))


def view_of_coordinator(run: Run) -> list[Seen]:
    """All that relay and dealer have: envelopes, receipts, hellos, the dealer's own messages, its seeds."""
    maker = dealer(run.world.contract)
    found = view_of(run, maker)
    found += [
        seen(f"{o.place.step} to {o.place.reader}", o.data) for o in run.opened if o.place.sender == maker
    ]
    for envelope in run.tap.envelopes:
        raw = b"".join([envelope.ephemeral, envelope.signature, *envelope.parts])
        found.append(Seen(f"envelope {envelope.sender} to {envelope.reader}", raw))
    found += [Seen("hello", wire.encode(h)) for h in hellos(run)]
    return [*found, Seen("seeds", b"".join(coordinator_keys(run)))]


def hellos(run: Run) -> list[Hello]:
    return [p.told for p in run.tap.passed if isinstance(p.told, Hello)]


def epoch_id(run: Run) -> bytes:
    (found,) = {o.place.epoch for o in run.opened}
    return found


def coordinator_keys(run: Run) -> list[bytes]:
    """Every secret that the dealer has, and what it can derive from them without a party."""
    maker = dealer(run.world.contract)
    by_party = {Name(h.party): h.prekey for h in hellos(run)}
    own = Prekey(run.prekeys[by_party[maker]])
    shared = [own.exchange(by_party[p]) for p in data_parties(run.world.contract)]
    seeds = [dealer_seed(own, by_party[p], epoch_id(run), p) for p in data_parties(run.world.contract)]
    identity = run.world.identities[maker].secret_bytes()
    hashed = [hashlib.sha256(s).digest() for s in (*shared, *seeds, identity)]
    return [run.prekeys[by_party[maker]], identity, *shared, *seeds, *hashed, bytes(32)]


# ------------------------------------------------------------------------------------------ secrets


def secrets_against(run: Run, reader: Name) -> Secrets:
    """Everything of all other parties."""
    contract = run.world.contract
    owners = [p for p in data_parties(contract) if p != reader]
    parts = [secrets_of(run, p) for p in owners]
    (run_id,) = {o.place.run for o in run.opened}
    return Secrets(
        tuple(i for s in parts for i in s.ids), (digest(contract), run_id),
        *(
            {k: v for s in parts for k, v in getattr(s, name).items()}
            for name in ("labels", "columns", "rows", "aligned")
        ),
    )  # fmt: skip


def secrets_of(run: Run, owner: Name) -> Secrets:
    party, table = run.world.parties[owner], run.tables[owner]
    columns, split, prepared = party.recall(Columns), party.recall(Split), party.recall(Prepared)
    fitted = Preparation.from_json(prepared.preparation)
    scored = np.concatenate([split.held_out, split.unlabelled])
    vectors: dict[str, np.ndarray] = {}
    aligned: dict[str, np.ndarray] = {}
    matrices: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    plans = {"train": run.layout(FIT), "scored": run.layout(SCORE)}
    for name, rows in (("train", split.train), ("scored", scored)):
        real = rows[rows != NO_ROW]
        x = prepared_rows(fitted, columns, real)
        raw = np.stack([v[real] for v in columns.numbers.values()], axis=1)
        for kind, matrix in (("raw", raw), ("prepared", x), ("whitened", x @ prepared.transform)):
            matrices[f"{owner}/{name}/{kind}"] = matrix
            for j, column in enumerate(matrix.T):
                vectors[f"{owner}/{name}/{kind}/{j}"] = column
                aligned |= _padded(f"{owner}/{name}/{kind}/{j}", column, rows, plans[name])
        if columns.label is not None and name == "train":
            labels["train"] = columns.label[real]
            aligned |= _padded(f"{owner}/{name}/label", columns.label[real], rows, plans[name])
    for name, values in columns.numbers.items():
        vectors[f"{owner}/file/{name}"] = aligned[f"{owner}/file/{name}"] = values
    if columns.label is not None:
        known = columns.label[~np.isnan(columns.label)]
        labels |= {"file": known, "file, empty is 0": np.nan_to_num(columns.label)}
        aligned |= {"file/label": np.nan_to_num(columns.label), "file/known label": known}
    reversed_ = {f"{n}, from the end": v[::-1] for n, v in labels.items()}
    return Secrets(table.ids, (), labels | reversed_, vectors, matrices, aligned)


def _padded(name: str, column: np.ndarray, rows: np.ndarray, plan) -> dict[str, np.ndarray]:
    long = np.zeros(plan.total)
    long[: plan.rows][rows != NO_ROW] = np.nan_to_num(column)
    return {name: long[: plan.rows], f"{name}, with penalty rows": long, f"{name}, without padding": column}


@pytest.fixture(scope="module")
def scanners(run: Run) -> dict[Name, Scanner]:
    return {p: Scanner(secrets_against(run, p)) for p in participants(run)}


# ------------------------------------------------------------------------------------------ nothing is there


def test_no_party_reads_anything_of_another_one_in_a_whole_run(
    run: Run, scanners: dict[Name, Scanner]
) -> None:
    for party in data_parties(run.world.contract):
        view = view_of(run, party)
        assert sum(s.where.startswith("sum of") for s in view) > 20
        assert scanners[party].scan(view) == []


def test_relay_and_dealer_together_read_nothing_of_any_party(run: Run, scanners: dict[Name, Scanner]) -> None:
    assert scanners[dealer(run.world.contract)].scan(view_of_coordinator(run)) == []


def test_three_parties_read_nothing_of_each_other_either(run_of_three: Run) -> None:
    for party in data_parties(run_of_three.world.contract):
        assert Scanner(secrets_against(run_of_three, party)).scan(view_of(run_of_three, party)) == []


@pytest.mark.parametrize("name", ["run", "run_of_three"])
def test_the_views_are_whole(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    delivered = {e.digest for p in run.tap.requests for e in p.message.inbox}
    assert delivered == {o.envelope.digest for o in run.opened}
    steps = {o.place.step.split(".")[0].split("/")[0] for o in run.opened}
    assert steps == {"witness", "psi", "split", "fit", "range", "score"}
    for party in data_parties(run.world.contract):
        assert len(to(run, party)) > 50
    assert {len(v) for v in secrets_against(run, data_parties(run.world.contract)[1]).aligned.values()} & {
        a.shape[0] for o in run.opened for a in seen("", o.data).arrays if a.ndim
    }


# ------------------------------------------------------------------------------------------ what is planted is found

NOISE = np.random.default_rng(1).bytes(4099)
OTHER_NOISE = np.random.default_rng(2)


def planted(data: bytes, arrays=()) -> list[Seen]:
    return [Seen("planted", NOISE[:1013] + data + NOISE[1013:], tuple(arrays))]


ID_RECIPES = {
    "plain": lambda i, c: i.encode(), "digits": lambda i, c: i.lstrip("+").encode(),
    "national": lambda i, c: i[-11:].encode(),
    "utf-16": lambda i, c: i.encode("utf-16-le"), "hex of it": lambda i, c: i.encode().hex().encode(),
    "base64 of it": lambda i, c: base64.b64encode(i.encode()), "reversed": lambda i, c: i[::-1].encode(),
    "integer": lambda i, c: int(i).to_bytes(8, "little"), "float": lambda i, c: np.float64(int(i)).tobytes(),
    **{
        n: (lambda i, c, n=n: hashlib.new(n, i.encode()).digest())
        for n in ("md5", "sha1", "sha256", "sha512", "blake2b", "sha3_256")
    },
    "sha256 hex": lambda i, c: hashlib.sha256(i.encode()).hexdigest().encode(),
    "SHA256 HEX": lambda i, c: hashlib.sha256(i.encode()).hexdigest().upper().encode(),
    "sha256 base64": lambda i, c: base64.b64encode(hashlib.sha256(i.encode()).digest()),
    "sha256 of digits": lambda i, c: hashlib.sha256(i.lstrip("+").encode()).digest(),
    "sha256, second half": lambda i, c: hashlib.sha256(i.encode()).digest()[16:],
    "sha256, first 16": lambda i, c: hashlib.sha256(i.encode()).digest()[:16],
    "md5 of the national number": lambda i, c: hashlib.md5(i[-11:].encode()).hexdigest().encode(),
    "sha256 with the contract": lambda i, c: hashlib.sha256(c + i.encode()).digest(),
    "sha256 with contract and kind": lambda i, c: hashlib.sha256(c + b"phone\0" + i.encode()).digest(),
    "sha256 with the contract after": lambda i, c: hashlib.sha256(i.encode() + c).digest(),
    "hmac without key": lambda i, c: hmac.digest(b"", i.encode(), "sha256"),
    "double sha256": lambda i, c: hashlib.sha256(hashlib.sha256(i.encode()).digest()).digest(),
}  # fmt: skip


@pytest.mark.parametrize("recipe", ID_RECIPES)
def test_a_planted_id_is_found(recipe: str, run: Run, scanners: dict[Name, Scanner]) -> None:
    bank, partner, *_ = data_parties(run.world.contract)
    contract = digest(run.world.contract)
    for reader, owner in ((bank, partner), (partner, bank), (dealer(run.world.contract), bank)):
        ids = run.tables[owner].ids[:128]
        data = b"".join(ID_RECIPES[recipe](i, contract) for i in ids)
        found = scanners[reader].scan(planted(data))
        assert any(f.kind == "id" for f in found), recipe


LABEL_CODES = {
    "bits": lambda y: np.packbits(y.astype(np.uint8)).tobytes(),
    "bits from the low end": lambda y: np.packbits(y.astype(np.uint8), bitorder="little").tobytes(),
    "bits in the middle of a byte": lambda y: np.packbits(np.concatenate([[1, 0, 1], y.astype(np.uint8)])).tobytes(),
    "bytes": lambda y: y.astype(np.uint8).tobytes(), "text": lambda y: "".join(str(int(v)) for v in y).encode(),
    "signs": lambda y: (2 * y - 1).astype(np.int8).tobytes(),
    "32-bit words": lambda y: y.astype("<u4").tobytes(), "64-bit words": lambda y: y.astype("<u8").tobytes(),
    "float": lambda y: y.astype("<f4").tobytes(), "double": lambda y: y.astype("<f8").tobytes(),
    **{f"fixed point {s}": (lambda y, s=s: (y.astype("<u8") << np.uint64(s)).tobytes()) for s in (16, 20, 28)},
    "negative at the sigmoid's scale": lambda y: (0 - (y.astype("<u4") << np.uint32(28))).astype("<u4").tobytes(),
    "negative residual": lambda y: (0 - (y.astype("<u8") << np.uint64(16))).astype("<u8").tobytes(),
    "inverted bytes": lambda y: (1 - y).astype(np.uint8).tobytes(),
}  # fmt: skip


@pytest.mark.parametrize("code", LABEL_CODES)
@pytest.mark.parametrize("order", ["train", "file"])
def test_planted_labels_are_found(code: str, order: str, run: Run, scanners: dict[Name, Scanner]) -> None:
    bank, partner, *_ = data_parties(run.world.contract)
    y = secrets_of(run, bank).labels[order]
    for reader in (partner, dealer(run.world.contract)):
        part = y[100 : 100 + 2 * LABEL_RUN]
        found = scanners[reader].scan(planted(LABEL_CODES[code](part)))
        assert any(f.kind == "label" for f in found), code


def column(run: Run, owner: Name, kind: str) -> np.ndarray:
    return secrets_of(run, owner).columns[f"{owner}/train/{kind}/1"]


COLUMN_CODES = {
    "f8": lambda v: v.astype("<f8"), "f4": lambda v: v.astype("<f4"), "big-endian": lambda v: v.astype(">f8"),
    "int32 at 2^16": lambda v: np.rint(v * 2**16).astype("<i4"),
    "words at 2^16": lambda v: np.rint(v * 2**16).astype("<i8"),
    "words at 2^20": lambda v: np.rint(v * 2**20).astype("<i8"),
}  # fmt: skip


@pytest.mark.parametrize("code", COLUMN_CODES)
@pytest.mark.parametrize("kind", ["prepared", "whitened", "raw"])
def test_planted_columns_and_rows_are_found(
    code: str, kind: str, run: Run, scanners: dict[Name, Scanner]
) -> None:
    bank, partner, *_ = data_parties(run.world.contract)
    for reader, owner in ((bank, partner), (partner, bank)):
        values = np.clip(np.nan_to_num(column(run, owner, kind)), -30_000, 30_000)
        data = COLUMN_CODES[code](values)[200:260].tobytes()
        assert any(f.kind == "column" for f in scanners[reader].scan(planted(data)))
        rows = np.clip(np.nan_to_num(secrets_of(run, owner).rows[f"{owner}/train/{kind}"]), -30_000, 30_000)
        data = COLUMN_CODES[code](rows)[200:230].tobytes()
        assert any(f.kind == "column" for f in scanners[reader].scan(planted(data)))


def noisy(run: Run, owner: Name, what: str) -> np.ndarray:
    hidden = secrets_of(run, owner).aligned[f"{owner}/train/{what}"]
    standard = (hidden - hidden.mean()) / hidden.std()
    return standard + 2.0 * OTHER_NOISE.standard_normal(len(standard))  # r = .45


SHAPES = {
    "floats": lambda v: v, "signed words": lambda v: np.rint(v * 2**40).astype("<i8").view("<u8"),
    "half words": lambda v: np.rint(v * 2**20).astype("<i4").view("<u4"),
    "angles": lambda v: (v * 2**28).astype("<i8").astype("<u4"),
    "one column of a matrix": lambda v: np.stack([OTHER_NOISE.standard_normal(len(v)), v], axis=1),
    "one row of a matrix": lambda v: np.stack([OTHER_NOISE.standard_normal(len(v)), v]),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("what", ["label", "prepared/0", "whitened/1"])
def test_numbers_that_go_with_a_label_or_column_are_found(
    shape: str, what: str, run: Run, scanners: dict[Name, Scanner]
) -> None:
    bank, partner, *_ = data_parties(run.world.contract)
    cases = [(partner, bank)] if what == "label" else [(partner, bank), (bank, partner)]
    for reader, owner in cases:
        array = SHAPES[shape](noisy(run, owner, what))
        found = scanners[reader].scan(planted(b"", [array]))
        assert any(f.kind == "correlation" and f"{owner}/train/{what}" in f.what for f in found)


def test_a_message_without_its_mask_would_be_found(run: Run, scanners: dict[Name, Scanner]) -> None:
    """The bank's residuals, sent as its share without a mask when the partner's share is zero."""
    bank, partner, *_ = data_parties(run.world.contract)
    y = secrets_of(run, bank).aligned["bank/train/label"]
    residuals = VectorOpening(Masked(np.rint((0.2 - y) * 2**16).astype("<i8").view(np.uint64)))
    found = scanners[partner].scan([seen("fit.residual", wire.encode(residuals))])
    assert {"correlation"} <= {f.kind for f in found}
    assert all(isinstance(f, Found) for f in found)


# ------------------------------------------------------------------------------------------ relay and dealer


def attempts(secret: bytes, reader_prekey: bytes) -> Iterator[Prekey]:
    """Pretend in several ways that `secret` opens what is sealed to `reader_prekey`."""
    yield Prekey(secret)
    for exchange in (
        Prekey(secret).exchange,
        lambda peer: Prekey(secret).exchange(reader_prekey),
        lambda peer: secret,
    ):
        pretended = Prekey(secret)
        pretended.public = reader_prekey
        pretended.exchange = exchange  # type: ignore[method-assign]
        yield pretended


def opens(run: Run, o: Opened, prekey: Prekey) -> bool:
    try:
        return bytes(open_sealed(o.envelope, o.place, run.world.keys[Name(o.place.sender)], prekey)) == o.data
    except ValueError:
        return False


def between_parties(run: Run) -> list[Opened]:
    parties = set(data_parties(run.world.contract))
    return [o for o in run.opened if {o.place.sender, o.place.reader} <= parties]


def test_no_key_of_relay_or_dealer_opens_what_parties_send_each_other(run: Run) -> None:
    prekey_of = {h.party: h.prekey for h in hellos(run)}
    sample = between_parties(run)[::11]
    assert len(sample) > 10
    for o in sample:
        assert opens(run, o, Prekey(run.prekeys[prekey_of[o.place.reader]])), "the reader's own key does"
        for secret in coordinator_keys(run):
            assert not any(opens(run, o, k) for k in attempts(secret, prekey_of[o.place.reader]))
            with pytest.raises(InvalidTag):
                ChaCha20Poly1305(secret).decrypt(bytes(12), o.envelope.parts[0], b"")


def test_identity_keys_open_nothing_once_the_prekeys_are_gone(run: Run) -> None:
    """Recorded traffic stays closed when long-lived keys leak later."""
    prekey_of = {h.party: h.prekey for h in hellos(run)}
    for o in between_parties(run)[::29]:
        for identity in run.world.identities.values():
            keys = attempts(identity.secret_bytes(), prekey_of[o.place.reader])
            assert not any(opens(run, o, k) for k in keys)


def openings(run: Run) -> dict[str, list[np.ndarray]]:
    """All masked arrays between parties, by step; fields that are `Masked` are nested one level deeper."""
    found: dict[str, list[np.ndarray]] = {}
    for o in between_parties(run):
        if o.place.step.startswith(("fit.", "range.", "score.")):
            found.setdefault(o.place.step, []).extend(seen("", o.data).arrays)
    return found


def test_no_masked_opening_stands_in_the_view_of_relay_and_dealer(run: Run) -> None:
    stretches = set()
    for arrays in openings(run).values():
        for array in arrays:
            raw = array.tobytes()
            stretches |= {raw[i : i + 16] for i in range(0, min(len(raw), 4096) - 15, 16)}
    stretches = {s for s in stretches if len(set(s)) > 8}
    assert len(stretches) > 5000
    assert places(stretches, view_of_coordinator(run)) == []
    (one, *_) = openings(run)["fit.residual"]
    assert places(stretches, [Seen("planted", b"123" + one.tobytes())]) == ["planted"]


def test_masked_openings_are_uniform(run: Run) -> None:
    found = openings(run)
    assert {
        "fit.mask_rows",
        "fit.angle",
        "fit.lift",
        "fit.residual",
        "fit.gradient",
        "score.angle",
        "score.release",
    } <= set(found)
    for step, arrays in found.items():
        data = b"".join(a.tobytes() for a in arrays)
        if step in ("range.open_lookup", "range.open_count"):  # only their masked bits may leave
            assert all(a.max() < (2**16 if step == "range.open_lookup" else 4) for a in arrays)
        elif len(data) >= 256 * 8:
            assert abs(chi_square(data)) < 5, step


def test_what_travels_is_uniform(run: Run) -> None:
    assert abs(chi_square(b"".join(p for e in run.tap.envelopes for p in e.parts))) < 5


def test_a_dealer_that_is_given_an_opening_reads_the_columns(run: Run) -> None:
    """Why the coordinator must belong to no party: the masks that it deals are all that hides the columns."""
    contract = run.world.contract
    bank, partner, *_ = data_parties(contract)
    by_party = {Name(h.party): h.prekey for h in hellos(run)}
    own = Prekey(run.prekeys[by_party[dealer(contract)]])
    masks = AddressedMasks(
        {partner: dealer_seed(own, by_party[partner], epoch_id(run), partner)}, draws_again=True
    )
    (sent,) = [
        o
        for o in run.opened
        if (o.place.step, o.place.sender, o.place.reader) == ("fit.mask_rows", partner, bank)
    ]
    (masked,) = seen("", sent.data).arrays
    x = masked + masks.words(partner, "fit/U", 0, masked.shape)
    read = x.view(np.int64) / 2.0**16
    whitened = secrets_of(run, partner).rows[f"{partner}/train/whitened"]
    assert np.abs(read[: len(whitened)] - whitened).max() < 2.0**-16
