from __future__ import annotations

import math

import pytest

from superscope.theory import capacity_ladder, rate_bound


@pytest.mark.parametrize(
    ("n", "d", "rates"),
    [
        (1024, 256, (18, 92, 256)),
        (24576, 768, (35, 151, 336)),
        (16384, 2304, (139, 660, 1636)),
        (65536, 2304, (108, 465, 1035)),
        (131072, 4096, (188, 807, 1788)),
        (1_000_000, 4096, (144, 581, 1227)),
    ],
)
def test_rate_bound(n, d, rates):
    assert tuple(rate_bound(n, d, snr) for snr in (1, 10, 100)) == rates


@pytest.mark.parametrize(("n", "d"), [(5, 5), (30, 12), (200, 20), (41, 40)])
@pytest.mark.parametrize("snr", [0.01, 1.0, 50.0])
def test_rate_bound_by_counting_supports(n, d, snr):
    budget = d / 2 * math.log(1 + snr)
    fitting = [k for k in range(n // 2 + 1) if math.log(math.comb(n, k)) <= budget + 1e-9]
    expected = n if fitting[-1] == n // 2 else fitting[-1]
    assert rate_bound(n, d, snr) == min(d, expected)


@pytest.mark.parametrize(
    ("n", "d", "rungs"),
    [
        (
            1024,
            256,
            {"coherence": 2, "one-step read-out": 11, "weak l1": 68, "weak l1, nonnegative": 93, "unique for all": 128},
        ),
        (
            24576,
            768,
            {
                "coherence": 2,
                "best coherence there could be": 14,
                "one-step read-out": 22,
                "strong l1": 28,
                "strong l1, nonnegative": 33,
                "sufficient": 57,
                "weak l1": 105,
                "weak l1, nonnegative": 126,
                "popular formula d / (2 ln(n/d))": 111,
                "unique for all": 384,
            },
        ),
        (16384, 2304, {"coherence": 4, "one-step read-out": 59, "strong l1": 124, "weak l1": 490}),
        (1_000_000, 4096, {"coherence": 5, "one-step read-out": 78, "strong l1": 107, "weak l1": 373}),
    ],
)
def test_ladder(n, d, rungs):
    ladder = {rung.name: rung for rung in capacity_ladder(n, d)}
    for name, k in rungs.items():
        assert abs(ladder[name].k - k) <= (1 if "l1" in name or "popular" in name else 0), name


@pytest.mark.parametrize(("n", "d"), [(3, 2), (20, 5), (512, 256), (24576, 768)])
def test_order_of_the_rungs(n, d):
    k = {rung.name: rung.k for rung in capacity_ladder(n, d, signal_to_noise=10)}
    assert k["coherence"] <= k["best coherence there could be"]
    assert (
        k["strong l1"] <= k["sufficient"] <= k["weak l1"] <= k["weak l1, nonnegative"] <= k["unique for nearly all"] + 1
    )
    assert k["strong l1"] <= k["strong l1, nonnegative"] <= k["weak l1, nonnegative"]
    assert k["popular formula d / (2 ln(n/d))"] >= k["weak l1"]
    assert k["rate bound"] <= d
    for rung in capacity_ladder(n, d):
        assert rung.caution.endswith((".", ")."))


def test_own_coherence_is_used():
    assert capacity_ladder(64, 8, mu=1.0)[0].k == 1
    assert "the dictionary's" in capacity_ladder(64, 8, mu=1.0)[0].caution


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="n must be at least 9"):
        capacity_ladder(8, 8)
    with pytest.raises(ValueError, match="signal_to_noise must lie in"):
        rate_bound(10, 5, 0)
