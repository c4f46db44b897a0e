import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fedmkt.audit import verify_proof as program
from fedmkt.audit.log_view import read_view
from fedmkt.audit.proof import Proof, parse_proof, prove
from fedmkt.audit.verify_proof import ProofError, verify_proof


@pytest.fixture
def run(write, events):
    events["bank"] += [("step.completed", {"index": i}) for i in range(20)]
    return write(events)


def view(files, party):
    prefix = f"logs/{party}/"
    return read_view({n.removeprefix(prefix): d for n, d in files.items() if n.startswith(prefix)}, prefix)


@pytest.fixture
def proof(run):
    log = view(run, "bank")
    return bytes(prove(log.leaf(13), 13, log.tree, log.note))


def test_every_record_below_the_head_is_proven(run, signed):
    for party, size in (("bank", 25), ("coordinator", 3), ("shop", 5)):
        log = view(run, party)
        for index in range(size):
            text = bytes(prove(log.leaf(index), index, log.tree, log.note))
            report = verify_proof(run["contract.toml"], text)
            assert (report.party, report.index, report.signed, len(report.cosigners)) == (
                party,
                index,
                size,
                2,
            )
            assert report.record.encode() == log.leaf(index)
            assert bytes(parse_proof(text)) == text


def test_the_proof_is_written_as_the_format_says(proof):
    lines = proof.decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ") and lines[2] == "index 13"
    assert lines[3 : lines.index("")] and all(len(line) == 44 for line in lines[3 : lines.index("")])
    assert lines[lines.index("") + 1].endswith("/bank") and proof.endswith(b"\n")


def test_a_change_of_any_byte_of_a_proof_is_found(run, proof):
    for place in range(0, len(proof), 3):
        for changed in (
            proof[:place] + bytes([proof[place] ^ 1 << place % 8]) + proof[place + 1 :],
            proof[:place] + proof[place + 1 :],
            proof[: place + 1] if proof[place : place + 1] != b"\n" else b"",
            proof[:place] + b"\n" + proof[place:],
        ):
            if changed != proof:
                with pytest.raises(ProofError):
                    verify_proof(run["contract.toml"], changed)


def test_a_proof_without_the_line_of_a_cosigner_names_one_less(run, proof):
    shorter = b"".join(proof.splitlines(keepends=True)[:-1])
    assert verify_proof(run["contract.toml"], shorter).cosigners == ("coordinator",)


def test_a_path_that_is_too_long_or_too_short_or_of_another_place_is_found(run, proof):
    right = parse_proof(proof)
    for other in (
        Proof(right.leaf, right.index, right.path[:-1], right.note),
        Proof(right.leaf, right.index, (*right.path, bytes(32)), right.note),
        Proof(right.leaf, right.index, right.path[::-1], right.note),
        Proof(right.leaf, right.index + 1, right.path, right.note),
        Proof(right.leaf, right.index, right.path, view(run, "shop").note),
    ):
        with pytest.raises(ProofError):
            verify_proof(run["contract.toml"], bytes(other))


def test_keys_that_are_not_the_pinned_ones_are_found(run, proof, signed):
    pinned = {signer.name: signer.key for signer in signed.contract.signers}
    verify_proof(run["contract.toml"], proof, pinned)
    with pytest.raises(ProofError, match="pinned"):
        verify_proof(run["contract.toml"], proof, {**pinned, "bank": "00" * 32})


def test_a_record_after_the_head_or_below_another_head_is_not_proven(run):
    bank, shop = view(run, "bank"), view(run, "shop")
    with pytest.raises(ValueError, match="came after the last head"):
        prove(bank.leaf(13), 25, bank.tree, bank.note)
    with pytest.raises(ValueError, match="does not lead to the root"):
        prove(bank.leaf(1), 1, bank.tree, shop.note)


def test_a_record_is_proven_after_earlier_ones_were_removed(write_governed):
    files = write_governed()
    log = view(files, "bank")
    assert log.pruned == 5
    report = verify_proof(files["contract.toml"], bytes(prove(log.leaf(7), 7, log.tree, log.note)))
    assert (report.index, report.signed) == (7, 10)


def test_the_program_needs_nothing_of_this_package_and_runs_as_a_single_file(run, proof, tmp_path):
    text = Path(program.__file__).read_text()
    tree = ast.parse(text)
    names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names | {"cryptography"}
    alone = tmp_path / "elsewhere" / "verify_proof.py"
    alone.parent.mkdir()
    alone.write_text(text)
    (alone.parent / "a.tlog-proof").write_bytes(proof)
    command = [sys.executable, "-I", str(alone), str(tmp_path / "contract.toml"), "a.tlog-proof"]
    good = subprocess.run(command, capture_output=True, text=True, cwd=alone.parent, timeout=60)
    assert (good.returncode, good.stderr) == (0, "") and '"index": 13' in good.stdout
    (alone.parent / "a.tlog-proof").write_bytes(proof.replace(b"index 13", b"index 12"))
    bad = subprocess.run(command, capture_output=True, text=True, cwd=alone.parent, timeout=60)
    assert (bad.returncode, bad.stdout) == (7, "") and bad.stderr.count("\n") == 1
