"""Who signed a contract, and what each signature is worth."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from fedmkt.contract.agreement import Contract, Signer
from fedmkt.contract.canonical import digest
from fedmkt.contract.words import Name, Terms
from fedmkt.crypto.sign import Identity, verify
from fedmkt.errors import PolicyRefused

Standing = Literal["valid", "missing", "invalid"]


class SignedContract(Terms):
    """A contract and the signatures given so far, hexadecimal, by signer's name."""

    contract: Contract
    signatures: Mapping[Name, Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]] = {}


def sign(contract: Contract, name: str, identity: Identity) -> str:
    """Sign as `name`; ValueError unless the contract names that signer with this identity's key."""
    for signer in contract.signers:
        if signer.name == name and signer.key == identity.public.hex():
            return identity.sign(digest(contract)).hex()
    raise ValueError(f"the contract has no signer {name!r} with the key of {identity!r}")


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
        signer.name: _standing(signer, signed.signatures.get(signer.name), message)
        for signer in signed.contract.signers
    }
    return found | {name: "invalid" for name in sorted(set(signed.signatures) - set(found))}


def _standing(signer: Signer, signature: str | None, message: bytes) -> Standing:
    if signature is None:
        return "missing"
    try:
        verify(bytes.fromhex(signer.key), bytes.fromhex(signature), message)
    except ValueError:
        return "invalid"
    return "valid"
