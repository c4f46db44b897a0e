"""Private histograms, from the partner's bins to the bank's totals, against plain sums."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import SeededRandom
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.privacy.disclosure import HistogramTotals
from fedmkt.protocol.core import Caller, Masked, Silent, data_parties
from fedmkt.protocol.trees.sides import histogram, histogram_terms
from fedmkt.protocol.trees.sides.histogram import (
    BatchTotals,
    DealtShares,
    EncryptedRows,
    Encryption,
    Hints,
    HistogramShape,
    MaskedHint,
    MaskedTotals,
    OwnHint,
    RowBins,
    Summing,
    Vectors,
    add_up_vectors,
    send_hints,
)
from fedmkt.protocol.trees.sides.histogram_terms import Batch, Terms, bin_blocks
from fedmkt.protocol.witness import close
from fedmkt.ring import discrete_gaussian, rlwe, short_words
from fedmkt.ring.fields import gradient_fields, pack_fields, signed, take_apart
from fedmkt.ring.rlwe import DEGREE, NO_BIN
from tests.engine import Killed, Tap, toy_world
from tests.protocol.plain_caller import BANK, DEALER, SHOP, TELECOM, PlainCaller, chi_square, contract_of

COUNTS = {SHOP: (5, 32, 3), TELECOM: (7, 2)}


def bins_of(random, rows, counts):
    codes = np.stack([random.integers(0, c, rows) for c in counts]).astype(np.uint8)
    codes[:, random.random(rows) < 0.05] = NO_BIN
    return RowBins(codes, tuple(counts))


def world(rows=5000, parties=2, seed=1, counts=COUNTS, **options):
    """Start a caller whose partners have random bins."""
    random = np.random.default_rng(seed)
    contract = contract_of(parties)
    local = {p: (bins_of(random, rows, counts[p]),) for p in data_parties(contract)[1:]}
    return PlainCaller(contract, local, seed=seed, **options)


def terms_of(rows=5000, **changes):
    return replace(Terms(rows, signed(127), vectors=64, minimum=20), **changes)


def gradients(rows, width, seed=1, limit=127):
    return np.random.default_rng(seed).integers(-limit, limit + 1, (rows, width))


def ask_totals(caller, terms, values):
    caller.states[BANK][Vectors] = Vectors(values)
    add_up_vectors(caller, caller.contract, terms, values.shape[1])
    return caller.recall(BANK, BatchTotals).values


def seen(caller, reader):
    """What a reader is sent but for the counter-signing of logs."""
    return [s for s in caller.seen_by(reader) if s.step.startswith("histogram.")]


def plain_totals(caller, party, values):
    """Add up, bin by bin, what a plain histogram of this party gives."""
    held = caller.recall(party, RowBins)
    return np.array(
        [values[c == k].sum(axis=0) for c, n in zip(held.codes, held.counts, strict=True) for k in range(n)]
    )


@pytest.fixture
def noise(monkeypatch):
    """Record what the bank rounds, before rounding."""
    seen = []

    def recording(words, delta_bits):
        seen.append(words.copy())
        return decode(words, delta_bits)

    decode = rlwe.decode
    monkeypatch.setattr(rlwe, "decode", recording)
    return seen


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("limit", [1, 127, 2**25])
@pytest.mark.parametrize("seed", range(3))
def test_decrypted_totals_equal_plain_totals(seed: int, limit: int, parties: int) -> None:
    rows = 4096 + 37 * seed
    caller, terms = world(rows, parties, seed), terms_of(rows, fields=signed(limit))
    send_hints(caller, caller.contract, terms)
    for batch, width in enumerate((1, 4, 3)):
        values = gradients(rows, width, 10 * seed + batch, limit)
        totals = ask_totals(caller, terms, values)
        for p in data_parties(caller.contract)[1:]:
            assert np.array_equal(totals[p], plain_totals(caller, p, values))


def packed_gradients(terms, most_rows, seed=1):
    """Draw g and h on as many rows as allowed; return (rows, V) packed vectors and (rows, V, 2) plain numbers."""
    random, (g, h) = np.random.default_rng(seed), terms.fields
    plain = np.zeros((terms.rows, len(most_rows), 2), np.int64)
    for v, most in enumerate(most_rows):
        rows = random.permutation(terms.rows)[:most]
        plain[rows, v, 0] = random.integers(g.low, g.high + 1, most)
        plain[rows, v, 1] = random.integers(h.low, h.high + 1, most)
    packings = [terms.packing(most) for most in most_rows]
    columns = [pack_fields(p, [plain[:, v, 0], plain[:, v, 1]]) for v, p in enumerate(packings)]
    return np.stack(columns, axis=1), plain


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("bits", [(8, 8), (2, 3), (4, 1)])
def test_totals_of_packed_vectors_of_fewer_rows_come_apart_into_the_plain_ones(bits, parties) -> None:
    caller, terms = world(parties=parties), terms_of(fields=gradient_fields(*bits))
    send_hints(caller, caller.contract, terms)
    most_rows = (5000, 2500, 1250, 833)
    packed, plain = packed_gradients(terms, most_rows)
    caller.states[BANK][Vectors] = Vectors(packed)
    add_up_vectors(caller, caller.contract, terms, 4, most_rows)
    for p in data_parties(caller.contract)[1:]:
        totals = caller.recall(BANK, BatchTotals).values[p]
        for v, most in enumerate(most_rows):
            got = take_apart(terms.packing(most), totals[:, v])
            assert np.array_equal(got, plain_totals(caller, p, plain[:, v]))
    words = sum(Batch(terms, most_rows).budgets(3)[v].word_bits for v in range(4))
    sent = [s.message for s in seen(caller, SHOP)]
    assert words == pytest.approx(64 * sum(m.rows.size for m in sent) / 5000, abs=0.1)
    told = [r for step, r in caller.revealed if step == "histogram.reply"]
    assert sum(r.totals for r in told) == sum(sum(COUNTS[p]) for p in (SHOP, TELECOM)[: parties - 1]) * 8


def test_the_bank_refuses_vectors_on_more_rows_than_it_said() -> None:
    caller, terms = world(), terms_of(fields=gradient_fields(4, 4))
    send_hints(caller, caller.contract, terms)
    packed, _ = packed_gradients(terms, (1000,))
    for most_rows, match in (((500,), "outside of|more than 500"), ((1000, 1000), "1 vectors")):
        caller.states[BANK][Vectors] = Vectors(packed)
        with pytest.raises(ValueError, match=match):
            add_up_vectors(caller, caller.contract, terms, 1, most_rows)


def test_the_logs_are_counter_signed_between_the_last_rows_and_the_reply() -> None:
    caller, terms = world(), terms_of()
    send_hints(caller, caller.contract, terms)
    ask_totals(caller, terms, WORLDS["gradients"])
    steps = [t.step for t in caller.told]
    at = steps.index("histogram.reply")
    signers = [BANK, SHOP, TELECOM] if len(data_parties(caller.contract)) > 2 else [BANK]
    assert steps[at - len(signers) - 1 : at] == ["histogram.add", *["witness.cosign"] * len(signers)]
    assert [t.party for t in caller.told[at - len(signers) : at]] == signers


def test_extreme_values_do_not_leave_their_range() -> None:
    caller, terms = world(counts={SHOP: (1, 2)}), terms_of()
    caller.states[SHOP][RowBins] = RowBins(np.zeros((2, 5000), np.uint8), (1, 2))
    caller.states[SHOP][RowBins].codes[1, ::2] = 1
    send_hints(caller, caller.contract, terms)
    values = np.full((5000, 2), 127) * [1, -1]
    expected = np.array([[5000], [2500], [2500]]) * [127, -127]
    assert np.array_equal(ask_totals(caller, terms, values)[SHOP], expected)


def test_rows_and_bins_in_several_blocks_give_the_same_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram_terms, "BLOCK_BYTES", 8 * DEGREE * 9)
    rows = 3 * DEGREE + 11
    caller, terms = world(rows, 3), terms_of(rows)
    assert len(Batch(terms, (rows,) * 20).row_blocks()) == 4 and len(bin_blocks(40)) == 5
    send_hints(caller, caller.contract, terms)
    for width in (3, 20):
        values = gradients(rows, width, seed=width)
        totals = ask_totals(caller, terms, values)
        for p in (SHOP, TELECOM):
            assert np.array_equal(totals[p], plain_totals(caller, p, values))


def test_noise_stays_within_its_budget_over_a_thousand_bins(noise) -> None:
    rows, counts = 20_000, {SHOP: (254,) * 4 + (24,)}
    caller, terms = world(rows, counts=counts), terms_of(rows)
    send_hints(caller, caller.contract, terms)
    assert len(bin_blocks(1040)) == 3
    values = gradients(rows, 8)
    totals = ask_totals(caller, terms, values)[SHOP]
    assert np.array_equal(totals, plain_totals(caller, SHOP, values))
    plan = terms.budget(5)
    error = (noise[0] - (totals.view(np.uint64) << np.uint64(plan.delta_bits))).view(np.int64)
    assert np.abs(error).max() < 6 * plan.flooding < 2 ** (plan.delta_bits - 1)
    # The flooding is there, as large as planned, and centred.
    assert np.std(error) == pytest.approx(plan.flooding, rel=0.03)
    assert abs(error.mean()) < 5 * plan.flooding / error.size**0.5


def test_without_flooding_the_noise_of_the_rows_alone_is_left(noise, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, counts = 20_000, {SHOP: (50, 50)}
    caller, terms = world(rows, counts=counts), terms_of(rows, fields=signed(2**25))
    monkeypatch.setattr(discrete_gaussian, "draw", lambda random, deviation, shape: np.zeros(shape, np.int64))
    send_hints(caller, caller.contract, terms)
    totals = ask_totals(caller, terms, gradients(rows, 8))[SHOP]
    plan = terms.budget(2)
    error = (noise[0] - (totals.view(np.uint64) << np.uint64(64 - terms.packing().bits))).view(np.int64)
    variance = 10.5 + 4 ** (64 - plan.word_bits) / 12
    assert np.std(error) == pytest.approx((0.95 * rows / 50 * variance) ** 0.5, rel=0.1)


def test_the_same_question_asked_twice_is_flooded_and_encrypted_afresh(noise) -> None:
    caller, terms = world(), terms_of()
    send_hints(caller, caller.contract, terms)
    values = gradients(5000, 2)
    first, second = ask_totals(caller, terms, values)[SHOP], ask_totals(caller, terms, values)[SHOP]
    assert np.array_equal(first, second)
    difference = (noise[0] - noise[1]).view(np.int64)
    assert np.std(difference) == pytest.approx(2**0.5 * terms.budget(3).flooding, rel=0.2)
    sent = [s.message for s in seen(caller, SHOP)]
    assert (sent[0].rows != sent[1].rows).mean() > 0.99
    assert (sent[0].secrets.words != sent[1].secrets.words).mean() > 0.99


WORLDS = {
    "nothing": np.zeros((5000, 4), np.int64),
    "the largest": np.full((5000, 4), 127),
    "gradients": gradients(5000, 4),
}


def test_the_partner_sees_the_same_sizes_and_uniform_words_whatever_the_gradients() -> None:
    sizes = set()
    for seed, values in enumerate(WORLDS.values()):
        caller, terms = world(seed=5), terms_of()
        caller._random[BANK] = SeededRandom(bytes([seed]))
        send_hints(caller, caller.contract, terms)
        ask_totals(caller, terms, values)
        (sent,) = seen(caller, SHOP)
        assert abs(chi_square(sent.message.rows)) < 5
        assert abs(chi_square(sent.message.secrets.words)) < 5
        bits = [terms.budget(3).word_bits] * 4
        top = (short_words.unpack(sent.message.rows, 5000, bits) >> np.uint64(56)).astype(np.float64) - 127.5
        # Neither the mean nor, row by row, the correlation with the numbers inside stands out.
        assert abs(top.mean()) < 5 * 74 / top.size**0.5
        if values.std():
            assert abs(np.corrcoef(top.ravel(), values.ravel())[0, 1]) < 5 / top.size**0.5
        sizes.add(tuple((s.step, s.round, s.reader, len(s.data)) for s in caller.sent))
    assert len(sizes) == 1


def test_the_bank_sees_the_same_sizes_and_uniform_words_whatever_the_bins() -> None:
    sizes = set()
    for bins in (1, 3):
        caller, terms = world(), terms_of(minimum=0)
        codes = caller.recall(SHOP, RowBins).codes
        codes[:] = codes % bins
        send_hints(caller, caller.contract, terms)
        ask_totals(caller, terms, WORLDS["gradients"])
        for s in seen(caller, BANK):
            words = {
                MaskedHint: lambda m: m.rows.words,
                MaskedTotals: lambda m: m.words.words,
                DealtShares: lambda m: m.shares[SHOP],
            }[type(s.message)](s.message)
            assert abs(chi_square(words)) < 5
        sizes.add(tuple((s.step, s.round, s.reader, len(s.data)) for s in caller.sent))
    assert len(sizes) == 1


def test_the_dealer_receives_nothing_and_only_numbers_of_bins_are_public() -> None:
    caller, terms = world(), terms_of()
    send_hints(caller, caller.contract, terms)
    ask_totals(caller, terms, WORLDS["gradients"])
    assert seen(caller, DEALER) == []
    assert {type(t.value).__name__ for t in caller.told} == {"Silent", "HistogramShape"}


def test_every_mask_has_an_address_of_its_own_that_the_dealer_draws_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(histogram_terms, "BLOCK_BYTES", 8 * DEGREE * 9)
    caller, terms = world(parties=3), terms_of()
    drawn = {name: [] for name in caller.masks}

    def record(name, original):
        def words(of, label, count, shape, *, to="", block=0):
            drawn[name].append((of, label, count, to, block, shape))
            return original(of, label, count, shape, to=to, block=block)

        return words

    for name, masks in caller.masks.items():
        monkeypatch.setattr(masks, "words", record(name, masks.words))
    send_hints(caller, caller.contract, terms)
    for seed in range(3):
        ask_totals(caller, terms, gradients(5000, 2, seed))
    by_parties = [a for name in data_parties(caller.contract) for a in drawn[name]]
    assert len(set(by_parties)) == len(by_parties)
    assert set(by_parties) == set(drawn[DEALER])
    assert all(a[0] == name for name in data_parties(caller.contract) for a in drawn[name])
    assert {a[1] for a in by_parties} == {"histogram/U", "histogram/v", "histogram/w"}


def test_secrets_and_the_plain_hint_do_not_outlive_their_use() -> None:
    caller, terms = world(), terms_of()
    send_hints(caller, caller.contract, terms)
    assert caller.recall(SHOP, OwnHint).hint.size == 0
    ask_totals(caller, terms, WORLDS["gradients"])
    assert not {Encryption, Vectors} & set(caller.states[BANK])
    assert Summing not in caller.states[SHOP]
    assert not any(
        kind.durable for kind in (RowBins, Vectors, BatchTotals, OwnHint, Hints, Encryption, Summing)
    )


def test_the_polynomials_are_new_in_every_epoch() -> None:
    first, second = world(), world()
    second.epoch = 2
    a, b = (histogram._polynomials(c.turn(BANK), terms_of()) for c in (first, second))
    assert (a != b).all()


def test_the_bank_declares_its_totals_and_the_partner_publishes_only_the_numbers_of_bins() -> None:
    caller, terms = world(), terms_of()
    send_hints(caller, caller.contract, terms)
    assert caller.revealed == []
    ask_totals(caller, terms, WORLDS["gradients"])
    assert caller.revealed == [("histogram.reply", HistogramTotals(to=BANK, totals=160, minimum=0))]
    assert caller.publics[SHOP, HistogramShape] == HistogramShape((5, 32, 3))


def test_a_bank_that_asks_about_one_row_reads_its_bins() -> None:
    # What the module says: which vectors are asked for is for the script above to make sure.
    caller, terms = world(), terms_of()
    send_hints(caller, caller.contract, terms)
    codes = caller.recall(SHOP, RowBins).codes
    row = int(np.flatnonzero(codes[0] != NO_BIN)[7])
    values = np.zeros((5000, 1), np.int64)
    values[row] = 1
    found = np.flatnonzero(ask_totals(caller, terms, values)[SHOP][:, 0])
    assert (found - [0, 5, 37]).tolist() == codes[:, row].tolist()


def test_a_partner_refuses_more_vectors_than_agreed_even_after_a_resume() -> None:
    caller, terms = world(), terms_of(vectors=5)
    send_hints(caller, caller.contract, terms)
    ask_totals(caller, terms, gradients(5000, 3))
    resumed = world()
    resumed.epoch, resumed.stores = 2, caller.stores
    send_hints(resumed, resumed.contract, terms)
    ask_totals(resumed, terms, gradients(5000, 2))
    with pytest.raises(PolicyRefused, match="asks for 6 encrypted vectors, agreed are 5"):
        ask_totals(resumed, terms, gradients(5000, 1))


def test_a_partner_refuses_bins_below_the_minimum() -> None:
    caller = world()
    with pytest.raises(PolicyRefused, match="fewer than 200 rows"):
        send_hints(caller, caller.contract, terms_of(minimum=200))


def test_terms_whose_noise_does_not_fit_are_refused_at_the_start() -> None:
    caller = world()
    with pytest.raises(ConfigError, match="do not fit"):
        send_hints(caller, caller.contract, terms_of(fields=signed(2**38)))


def test_the_bank_refuses_vectors_beyond_their_limit() -> None:
    caller, terms = world(), terms_of()
    send_hints(caller, caller.contract, terms)
    with pytest.raises(ValueError, match=r"outside of -127\.\.127"):
        ask_totals(caller, terms, np.full((5000, 1), -128))


CHANGES = {
    "another number of rows": lambda m: replace(m, rows=m.rows[:-1]),
    "another block": lambda m: replace(m, block=m.block + 1),
    "words of another width": lambda m: replace(m, rows=np.zeros(m.rows.size * 2, np.uint64)),
    "no secrets": lambda m: replace(m, secrets=None),
    "secrets of another shape": lambda m: replace(m, secrets=Masked(m.secrets.words[:-1])),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_partner_refuses_rows_with(change) -> None:
    caller = world(change=lambda s: change(s.message) if isinstance(s.message, EncryptedRows) else s.message)
    terms = terms_of()
    send_hints(caller, caller.contract, terms)
    with pytest.raises(ValueError, match=r"than agreed|out of order"):
        ask_totals(caller, terms, WORLDS["gradients"])


REPLIES = {
    MaskedHint: lambda m: replace(m, rows=Masked(m.rows.words[:-1])),
    MaskedTotals: lambda m: MaskedTotals(Masked(m.words.words[:, :1])),
    DealtShares: lambda m: DealtShares({}),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_the_bank_refuses_a_wrong_shape_of(kind: type) -> None:
    caller = world(change=lambda s: REPLIES[kind](s.message) if isinstance(s.message, kind) else s.message)
    terms = terms_of()
    with pytest.raises(ValueError, match="than agreed"):
        send_hints(caller, caller.contract, terms)
        ask_totals(caller, terms, WORLDS["gradients"])


def one_batch(call: Caller, contract: Contract) -> Silent:
    """Ask for one batch and close the run."""
    send_hints(call, contract, terms_of())
    add_up_vectors(call, contract, terms_of(), 4)
    close(call, contract)
    return Silent()


@pytest.mark.parametrize(("stop", "asked"), [(3, 4), (6, 8), (8, 8)], ids=["hint", "rows", "reply"])
def test_a_run_killed_after_the_last_message_of_a_kind_resumes_to_the_plain_totals(
    stop, asked, tmp_path
) -> None:
    bins = bins_of(np.random.default_rng(2), 5000, COUNTS[SHOP])
    local = {SHOP: (bins,), BANK: (Vectors(WORLDS["gradients"]),)}
    run = toy_world(tmp_path, one_batch, local=local, disclosures=("HistogramTotals",))
    tap = Tap(stop_after=stop)
    with pytest.raises(Killed):
        run.run(tap)
    last = {3: "histogram.take_hints", 6: "histogram.add", 8: "histogram.reply"}[stop]
    assert tap.requests[-1].message.step == last
    run.run(resume=True)
    totals = run.parties[BANK]._states[BatchTotals].values
    assert np.array_equal(
        totals[SHOP], plain_totals(PlainCaller(contract_of(), local), SHOP, WORLDS["gradients"])
    )
    # What was asked before the kill is asked again under new masks, and counts twice.
    (count,) = [v for k, v in run.parties[SHOP]._store.items() if k.startswith("histogram vectors/")]
    assert int(count) == asked
