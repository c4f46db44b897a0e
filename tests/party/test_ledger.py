import hashlib
import json
import stat
import subprocess
import sys

import numpy as np
import pytest

from fedmkt.crypto.prg import SeededRandom
from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.party.ledger import LEDGER, Ledger

CONTRACT = b"c" * 32
OTHER = b"d" * 32
MODEL = b"m" * 32


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger", SeededRandom(b"x" * 32))


def again(ledger):
    """The same folder, as another process sees it."""
    return Ledger(ledger._folder, SeededRandom(b"y" * 32))


def rows(start, stop):
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(start, stop)]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


def test_runs_are_counted_per_contract_up_to_the_maximum(ledger):
    for run in ("one", "two"):
        with again(ledger).run(CONTRACT, run, max_runs=2):
            pass
    with pytest.raises(PolicyRefused, match=r"^rule max-runs"), ledger.run(CONTRACT, "three", max_runs=2):
        pass
    with ledger.run(OTHER, "three", max_runs=2):
        pass


def test_a_resumed_run_is_counted_once(ledger):
    for _ in range(3):
        with again(ledger).run(CONTRACT, "one", max_runs=1):
            pass


def test_one_run_of_a_contract_at_a_time(ledger):
    with ledger.run(CONTRACT, "one", max_runs=5):
        with (
            pytest.raises(PolicyRefused, match=r"^rule one-run"),
            again(ledger).run(CONTRACT, "two", max_runs=5),
        ):
            pass
        with again(ledger).run(OTHER, "two", max_runs=5):
            pass
    with again(ledger).run(CONTRACT, "two", max_runs=5):
        pass


