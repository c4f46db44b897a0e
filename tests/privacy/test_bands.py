import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.privacy.bands import TOP, RateBand, rate_band
from fedmkt.protocol.alignment.psi import band, band_width


def shown(count: int, own_rows: int, other_rows: int) -> RateBand:
    """What is shown of a count: its band first, as the parties publish it."""
    return rate_band(*band(count, band_width(own_rows, other_rows)), own_rows)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "1 % or less"),
        (1, "1 % or less"),
        (20, "1 % or less"),
        (21, "1 to 2 %"),
        (500, "24 to 25 %"),
        (1900, "94 to 95 %"),
        (1901, "95 % or more"),
        (2000, "95 % or more"),
    ],
)
def test_a_rate_is_shown_in_whole_percents_with_open_ends(count: int, text: str) -> None:
    assert str(shown(count, 2000, 3000)) == text


def test_a_band_that_reaches_over_the_top_is_open_there() -> None:
    assert rate_band(945, 955, 1000) == RateBand(94, 100)
    assert str(rate_band(945, 955, 1000)) == "94 % or more"


def test_a_short_list_has_wide_bands() -> None:
    assert str(shown(0, 300, 300)) == str(shown(7, 300, 300)) == "4 % or less"
    assert str(shown(25, 300, 300)) == "6 to 10 %"


SIZES = st.integers(min_value=10, max_value=200_000)


@given(SIZES, SIZES, st.data())
def test_the_count_lies_in_its_rate(own: int, other: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, min(own, other)))
    rate = shown(count, own, other)
    assert 0 <= rate.low < rate.high <= 100
    assert rate.low <= 100 * count / own <= rate.high


@given(st.integers(min_value=200, max_value=200_000), SIZES, st.data())
def test_a_rate_never_tells_the_count_more_closely_than_one_percent_or_ten_people(
    own: int, other: int, data: st.DataObject
) -> None:
    rate = shown(data.draw(st.integers(0, min(own, other))), own, other)
    assert (rate.high - rate.low) * own / 100 >= max(own / 100, 10)


@given(SIZES, SIZES, st.data())
def test_nobody_on_the_list_is_never_told_from_a_few(own: int, other: int, data: st.DataObject) -> None:
    width = band_width(own, other)
    few = data.draw(st.integers(1, min(width, own, other)))
    assert shown(few, own, other) == shown(0, own, other)


@given(SIZES, st.data())
def test_above_the_top_all_rates_look_alike(own: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(-(-own * (TOP + 1) // 100), own))
    low, high = band(count, band_width(own, own))
    if 100 * low >= TOP * own:
        assert rate_band(low, high, own) == RateBand(TOP, 100)


@pytest.mark.parametrize("wrong", [(-1, 5, 100), (6, 5, 100), (101, 110, 100), (0, 0, 0)])
def test_what_is_no_band_of_a_list_is_a_mistake(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a band of common ids"):
        rate_band(*wrong)
