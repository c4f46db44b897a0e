"""All attacks by their row in security.md section 3."""

from collections.abc import Callable, Mapping, Sequence

from fedmkt.attack_lab.attacks import (
    cells,
    columns,
    deals,
    decoders,
    exports,
    giants,
    gradients,
    ids,
    labels,
    messages,
    points,
    sizes,
    tables,
)
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, worst_of_partners
from fedmkt.attack_lab.subject import Subject
from fedmkt.errors import ConfigError

Attack = Callable[[Subject, Effort], Finding]

ATTACKS: Mapping[int, Attack] = {
    1: gradients.norm_and_cosine,
    2: labels.completion,
    3: gradients.sign,
    4: gradients.residues,
    5: columns.equations,
    6: columns.inference,
    7: labels.instance_space,
    8: cells.small_cells,
    9: ids.hashed_ids,
    10: sizes.size_differencing,
    12: points.bad_points,
    13: messages.altered,
    15: deals.cheating_dealer,
    17: decoders.code_in_data,
    18: tables.crafted_parquet,
    19: giants.giants,
    20: exports.cells_that_run,
    22: labels.membership,
}

BY_PARTNER = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 10})
"""Attacks by one partner, or by the bank on one: run for each, and the worst counts."""


def attack(subject: Subject, effort: Effort, rows: Sequence[int] = ()) -> list[Finding]:
    """Run the attacks with these numbers, or all; ConfigError for a number that has none."""
    for row in rows:
        if row not in ATTACKS:
            raise ConfigError(f"attack {row}: accepted: {', '.join(map(str, ATTACKS))}")
    return [_found(row, subject, effort) for row in (rows or ATTACKS)]


def _found(row: int, subject: Subject, effort: Effort) -> Finding:
    subjects = subject.of_each_partner if row in BY_PARTNER else [subject]
    return worst_of_partners([(s.partner, ATTACKS[row](s, effort)) for s in subjects])
