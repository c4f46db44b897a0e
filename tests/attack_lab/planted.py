"""A watched run with something planted into what a party is shown: an attack has to find it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.subject import Subject
from fedmkt.attack_lab.views import Moment, Views
from fedmkt.protocol.core import Message, Name, Silent


@dataclass(frozen=True)
class Planted(Message):
    """A message that no protocol has."""

    values: NDArray[np.float64]


def shown(subject: Subject, party: str, values: np.ndarray) -> Subject:
    """Return the same run in which a party was sent these values too."""
    moment = Moment(Name(party), "fit.planted", ((Name("bank"), Planted(values)),), (), Silent(), (), ())
    moments = dict(subject.views.moments)
    moments[Name(party)] = [*moments[Name(party)], moment]
    return replace_views(subject, Views(moments))


def replace_views(subject: Subject, views: Views) -> Subject:
    """Return the same run with other views."""
    return Subject(subject.config, subject.tables, subject.folder, subject.given, views)
