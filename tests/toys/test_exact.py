"""The closed forms against a slow referee, against Monte Carlo and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.features import Anticorrelated, Correlated, ExactlyK, Hierarchical, Independent, Uniform, Zipf
from superscope.theory import toy_loss
from superscope.toys import (
    Ensemble,
    Recipe,
    Tied,
    Untied,
    exact_gradient,
    exact_loss,
    linear_exact_loss,
    pair_chances,
    pair_gradient,
    train,
)
from superscope.toys.one_active import (
    counts_of_active,
    draw_three_or_more,
    draw_two_or_more,
    one_active_gradient,
    three_active_chance,
)
from superscope.toys.train import _GRADIENTS
from superscope.toys.two_active import two_active_gradient

seeds = st.integers(0, 2**31)


def model(seed, n, d, e=1, size=0.8):
    g = torch.Generator().manual_seed(seed)
    W = size * torch.randn(e, n, d, generator=g, dtype=torch.float64)
    # Two matrices, so that own responses are negative too.
    V = W + 0.5 * size * torch.randn(e, n, d, generator=g, dtype=torch.float64)
    return V @ W.mT, 0.3 * torch.randn(e, n, generator=g, dtype=torch.float64), torch.rand(e, n, generator=g).double()


@settings(max_examples=25)
@given(seeds, st.sampled_from([(2, 1), (3, 2), (4, 2), (5, 2)]))
def test_agrees_with_the_referee(seed, shape):
    n, d = shape
    G, b, I = model(seed, n, d)
    p = np.random.default_rng(seed).uniform(0.05, 1, n)
    expected = toy_loss.expected_loss(G[0].numpy(), b[0].numpy(), p, I[0].numpy())
    found = exact_loss(G, b, Independent(n, tuple(p)).supports()[None], I)
    assert float(found) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("tiny", [0.0, 1e-9, 9e-4, 1.1e-3, 2.9e-3, 9e-3, 1.1e-2, 3.1e-2])
def test_small_overlaps_do_not_cost_digits(tiny):
    G = torch.tensor(
        [[1, tiny, -0.5, tiny], [tiny, tiny, tiny, 0.1], [-0.5, tiny, 0.9, -tiny], [tiny, 0.1, -tiny, 1.1]]
    )
    G = G.double()
    b = torch.tensor([0.05, -0.001, -tiny / 4, 0.1]).double()
    expected = toy_loss.expected_loss(G.numpy(), b.numpy(), 0.4)
    found = exact_loss(G[None], b[None], Independent(4, 0.4).supports()[None], torch.ones(1, 4))
    assert float(found) == pytest.approx(expected, abs=5e-6)


LAWS = [
    Independent(5, 0.3),
    Independent(4, (0.9, 0.5, 0.1, 1.0)),
    Correlated(3, 2, 0.3),
    Correlated(2, 2, 0.4, 0.3),
    Anticorrelated(2, 2, 0.6),
    Hierarchical((-1, 0, 0, 1), (0.5, 0.6, 0.7, 0.8)),
    ExactlyK(5, 2),
    Zipf(5, 1.0, 1.0),
]


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_agrees_with_sampling_under_every_law(law):
    G, b, I = model(7, law.n, 2)
    rows = 200_000
    f = law.sample(rows, generator=torch.Generator().manual_seed(1)).dense().double()
    errors = ((f - torch.relu(f @ G[0].T + b[0])) ** 2 * I[0]).sum(1)
    exact = float(exact_loss(G, b, law.supports()[None], I))
    assert abs(float(errors.mean()) - exact) < 4 * float(errors.std()) / rows**0.5


@settings(max_examples=12)
@given(seeds, st.integers(2, 5))
def test_gradient_agrees_with_finite_differences(seed, n):
    G, b, I = model(seed, n, 2)
    P = Independent(n, 0.4).supports()[None]
    G.requires_grad_()
    b.requires_grad_()
    by_G, by_b = torch.autograd.grad(exact_loss(G, b, P, I).sum(), (G, b))
    step = 1e-5
    for slope, leaf in ((by_G, G), (by_b, b)):
        g = torch.Generator().manual_seed(seed)
        direction = torch.randn(leaf.shape, generator=g, dtype=torch.float64)
        with torch.no_grad():
            up = exact_loss(*(x + step * direction if x is leaf else x for x in (G, b)), P, I)
            down = exact_loss(*(x - step * direction if x is leaf else x for x in (G, b)), P, I)
        assert float((up - down) / (2 * step)) == pytest.approx(float((slope * direction).sum()), rel=2e-3, abs=2e-4)


@settings(max_examples=12)
@given(seeds, st.integers(1, 6), st.booleans())
def test_written_gradient_agrees_with_autograd(seed, n, with_tiny_overlaps):
    G, b, I = model(seed, n, 2, e=5)
    if with_tiny_overlaps:
        G = torch.where(torch.rand(G.shape, generator=torch.Generator().manual_seed(seed)) < 0.5, 1e-3 * G, G)
    P = Independent(n, 0.3).supports().expand(5, -1)
    G.requires_grad_()
    b.requires_grad_()
    loss = exact_loss(G, b, P, I)
    slopes = torch.autograd.grad(loss.sum(), (G, b))
    found = exact_gradient(G.detach(), b.detach(), P, I)
    assert torch.allclose(found[0], loss.detach(), atol=1e-9)
    assert torch.allclose(found[1], slopes[0], atol=1e-6)
    assert torch.allclose(found[2], slopes[1], atol=1e-7)


@settings(max_examples=15)
@given(seeds)
def test_linear_closed_form(seed):
    law = LAWS[seed % len(LAWS)]
    G, b, I = model(seed, law.n, 2)
    rows = 100_000
    f = law.sample(rows, generator=torch.Generator().manual_seed(seed)).dense().double()
    errors = ((f - f @ G[0].T - b[0]) ** 2 * I[0]).sum(1)
    exact = float(linear_exact_loss(G, b, law.mean[None], law.covariance[None], I))
    assert abs(float(errors.mean()) - exact) < 4.5 * float(errors.std()) / rows**0.5


@given(seeds, st.floats(0.01, 1), st.floats(0.01, 1))
def test_pair_kernel_agrees_with_the_general_form(seed, p1, p2):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(2, 6, generator=g, dtype=torch.float64)
    # The kernel floors responses at 1e-3; keep away from it here.
    w = w.sign() * w.abs().clamp(min=0.1)
    b = 0.4 * torch.randn(2, 6, generator=g, dtype=torch.float64)
    I = torch.rand(2, 6, generator=g, dtype=torch.float64)
    p = torch.tensor([[p1], [p2]], dtype=torch.float64).expand(2, 6)
    loss, by_w, by_b = pair_gradient(w, b, pair_chances(p), I)
    wide, bias = w.T.clone().requires_grad_(), b.T.clone().requires_grad_()
    P = Independent(2, (p1, p2)).supports().expand(6, 4)
    reference = exact_loss(wide[:, :, None] * wide[:, None, :], bias, P, I.T)
    slopes = torch.autograd.grad(reference.sum(), (wide, bias))
    assert torch.allclose(loss, reference.detach(), atol=1e-6)
    assert torch.allclose(by_w, slopes[0].T, atol=3e-5)
    assert torch.allclose(by_b, slopes[1].T, atol=3e-5)


@given(seeds, st.integers(1, 7))
def test_one_active_terms(seed, n):
    G, b, I = model(seed, n, 2)
    if n > 1:
        G[0, 0, 1] = 0.0
        G[0, 1, 1] = 1e-5
    p = torch.full((1, n), 0.2, dtype=torch.float64)
    none, single, several = counts_of_active(p)
    assert float(none + single.sum() + several) == pytest.approx(1, abs=1e-12)
    loss, by_G, by_b = one_active_gradient(G, b, I, none, single)
    expected = float(none) * toy_loss.zero_active_loss(b[0].numpy(), I[0].numpy())
    expected += float(single.sum()) * toy_loss.one_active_loss(G[0].numpy(), b[0].numpy(), I[0].numpy())
    assert float(loss) == pytest.approx(expected, abs=1e-8)
    g = torch.Generator().manual_seed(seed)
    for slope, which in ((by_G, 0), (by_b, 1)):
        direction = torch.randn(slope.shape, generator=g, dtype=torch.float64)
        steps = [[G, b], [G, b]]
        steps[0][which], steps[1][which] = steps[0][which] + 1e-6 * direction, steps[1][which] - 1e-6 * direction
        up, down = (one_active_gradient(*s, I, none, single)[0] for s in steps)
        assert float((up - down) / 2e-6) == pytest.approx(float((slope * direction).sum()), rel=1e-3, abs=2e-5)


@settings(max_examples=10)
@given(st.integers(2, 6), st.floats(0.001, 1), seeds)
def test_rows_with_two_or_more_active_have_the_conditional_law(n, p, seed):
    densities = torch.tensor([[p * (0.3 + 0.7 * i / n) for i in range(n)]], dtype=torch.float64)
    rows = 60_000
    u = torch.rand(rows, n + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    f = draw_two_or_more(u, densities, Uniform())[0]
    active = f != 0
    assert int(active.sum(1).min()) >= 2
    law = Independent(n, tuple(densities[0].tolist())).supports()
    sizes = torch.tensor([s.bit_count() for s in range(2**n)])
    law = torch.where(sizes >= 2, law, 0.0)
    law = law / law.sum()
    counts = torch.bincount((active * 2 ** torch.arange(n)).sum(1), minlength=2**n) / rows
    assert torch.allclose(counts.double(), law, atol=5 * 0.5 / rows**0.5)
    values = f[active]
    assert float(values.mean()) == pytest.approx(0.5, abs=5 * 0.29 / len(values) ** 0.5)


def test_several_keeps_its_digits():
    p = torch.full((1, 20), 1e-7, dtype=torch.float64)
    assert float(counts_of_active(p)[2]) == pytest.approx(190 * 1e-14, rel=1e-5)


@settings(max_examples=3)
@given(seeds, st.sampled_from([Tied(4, 2), Untied(4, 2)]), st.floats(0.02, 0.95))
def test_stratified_and_sampled_gradients_are_unbiased(seed, family, p):
    ensemble = Ensemble(family, Independent(4, p), [1.0, 0.5, 0.7, 0.2], seeds=seed % 1000, dtype=torch.float64)
    shift = torch.randn(1, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ensemble.parameters["b"] += 0.1 * shift
    truth = flat(*_GRADIENTS["exact"](ensemble, Recipe(estimator="exact"))(0))
    for estimator, batch in (("sampled", 2000), ("stratified", 500)):
        gradient = _GRADIENTS[estimator](ensemble, Recipe(estimator=estimator, batch=batch))
        draws = torch.stack([flat(*gradient(index)) for index in range(24)])
        error = draws.std(0) / 24**0.5 + 1e-6
        # Some twenty numbers at once, t-distributed with 23 degrees of freedom.
        assert float(((draws.mean(0) - truth).abs() / error).max()) < 5.5, estimator


def flat(loss, slopes):
    return torch.cat([loss.double(), *(slope.double().flatten() for slope in slopes.values())])


def test_training_exactly_reaches_the_optimum_and_never_beats_it():
    ensemble = Ensemble(Tied(2, 1), [Independent(2, 0.25)], seeds=range(8), dtype=torch.float64)
    for _ in train(
        ensemble, Recipe(steps=1500, lr=0.02, schedule="cosine", weight_decay=0.0, estimator="exact"), every=500
    ):
        pass
    loss, _ = ensemble.expected_loss()
    _, least, _ = toy_loss.optimum_2_1(0.25, 1.0)
    assert least - 2e-6 <= float(loss.min()) <= least * 1.001


def test_too_many_features():
    with pytest.raises(ValueError, match="at most 8"):
        exact_loss(torch.zeros(1, 9, 9), torch.zeros(1, 9), torch.zeros(1, 512), torch.ones(1, 9))


def pairs_alone(G, b, importance, p):
    """The loss of two active features by the form for all sets."""
    e, n = b.shape
    supports = torch.zeros(e, 2**n, dtype=torch.float64)
    for i in range(n):
        for j in range(i):
            quiet = [1 - p[:, l] for l in range(n) if l not in (i, j)]
            supports[:, 2**i + 2**j] = p[:, i] * p[:, j] * (torch.stack(quiet).prod(0) if quiet else 1)
    return exact_gradient(G, b, supports, importance)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 7), seed=st.integers(0, 10_000), dense=st.booleans())
def test_two_active_features_are_a_part_of_the_whole(n, seed, dense):
    g = torch.Generator().manual_seed(seed)
    G = 0.6 * torch.randn(2, n, n, generator=g, dtype=torch.float64)
    G = torch.where(G.abs() < 0.01, 0.01, G)
    b = 0.3 * torch.randn(2, n, generator=g, dtype=torch.float64)
    p = (1.0 if dense else 0.01) * (0.05 + 0.9 * torch.rand(2, n, generator=g, dtype=torch.float64))
    importance = torch.rand(2, n, generator=g, dtype=torch.float64)
    wanted = pairs_alone(G, b, importance, p)
    for found, expected in zip(two_active_gradient(G, b, importance, p), wanted, strict=True):
        assert torch.allclose(found, expected, atol=1e-9 * float(wanted[1].abs().max()))


@pytest.mark.parametrize("tiny", [0.0, 1e-9, 2e-4, 2.9e-4, 3.1e-4, 1e-3])
def test_two_active_features_with_small_overlaps(tiny):
    # One tiny response, two to one output, and an own one; referee: Gauss-Legendre over both magnitudes.
    G = torch.tensor([[1, tiny, -0.5, -tiny], [0.3, tiny, -tiny, 0.1], [-0.5, tiny, 0.9, 0.4], [0.2, 0.1, -tiny, 1.1]])
    G, b = G.double()[None], torch.tensor([[0.05, 0.3, 0.2, 0.1]]).double()
    p = torch.tensor([[0.1, 0.2, 0.3, 0.15]]).double()
    x, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(200))
    x, w = (x + 1) / 2, w / 2
    G_leaf, b_leaf = G.clone().requires_grad_(), b.clone().requires_grad_()
    expected = torch.zeros(1).double()
    for i in range(4):
        for j in range(i):
            chance = p[0, i] * p[0, j] * torch.stack([1 - p[0, l] for l in range(4) if l not in (i, j)]).prod()
            f = torch.zeros(200, 200, 4).double()
            f[:, :, i], f[:, :, j] = x[:, None], x[None]
            squares = ((f - torch.relu(f @ G_leaf[0].T + b_leaf[0])) ** 2).sum(-1)
            expected = expected + chance * (w[:, None] * w * squares).sum()
    slopes = torch.autograd.grad(expected, [G_leaf, b_leaf])
    found = two_active_gradient(G, b, torch.ones(1, 4).double(), p)
    assert float(found[0]) == pytest.approx(float(expected.detach()), rel=1e-6)
    for slope, wanted in zip(found[1:], slopes, strict=True):
        assert torch.allclose(slope, wanted, atol=3e-5 * float(slopes[0].abs().max()))


def test_three_or_more_active_are_drawn_by_their_law():
    p = torch.tensor([[0.3, 0.1, 0.4, 0.2, 0.45]], dtype=torch.float64)
    several = three_active_chance(p)
    supports = Independent(5, tuple(p[0].tolist())).supports()
    many = torch.tensor([bin(a).count("1") >= 3 for a in range(32)])
    assert float(several) == pytest.approx(float(supports[many].sum()), rel=1e-12)
    rows = 200_000
    f = draw_three_or_more(torch.rand(rows, 8, generator=torch.Generator().manual_seed(0)), p, Uniform())[0]
    found = torch.bincount(((f > 0).long() * 2 ** torch.arange(5)).sum(1), minlength=32) / rows
    wanted = supports * many / several
    assert bool(((found - wanted).abs() <= 4.5 * (wanted / rows).sqrt() + 1e-9).all())
    for i in range(5):
        x = f[:, i][f[:, i] > 0].double()
        assert float(x.mean()) == pytest.approx(0.5, abs=0.005)
        assert float(x.var()) == pytest.approx(1 / 12, abs=0.002)
    g = torch.Generator().manual_seed(1)
    assert bool((draw_three_or_more(torch.rand(9, 6, generator=g), torch.full((1, 3), 1e-4), Uniform()) > 0).all())


def test_two_and_three_active_features_hold_up_to_density_one():
    p = torch.tensor([[1.0, 0.3, 0.6], [1.0, 1.0, 0.2], [1.0, 1.0, 1.0]])
    # The densities are float32 numbers.
    assert three_active_chance(p).tolist() == pytest.approx([0.18, 0.2, 1.0], abs=1e-7)
    G, b, importance = model(0, 3, 2, 3)
    wanted = pairs_alone(G, b, importance, p.double())
    for found, expected in zip(two_active_gradient(G, b, importance, p), wanted, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
