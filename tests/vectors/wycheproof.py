"""The vectors of project Wycheproof against each primitive in use, through our own wrapper where there is one.

python -m tests.vectors.wycheproof FOLDER      (`make wycheproof`) FOLDER holds *_test.json, at any depth

A case is right if what is `valid` gives the result of the file, what is `invalid` is refused, and what is `acceptable`
is refused or gives the result of the file. A refusal is a ValueError of a wrapper, or what the package `cryptography`
raises; anything else that comes out is wrong. Some valid cases are refused on purpose; `ON_PURPOSE` says which and why.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from fedmkt.crypto.certificates import check_node_signature
from fedmkt.crypto.prg import derive
from fedmkt.crypto.seal import Prekey
from fedmkt.crypto.second import verify_second
from fedmkt.crypto.sign import verify

Case = Mapping[str, Any]
REFUSED = (ValueError, InvalidSignature, InvalidTag)


def _bytes(case: Case, name: str) -> bytes:
    return bytes.fromhex(case[name])


def _ed25519(group: Case, case: Case) -> bool:
    verify(bytes.fromhex(group["publicKey"]["pk"]), _bytes(case, "sig"), _bytes(case, "msg"))
    return True


def _x25519(group: Case, case: Case) -> bool:
    return Prekey(_bytes(case, "private")).exchange(_bytes(case, "public")) == _bytes(case, "shared")


def _hkdf(group: Case, case: Case) -> bool:
    found = derive(_bytes(case, "ikm"), _bytes(case, "info"), _bytes(case, "salt"), case["size"])
    return found == _bytes(case, "okm")


def _aead(cipher: type[AESGCM] | type[ChaCha20Poly1305]) -> Callable[[Case, Case], bool]:
    def run(group: Case, case: Case) -> bool:
        key, nonce, bound, text = (_bytes(case, name) for name in ("key", "iv", "aad", "msg"))
        sealed = _bytes(case, "ct") + _bytes(case, "tag")
        if cipher(key).decrypt(nonce, sealed, bound) != text:
            return False
        return case["result"] != "valid" or cipher(key).encrypt(nonce, text, bound) == sealed

    return run


def _ecdsa_p256(group: Case, case: Case) -> bool:
    key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(_bytes(case, "sig"), _bytes(case, "msg"), ec.ECDSA(hashes.SHA256()))
    return True


def _ecdsa_p384(group: Case, case: Case) -> bool:
    key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    check_node_signature(line, _bytes(case, "sig"), _bytes(case, "msg"))
    return True


def _ml_dsa_44(group: Case, case: Case) -> bool:
    verify_second(_bytes(group, "publicKey"), _bytes(case, "sig"), _bytes(case, "msg"))
    return True


RUNNERS: Mapping[str, tuple[str, Callable[[Case, Case], bool]]] = {
    "ed25519_test": ("crypto/sign.verify", _ed25519),
    "mldsa_44_verify_test": ("crypto/second.verify_second", _ml_dsa_44),
    "x25519_test": ("crypto/seal.Prekey", _x25519),
    "hkdf_sha256_test": ("crypto/prg.derive", _hkdf),
    "chacha20_poly1305_test": ("cryptography, as in crypto/seal and party/journal", _aead(ChaCha20Poly1305)),
    "ecdsa_secp384r1_sha256_test": ("crypto/certificates.check_node_signature", _ecdsa_p384),
    "ecdsa_secp256r1_sha256_test": ("cryptography, in use for TLS keys only", _ecdsa_p256),
    "aes_gcm_test": ("cryptography, in use below TLS only", _aead(AESGCM)),
}
"""What each file is run through. HMAC-SHA256 is in use too, but its file is in no package."""

ON_PURPOSE: Mapping[str, Callable[[Case, Case], str]] = {
    "mldsa_44_verify_test": lambda group, case: "a context: ours is empty" if case.get("ctx") else "",
    "aes_gcm_test": lambda group, case: (
        "" if 64 <= group["ivSize"] <= 1024 else "a nonce of less than 8 bytes or more than 128"
    ),
}
"""Why a valid case may be refused; an empty text if it may not."""


@dataclass(frozen=True)
class Outcome:
    """What came of one file: cases by result and outcome, those refused on purpose, and those that went wrong."""

    cases: int
    counts: Mapping[str, int]
    on_purpose: Mapping[str, int]
    wrong: Sequence[str]


def run_file(name: str, table: Case) -> Outcome:
    """Run all cases of one file."""
    _, runner = RUNNERS[name]
    counts, on_purpose, wrong = Counter[str](), Counter[str](), list[str]()
    for group in table["testGroups"]:
        for case in group["tests"]:
            try:
                outcome = "accepted" if runner(group, case) else "another result"
            except REFUSED:
                outcome = "refused"
            expected = case["result"]
            counts[f"{expected} {outcome}"] += 1
            reason = ON_PURPOSE.get(name, lambda *_: "")(group, case)
            if expected == "valid" and outcome == "refused" and reason:
                on_purpose[reason] += 1
            elif outcome == "another result" or (expected, outcome) in _WRONG:
                wrong.append(f"{case['tcId']} ({expected}, {outcome}): {case['comment']}")
    return Outcome(sum(counts.values()), counts, on_purpose, wrong)


_WRONG = {("valid", "refused"), ("invalid", "accepted")}


def main(folder: Path) -> int:
    """Run all files; returns how many cases went wrong."""
    right = cases = missing = 0
    for name, (through, _) in RUNNERS.items():
        paths = sorted(folder.rglob(f"{name}.json"))
        if not paths:
            print(f"{name}: not there")
            missing += 1
            continue
        found = run_file(name, json.loads(paths[0].read_bytes()))
        cases, right = cases + found.cases, right + found.cases - len(found.wrong)
        facts = {"file": name, "through": through, "cases": found.cases, "wrong": found.wrong}
        print(json.dumps(facts | {"on purpose": found.on_purpose} | dict(sorted(found.counts.items()))))
    print(f"{right} of {cases} right; {missing} files not there")
    return cases - right + missing


if __name__ == "__main__":
    sys.exit(min(main(Path(sys.argv[1])), 1))
