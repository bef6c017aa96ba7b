from __future__ import annotations

import math

import numpy as np
import pytest

from superscope.core import Measurement
from superscope.measure import bootstrap, jackknife, over_seeds


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def normal_groups(groups, seed, spread=1.0, rows=10):
    """Sums and counts of groups whose means differ with standard deviation `spread`."""
    random = np.random.default_rng(seed)
    means = random.normal(0, spread, groups)
    x = means[:, None] + random.normal(0, 1, (groups, rows))
    return np.column_stack([x.sum(1), np.full(groups, rows)])


@pytest.mark.parametrize("method", ["bootstrap", "jackknife"])
def test_covers_the_truth_at_its_level(method):
    covered = 0
    for seed in range(200):
        sums = normal_groups(40, seed)
        found = (
            bootstrap(mean, sums, draws=400, seed=seed)
            if method == "bootstrap"
            else jackknife(lambda s: s[0] / s[1], sums)
        )
        covered += found.low <= 0 <= found.high
    # 95 % aimed at; 200 repetitions have a standard deviation of 1.5 %.
    assert 0.88 <= covered / 200 <= 0.99


def test_resampling_groups_is_wider_than_resampling_their_rows():
    random = np.random.default_rng(0)
    x = random.normal(0, 1, 40)[:, None] + random.normal(0, 0.1, (40, 50))
    by_group = bootstrap(mean, np.column_stack([x.sum(1), np.full(40, 50)]))
    by_row = bootstrap(mean, np.column_stack([x.ravel(), np.ones(2000)]))
    assert by_group.high - by_group.low > 4 * (by_row.high - by_row.low)


def test_equal_groups_have_no_width():
    sums = np.tile([[3.0, 2.0]], (9, 1))
    assert bootstrap(mean, sums).low == bootstrap(mean, sums).high == 1.5
    assert jackknife(lambda s: s[0] / s[1], sums, logarithmic=True).low == pytest.approx(1.5)


def test_seeded_and_chunked_the_same(monkeypatch):
    sums = normal_groups(30, 1)
    once, again = bootstrap(mean, sums, seed=4), bootstrap(mean, sums, seed=4)
    assert once == again
    assert bootstrap(mean, sums, seed=5) != once
    monkeypatch.setattr("superscope.measure.interval._BLOCK", 64)
    in_chunks = bootstrap(mean, sums, seed=4)
    assert (in_chunks.low, in_chunks.high) == pytest.approx((once.low, once.high))


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=50)
    found = jackknife(lambda s: s[0] / s[1], np.column_stack([x, np.ones(50)]))
    assert found.high - x.mean() == pytest.approx(1.959964 * x.std(ddof=1) / math.sqrt(50))


def test_where_there_is_no_interval_it_says_why():
    one = np.array([[1.0, 2.0]])
    for found in (bootstrap(mean, one), jackknife(lambda s: s[0] / s[1], one)):
        assert (found.low, found.high) == (None, None)
        assert "no interval" in found.how
    with np.errstate(invalid="ignore", divide="ignore"):
        assert bootstrap(mean, np.array([[1.0, 1.0], [0.0, 0.0]])).low is None
    assert jackknife(lambda s: -1.0, np.ones((3, 1)), logarithmic=True).low is None
    assert over_seeds([1.0]).low is None


def test_fields_fit_a_measurement():
    interval = over_seeds([2.0, 1.0])
    found = Measurement(name="a", value=1.5, unit="u", n=2, of="seeds", **interval.fields)
    assert (found.low, found.high, found.how) == (1.0, 2.0, "min and max over 2 seeds")


@pytest.mark.parametrize(("arguments", "says"), [({"level": 1.0}, "level must be"), ({"draws": 1}, "draws must be")])
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        bootstrap(mean, np.ones((3, 2)), **arguments)
