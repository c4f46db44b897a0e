"""Who signed a contract, and what each signature is worth.

Where the contract asks for ML-DSA-44 beside Ed25519, a signature is three values in a row: that of the identity key,
64 bytes, over the contract's digest and the second key; the second key, 1,312 bytes; its own signature over the digest,
2,420 bytes. So whoever pinned an identity key knows the second key from it.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from fedmkt.contract.agreement import Contract, Signer
from fedmkt.contract.canonical import digest
from fedmkt.contract.words import Name, Terms
from fedmkt.crypto.second import SECOND_KEY_BYTES, SECOND_SIGNATURE_BYTES, SecondKey, verify_second
from fedmkt.crypto.sign import SIGNATURE_BYTES, Identity, verify
from fedmkt.errors import PolicyRefused

Standing = Literal["valid", "missing", "invalid"]
DOUBLE = "standard+ml-dsa-44"
_SECOND_LABEL = b"fedmkt second key v1\n"
_SECOND_END = SIGNATURE_BYTES + SECOND_KEY_BYTES
_DOUBLE_BYTES = _SECOND_END + SECOND_SIGNATURE_BYTES
_HEX = rf"^([0-9a-f]{{{2 * SIGNATURE_BYTES}}}|[0-9a-f]{{{2 * _DOUBLE_BYTES}}})$"


class SignedContract(Terms):
    """A contract and the signatures given so far, hexadecimal, by signer's name."""

    contract: Contract
    signatures: Mapping[Name, Annotated[str, Field(pattern=_HEX)]] = {}


def sign(contract: Contract, name: str, identity: Identity) -> str:
    """Sign as `name`; ValueError unless the contract names that signer with this identity's key."""
    for signer in contract.signers:
        if signer.name == name and signer.key == identity.public.hex():
            message = digest(contract)
            if not signs_twice(contract):
                return identity.sign(message).hex()
            second = SecondKey(identity)
            values = (
                identity.sign(message + second.public),
                second.public,
                second.sign(_SECOND_LABEL + message),
            )
            return b"".join(values).hex()
    raise ValueError(f"the contract has no signer {name!r} with the key of {identity!r}")


def signs_twice(contract: Contract) -> bool:
    """Tell whether contract and logs are signed with a second key too."""
    return contract.governance is not None and contract.governance.suite == DOUBLE


def second_keys(signed: SignedContract) -> dict[str, bytes]:
    """Return the second keys of the signers, by name; none where the contract asks for none."""
    if not signs_twice(signed.contract):
        return {}
    values = {name: bytes.fromhex(text) for name, text in signed.signatures.items()}
    return {name: value[SIGNATURE_BYTES:_SECOND_END] for name, value in values.items()}


def log_keys(signed: SignedContract) -> dict[str, bytes]:
    """Return the keys under heads of logs, by signer: the identity key, and after it the second one if there is one."""
    second = second_keys(signed)
    return {s.name: bytes.fromhex(s.key) + second.get(s.name, b"") for s in signed.contract.signers}


def check_signatures(signed: SignedContract) -> None:
    """Demand a valid signature of every party and of the coordinator, and none besides."""
    contract = signed.contract
    expected = {signer.name for signer in contract.signers}
    if set(signed.signatures) != expected:
        missing = ", ".join(sorted(expected - set(signed.signatures))) or "none"
        extra = ", ".join(sorted(set(signed.signatures) - expected)) or "none"
        raise PolicyRefused(f"signatures of exactly the signers are needed: missing {missing}, extra {extra}")
    check_given_signatures(signed)


def check_given_signatures(signed: SignedContract) -> None:
    """Demand that every signature given so far is a signer's and verifies; some may still be missing."""
    wrong = [name for name, standing in signature_standings(signed).items() if standing == "invalid"]
    if wrong:
        raise PolicyRefused(f"the signature of {wrong[0]} on the contract does not verify")


def signature_standings(signed: SignedContract) -> dict[str, Standing]:
    """Say how each signature stands, signers first; one of somebody who is no signer is invalid."""
    message = digest(signed.contract)
    found = {
        signer.name: _standing(
            signer, signed.signatures.get(signer.name), message, signs_twice(signed.contract)
        )
        for signer in signed.contract.signers
    }
    return found | {name: "invalid" for name in sorted(set(signed.signatures) - set(found))}


def _standing(signer: Signer, signature: str | None, message: bytes, is_double: bool) -> Standing:
    if signature is None:
        return "missing"
    value = bytes.fromhex(signature)
    first, key, last = value[:SIGNATURE_BYTES], value[SIGNATURE_BYTES:_SECOND_END], value[_SECOND_END:]
    if is_double != bool(key):
        return "invalid"
    try:
        verify(bytes.fromhex(signer.key), first, message + key)
        if is_double:
            verify_second(key, last, _SECOND_LABEL + message)
    except ValueError:
        return "invalid"
    return "valid"
