"""Keys of persons as files: what is read, and what a file cannot make us do."""

import base64
import time

import pytest

from fedmkt.crypto.key_file import ENCRYPTED, LARGEST_KEY_FILE, from_pem, to_pem
from fedmkt.crypto.sign import Identity

WORD = "a passphrase"
ANN = Identity(b"\x09" * 32)
# Made for this test: openssl genpkey -algorithm ed25519 -aes256
BY_OPENSSL = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAh85HfTq1a4HgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEMKtT0AC4pOdviZ3HUTceIoEQNBZ
5WLKmkSuNKu4OWHtzst08kMoiCxRtfc9VoMA4ZBXicZbcPMKNlkQKzkkmoU2Kg2f
qTBpc2Q0tICefwEnv1w=
-----END ENCRYPTED PRIVATE KEY-----
"""


def with_rounds(rounds: bytes) -> bytes:
    """Write a key of ours that asks for so many rounds of hashing."""
    der = bytearray(base64.b64decode(b"".join(to_pem(ANN, WORD).splitlines()[1:-1])))
    start = der.index(b"\x02\x02\x08\x00")
    for place in (2, 4, 17, 19, 32):  # the lengths of all that is around it
        der[place] += len(rounds) - 2
    der[start : start + 4] = b"\x02" + bytes([len(rounds)]) + rounds
    text = base64.b64encode(bytes(der))
    return ENCRYPTED + b"\n" + text + b"\n-----END ENCRYPTED PRIVATE KEY-----\n"


def test_a_key_is_read_as_it_was_written_by_us_and_by_openssl() -> None:
    for passphrase in (None, WORD):
        assert from_pem(to_pem(ANN, passphrase), passphrase).public == ANN.public
    assert from_pem(with_rounds(b"\x08\x00"), WORD).public == ANN.public
    assert (
        from_pem(BY_OPENSSL, WORD).public.hex()
        == "7fac613ccd2d18cf4833afe42f4a03c7f7a43dbdaabefecb212f1fd423c3c902"
    )
    for passphrase in ("another", "", None):
        with pytest.raises(ValueError):
            from_pem(to_pem(ANN, WORD), passphrase)


@pytest.mark.parametrize("rounds", [b"\x7f\xff\xff", b"\x7f\xff\xff\xff", b"\x7f" + b"\xff" * 7])
def test_a_file_cannot_ask_for_work_without_end(rounds: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="no private key"):
        from_pem(with_rounds(rounds), WORD)
    assert time.process_time() - began < 0.1


def test_a_file_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(ValueError, match="at most"):
        from_pem(b"x" * (LARGEST_KEY_FILE + 1), None)