def test_the_run_lock_of_a_killed_process_is_free(ledger):
    code = (
        "import os, sys; from pathlib import Path; from fedmkt.party.ledger import Ledger\n"
        "with Ledger(Path(sys.argv[1]), os.urandom).run(b'c' * 32, 'one', 5): os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ledger._folder)], timeout=60)
    assert done.returncode == 9
    with ledger.run(CONTRACT, "one", max_runs=1):
        pass


def test_partner_refuses_a_second_psi_in_one_run(ledger):
    ledger.start_psi(CONTRACT, "one", "shop")
    with pytest.raises(PolicyRefused, match=r"^rule one-psi"):
        again(ledger).start_psi(CONTRACT, "one", "shop")
    ledger.start_psi(CONTRACT, "one", "telco")
    ledger.start_psi(CONTRACT, "two", "shop")
    ledger.start_psi(OTHER, "one", "shop")


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_epoch_that_is_not_higher_than_all_before_is_refused(ledger, epoch):
    ledger.start_epoch("one", 1, max_resumes=9)
    ledger.start_epoch("one", 2, max_resumes=9)
    with pytest.raises(PolicyRefused, match=r"^rule epoch"):
        again(ledger).start_epoch("one", epoch, max_resumes=9)
    assert again(ledger).highest_epoch("one") == 2
    assert again(ledger).highest_epoch("two") == -1


def test_resumes_are_counted(ledger):
    for epoch in (1, 2, 3):
        ledger.start_epoch("one", epoch, max_resumes=2)
    with pytest.raises(PolicyRefused, match=r"^rule max-resumes"):
        again(ledger).start_epoch("one", 4, max_resumes=2)
    ledger.start_epoch("two", 1, max_resumes=2)


def test_opened_functionals_add_up_over_runs_to_the_cap(ledger):
    assert ledger.add_functionals("bank", b"columns", 1, cap=3) == 1
    assert again(ledger).add_functionals("bank", b"columns", 2, cap=3) == 3
    with pytest.raises(PolicyRefused, match=r"^rule functionals"):
        again(ledger).add_functionals("bank", b"columns", 1, cap=3)
    assert ledger.add_functionals("bank", b"others", 3, cap=3) == 3
    assert ledger.add_functionals("telco", b"columns", 3, cap=3) == 3


def test_a_refused_functional_is_not_counted(ledger):
    with pytest.raises(PolicyRefused):
        ledger.add_functionals("bank", b"columns", 4, cap=3)
    assert ledger.add_functionals("bank", b"columns", 3, cap=3) == 3


def test_a_negative_count_of_functionals_is_a_mistake(ledger):
    with pytest.raises(ValueError, match="not negative"):
        ledger.add_functionals("bank", b"columns", -1, cap=3)


def test_stored_scores_come_back_for_their_rows_and_model_only(ledger):
    ledger.store_scores(MODEL, rows(0, 50), np.arange(50) / 100)
    ledger.store_scores(MODEL, rows(50, 80), np.arange(50, 80) / 100)
    order = np.random.default_rng(0).permutation(100)
    expected = np.where(order < 80, order / 100, np.nan)
    np.testing.assert_array_equal(again(ledger).stored_scores(MODEL, rows(0, 100)[order]), expected)
    assert np.isnan(ledger.stored_scores(b"n" * 32, rows(0, 3))).all()
    assert ledger.stored_scores(MODEL, rows(0, 0)).shape == (0,)


def test_a_row_has_one_score_under_a_model(ledger):
    ledger.store_scores(MODEL, rows(0, 5), np.zeros(5))
    with pytest.raises(ValueError, match="has a score under this model"):
        again(ledger).store_scores(MODEL, rows(4, 6), np.ones(2))
    np.testing.assert_array_equal(ledger.stored_scores(MODEL, rows(4, 6)), [0, np.nan])
    with pytest.raises(ValueError, match="twice"):
        ledger.store_scores(b"n" * 32, rows(0, 2)[[0, 0]], np.zeros(2))
    ledger.store_scores(b"n" * 32, rows(0, 5), np.ones(5))


def test_rows_that_are_no_digests_are_a_mistake(ledger):
    with pytest.raises(ValueError, match="rows are"):
        ledger.store_scores(MODEL, np.zeros((3, 16), dtype=np.uint8), np.zeros(3))


def test_a_cut_file_of_scores_is_found(ledger):
    ledger.store_scores(MODEL, rows(0, 5), np.zeros(5))
    path = next(ledger._folder.glob("scores-*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AuditError, match="not a file of scores"):
        ledger.stored_scores(MODEL, rows(0, 5))


def test_the_split_share_of_a_family_is_made_once_and_readable_by_its_owner_only(ledger):
    share = ledger.split_share("cards")
    assert len(share) == 32
    assert again(ledger).split_share("cards") == share
    assert ledger.split_share("loans") != share
    for path in ledger._folder.glob("split-*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ledger._folder.stat().st_mode) == 0o700


def test_half_a_line_of_a_crash_is_dropped_and_the_facts_before_it_hold(ledger):
    ledger.start_psi(CONTRACT, "one", "shop")
    path = ledger._folder / LEDGER
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"fact": "ps')
    with pytest.raises(PolicyRefused, match=r"^rule one-psi"):
        again(ledger).start_psi(CONTRACT, "one", "shop")
    assert path.read_bytes() == whole
    again(ledger).start_psi(CONTRACT, "two", "shop")
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"fact": "other"}',
        '{"fact": "epoch", "run": "r"}',
        '{"fact": "run", "run": 1}',
    ],
)
def test_a_line_that_is_no_fact_stops_everything(ledger, line):
    ledger.start_psi(CONTRACT, "one", "shop")
    path = ledger._folder / LEDGER
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(AuditError, match="line 1 is not a fact of a ledger"):
        ledger.start_psi(CONTRACT, "two", "shop")


def test_two_processes_cannot_both_take_the_last_functional(ledger):
    code = (
        "import os, sys; from pathlib import Path; from fedmkt.party.ledger import Ledger\n"
        "from fedmkt.errors import PolicyRefused\n"
        "ledger, taken = Ledger(Path(sys.argv[1]), os.urandom), 0\n"
        "for _ in range(20):\n"
        "    try: ledger.add_functionals('bank', b'c', 1, 25); taken += 1\n"
        "    except PolicyRefused: pass\n"
        "print(taken)"
    )
    command = [sys.executable, "-c", code, str(ledger._folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    taken = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(taken) == 25
    lines = (ledger._folder / LEDGER).read_text().splitlines()
    assert sum(json.loads(line)["count"] for line in lines) == 25
