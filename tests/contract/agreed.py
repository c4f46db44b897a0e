"""A contract of a bank and its partners, as the tests sign it."""

from datetime import UTC, datetime, timedelta

from fedmkt.contract.agreement import Contract, PartyTerms, Signer
from fedmkt.contract.governance import GovernanceTerms
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.sign import Identity
from fedmkt.privacy.disclosure import DEFAULT

IDENTITIES = {name: Identity(bytes([i]) * 32) for i, name in enumerate(("bank", "shop", "telco", "notary"))}
APPROVERS = {
    (name, role): Identity(bytes([10 * i + j]) * 32)
    for i, name in enumerate(("bank", "shop"), 1)
    for j, role in enumerate(("data-owner", "compliance"))
}
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


def governance(**changes):
    """Terms of governance under which a run of bank and shop is allowed by every control."""
    terms = {
        "datasets": [
            {
                "party": name,
                "name": f"customers of {name}",
                "people": "customers who agreed",
                "purposes": ["cards"],
                "basis": ["PIPL-13-1"],
                "columns": [
                    {"name": column, "level": 2, "category": "C1", "kind": "demography"}
                    for column in (("age", "y") if name == "bank" else ("age",))
                ],
            }
            for name in ("bank", "shop")
        ],
        "locations": {"bank": "CN", "shop": "CN", "notary": "CN"},
        "countries": ["CN"],
        "impact": {
            "sha256": "ab" * 32,
            "purpose": "cards",
            "parties": ["bank", "shop"],
            "expires": START + timedelta(days=300),
        },
        "approvers": [
            {"name": person, "party": name, "role": role, "key": APPROVERS[name, role].public.hex()}
            for name in ("bank", "shop")
            for person, role in (("ann", "data-owner"), ("ben", "compliance"))
        ],
        "recipients": [{"result": "scores", "to": "bank", "use": "letters"}],
    }
    return GovernanceTerms.model_validate(terms | changes)


TREES = {
    "model": {"kind": "trees"},
    "trees": {"reveal": "sides"},
    "disclosures": (*DEFAULT, "HistogramTotals", "SplitSides", "ChosenSplits", "TreeShape"),
}
PATH = (*DEFAULT, "PenaltyCurve", "ChosenPenalty")
