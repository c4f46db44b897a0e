"""Plan of the lanes of one training on shares: what stands in one word, and whether it fits, before anything is sent.

Source: protocols.md section 0, rule 7. Letters and arrays: `lanes`.
"""

from collections.abc import Mapping
from dataclasses import replace

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.seal import MAX_MESSAGE_BYTES
from fedmkt.errors import ConfigError
from fedmkt.protocol.alignment.align import scored_rows, train_rows
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Name, data_parties
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.noisy_growth import plan_of, with_room
from fedmkt.protocol.trees.totals.shared_cells import APART, TOGETHER
from fedmkt.protocol.trees.totals.shared_gradients import SHARE_BITS as RINGS

Limits = tuple[tuple[int, ...], ...]
_SCORE_BYTES, _HEADERS = 8, 1 << 10
"""Bytes of a score's share, and more than names and shapes take in a message."""


def lanes_of(
    contract: Contract,
    overlap: Overlap,
    sizes: Mapping[Name, BinSizes],
    limits: tuple[Limits, Limits] | None = None,
) -> Lanes:
    """Plan the encrypted vectors of a whole training; limits : by lane with g and h in one, and in two."""
    terms, (joined, parted) = contract.trees, limits or (TOGETHER, APART)
    again = contract.limits.max_resumes * contract.model.checkpoint_every
    # After the root one node of each pair is asked for: 1 + 1 + 2 + 4 ... in all.
    vectors = (1 << (terms.depth - 1)) * (terms.trees + again)
    counts = {p: s.sizes for p, s in sizes.items()}
    together = Lanes(train_rows(contract, overlap), counts, joined, vectors)
    if terms.checked_shares:
        together = replace(together, checker=data_parties(contract)[1])
    apart = replace(together, limits=parted)
    noise = plan_of(contract, together.rows)
    if noise is not None:
        together, apart = with_room(together, noise), with_room(apart, noise)
    if any(bits > most for bits, most in zip(apart.bits, (*RINGS, 31), strict=False)):
        # Totals beyond the ring of their shares would be wrong, and nothing would show it.
        raise ConfigError(
            f"{together.rows:,} rows are more than shared totals are for",
            "use fewer rows, about 30 million at most",
        )
    _check_messages(contract, overlap, apart)
    try:
        for party in data_parties(contract):
            together.budgets(party)
    except ConfigError:
        return apart
    return together


def _check_messages(contract: Contract, overlap: Overlap, lanes: Lanes) -> None:
    """Refuse what does not travel in row blocks and is too large for one message: long before it would be sent."""
    room, scored = MAX_MESSAGE_BYTES - _HEADERS, scored_rows(contract, overlap)
    if scored * _SCORE_BYTES > room:
        raise ConfigError(
            f"{scored:,} rows to score are more than fit the message that releases scores, {room // _SCORE_BYTES:,}",
            "score fewer customers in one run",
        )
    columns = len(lanes.counts[data_parties(contract)[0]])
    if contract.trees.checked_shares and lanes.rows * columns > room:
        raise ConfigError(
            f"{lanes.rows:,} rows of {columns} columns of the bank are more than the check of its bins is for, "
            f"{room // columns:,}",
            "use fewer rows or columns of the bank, or no trees.checked_shares",
        )
