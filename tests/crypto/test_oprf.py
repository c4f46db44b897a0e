"""The OPRF against all vectors of RFC 9497 for its ciphersuite, against forged answers, and in lists."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto import group, oprf
from fedmkt.crypto.oprf import Blinded, Evaluated, Mode
from fedmkt.crypto.prg import Random, SeededRandom

FOLDER = Path(__file__).parents[1] / "vectors"
SUITE = json.loads((FOLDER / "rfc9497_ristretto255_sha512.json").read_text())["modes"]
ENCODINGS = json.loads((FOLDER / "rfc9496_ristretto255.json").read_text())
INVALID = [bytes.fromhex(point) for kind in ENCODINGS["invalid"].values() for point in kind]
TOP_BIT = group.GENERATOR[:31] + bytes([group.GENERATOR[31] | 128])
REFUSED = [*INVALID, TOP_BIT, group.IDENTITY]
VALUES = [b"", b"a", b"+49 30 123456", b"x" * 300]
INFO = b"campaign 7"


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def vectors(mode: Mode) -> list[dict[str, list[str] | str]]:
    return [{**vector, "keys": SUITE[mode]} for vector in SUITE[mode]["vectors"]]


def replay(*scalars: str) -> Random:
    """Return a source that makes `random_scalar` return these scalars in turn."""
    left: Iterator[str] = iter(scalars)
    return lambda n: b"".join(unhex(next(left)) + bytes(32) for _ in range(n // 64))


def keys_of(mode: Mode) -> oprf.KeyPair:
    return oprf.key_pair(unhex(SUITE[mode]["skSm"]))


def as_rows(points: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(points), dtype=np.uint8).reshape(-1, 32)


def with_row(rows: np.ndarray, index: int, value: bytes) -> np.ndarray:
    out = rows.copy()
    out[index] = np.frombuffer(value, dtype=np.uint8)
    return out


def blinded_for(vector: dict, mode: Mode) -> list[Blinded]:
    pairs = zip(vector["Input"], vector["Blind"], strict=True)
    return [oprf.blind(unhex(value), replay(scalar), mode) for value, scalar in pairs]


def test_the_suite_has_two_three_and_three_vectors() -> None:
    assert [len(mode["vectors"]) for mode in SUITE] == [2, 3, 3]


@pytest.mark.parametrize("mode", Mode)
def test_keys_are_derived_as_in_the_rfc(mode: Mode) -> None:
    keys = oprf.derive_key_pair(unhex(SUITE[mode]["Seed"]), unhex(SUITE[mode]["KeyInfo"]), mode)
    assert keys.secret.hex() == SUITE[mode]["skSm"]
    assert keys.public.hex() == SUITE[mode].get("pkSm", keys.public.hex())
    assert keys == oprf.key_pair(keys.secret)


@pytest.mark.parametrize("vector", vectors(Mode.OPRF))
def test_mode_oprf_gives_the_vectors_of_the_rfc(vector: dict) -> None:
    secret, value = keys_of(Mode.OPRF).secret, unhex(vector["Input"][0])
    (blinded,) = blinded_for(vector, Mode.OPRF)
    assert blinded.point.hex() == vector["BlindedElement"][0]
    evaluated = oprf.evaluate_blinded(secret, blinded.point)
    assert evaluated.hex() == vector["EvaluationElement"][0]
    assert oprf.finalize(value, blinded.scalar, evaluated).hex() == vector["Output"][0]
    assert oprf.evaluate(secret, value, Mode.OPRF).hex() == vector["Output"][0]


@pytest.mark.parametrize("vector", vectors(Mode.VOPRF))
def test_mode_voprf_gives_the_vectors_of_the_rfc(vector: dict) -> None:
    keys, values = keys_of(Mode.VOPRF), [unhex(value) for value in vector["Input"]]
    blinded = blinded_for(vector, Mode.VOPRF)
    assert [one.point.hex() for one in blinded] == vector["BlindedElement"]
    answer = oprf.evaluate_with_proof(
        keys, [one.point for one in blinded], replay(vector["ProofRandomScalar"])
    )
    assert [point.hex() for point in answer.points] == vector["EvaluationElement"]
    assert answer.proof.hex() == vector["Proof"]
    outputs = oprf.finalize_verified(values, blinded, answer, keys.public)
    assert [output.hex() for output in outputs] == vector["Output"]
    assert [oprf.evaluate(keys.secret, value, Mode.VOPRF) for value in values] == outputs


@pytest.mark.parametrize("vector", vectors(Mode.POPRF))
def test_mode_poprf_gives_the_vectors_of_the_rfc(vector: dict) -> None:
    keys, values = keys_of(Mode.POPRF), [unhex(value) for value in vector["Input"]]
    info, blinded = unhex(vector["Info"]), blinded_for(vector, Mode.POPRF)
    assert [one.point.hex() for one in blinded] == vector["BlindedElement"]
    answer = oprf.evaluate_tagged_with_proof(
        keys.secret, [one.point for one in blinded], info, replay(vector["ProofRandomScalar"])
    )
    assert [point.hex() for point in answer.points] == vector["EvaluationElement"]
    assert answer.proof.hex() == vector["Proof"]
    outputs = oprf.finalize_tagged(values, blinded, answer, info, keys.public)
    assert [output.hex() for output in outputs] == vector["Output"]
    assert [oprf.evaluate_tagged(keys.secret, value, info) for value in values] == outputs


def test_lists_give_the_vectors_of_the_rfc() -> None:
    both = vectors(Mode.OPRF)
    secret, values = keys_of(Mode.OPRF).secret, [unhex(one["Input"][0]) for one in both]
    scalars, points = oprf.blind_all(values, replay(*(one["Blind"][0] for one in both)))
    assert scalars.tobytes().hex() == "".join(one["Blind"][0] for one in both)
    assert points.tobytes().hex() == "".join(one["BlindedElement"][0] for one in both)
    evaluated = oprf.evaluate_all(secret, points)
    assert evaluated.tobytes().hex() == "".join(one["EvaluationElement"][0] for one in both)
    outputs = oprf.finalize_all(values, scalars, evaluated)
    assert outputs.tobytes().hex() == "".join(one["Output"][0] for one in both)
    assert (oprf.evaluate_inputs(secret, values) == outputs).all()


@pytest.mark.parametrize("count", [0, 1, 2, 1500])
def test_receiver_and_sender_get_equal_outputs_for_equal_inputs_and_no_others(count: int) -> None:
    random = SeededRandom(b"lists")
    key, values = oprf.new_key(random), [b"id %d" % i for i in range(count)]
    scalars, points = oprf.blind_all(values, random)
    outputs = oprf.finalize_all(values, scalars, oprf.evaluate_all(key, points))
    theirs = oprf.evaluate_inputs(key, values[::-1])
    assert outputs.shape == theirs.shape == (count, 64)
    assert (outputs == theirs[::-1]).all()
    assert len({row.tobytes() for row in outputs}) == count
    for i in range(0, count, 211):
        assert outputs[i].tobytes() == oprf.evaluate(key, values[i], Mode.OPRF)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=6), st.binary(min_size=8, max_size=8))
def test_any_list_gives_what_single_calls_give(values: list[bytes], seed: bytes) -> None:
    random = SeededRandom(seed)
    key = oprf.new_key(random)
    scalars, points = oprf.blind_all(values, random)
    evaluated = oprf.evaluate_all(key, points)
    outputs = oprf.finalize_all(values, scalars, evaluated)
    for i, value in enumerate(values):
        assert evaluated[i].tobytes() == oprf.evaluate_blinded(key, points[i].tobytes())
        single = oprf.finalize(value, scalars[i].tobytes(), evaluated[i].tobytes())
        assert outputs[i].tobytes() == single == oprf.evaluate(key, value, Mode.OPRF)


def test_the_same_list_is_blinded_differently_each_time() -> None:
    random = SeededRandom(b"fresh")
    values = [b"same"] * 50
    seen = {row.tobytes() for _ in range(2) for row in oprf.blind_all(values, random)[1]}
    assert len(seen) == 100


def test_a_list_is_blinded_with_one_request_for_randomness() -> None:
    requests: list[int] = []
    stream = SeededRandom(b"one request")

    def source(n: int) -> bytes:
        requests.append(n)
        return stream(n)

    oprf.blind_all([b"a", b"b", b"c"], source)
    assert requests == [3 * 64]


def test_bad_points_are_refused_at_their_index_by_both_sides() -> None:
    random = SeededRandom(b"bad points")
    key, values = oprf.new_key(random), [b"%d" % i for i in range(6)]
    scalars, points = oprf.blind_all(values, random)
    evaluated = oprf.evaluate_all(key, points)
    assert len(INVALID) == 29
    for bad in REFUSED:
        with pytest.raises(ValueError, match="point 4 "):
            oprf.evaluate_all(key, with_row(points, 4, bad))
        with pytest.raises(ValueError, match="point 2 "):
            oprf.finalize_all(values, scalars, with_row(evaluated, 2, bad))
        with pytest.raises(ValueError):
            oprf.evaluate_blinded(key, bad)
        with pytest.raises(ValueError):
            oprf.finalize(values[0], scalars[0].tobytes(), bad)


def test_bad_scalars_are_refused_at_their_index() -> None:
    random = SeededRandom(b"bad scalars")
    values = [b"%d" % i for i in range(6)]
    scalars, points = oprf.blind_all(values, random)
    for bad in (bytes(32), group.ORDER.to_bytes(32, "little"), bytes([255]) * 32):
        with pytest.raises(ValueError, match="scalar 5 "):
            oprf.finalize_all(values, with_row(scalars, 5, bad), points)


@pytest.mark.parametrize(
    "bad", [bytes(32), group.ORDER.to_bytes(32, "little"), bytes([255]) * 32, b"", bytes(31)]
)
def test_bad_keys_are_refused_everywhere(bad: bytes) -> None:
    random, rows = SeededRandom(b"bad keys"), as_rows([group.GENERATOR])
    uses: list[Callable[[], object]] = [
        lambda: oprf.evaluate_all(bad, rows),
        lambda: oprf.evaluate_inputs(bad, [b"a"]),
        lambda: oprf.evaluate_blinded(bad, group.GENERATOR),
        lambda: oprf.evaluate(bad, b"a", Mode.OPRF),
        lambda: oprf.evaluate_tagged(bad, b"a", INFO),
        lambda: oprf.evaluate_tagged_with_proof(bad, [group.GENERATOR], INFO, random),
        lambda: oprf.key_pair(bad),
    ]
    for use in uses:
        with pytest.raises(ValueError):
            use()


def test_an_input_may_have_65535_bytes_and_not_one_more() -> None:
    random = SeededRandom(b"long")
    key, longest = oprf.new_key(random), bytes(65_535)
    scalars, points = oprf.blind_all([longest], random)
    outputs = oprf.finalize_all([longest], scalars, oprf.evaluate_all(key, points))
    assert outputs.tobytes() == oprf.evaluate(key, longest, Mode.OPRF)
    too_long = [b"a", bytes(65_536)]
    for use in (
        lambda: oprf.blind_all(too_long, random),
        lambda: oprf.evaluate_inputs(key, too_long),
        lambda: oprf.finalize_all(too_long, np.tile(scalars, (2, 1)), np.tile(points, (2, 1))),
    ):
        with pytest.raises(ValueError, match="input 1 has 65536 bytes"):
            use()
    for single in (
        lambda: oprf.blind(too_long[1], random, Mode.OPRF),
        lambda: oprf.evaluate(key, too_long[1], Mode.OPRF),
        lambda: oprf.evaluate_tagged(key, b"a", too_long[1]),
    ):
        with pytest.raises(ValueError, match="at most 65535"):
            single()


def test_lists_of_unequal_length_are_refused() -> None:
    scalars, points = oprf.blind_all([b"a", b"b"], SeededRandom(b"lengths"))
    for args in (
        ([b"a"], scalars, points),
        ([b"a", b"b"], scalars[:1], points),
        ([b"a", b"b"], scalars, points[:1]),
    ):
        with pytest.raises(ValueError):
            oprf.finalize_all(*args)


def exchange(mode: Mode) -> tuple[oprf.KeyPair, list[Blinded], Evaluated]:
    random = SeededRandom(b"exchange")
    keys = oprf.key_pair(oprf.new_key(random))
    blinded = [oprf.blind(value, random, mode) for value in VALUES]
    points = [one.point for one in blinded]
    if mode == Mode.VOPRF:
        return keys, blinded, oprf.evaluate_with_proof(keys, points, random)
    return keys, blinded, oprf.evaluate_tagged_with_proof(keys.secret, points, INFO, random)


def opened(
    mode: Mode, answer: Evaluated, public: bytes, blinded: list[Blinded], info: bytes = INFO
) -> list[bytes]:
    if mode == Mode.VOPRF:
        return oprf.finalize_verified(VALUES, blinded, answer, public)
    return oprf.finalize_tagged(VALUES, blinded, answer, info, public)


PROVEN = pytest.mark.parametrize("mode", [Mode.VOPRF, Mode.POPRF])


@PROVEN
def test_an_honest_answer_is_accepted_and_is_the_function(mode: Mode) -> None:
    keys, blinded, answer = exchange(mode)
    outputs = opened(mode, answer, keys.public, blinded)
    if mode == Mode.VOPRF:
        assert outputs == [oprf.evaluate(keys.secret, value, mode) for value in VALUES]
    else:
        assert outputs == [oprf.evaluate_tagged(keys.secret, value, INFO) for value in VALUES]


@PROVEN
def test_a_proof_with_any_byte_changed_is_refused(mode: Mode) -> None:
    keys, blinded, answer = exchange(mode)
    for i in range(oprf.PROOF_BYTES):
        proof = bytearray(answer.proof)
        proof[i] ^= 1 << (i % 8)
        with pytest.raises(ValueError):
            opened(mode, Evaluated(answer.points, bytes(proof)), keys.public, blinded)


@PROVEN
def test_a_proof_that_is_not_reduced_or_of_another_length_is_refused(mode: Mode) -> None:
    keys, blinded, answer = exchange(mode)
    c, s = answer.proof[:32], answer.proof[32:]
    raised = (int.from_bytes(s, "little") + group.ORDER).to_bytes(32, "little")
    for proof in (c + raised, c, answer.proof + b"\0", b"", bytes(64)):
        with pytest.raises(ValueError):
            opened(mode, Evaluated(answer.points, proof), keys.public, blinded)


@PROVEN
def test_a_sender_that_uses_another_key_for_one_point_is_caught(mode: Mode) -> None:
    keys, blinded, answer = exchange(mode)
    for i in range(len(VALUES)):
        points = list(answer.points)
        points[i] = group.add(points[i], group.GENERATOR)
        with pytest.raises(ValueError, match="one key"):
            opened(mode, Evaluated(tuple(points), answer.proof), keys.public, blinded)


def test_a_sender_cannot_prove_two_keys_as_one() -> None:
    keys, blinded, _ = exchange(Mode.VOPRF)
    random = SeededRandom(b"two keys")
    other, points = oprf.new_key(random), [one.point for one in blinded]
    mixed = [oprf.evaluate_blinded(keys.secret if i else other, point) for i, point in enumerate(points)]
    proof = oprf.prove(keys.secret, group.GENERATOR, keys.public, points, mixed, random, Mode.VOPRF)
    with pytest.raises(ValueError, match="one key"):
        opened(Mode.VOPRF, Evaluated(tuple(mixed), proof), keys.public, blinded)


@PROVEN
def test_answers_in_another_order_are_refused(mode: Mode) -> None:
    keys, blinded, answer = exchange(mode)
    with pytest.raises(ValueError, match="one key"):
        opened(mode, Evaluated(answer.points[::-1], answer.proof), keys.public, blinded)


@PROVEN
def test_an_answer_is_refused_under_another_public_key(mode: Mode) -> None:
    _, blinded, answer = exchange(mode)
    other = oprf.key_pair(oprf.new_key(SeededRandom(b"other")))
    with pytest.raises(ValueError, match="one key"):
        opened(mode, answer, other.public, blinded)


@PROVEN
def test_bad_points_in_an_answer_or_as_public_key_are_refused(mode: Mode) -> None:
    keys, blinded, answer = exchange(mode)
    for bad in REFUSED:
        points = (*answer.points[:-1], bad)
        with pytest.raises(ValueError):
            opened(mode, Evaluated(points, answer.proof), keys.public, blinded)
        with pytest.raises(ValueError):
            opened(mode, answer, bad, blinded)


@PROVEN
def test_an_answer_with_points_left_out_is_refused(mode: Mode) -> None:
    keys, blinded, answer = exchange(mode)
    for points in ((), answer.points[:-1], (*answer.points, answer.points[0])):
        with pytest.raises(ValueError):
            opened(mode, Evaluated(points, answer.proof), keys.public, blinded)


def test_an_answer_under_another_info_is_refused_and_gives_other_outputs() -> None:
    keys, blinded, answer = exchange(Mode.POPRF)
    with pytest.raises(ValueError, match="one key"):
        opened(Mode.POPRF, answer, keys.public, blinded, info=b"campaign 8")
    assert oprf.evaluate_tagged(keys.secret, b"a", b"7") != oprf.evaluate_tagged(keys.secret, b"a", b"8")


def test_an_info_that_undoes_the_key_is_refused_by_both_sides() -> None:
    info_scalar = group.hash_to_scalar(
        b"Info" + len(INFO).to_bytes(2, "big") + INFO, b"HashToScalar-" + oprf.context(Mode.POPRF)
    )
    keys = oprf.key_pair(group.subtract_scalars(bytes(32), info_scalar))
    with pytest.raises(ValueError, match="undoes the key"):
        oprf.evaluate_tagged(keys.secret, b"a", INFO)
    with pytest.raises(ValueError, match="identity"):
        oprf.tweaked_key(keys.public, INFO)


def test_the_modes_are_separate_functions_of_one_key() -> None:
    secret = oprf.new_key(SeededRandom(b"separate"))
    outputs = {
        oprf.evaluate(secret, b"a", Mode.OPRF),
        oprf.evaluate(secret, b"a", Mode.VOPRF),
        oprf.evaluate_tagged(secret, b"a", b""),
    }
    assert len(outputs) == 3
    with pytest.raises(ValueError, match="evaluate_tagged"):
        oprf.evaluate(secret, b"a", Mode.POPRF)


def test_a_proof_joins_at_most_65535_pairs_and_at_least_one() -> None:
    points = [group.GENERATOR] * 65_536
    for pairs in (points, []):
        with pytest.raises(ValueError, match="1 to 65535 pairs"):
            oprf.prove(
                group.reduce(b"\1" + bytes(63)), group.GENERATOR, group.GENERATOR, pairs, pairs,
                SeededRandom(b"many"), Mode.VOPRF,
            )  # fmt: skip


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        oprf.derive_key_pair(bytes(length), b"", Mode.OPRF)


def test_secrets_are_not_shown() -> None:
    keys, blinded, _ = exchange(Mode.VOPRF)
    assert str(keys.secret) not in repr(keys)
    assert str(blinded[0].scalar) not in repr(blinded[0])
