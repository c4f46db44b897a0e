"""The stability index of columns against its definition."""

import numpy as np
import pytest

from fedmkt.learn.bins import Binning, category_bins, quantile_bins
from fedmkt.learn.shift import column_shifts


def test_the_index_of_a_column_compares_the_shares_of_its_bins():
    random = np.random.default_rng(1)
    x, job = random.standard_normal(2000), random.choice(["a", "b", None], 2000)
    binning = Binning((quantile_bins("x", x, 4, 50), category_bins("job", job.astype(object), 10, 50)))
    before = {"x": x}, {"job": job.astype(object)}
    after = {"x": x[:500] + 1}, {"job": np.array(["a"] * 499 + ["new"], object)}
    found = column_shifts(binning, before, after)
    edges = [-np.inf, *binning.columns[0].edges, np.inf]
    old, new = ((np.histogram(v, edges)[0] + 0.5) for v in (x, x[:500] + 1))
    old, new = old / old.sum(), new / new.sum()
    assert found["x"] == pytest.approx(((new - old) * np.log(new / old)).sum())
    assert found["job"] > 1
    assert column_shifts(binning, before, before) == {"x": 0.0, "job": 0.0}
    with pytest.raises(ValueError, match="rows"):
        column_shifts(binning, before, ({"x": x[:0]}, {"job": job[:0].astype(object)}))
