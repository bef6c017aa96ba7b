from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.theory import toy_loss as t

seeds = st.integers(0, 2**31)


def monte_carlo(G, b, p, I, rng, rows=200_000):
    x = rng.random((rows, len(b))) * (rng.random((rows, len(b))) < p)
    error = ((x - np.maximum(x @ G.T + b, 0)) ** 2 * I).sum(1)
    return error.mean(), error.std() / rows**0.5


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([(2, 1), (3, 2), (5, 2)]))
def test_expected_loss_agrees_with_sampling(seed, shape):
    rng = np.random.default_rng(seed)
    n, d = shape
    W = rng.normal(size=(d, n)) * 0.8
    G, b, I, p = W.T @ W, rng.normal(size=n) * 0.3, rng.random(n), rng.uniform(0.05, 1, n)
    mean, error = monte_carlo(G, b, p, I, rng)
    # Twenty draws at 5 standard errors: a false alarm about once in 10^5 runs.
    assert abs(t.expected_loss(G, b, p, I) - mean) < 5 * error


@pytest.mark.parametrize("tiny", [0.0, 1e-12, 1e-6, 5e-5, 1e-3, 4e-3])
def test_expected_loss_survives_small_overlaps(tiny):
    G = np.array([[1.0, tiny, -0.5], [tiny, tiny, 0.3], [-0.5, 0.3, 0.9]])
    near = np.array([[1.0, 0.0, -0.5], [0.0, 1e-9, 0.3], [-0.5, 0.3, 0.9]])
    b = [0.1, -0.1, 0.05]
    assert t.expected_loss(G, b, 0.4) == pytest.approx(t.expected_loss(near, b, 0.4), abs=2 * tiny + 1e-7)


@given(st.floats(0.01, 1), st.floats(0.1, 10))
def test_two_features_one_dimension(p, r):
    v = t.feature_variance(p)
    losses = t.phase_2_1(p, r)[1]
    assert t.pair_loss((1, 0), (0, p / 2), p, r) == pytest.approx(r * v, abs=1e-9)
    assert t.pair_loss((0, 1), (p / 2, 0), p, r) == pytest.approx(v, abs=1e-9)
    assert t.pair_loss((1, -1), (0, 0), p, r) == pytest.approx(losses["antipodal"], abs=1e-9)
    half = 0.5**0.5
    assert t.pair_loss((half, half), (0, 0), p, r) == pytest.approx((1 + r) * (p / 6 - p * p / 8), abs=1e-9)


def test_boundaries_and_triple_point():
    for r in np.geomspace(0.1, 10, 21):
        second, first = t.phase_boundary(r)
        antipodal, extra = (1 + r) * second**2 / 6, r * t.feature_variance(second)
        assert antipodal == pytest.approx(extra)
        assert (1 + r) * first**2 / 6 == pytest.approx(t.feature_variance(first))
    assert t.phase_boundary(1.0) == pytest.approx((4 / 7, 4 / 7))
    assert t.phase_boundary(0.1)[0] == pytest.approx(0.16)
    assert t.phase_boundary(10.0)[1] == pytest.approx(0.16)


@given(st.floats(0.01, 1), st.floats(0.1, 10))
def test_three_features_two_dimensions(p, r):
    name, losses = t.phase_3_2(p, r)
    candidates = {
        "third ignored": (np.diag([1, 1, 0.0]), [0, 0, p / 2]),
        "first ignored": (np.diag([0.0, 1, 1]), [p / 2, 0, 0]),
        "third shares": (np.array([[1, 0, 0], [0, 1, -1], [0, -1, 1.0]]), [0, 0, 0]),
        "others share": (np.array([[1, -1, 0], [-1, 1, 0], [0, 0, 1.0]]), [0, 0, 0]),
    }
    for candidate, (G, b) in candidates.items():
        assert t.expected_loss(G, b, p, [1, 1, r]) == pytest.approx(losses[candidate], abs=1e-9)
    assert losses[name] == min(losses.values())
    if r > 1:
        # The horizontal line.
        assert (name == "others share") == (p < 4 / 7) or abs(p - 4 / 7) < 1e-9
    if r < 1:
        assert (name == "third shares") == (p < 4 * r / (2 + 5 * r)) or abs(p - 4 * r / (2 + 5 * r)) < 1e-9


