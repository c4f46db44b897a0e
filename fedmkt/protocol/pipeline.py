"""The main job as one script: intersect, align, prepare, fit, score, close; and the script of each task.

Takes part: all participants of the contract. What each learns is the sum of the parts: psi, prepare, range,
scoring; each part's file says it. There is no way back in it: every artifact is made once and read by the
next part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedmkt.contract import Contract
from fedmkt.protocol.align import split
from fedmkt.protocol.bounds import check_bounds
from fedmkt.protocol.cardinality import overlap_job
from fedmkt.protocol.core import Caller, PublicValue, Script
from fedmkt.protocol.logistic import fit
from fedmkt.protocol.prepare import prepare_columns
from fedmkt.protocol.psi import Overlap, psi
from fedmkt.protocol.scoring import give_parts, score
from fedmkt.protocol.witness import checkpoint, close, witness


@dataclass(frozen=True)
class Finished(PublicValue):
    """The script came to its end."""

    overlap: Overlap


def main_job(call: Caller, contract: Contract) -> Finished:
    """Run the main job from the first message to the closed logs."""
    witness(call, contract)
    overlap = psi(call, contract)
    split(call, contract)
    witness(call, contract)
    shapes = prepare_columns(call, contract)
    check_bounds(contract, overlap, shapes)
    checkpoint(call, contract)
    columns = {p: s.columns for p, s in shapes.items()}
    fit(call, contract, overlap, columns)
    score(call, contract, overlap, columns)
    if "ModelPart" in contract.disclosures:
        give_parts(call, contract)
    close(call, contract)
    return Finished(overlap)


SCRIPTS: Mapping[str, Script] = {"train": main_job, "overlap": overlap_job}
"""The script of each task that a contract may name."""
