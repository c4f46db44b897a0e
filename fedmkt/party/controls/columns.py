"""C06 to C08: which columns take part, of which class, and which kinds never do.

How C07 knows what shows rows. Every kind of disclosure (`privacy.disclosure`) is of one sort here (`SORTS`): `match`,
who is on a list; `shape`, sizes and bits about all rows; `sums`, sums over groups of rows in clear, with noise or
without; `rows`, something about each row before the result; `result`, the rounded scores; `keys`, which show nothing by
themselves (the policy pins whom they go to). Joint values mix the columns of all parties, so the highest level among
all columns of a contract decides: level 3 allows no `rows`, level 4 no `sums` either. `ModelPart` is of the sort
`rows`: with its own weights the bank computes the partner's part of each score, and a weight that singles out one row
tells its label.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from fedmkt.contract.agreement import Contract, PartyTerms
from fedmkt.contract.governance import ColumnGrant
from fedmkt.party.controls.control import Breach, ContractAsked, Control

Sort = Literal["match", "shape", "sums", "rows", "result", "keys"]
_BY_SORT: Final[Mapping[Sort, tuple[str, ...]]] = {
    "match": (
        "ListSize", "SetSize", "MatchedOwnRows", "CampaignRows", "JoinedRows", "SupersetList", "LastingNames"
    ),
    "shape": (
        "MatrixShape", "RangeBit", "ChosenPenalty", "MinimumBits", "CellBits", "ChosenSplits", "TreeShape", "StopBits"
    ),
    "sums": (
        "PenaltyCurve", "CrossCorrelation", "StandardErrors", "BinCounts", "BinTotals", "BinWeights",
        "HistogramTotals", "ValidationLosses", "NoisyTotals",
    ),
    "rows": ("ModelPart", "SplitSides", "Embeddings", "PartialScore"),
    "result": ("Scores",),
    "keys": ("DealerSeeds",),
}  # fmt: skip
SORTS: Final[Mapping[str, Sort]] = {kind: sort for sort, kinds in _BY_SORT.items() for kind in kinds}
"""The sort of each kind of disclosure; a kind that is absent counts as `rows`."""
_REFUSED: Final[Mapping[int, tuple[Sort, ...]]] = {3: ("rows",), 4: ("rows", "sums")}
NEVER: Final = 5
NEEDS_APPROVALS: Final = 4

_WILD = re.compile(r"[*?%]")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
FORBIDDEN: Final[Mapping[str, tuple[str, ...]]] = {
    "religion": ("religion", "religions", "religious", "faith", "creed", "zongjiao", "宗教", "信仰"),
    "genes": ("gene", "genes", "genetic", "genetics", "genome", "genotype", "dna", "jiyin", "基因", "遗传"),
    "fingerprint": ("fingerprint", "fingerprints", "zhiwen", "指纹", "指紋"),
    "blood type": ("blood type", "blood group", "bloodtype", "bloodgroup", "xuexing", "血型"),
    "illness": (
        "illness", "illnesses", "disease", "diseases", "sickness", "diagnosis", "diagnoses", "icd", "hiv", "cancer",
        "diabetes", "medical history", "health record", "jibing", "bingshi", "疾病", "病史", "病历", "病歷", "诊断",
        "診斷", "患病",
    ),
}  # fmt: skip
"""Words of a name that a credit agency may not collect: whole words in Latin letters, any part in Chinese."""


def used_columns(contract: Contract) -> dict[str, tuple[str, ...]]:
    """List by party the columns that take part."""
    return {party.name: party.columns for party in contract.parties}


def unused_grants(contract: Contract) -> dict[str, tuple[str, ...]]:
    """List by party the columns that were granted and do not take part; parties without any are left out."""
    datasets = contract.governance.datasets if contract.governance else ()
    used = used_columns(contract)
    found = {d.party: tuple(g.name for g in d.columns if g.name not in used[d.party]) for d in datasets}
    return {party: names for party, names in found.items() if names}


def _least_columns(asked: ContractAsked) -> Iterator[Breach]:
    own, granted = asked.own, asked.config.policy.columns
    for column in own.columns if isinstance(own, PartyTerms) else ():
        if column not in granted:
            yield Breach(f"column {column!r} is not granted by {asked.config.name}")
    for dataset in asked.terms.datasets if asked.terms else ():
        for grant in dataset.columns:
            if _WILD.search(grant.name):
                yield Breach(f"{grant.name!r} of {dataset.party} names no single column", "name each column")
        for column in used_columns(asked.contract)[dataset.party]:
            if dataset.grant(column) is None:
                yield Breach(
                    f"column {column!r} of {dataset.party} takes part, its dataset does not grant it",
                    "grant it in [[governance.datasets.columns]], or leave it out",
                )


def _used_grants(asked: ContractAsked) -> Iterator[tuple[str, ColumnGrant]]:
    for dataset in asked.terms.datasets if asked.terms else ():
        for column in used_columns(asked.contract)[dataset.party]:
            if (grant := dataset.grant(column)) is not None:
                yield f"column {column!r} of {dataset.party}", grant


def _class_gate(asked: ContractAsked) -> Iterator[Breach]:
    for column, grant in _used_grants(asked):
        level = grant.counts_as
        if grant.category == "C3" or level >= NEVER:
            said = "category C3" if grant.category == "C3" else f"level {level}"
            yield Breach(f"{column} is of {said}: it never takes part", "leave the column out")
            continue
        unknown = " (no level is given)" if grant.level is None else ""
        for kind in asked.contract.disclosures:
            sort = SORTS.get(kind, "rows")
            if sort in _REFUSED.get(level, ()):
                yield Breach(
                    f"{column} is of level {level}{unknown}, the contract discloses {kind}, which shows {sort}",
                    "take a kind of model that opens less, or leave the column out",
                )
        if level >= NEEDS_APPROVALS and asked.terms is not None and asked.terms.approvals < 2:
            yield Breach(f"{column} is of level {level}{unknown}: two approvals of each party at least")


def forbidden_kind(text: str) -> str | None:
    """Name the forbidden kind that a column's name or description tells of; None if it tells of none."""
    plain = unicodedata.normalize("NFKC", text)
    words = f" {' '.join(word.lower() for word in _WORD.findall(plain))} "
    lower = f" {' '.join(re.findall(r'[a-z]+', plain.casefold()))} "  # DNA and Dna and dNA
    for kind, names in FORBIDDEN.items():
        for name in names:
            if (f" {name} " in words or f" {name} " in lower) if name.isascii() else name in plain:
                return kind
    return None


def _forbidden_kinds(asked: ContractAsked) -> Iterator[Breach]:
    for party, columns in used_columns(asked.contract).items():
        for column in columns:
            if (kind := forbidden_kind(column)) is not None:
                yield Breach(f"column {column!r} of {party} is named after {kind}", "leave the column out")
    for dataset in asked.terms.datasets if asked.terms else ():
        for grant in dataset.columns:
            if (kind := forbidden_kind(grant.kind) or forbidden_kind(grant.name)) is not None:
                yield Breach(
                    f"{dataset.party} grants {grant.name!r}, which tells of {kind}", "grant it to nobody"
                )


CONTROLS = (
    Control("C06", "least columns", "PIPL 6, 19", "always",
            "datasets.columns.name, policy.columns", contract=_least_columns),
    Control("C07", "class gate", "JR/T 0197, JR/T 0171", "governance",
            "datasets.columns.level, category", contract=_class_gate),
    Control("C08", "forbidden kinds", "credit-reporting regulation 14", "always",
            "datasets.columns.kind, numbers, categories", contract=_forbidden_kinds),
)  # fmt: skip