@pytest.mark.parametrize(
    ("k", "length", "bias", "loss"),
    [
        (5, 1.17046, -0.28230, 0.0158256),
        (6, 1.32053, -0.61814, 0.0481924),
        (7, 1.44839, -0.96691, 0.0832712),
        (8, 1.55045, -1.29119, 0.1155459),
    ],
)
def test_polygons(k, length, bias, loss):
    found = t.polygon_optimum(k)
    assert found[:2] == pytest.approx((length, bias), abs=1e-4)
    assert found[2] == pytest.approx(loss, abs=1e-6)


def test_polygon_levels():
    levels = t.polygon_levels(6)
    expected = {"6": 0.04819, "5+": 0.06180, "5-": 0.06874, "4++": 0.09722, "4+-": 0.10417, "4--": 0.11111}
    assert list(levels) == list(expected)
    for name, loss in expected.items():
        assert levels[name] == pytest.approx(loss, abs=1e-5)


def test_one_active_polygon_is_the_sparse_limit_of_the_expected_loss():
    angles = 2 * np.pi * np.arange(5) / 5
    W = 1.17046 * np.stack([np.cos(angles), np.sin(angles)])
    b = np.full(5, -0.2823)
    p = 1e-6
    assert t.expected_loss(W.T @ W, b, p) / (5 * p) == pytest.approx(t.one_active_loss(W.T @ W, b), rel=1e-4)
    assert t.one_active_loss(W.T @ W, b) == pytest.approx(t.polygon_loss(5, 1.17046, -0.2823), abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_nonpositive_overlaps_cost_nothing_one_at_a_time(k):
    assert t.polygon_loss(k, 1.0, 0.0) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("density", "length", "bias", "loss"),
    [
        (0.1, 1.0058, 0.0012, 0.003319),
        (0.25, 1.0108, 0.011, 0.020494),
        (0.5, 0.969, 0.0977, 0.076282),
        (0.63, 0.827, 0.2567, 0.103244),
    ],
)
def test_optimum_of_the_antipodal_pair(density, length, bias, loss):
    name, least, (w1, w2, b1, b2) = t.optimum_2_1(density, 1.0)
    assert name == "antipodal"
    assert w1 * w2 < 0
    assert (abs(w1), abs(w2)) == pytest.approx((length, length), abs=1e-3)
    assert (b1, b2) == pytest.approx((bias, bias), abs=1e-3)
    assert least == pytest.approx(loss, abs=2e-6)
    assert least <= min(t.phase_2_1(density, 1.0)[1].values())


@settings(max_examples=3, deadline=None)
@given(st.floats(0.02, 1), st.floats(0.1, 10))
def test_optimum_is_never_above_the_candidates(p, r):
    assert t.optimum_2_1(p, r)[1] <= min(t.phase_2_1(p, r)[1].values()) + 1e-12


@given(st.integers(2, 6), st.integers(1, 5), st.floats(0.01, 1), seeds)
def test_linear_loss_is_reached_by_keeping_the_first_features_and_beaten_by_nobody(n, d, p, seed):
    rng = np.random.default_rng(seed)
    I = rng.random(n)
    v, mean = t.feature_variance(p), p / 2

    def loss(G):
        residual = np.eye(n) - G
        return float((I[:, None] * residual**2).sum() * v), residual @ np.full(n, mean)

    keep = np.argsort(-I)[:d]
    G = np.zeros((n, n))
    G[keep, keep] = 1
    assert loss(G)[0] == pytest.approx(t.linear_loss(I, p, d))
    W = rng.normal(size=(d, n))
    assert loss(W.T @ W)[0] >= t.linear_loss(I, p, d) - 1e-12


