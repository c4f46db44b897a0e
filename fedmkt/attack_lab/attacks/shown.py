"""Numbers of each train row that a party was shown, in whatever form: what attacks on rows begin with."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.subject import Subject

Floats = NDArray[np.float64]
_MOST = 1000
"""Arrays of rows that are tried: the first and last, and between them evenly."""


def arrays_of_rows(subject: Subject, viewer: str) -> list[Floats]:
    """Return all arrays in a participant's view that have numbers of each train row, (train rows, k)."""
    return evenly([m for _, a in subject.views.received(viewer) if (m := subject.by_row(a)) is not None])


def evenly(found: list[Floats]) -> list[Floats]:
    """Take as many as are tried."""
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, _MOST).astype(int))] if found else []


def views_but(subject: Subject, names: Collection[str]) -> list[str]:
    """Name the participants that took steps, but for these."""
    return [str(name) for name in subject.views.moments if name not in names]
