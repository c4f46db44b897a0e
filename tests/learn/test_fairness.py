import numpy as np

from fedmkt.learn.fairness import MISSING, OTHERS, Rate, quarters, selection_rates


def test_rates_are_the_shares_of_each_group_that_are_selected() -> None:
    groups = np.array(["a"] * 40 + ["b"] * 60, object)
    selected = np.arange(100) % 4 == 0
    assert selection_rates(groups, selected, 10) == (Rate("a", 40, 0.25), Rate("b", 60, 0.25))


def test_small_groups_are_put_together_and_left_out_if_they_stay_small() -> None:
    groups = np.array(["a"] * 50 + ["b"] * 6 + ["c"] * 5 + [None] * 4, object)
    selected = np.ones(65, np.bool_)
    assert [r.group for r in selection_rates(groups, selected, 15)] == [OTHERS, "a"]
    assert [r.group for r in selection_rates(groups, selected, 16)] == ["a"]


def test_numbers_are_grouped_by_quarters_of_their_values() -> None:
    values = np.array([*np.arange(1.0, 101.0), np.nan])
    found = quarters(values)
    assert found[-1] == MISSING and found[0] == "up to 25.75" and found[99] == "above 75.25"
    assert [int((found == name).sum()) for name in dict.fromkeys(found[:100])] == [25, 25, 25, 25]
    assert set(quarters(np.full(3, np.nan))) == {MISSING}
