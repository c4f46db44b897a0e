"""A contract of a bank and its partners, as the tests sign it."""

from datetime import UTC, datetime, timedelta

from fedmkt.contract.agreement import Contract, PartyTerms, Signer
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.sign import Identity
from fedmkt.privacy.disclosure import DEFAULT

IDENTITIES = {name: Identity(bytes([i]) * 32) for i, name in enumerate(("bank", "shop", "telco", "notary"))}
START = datetime(2030, 1, 1, tzinfo=UTC)


def party(name, /, **changes):
    terms = {
        "name": name,
        "organisation": f"{name} ltd",
        "key": IDENTITIES[name].public.hex(),
        "role": "bank" if name == "bank" else "partner",
        "id_kind": "phone",
        "numbers": ("age",),
        "label": "y" if name == "bank" else None,
    }
    return PartyTerms.model_validate(terms | changes)


def contract(**changes):
    terms = {
        "name": "spring",
        "purpose": "cards",
        "family": "cards",
        "created": START,
        "expires": START + timedelta(days=30),
        "coordinator": Signer(name="notary", organisation="Notary", key=IDENTITIES["notary"].public.hex()),
        "parties": (party("bank"), party("shop")),
    }
    return Contract.model_validate(terms | changes)


def signed(agreed):
    names = [signer.name for signer in agreed.signers]
    return SignedContract(
        contract=agreed, signatures={name: sign(agreed, name, IDENTITIES[name]) for name in names}
    )


TREES = {
    "model": {"kind": "trees"},
    "trees": {"reveal": "sides"},
    "disclosures": (*DEFAULT, "HistogramTotals", "SplitSides", "ChosenSplits", "TreeShape"),
}
PATH = (*DEFAULT, "PenaltyCurve", "ChosenPenalty")
