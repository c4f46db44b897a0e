"""The main job as one script: intersect, align, fit, score, close; and the script of each task.

Takes part: all participants of the contract. What each learns is the sum of the parts: psi, align, and the scripts
of the model's family; each part's file says it. There is no way back in it: every artifact is made once and read by the
next part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import split
from fedmkt.protocol.alignment.cardinality import overlap_job
from fedmkt.protocol.alignment.psi import Overlap, psi
from fedmkt.protocol.core import Caller, PublicValue, Script
from fedmkt.protocol.family import FAMILIES
from fedmkt.protocol.witness import close, witness, witness_all


@dataclass(frozen=True)
class Finished(PublicValue):
    """The script came to its end."""

    overlap: Overlap


def main_job(call: Caller, contract: Contract) -> Finished:
    """Run the main job from the first message to the closed logs."""
    witness_all(call, contract)
    overlap = psi(call, contract)
    split(call, contract)
    witness(call, contract)
    family = FAMILIES[contract.model.kind]
    widths = family.fit(call, contract, overlap)
    family.score(call, contract, overlap, widths)
    close(call, contract)
    return Finished(overlap)


SCRIPTS: Mapping[str, Script] = {"train": main_job, "overlap": overlap_job}
"""The script of each task that a contract may name."""
