"""All attacks by their row in security.md section 3."""

from collections.abc import Callable, Mapping, Sequence

from fedmkt.attack_lab.attacks import gradients
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding
from fedmkt.attack_lab.subject import Subject
from fedmkt.errors import ConfigError

Attack = Callable[[Subject, Effort], Finding]

ATTACKS: Mapping[int, Attack] = {
    1: gradients.norm_and_cosine,
    3: gradients.sign,
    4: gradients.residues,
}


def attack(subject: Subject, effort: Effort, rows: Sequence[int] = ()) -> list[Finding]:
    """Run the attacks with these numbers, or all; ConfigError for a number that has none."""
    for row in rows:
        if row not in ATTACKS:
            raise ConfigError(f"attack {row}: accepted: {', '.join(map(str, ATTACKS))}")
    return [ATTACKS[row](subject, effort) for row in (rows or ATTACKS)]
