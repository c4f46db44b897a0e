import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedmkt.crypto import aes

RANDOM = np.random.default_rng(5)


def reference(key: bytes, blocks: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)


def test_the_example_of_fips_197_appendix_c_1() -> None:
    key = np.arange(16, dtype=np.uint8)[None]
    plain = np.frombuffer(bytes.fromhex("00112233445566778899aabbccddeeff"), "<u8").reshape(1, 2)
    cipher = aes.encrypt_all(plain, aes.round_keys(key)[0])
    assert cipher.astype("<u8").tobytes().hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_blocks_are_encrypted_as_the_cryptography_package_does(n: int) -> None:
    keys = RANDOM.integers(0, 256, (3, 16), dtype=np.uint8)
    schedule = aes.round_keys(keys)
    blocks = RANDOM.integers(0, 2**64, (n, 2), dtype=np.uint64)
    for i in range(3):
        assert aes.encrypt_all(blocks, schedule[i]).tobytes() == reference(
            keys[i].tobytes(), blocks.tobytes()
        )


def test_keys_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        aes.round_keys(np.zeros((2, 15), np.uint8))


def plain_product(a: int, b: int) -> int:
    product = 0
    for i in range(64):
        product ^= (a << i) * (b >> i & 1)
    return product


def test_products_of_polynomials_are_those_of_school() -> None:
    @aes.kernel
    def products(a, b, out):  # type: ignore[no-untyped-def]
        for i in range(a.size):
            out[i, 0], out[i, 1] = aes.multiply(a[i], b[i])

    a, b = RANDOM.integers(0, 2**64, (2, 200), dtype=np.uint64)
    a[:3] = [0, 2**64 - 1, 1]
    out = np.empty((200, 2), np.uint64)
    products(a, b, out)
    expected = [plain_product(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    assert [int(low) | int(high) << 64 for low, high in out] == expected


PROGRAM = """
import hashlib, numpy as np
from fedmkt.crypto import aes
blocks = np.arange(2000, dtype=np.uint64).reshape(-1, 2)
keys = aes.round_keys(np.full((1, 16), 7, np.uint8))[0]
print(aes.IN_HARDWARE, hashlib.sha256(aes.encrypt_all(blocks, keys).tobytes()).hexdigest())
"""


def test_the_portable_path_gives_the_same_bytes() -> None:
    here = aes.encrypt_all(
        np.arange(2000, dtype=np.uint64).reshape(-1, 2), aes.round_keys(np.full((1, 16), 7, np.uint8))[0]
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"FEDMKT_PORTABLE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout.split() == ["False", hashlib.sha256(here.tobytes()).hexdigest()]