@pytest.mark.parametrize("cluster", [c for c in t.CLUSTERS if c.k <= 6], ids=lambda c: c.name)
@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_cluster_loss_by_convolution_agrees_with_the_vertex_formula(cluster, p):
    k = cluster.k
    row = [value for value, count in cluster.cosines for _ in range(count)]
    # Only the first output matters: the others are the same by symmetry, so they get no importance.
    G = np.eye(k) * 1.1
    G[0, 1:] = np.asarray(row) * 1.1
    b = np.full(k, -0.1)
    exact = t.expected_loss(G, b, p, [1.0] + [0.0] * (k - 1))
    assert t.cluster_loss(cluster, 1.1, -0.1, p) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("digon", 1 / 2), ("triangle", 2 / 3), ("tetrahedron", 3 / 4), ("pentagon", 2 / 5), ("square antiprism", 3 / 8),
     ("icosahedron", 1 / 4), ("hexagon", 1 / 3), ("5-cell", 4 / 5)],
)  # fmt: skip
def test_clusters_are_tight(name, value):
    cluster = next(c for c in t.CLUSTERS if c.name == name)
    assert 1 / (1 + sum(count * cosine**2 for cosine, count in cluster.cosines)) == pytest.approx(value)
    assert cluster.d / cluster.k == pytest.approx(value)


@pytest.mark.parametrize(("name", "d"), [("digon", 1), ("triangle", 2), ("tetrahedron", 3)])
def test_simplices_at_small_density(name, d):
    cluster = next(c for c in t.CLUSTERS if c.name == name)
    p = 1e-3
    assert t.cluster_loss(cluster, 1, 0, p) / p**2 == pytest.approx(1 / (3 * d) - 1 / (6 * d * d), rel=5e-3)


@pytest.mark.parametrize(
    ("density", "names"),
    [
        (0.45, {"digon"}),
        (0.3, {"digon"}),
        (0.207, {"pentagon", "square antiprism"}),
        (0.15, {"square antiprism"}),
        (0.05, {"icosahedron"}),
    ],
)
def test_sequence_of_polytopes_predicted_without_training(density, names):
    assert t.best_cluster(density)[0].name in names


@given(st.floats(0.01, 1))
def test_sets_of_correlated_features(p):
    # Antipodal pairs as models of x' = ReLU(Gx): correlated features of one set always come together.
    digon = t.expected_loss([[1, -1], [-1, 1]], [0, 0], 1.0)
    assert t.correlated_pairs_loss(p, antipodal="within") == pytest.approx(2 * p * digon)
    assert t.correlated_pairs_loss(p, antipodal="across") == pytest.approx(2 * p * p * digon)
    assert t.anticorrelated_pairs_loss(p, antipodal="within") == 0
    assert t.anticorrelated_pairs_loss(p, antipodal="across") == pytest.approx(2 * (p / 2) ** 2 * digon)
    assert t.collapsed_pair_loss(p) == pytest.approx(p * t.expected_loss([[0.5, 0.5], [0.5, 0.5]], [0, 0], 1.0))


def test_computation_baselines():
    assert t.naive_computation_loss(100, 50) / 100 == pytest.approx(0.08333, abs=1e-5)
    I = 0.8 ** np.arange(100)
    expected = I[20:].sum() * t.feature_variance(0.3)
    assert t.monosemantic_absolute_loss(I, 0.3, neurons=40) == pytest.approx(expected)


@pytest.mark.parametrize("density", [0, -0.1, 1.1, float("nan")])
def test_density_outside_the_interval(density):
    calls = (
        t.feature_variance,
        lambda p: t.phase_2_1(p, 1),
        lambda p: t.expected_loss([[1]], [0], p),
        lambda p: t.linear_loss([1.0], p, 1),
        t.collapsed_pair_loss,
        lambda p: t.cluster_loss(t.CLUSTERS[0], 1, 0, p),
    )
    for call in calls:
        with pytest.raises(ValueError, match="density must lie in"):
            call(density)


def test_hostile_arguments():
    with pytest.raises(ValueError, match="importance must be"):
        t.linear_loss([-1.0], 0.5, 1)
    with pytest.raises(ValueError, match="G must be n x n"):
        t.one_active_loss([[1, 0]], [0])
    with pytest.raises(ValueError, match="at most 8"):
        t.expected_loss(np.eye(9), np.zeros(9), 0.5)
    with pytest.raises(ValueError, match="'within' or 'across'"):
        t.correlated_pairs_loss(0.5, antipodal="between")
    with pytest.raises(ValueError, match="ratio"):
        t.phase_2_1(0.5, 0)
