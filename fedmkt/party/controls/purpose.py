"""C01 and C02: for what data are used, and by which right."""

from collections.abc import Iterator

from fedmkt.party.controls.control import Breach, ContractAsked, Control


def _purpose(asked: ContractAsked) -> Iterator[Breach]:
    purpose = asked.contract.purpose
    if purpose not in asked.config.policy.purposes:
        yield Breach(f"{purpose!r} is not allowed by {asked.config.name}")
    for dataset in asked.terms.datasets if asked.terms else ():
        if purpose not in dataset.purposes:
            yield Breach(f"{purpose!r} is no purpose of the dataset of {dataset.party}")


def _legal_basis(asked: ContractAsked) -> Iterator[Breach]:
    for dataset in asked.terms.datasets if asked.terms else ():
        sensitive = [grant.name for grant in dataset.columns if grant.sensitive]
        if not dataset.basis:
            yield Breach(f"the dataset of {dataset.party} names no legal basis")
        if sensitive and not dataset.sensitive_basis:
            columns = ", ".join(map(repr, sensitive))
            yield Breach(
                f"sensitive columns of {dataset.party} ({columns}) without a basis for sensitive data",
                "name one in sensitive_basis (PIPL 29, GDPR 9(2)), or leave the columns out",
            )


CONTROLS = (
    Control("C01", "purpose limitation", "PIPL 6, 14; GDPR 5(1)(b)", "always",
            "purpose, datasets.purposes, policy.purposes", contract=_purpose),
    Control("C02", "legal basis", "PIPL 13, 29; GDPR 6, 9", "governance",
            "datasets.basis, sensitive_basis", contract=_legal_basis),
)  # fmt: skip
