"""The runner of `make wycheproof` on a table of our own: it tells right from wrong."""

import json
from pathlib import Path

import pytest

from fedmkt.crypto.sign import Identity
from tests.vectors.wycheproof import RUNNERS, main, run_file

SIGNER = Identity(b"\x05" * 32)
GOOD = SIGNER.sign(b"message").hex()


def table(result: str, signature: str, message: bytes = b"message") -> dict[str, object]:
    case = {"tcId": 7, "comment": "own", "msg": message.hex(), "sig": signature, "result": result}
    return {"testGroups": [{"publicKey": {"pk": SIGNER.public.hex()}, "tests": [case]}]}


@pytest.mark.parametrize(
    "result,signature,wrong",
    [
        ("valid", GOOD, 0), ("valid", GOOD[2:], 1), ("invalid", GOOD, 1), ("invalid", "00" * 64, 0),
        ("acceptable", GOOD, 0), ("acceptable", "", 0),
    ],
)  # fmt: skip
def test_a_case_is_wrong_if_it_ends_otherwise_than_its_file_says(
    result: str, signature: str, wrong: int
) -> None:
    found = run_file("ed25519_test", table(result, signature))
    assert (found.cases, len(found.wrong)) == (1, wrong)


def test_another_product_is_wrong_even_where_refusing_would_be_right() -> None:
    case = {"tcId": 1, "comment": "", "private": "01" * 32, "public": "09" + "00" * 31, "shared": "00" * 32}
    for result in ("valid", "acceptable"):
        assert run_file("x25519_test", {"testGroups": [{"tests": [case | {"result": result}]}]}).wrong


def test_a_folder_without_the_files_does_not_pass(tmp_path: Path) -> None:
    assert main(tmp_path) == len(RUNNERS)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "ed25519_test.json").write_text(json.dumps(table("valid", GOOD)))
    assert main(tmp_path) == len(RUNNERS) - 1
