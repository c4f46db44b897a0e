"""Why a mask of a secret serves one batch only: what a partner reads where it does not, and that it never does.

The controls run the arithmetic of a batch with one mask v for two batches, as a retry or a resume would that drew its
masks from a running stream (redteam.md 1.1 c, d). Nothing stands between them and their secrets.
"""

import numpy as np
import pytest

from fedmkt.crypto.prg import SeededRandom
from fedmkt.protocol.core import Silent
from fedmkt.protocol.trees.sides import histogram
from fedmkt.protocol.trees.sides.histogram import EncryptedRows, RowBins, Vectors, add_up_vectors, send_hints
from fedmkt.protocol.trees.sides.histogram_terms import Batch, Terms
from fedmkt.ring import rlwe, short_words
from fedmkt.ring.fields import signed
from fedmkt.ring.rlwe import DEGREE
from tests.engine import Killed, Tap, toy_world
from tests.protocol.plain_caller import BANK, SHOP, PlainCaller, contract_of

ROWS = 5000
TERMS = Terms(ROWS, signed(127), vectors=8, minimum=0)
BATCH = Batch(TERMS, (ROWS,))
WIDTH = BATCH.budgets(1)[0].word_bits
BINS = RowBins((np.arange(ROWS) % 4).astype(np.uint8)[None], (4,))


def gradients(seed):
    return np.random.default_rng(seed).integers(-127, 128, (ROWS, 1))


def public_a():
    return rlwe.public_polynomials(b"a" * 32, rlwe.polynomials(ROWS))


def words_of(secrets):
    return secrets.T.astype(np.int64).view(np.uint64)


def times_a(small):
    """Multiply the public polynomials by a small polynomial, (N,) of -2..2: (rows,) words."""
    halves = np.stack([small // 2, small - small // 2]).astype(np.int8)
    return rlwe.multiply(rlwe.transform(public_a()), halves)[:ROWS].sum(axis=1)


def one_mask_for(batches):
    """Encrypt each vector under a fresh secret, but mask all secrets alike: what the partner receives."""
    v = np.random.default_rng(9).integers(0, 2**64, (DEGREE, 1), np.uint64)
    received = []
    for i, values in enumerate(batches):
        s = rlwe.draw_secrets(bytes([i]) * 32, 1)
        e = rlwe.draw_noise(bytes([i + 100]) * 32, ROWS, 1)
        b = rlwe.encrypt(rlwe.transform(public_a()), s, e, values, BATCH.delta_bits)
        received.append((short_words.pack(b, [WIDTH]), words_of(s) - v, s))
    return received


def difference_of_messages(first, second):
    """Let the partner compute b1 - b2 - a ((s1 - v) - (s2 - v)), decoded: (rows,)."""
    words = [short_words.unpack(stream, ROWS, [WIDTH])[:, 0] for stream, *_ in (first, second)]
    small = (first[1] - second[1])[:, 0].view(np.int64)
    return rlwe.decode((words[0] - words[1] - times_a(small))[:, None], BATCH.delta_bits)[:, 0]


def test_control_two_vectors_under_one_mask_tell_the_partner_their_difference_in_every_row() -> None:
    # The root and its left child: their difference is the right child, with its rows and their labels.
    root = gradients(1)
    left = root * (np.random.default_rng(2).random((ROWS, 1)) < 0.5)
    found = difference_of_messages(*one_mask_for([root, left]))
    assert np.array_equal(found, (root - left)[:, 0])


def test_control_one_vector_encrypted_twice_under_one_mask_gives_two_ninths_of_the_secret_away() -> None:
    (_, first, secret), (_, second, _) = one_mask_for([gradients(1)] * 2)
    difference = (first - second)[:, 0].view(np.int64)
    known = np.abs(difference) == 2
    assert known.mean() == pytest.approx(2 / 9, abs=0.03)
    assert np.array_equal(difference[known] // 2, secret[0][known])
    assert (np.abs(difference) == 1).mean() == pytest.approx(4 / 9, abs=0.04)


def received_in(caller, values):
    """Ask for one vector; return what the partner receives."""
    caller.states[BANK][Vectors] = Vectors(values)
    add_up_vectors(caller, caller.contract, TERMS, 1)
    sent = [s.message for s in caller.seen_by(SHOP) if isinstance(s.message, EncryptedRows)]
    return sent[-1].rows, sent[-1].secrets.words


def test_two_batches_of_a_run_differ_by_something_uniform() -> None:
    caller = PlainCaller(contract_of(2), {SHOP: (BINS,)})
    send_hints(caller, caller.contract, TERMS)
    root = gradients(1)
    for values in (root, root * 0):
        first, second = received_in(caller, root), received_in(caller, values)
        difference = (first[1] - second[1]).view(np.int64)
        assert np.abs(difference).min() > 2
        assert np.abs(difference).astype(np.float64).mean() == pytest.approx(2.0**62, rel=0.05)


def one_batch(call, contract):
    send_hints(call, contract, TERMS)
    add_up_vectors(call, contract, TERMS, 1)
    return Silent()


def test_a_batch_that_is_asked_again_after_a_kill_comes_under_a_mask_of_another_address(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = []

    def recording(turn, state, partner):
        out = original(turn, state, partner)
        masked.append((turn.epoch, state.secrets.copy(), out.words))
        return out

    original = histogram._mask_secrets
    monkeypatch.setattr(histogram, "_mask_secrets", recording)
    local = {SHOP: (BINS,), BANK: (Vectors(gradients(1)),)}
    run = toy_world(tmp_path, one_batch, local=local, disclosures=("HistogramTotals",))
    with pytest.raises(Killed):
        run.run(Tap(stop_after=6))
    run.run(resume=True)
    (first, s1, d1), (second, s2, d2) = masked
    assert first != second
    # v itself, which both times has the same label and count, is another one.
    v1, v2 = words_of(s1) - d1, words_of(s2) - d2
    assert (v1 != v2).all()
    assert np.abs((d1 - d2).view(np.int64)).min() > 2


def test_a_generator_that_repeats_itself_does_not_repeat_a_mask() -> None:
    # Even where the bank draws the same secret twice, as from a copied machine, v is new with each batch.
    caller = PlainCaller(contract_of(2), {SHOP: (BINS,)})
    send_hints(caller, caller.contract, TERMS)
    received = []
    for _ in range(2):
        caller._random[BANK] = SeededRandom(b"again")
        received.append(received_in(caller, gradients(1)))
    assert np.array_equal(received[0][0], received[1][0])
    assert (received[0][1] != received[1][1]).all()
