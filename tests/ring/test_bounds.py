"""Static bounds: what passes, what is refused, and that the refusal shows the numbers."""

from math import nan

import pytest

from fedmkt.errors import ConfigError
from fedmkt.ring.bounds import Bound, check


def test_the_refusal_shows_every_broken_bound_with_its_numbers() -> None:
    good, bad = Bound("good", 61.9, "small"), Bound("gradient", 63.25, "5 rows * 2^60")
    worse = Bound("step", 70.0, "9 columns")
    with pytest.raises(ConfigError) as caught:
        check([good, bad, worse])
    text = str(caught.value)
    assert "gradient: 5 rows * 2^60 = 2^63.2, limit 2^62" in text
    assert "step: 9 columns = 2^70.0" in text
    assert "good" not in text


def test_the_limit_itself_is_refused() -> None:
    with pytest.raises(ConfigError):
        check([Bound("edge", 62.0, "")])


def test_a_bound_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError):
        check([Bound("unknown", nan, "")])
