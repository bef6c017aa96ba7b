from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import SparseCode
from superscope.features import (
    DISTRIBUTIONS,
    Anticorrelated,
    Circuit,
    Correlated,
    Cyclic,
    ExactlyK,
    Exponential,
    Fixed,
    FoldedNormal,
    Gaussian,
    Hierarchical,
    Independent,
    LogNormal,
    Tabulated,
    Uniform,
    Zipf,
)

MAGNITUDES = [
    Uniform(),
    Uniform(-1.0, 1.0),
    Gaussian(1.0, 0.5),
    Fixed(2.0),
    Exponential(0.5),
    LogNormal(1.0, 0.3),
    FoldedNormal(0.3, 0.5),
    Tabulated((0.0, 0.2, 0.3, 2.0)),
]


def laws(magnitude):
    return [
        Independent(5, 0.3, magnitude),
        Independent(4, (0.9, 0.5, 0.1, 1.0), magnitude),
        ExactlyK(6, 2, magnitude),
        ExactlyK(3, 3, magnitude),
        Correlated(2, 3, 0.2, 1.0, magnitude),
        Correlated(3, 2, 0.4, 0.3, magnitude),
        Anticorrelated(2, 3, 0.6, magnitude),
        Cyclic(2, 5, 3, 0.7, magnitude),
        Cyclic(2, 3, 3, 0.4, magnitude),
        Hierarchical((-1, 0, 0, 1, -1), (0.5, 0.6, 0.7, 0.8, 0.2), magnitude),
        Zipf(6, 1.2, 1.5, magnitude),
        Circuit(8, 4, 0.4, 2, magnitude=magnitude),
    ]


ALL = [law for magnitude in MAGNITUDES for law in laws(magnitude)]


def test_every_distribution_is_among_the_laws():
    assert {type(law) for law in ALL} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("law", ALL, ids=repr)
def test_moments_agree_with_sampling(law):
    rows = 60_000
    f = law.sample(rows, generator=torch.Generator().manual_seed(3)).dense().double()
    error = 5 / rows**0.5
    assert f.shape == (rows, law.n)
    active = (f != 0).double()
    assert torch.allclose(active.mean(0), law.density, atol=error)
    assert torch.allclose(active.T @ active / rows, law.gates(), atol=error)
    spread = law.magnitude.square**0.5
    assert torch.allclose(f.mean(0), law.mean, atol=error * 2 * spread)
    assert torch.allclose(torch.cov(f.T).reshape(law.n, law.n), law.covariance, atol=error * 6 * spread**2)
    assert law.l0 == pytest.approx(float(law.gates().diagonal().sum()))


@pytest.mark.parametrize("law", ALL, ids=repr)
def test_probabilities_of_active_sets(law):
    p = law.supports()
    assert p.shape == (2**law.n,)
    assert float(p.sum()) == pytest.approx(1)
    bits = torch.tensor([[s >> i & 1 for i in range(law.n)] for s in range(2**law.n)], dtype=torch.float64)
    assert torch.allclose(p @ bits, law.density)
    assert torch.allclose(bits.T @ (p[:, None] * bits), law.gates())


@pytest.mark.parametrize("law", ALL, ids=repr)
def test_sampling_is_a_function_of_the_generator(law):
    def draw(seed):
        return law.sample(50, generator=torch.Generator().manual_seed(seed)).dense()

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2)) or law == ExactlyK(3, 3, Fixed(2.0))


@pytest.mark.parametrize("law", laws(Uniform()), ids=repr)
def test_stacked_knobs_draw_what_each_law_draws(law):
    u = torch.rand(7, law.noise, generator=torch.Generator().manual_seed(0))
    stacked = tuple(torch.stack([knob, knob])[:, None] for knob in law.knobs())
    together = law.draw(u.expand(2, 7, law.noise), stacked)
    # One density and several take different routes: the last digit may differ.
    assert torch.allclose(together[1], law.draw(u), atol=1e-6)


@pytest.mark.parametrize("law", [Independent(4000, 0.002), Zipf(4000, 1.0, 3.0), ExactlyK(4000, 5)], ids=repr)
def test_large_sparse_laws(law):
    code = law.sample(20_000, generator=torch.Generator().manual_seed(0))
    assert isinstance(code, SparseCode)
    counts = torch.bincount(code.indices[code.values != 0], minlength=law.n).double()
    expected = law.density * 20_000
    assert float(((counts - expected) / expected.sqrt()).abs().max()) < 5.5
    # No feature twice in a row: the dense form would sum them.
    assert torch.equal((code.dense()[:200] != 0).sum(-1), code.l0[:200])
    assert float(code.values[code.values != 0].mean()) == pytest.approx(0.5, abs=0.01)


