"""`fedmkt bench psi`: two processes, a checked result, and what it cost."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedmkt.cli import bench
from fedmkt.cli.app import main
from fedmkt.errors import ConfigError, PeerError, TransportError
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.simulation import bench_psi
from fedmkt.simulation.bench_psi import PsiCosts, SideCosts, check, invent, measure_psi
from fedmkt.simulation.bench_side import BANK, PARTNER, Lists, customers_of

SMALL = ("bench", "psi", "--rows", "300", "--sender-rows", "200", "--engine", "oprf", "--cold")


def test_the_json_object_has_these_keys_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json"]) == 0
    out = capsys.readouterr()
    facts = json.loads(out.out)
    assert set(facts) == {"receiver", "sender", "wall_s", "bytes", "ids_per_s"}
    for side in ("receiver", "sender"):
        assert set(facts[side]) == {"cpu_s", "peak_mb"}
        assert 0 < facts[side]["cpu_s"] < 60 and 20 < facts[side]["peak_mb"] < 1000
    assert facts["ids_per_s"] == pytest.approx(500 / facts["wall_s"], rel=0.01)
    # Points of the bank, there and back, and a tag for each id of the partner; the rest is the logs' signatures.
    least = 300 * 64 + 200 * 16
    assert least < facts["bytes"] < least + 100_000
    assert "psi" in out.err and "{" not in out.err


def test_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    costs = PsiCosts(SideCosts(1234.5678, 98765.4), SideCosts(0.004, 120), 98765.4321, 10**11, 1_234_567.8)
    bench._say(costs)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any("receiver" in line and "1234.57" in line and "98,765" in line for line in lines)
    assert "time: 98765.43 s, 1,234,568 ids per second" in lines


@pytest.mark.parametrize(
    ("rows", "sender_rows", "overlap"),
    [(0, 10, 0.5), (10, 10**9, 0.5), (10, 10, 0.0), (10, 10, 1.1), (10, 10, float("nan")), (10, 1, 0.4)],
)
def test_lists_that_cannot_be_are_refused(rows: int, sender_rows: int, overlap: float) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        invent(rows, sender_rows, overlap)


def test_a_wrong_option_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "psi", "--rows", "0"]) == 2
    assert "rows = 0: accepted: 1 to" in capsys.readouterr().err
    assert main(["bench", "psi", "--engine", "abacus"]) == 2


@pytest.mark.parametrize("sizes", [(1000, 700, 300), (10, 1000, 10), (50, 50, 1)])
def test_the_lists_share_exactly_the_people_they_should(sizes: tuple[int, int, int]) -> None:
    lists = Lists(*sizes)
    ours, theirs = lists.numbers(BANK), lists.numbers(PARTNER)
    assert (len(set(ours)), len(set(theirs)), len(set(ours) & set(theirs))) == sizes
    assert all(len(str(n)) == 11 for n in ours) and all(len(str(n)) == 11 for n in theirs)
    assert not np.array_equal(ours, np.sort(ours))
    assert not np.array_equal(ours, replace(lists, seed=2).numbers(BANK))


def test_a_packed_list_reads_as_its_numbers() -> None:
    numbers = Lists(30, 30, 3).numbers(BANK)
    packed = customers_of(numbers).ids
    assert [packed[row] for row in range(30)] == [str(n) for n in numbers]
    assert len(packed) == 30


def true_rows(lists: Lists) -> tuple[list[int], list[int]]:
    """Match by a dictionary: what both sides should find, in some common order."""
    theirs = {n: row for row, n in enumerate(lists.numbers(PARTNER).tolist())}
    found = [(row, theirs[n]) for row, n in enumerate(lists.numbers(BANK).tolist()) if n in theirs]
    return [a for a, _ in found], [b for _, b in found]


def test_the_plain_set_operation_is_what_a_result_is_compared_with() -> None:
    lists = Lists(60, 40, 20)
    ours, theirs = (np.array([*rows, NO_ROW, NO_ROW]) for rows in true_rows(lists))
    check(lists, ours, theirs)
    order = np.random.default_rng(1).permutation(len(ours))
    check(lists, ours[order], theirs[order])
    for change in (
        (ours[1:], theirs[1:]),  # one is missing
        (np.append(ours, ours[0]), np.append(theirs, theirs[0])),  # one is there twice
        (ours, theirs[order]),  # another order
        (ours, np.append(theirs[1:], NO_ROW)),
        (np.append(ours[:-2], next(i for i in range(60) if i not in ours)), np.append(theirs[:-2], 0)),
    ):
        with pytest.raises(PeerError, match="bench: "):
            check(lists, *change)


def test_the_deadline_ends_it_and_says_so() -> None:
    with pytest.raises(TransportError, match="no result within 0 s") as caught:
        measure_psi(200, "oprf", deadline=0.1)
    assert "--deadline" in caught.value.hint


def test_a_side_that_dies_is_named_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_psi, "SIDE", "fedmkt.no_such_module")
    with pytest.raises(TransportError, match="has ended") as caught:
        measure_psi(200, "oprf", cold=True)
    assert "no_such_module" in caught.value.hint