@settings(max_examples=20)
@given(st.floats(0.001, 1), st.integers(1, 40))
def test_one_uniform_gives_an_exact_law(p, n):
    law = Independent(n, p)
    u = torch.rand(40_000 // n, n, generator=torch.Generator().manual_seed(0))
    f = law.draw(u)
    assert ((f != 0) == (u < p)).float().mean() > 0.9999
    active = f[f != 0]
    if len(active) > 200:
        assert float(active.mean()) == pytest.approx(0.5, abs=5 * 0.29 / len(active) ** 0.5)
        assert float(active.max()) <= 1


def test_gates_of_a_correlated_set_have_the_correlation_asked_for():
    law = Correlated(1, 2, 0.2, 0.5)
    joint = law.gates()
    assert float((joint[0, 1] - 0.04) / (0.2 * 0.8)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Independent(0, 0.5), "n must be at least 1"),
        (lambda: Independent(3, 0.0), r"must lie in \(0, 1\]"),
        (lambda: Independent(3, 1.5), r"must lie in \(0, 1\]"),
        (lambda: Independent(3, float("nan")), r"must lie in \(0, 1\]"),
        (lambda: Independent(3, (0.5, 0.5)), "2 entries for n = 3"),
        (lambda: ExactlyK(3, 4), "k must lie in"),
        (lambda: ExactlyK(3, 0), "k must lie in"),
        (lambda: Correlated(2, 2, 0.5, 1.5), "correlation must lie in"),
        (lambda: Correlated(0, 2, 0.5), "sets must be at least 1"),
        (lambda: Anticorrelated.with_density(sets=1, size=3, density=0.4), "at most 0.3333"),
        (lambda: Cyclic(0, 12, 3, 0.5), "cycles must be at least 1"),
        (lambda: Cyclic(1, 12, 13, 0.5), r"width must lie in \[1, size = 12\]"),
        (lambda: Hierarchical((0,), 0.5), "parent of feature 0"),
        (lambda: Hierarchical((-1, 0), (0.5,)), "1 entries for 2"),
        (lambda: Zipf(10, 2.0, 5.0), "Lower active"),
        (lambda: Zipf(10, -1.0), "alpha must be"),
        (lambda: Uniform(1.0, 1.0), "low must be below high"),
        (lambda: Gaussian(0.0, 0.0), "scale must be above 0"),
        (lambda: Fixed(0.0), "not 0"),
        (lambda: Exponential(0.0), "scale must be finite and above 0"),
        (lambda: LogNormal(-1.0), "centre must be finite and above 0"),
        (lambda: LogNormal(1.0, 0.0), "spread must be finite and above 0"),
        (lambda: Tabulated((1.0, 0.5)), "in rising order"),
        (lambda: FoldedNormal(-0.1), "centre must be finite and at least 0"),
        (lambda: Circuit(1, 2, 0.5), "n must be at least 2"),
        (lambda: Circuit(4, 2, 0.5, 4), "depth must be 1, 2 or 3"),
        (lambda: Circuit(9, 2, 0.5), "2 inputs and depth 2 give no 9 variables"),
        (lambda: Circuit(4, 2, 0.0), r"must lie in \(0, 1\]"),
        (lambda: Independent(3, 0.5).sample(0), "count must be at least 1"),
        (lambda: Independent(13, 0.5).supports(), "at most 12"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("magnitude", MAGNITUDES, ids=repr)
def test_moments_of_magnitudes_are_those_of_their_draws(magnitude):
    q = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    m = magnitude.quantile(q)
    assert float(m.mean()) == pytest.approx(magnitude.mean, rel=1e-4, abs=1e-6)
    assert float(m.square().mean()) == pytest.approx(magnitude.square, rel=2e-4)


def test_a_half_normal_law_has_the_moments_of_the_books():
    assert FoldedNormal(0.0, 2.0).mean == pytest.approx(2 * (2 / torch.pi) ** 0.5)
    assert LogNormal(1.0, 0.5).mean == pytest.approx(torch.tensor(0.125).exp().item())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_circuit_computes_its_gates_and_no_variable_is_a_combination_of_others(depth):
    law = Circuit(12, 6, 0.5, depth, seed=depth)
    f = law.sample(4000, generator=torch.Generator().manual_seed(0)).dense()
    on = f == 1
    for number, (either, one, other) in enumerate(law.wires, law.inputs):
        a, b = on[:, one], on[:, other]
        assert torch.equal(on[:, number], a | b if either else a & b)
        assert max(one, other) < number
    # All 64 inputs were drawn, so the columns span what the functions span.
    assert len(f.unique(dim=0)) == 64
    assert int(torch.linalg.matrix_rank(f.double())) == 12
