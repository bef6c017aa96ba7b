"""Overlaps, capacities and dimensions of known frames, against the dense Gram matrix, and against random frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import Dictionary, ShapeError
from superscope.measure import (
    babel,
    capacities,
    capacity_used,
    coherence,
    coherent_pairs,
    cosine_histogram,
    dimensions_per_feature,
    effective_dimensions,
    frame_potential,
    interference_energy,
    mean_max_cosine,
    nearest,
    nearest_histogram,
    weighted_interference_energy,
)
from superscope.theory import coherence_guarantee


def random(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> Dictionary:
    return Dictionary(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype))


def polygon(n: int) -> Dictionary:
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return Dictionary(torch.stack([angle.cos(), angle.sin()], 1))


def simplex(d: int) -> Dictionary:
    """d + 1 equally distant directions: a basis of R^(d+1) seen along its diagonal."""
    centred = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    basis = torch.linalg.svd(centred).Vh[:d]
    return Dictionary(centred @ basis.T).unit()


def icosahedron() -> Dictionary:
    """Six equiangular lines in three dimensions, cosine 1 / sqrt(5)."""
    golden = (1 + 5**0.5) / 2
    return Dictionary(
        torch.tensor(
            [[0, 1, golden], [0, -1, golden], [1, golden, 0], [-1, golden, 0], [golden, 0, 1], [golden, 0, -1]],
            dtype=torch.float64,
        )
    )


def overlaps(W: Dictionary) -> torch.Tensor:
    gram = W.unit().atoms.double() @ W.unit().atoms.double().T
    return gram.fill_diagonal_(0).abs()


PAIRWISE = (coherence, mean_max_cosine, nearest, babel, coherent_pairs, nearest_histogram, cosine_histogram)
ALL = (*PAIRWISE, interference_energy, frame_potential, effective_dimensions)


@pytest.mark.parametrize(
    ("W", "mu"),
    [
        (Dictionary(torch.eye(5, dtype=torch.float64)), 0.0),
        (simplex(2), 1 / 2),
        (simplex(3), 1 / 3),
        (simplex(11), 1 / 11),
        (icosahedron(), 1 / 5**0.5),
    ],
    ids=["basis", "triangle", "tetrahedron", "simplex 11", "icosahedron"],
)
def test_equiangular_tight_frames_attain_every_bound(W: Dictionary, mu: float) -> None:
    for found in (coherence(W), mean_max_cosine(W)):
        assert found.value == pytest.approx(mu, abs=1e-12)
        assert found.reference == pytest.approx(mu, abs=1e-12)
    energy, potential = interference_energy(W), frame_potential(W)
    assert energy.value == pytest.approx(W.n / W.d - 1, abs=1e-12)
    assert energy.value == pytest.approx(energy.reference, abs=1e-12)
    assert potential.value == pytest.approx(W.n**2 / W.d)
    curve = babel(W, most=W.n - 1)
    torch.testing.assert_close(curve.largest, mu * torch.arange(1, W.n, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(curve.median, curve.largest, atol=1e-12, rtol=0)
    torch.testing.assert_close(capacities(W), torch.full((W.n,), W.d / W.n, dtype=torch.float64))
    assert capacity_used(W).value == pytest.approx(1.0)
    assert [m.value for m in effective_dimensions(W)] == pytest.approx([W.d] * 4)


@pytest.mark.parametrize("n", [5, 7, 12])
def test_polygons(n: int) -> None:
    # As lines, an odd polygon's nearest are at 180/n degrees; in an even one opposite corners are one line.
    W = polygon(n)
    assert coherence(W).value == pytest.approx(math.cos(math.pi / n) if n % 2 else 1.0)
    torch.testing.assert_close(capacities(W), torch.full((n,), 2 / n, dtype=torch.float64))
    assert capacity_used(W).value == pytest.approx(1.0)


def test_known_dimensionalities() -> None:
    digon = Dictionary(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    assert capacities(digon).tolist() == [0.5, 0.5, 1.0]
    # The square antiprism whose height makes it tight.
    s, c = (2 / 3) ** 0.5, (1 / 3) ** 0.5
    rings = [(s * math.cos(a), s * math.sin(a), c) for a in (0, math.pi / 2, math.pi, 3 * math.pi / 2)]
    rings += [
        (s * math.cos(a + math.pi / 4), s * math.sin(a + math.pi / 4), -c)
        for a in (0, math.pi / 2, math.pi, 1.5 * math.pi)
    ]
    antiprism = Dictionary(torch.tensor(rings, dtype=torch.float64))
    torch.testing.assert_close(capacities(antiprism), torch.full((8,), 3 / 8, dtype=torch.float64))


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 40),
    d=st.integers(1, 12),
    block=st.integers(1, 45),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_blocks_of_any_size_are_the_dense_gram_matrix(seed: int, n: int, d: int, block: int) -> None:
    W = random(n, d, seed)
    gram = overlaps(W)
    assert coherence(W, block=block).value == pytest.approx(float(gram.max().clamp(max=1)), abs=1e-12)
    found = nearest(W, block=block)
    torch.testing.assert_close(found.magnitude, gram.amax(1).clamp(max=1), atol=1e-12, rtol=0)
    assert bool((found.partner != torch.arange(n)).all())
    torch.testing.assert_close(gram[torch.arange(n), found.partner].clamp(max=1), found.magnitude, atol=1e-12, rtol=0)
    assert bool((found.cosine.abs() == found.magnitude).all())
    assert interference_energy(W).value == pytest.approx(float(gram.square().sum(1).mean()), abs=1e-9)
    curve = babel(W, most=n - 1, block=block).largest
    dense = gram.clamp(max=1).sort(descending=True).values[:, : n - 1].cumsum(1).amax(0)
    torch.testing.assert_close(curve, dense, atol=1e-10, rtol=0)
    pairs = coherent_pairs(W, most=7, block=block)
    upper = gram.triu().flatten().sort(descending=True).values[: len(pairs.cosine)].clamp(max=1)
    torch.testing.assert_close(pairs.cosine.abs(), upper, atol=1e-12, rtol=0)
    assert bool((pairs.first < pairs.second).all())
    assert len(pairs.cosine) == min(7, n * (n - 1) // 2)
    assert int(cosine_histogram(W, bins=9, block=block).count.sum()) == n * (n - 1) // 2
    assert int(nearest_histogram(W, bins=9, block=block).count.sum()) == n


@given(seed=st.integers(0, 10_000), n=st.integers(2, 60), d=st.integers(1, 20))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_laws_of_the_babel_function_and_bounds(seed: int, n: int, d: int) -> None:
    W = random(n, d, seed)
    mu = coherence(W)
    assert mu.reference is not None
    assert mu.value >= mu.reference - 1e-12
    curve = babel(W, most=n - 1).largest
    steps = torch.arange(1, n, dtype=torch.float64)
    assert float(curve[0]) == pytest.approx(mu.value, abs=1e-12)
    assert bool((curve.diff() >= -1e-12).all())
    assert bool((curve <= steps * mu.value + 1e-12).all())
    for found in (interference_energy(W), frame_potential(W), mean_max_cosine(W)):
        assert found.reference is not None
        assert found.value >= found.reference - 1e-12
    assert float(capacities(W).sum()) <= min(n, d) + 1e-9
    values = [m.value for m in effective_dimensions(W)]
    assert values == sorted(values, reverse=True)
    assert values[0] == min(n, d)
    assert values[-1] >= 1 - 1e-9
    # One number, two names: n^2 / frame potential is the participation ratio.
    assert values[2] == pytest.approx(n**2 / frame_potential(W).value, rel=1e-6)


@pytest.mark.parametrize("measure", [coherence, mean_max_cosine, interference_energy, frame_potential])
def test_invariances(measure) -> None:
    W = random(50, 12, 1)
    value = measure(W).value
    generator = torch.Generator().manual_seed(2)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    scale = torch.logspace(-150, 150, 50, dtype=torch.float64) * (torch.arange(50) % 2 * 2 - 1)
    for changed in (W.atoms @ turn, W.atoms[torch.randperm(50, generator=generator)], W.atoms * scale[:, None]):
        assert measure(Dictionary(changed)).value == pytest.approx(value, rel=1e-9)


def test_float32_extremes_of_norm() -> None:
    # Squares of 1e-30 and 1e30 are 0 and infinity in float32; directions are not.
    W = random(30, 8, 3, torch.float32)
    scaled = Dictionary(W.atoms * torch.tensor([1e-30, 1e30, 1.0] * 10)[:, None])
    assert coherence(scaled).value == pytest.approx(coherence(W).value, rel=1e-5)
    assert interference_energy(scaled).value == pytest.approx(interference_energy(W).value, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_atoms_are_measured_in_float32(dtype: torch.dtype) -> None:
    W = Dictionary(random(60, 16, 4).atoms.to(dtype))
    assert coherence(W).value == pytest.approx(coherence(W.to(torch.float64)).value, abs=1e-6)


def test_the_pair_is_the_pair() -> None:
    atoms = random(200, 30, 5).atoms
    atoms[17] = -2.5 * atoms[133]
    found = coherence(Dictionary(atoms), block=64)
    assert found.value == 1.0
    assert (found.at["atom"], found.at["other"]) == (17, 133)
    pairs = coherent_pairs(Dictionary(atoms), most=3, block=64)
    assert (int(pairs.first[0]), int(pairs.second[0])) == (17, 133)
    assert float(pairs.cosine[0]) == pytest.approx(-1.0)


@pytest.mark.parametrize("block", [13, 64, None])
def test_screening_in_bfloat16_changes_nothing(block: int | None) -> None:
    atoms = random(300, 40, 6, torch.float32).atoms
    atoms[50] = atoms[51] + 0.001 * atoms[52]
    W = Dictionary(atoms)
    exact, screened = (coherent_pairs(W, most=25, block=block, screen=s) for s in (False, True))
    for one, other in zip(exact, screened):
        assert torch.equal(one, other)
    # All cosines equal: every pair is within the slack of the last, and any of them may be listed.
    for one in coherent_pairs(simplex(60), most=5, block=block, screen=True).cosine:
        assert float(one.abs()) == pytest.approx(1 / 60)


@pytest.mark.parametrize("measure", ALL)
def test_zero_atoms_are_left_out(measure) -> None:
    W = random(20, 6, 7)
    holes = Dictionary(torch.cat([torch.zeros(1, 6).double(), W.atoms[:9], torch.zeros(1, 6).double(), W.atoms[9:]]))
    found, plain = measure(holes), measure(W)
    if measure is nearest:
        keep = torch.tensor([i for i in range(22) if i not in (0, 10)])
        torch.testing.assert_close(found.magnitude[keep], plain.magnitude)
        assert bool(found.magnitude[[0, 10]].isnan().all())
        assert found.partner[[0, 10]].tolist() == [-1, -1]
        torch.testing.assert_close(found.partner[keep], keep[plain.partner])
    elif measure is coherent_pairs:
        torch.testing.assert_close(found.cosine, plain.cosine)
        assert not bool(torch.isin(torch.tensor([0, 10]), torch.cat([found.first, found.second])).any())
    elif measure is babel:
        torch.testing.assert_close(found.largest[:19], plain.largest[:19])
    elif measure in (nearest_histogram, cosine_histogram):
        assert torch.equal(found.count, plain.count)
    else:
        for one, other in zip(*((m,) if not isinstance(m, tuple) else m for m in (found, plain))):
            assert one.value == pytest.approx(other.value)
            assert one.caution == "2 zero atoms left out"
            assert one.n == 20


@pytest.mark.parametrize("measure", ALL)
def test_too_few_atoms_are_refused(measure) -> None:
    for atoms in (torch.ones(1, 3), torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.zeros(4, 3)):
        with pytest.raises(ValueError, match="at least 2 nonzero atoms"):
            measure(Dictionary(atoms))


@pytest.mark.parametrize("measure", [*ALL, capacities, capacity_used, dimensions_per_feature])
def test_a_bare_matrix_is_refused(measure) -> None:
    with pytest.raises(TypeError):
        measure(torch.eye(3))


def test_hostile_settings() -> None:
    W = random(10, 4, 8)
    for call in (
        lambda: coherence(W, block=0),
        lambda: babel(W, most=0),
        lambda: coherent_pairs(W, most=0),
        lambda: nearest_histogram(W, bins=0),
        lambda: cosine_histogram(W, bins=0),
    ):
        with pytest.raises(ValueError, match="must be at least 1; got 0"):
            call()
    with pytest.raises(ShapeError, match="density must have n = 10 entries"):
        weighted_interference_energy(W, torch.ones(9))
    with pytest.raises(ValueError, match=r"density must lie in \[0, 1\]; got 1.5"):
        weighted_interference_energy(W, torch.full((10,), 1.5))
    with pytest.raises(ValueError, match="finite and at least 0"):
        effective_dimensions(W, weights=-torch.ones(10))
    with pytest.raises(ValueError, match="must not be 0 for every"):
        weighted_interference_energy(W, torch.zeros(10))


def test_duplicates_are_seen() -> None:
    W = Dictionary(random(30, 64, 9).atoms.repeat(2, 1))
    assert coherence(W).value == 1.0
    assert mean_max_cosine(W).value == pytest.approx(1.0)
    assert babel(W, most=3).guarantee == 1
    assert capacities(W).max() <= 0.5
    assert effective_dimensions(W)[0].value == 30


def test_fewer_atoms_than_dimensions() -> None:
    W = random(6, 40, 10)
    assert coherence(W).reference == 0.0
    assert interference_energy(W).reference == 0.0
    gram = overlaps(W)
    assert interference_energy(W).value == pytest.approx(float(gram.square().sum(1).mean()))
    assert effective_dimensions(W)[0].value == 6
    assert capacity_used(W).reference == pytest.approx(6 / 40)


def test_chance_levels_are_those_of_random_frames() -> None:
    n, d = 400, 40
    frames = [random(n, d, seed, torch.float32) for seed in range(60)]
    mu = np.array([coherence(W).value for W in frames])
    chance = coherence(frames[0]).chance
    # The median of 60 draws: its standard error is 1.25 sd / sqrt(60).
    assert float(np.median(mu)) == pytest.approx(chance, abs=4 * 1.25 * mu.std() / 60**0.5)
    means = np.array([mean_max_cosine(W).value for W in frames])
    assert means.mean() == pytest.approx(mean_max_cosine(frames[0]).chance, abs=4 * means.std() / 60**0.5)
    energies = np.array([interference_energy(W).value for W in frames])
    assert energies.mean() == pytest.approx(interference_energy(frames[0]).chance, abs=4 * energies.std() / 60**0.5)
    used = np.array([capacity_used(W.unit()).value for W in frames])
    # n / (n + d - 1) replaces a mean of ratios by a ratio of means: good to 1 in n.
    assert used.mean() == pytest.approx(capacity_used(frames[0]).chance, rel=1 / n * 2)
    typical = torch.stack([babel(W, most=8).median for W in frames]).mean(0)
    torch.testing.assert_close(typical, babel(frames[0], most=8).chance, rtol=0.02, atol=0)


def test_anchors_of_real_shapes() -> None:
    # The note's table, from the formulas: 1024 x 256 and (by the same formulas) 24 576 x 768.
    W = random(1024, 256, 11, torch.float32)
    found = coherence(W)
    assert found.reference == pytest.approx(0.0542, abs=5e-5)
    assert found.chance == pytest.approx(0.2963, abs=5e-5)
    assert 0.27 < found.value < 0.34
    assert float(capacities(W.unit()).sum()) == pytest.approx(204.96, abs=0.8)


def test_what_coherence_certifies_of_a_random_dictionary() -> None:
    # 1024 x 256: two active features by either criterion, where basis pursuit finds 68.
    W = random(1024, 256, 18, torch.float32)
    assert babel(W, most=8).guarantee == 2
    assert coherence_guarantee(coherence(W).value) == 2
    n, d = W.n, W.d
    assert frame_potential(W).value == pytest.approx(n + n * (n - 1) / d, rel=0.005)


@pytest.mark.slow
def test_a_random_dictionary_of_the_size_of_an_sae() -> None:
    W = random(24_576, 768, 19, torch.float32)
    assert 0.200 < coherence(W).value < 0.240  # 99.9 % of draws; the median is 0.2133
    assert mean_max_cosine(W).value == pytest.approx(0.152, abs=5e-4)
    curve = babel(W, most=128)
    for m, typical in ((1, 0.153), (4, 0.573), (16, 2.11), (64, 7.58), (128, 14.2)):
        assert float(curve.median[m - 1]) == pytest.approx(typical, rel=0.02)
    assert capacity_used(W.unit()).value == pytest.approx(0.970, abs=1e-3)
    # No pair above 0.3 by chance.
    histogram = cosine_histogram(W, bins=20)
    assert int(histogram.count[:7].sum() + histogram.count[13:].sum()) == 0


def test_histograms_stand_beside_their_chance() -> None:
    n, d = 600, 30
    inside = {"pairs": [], "atoms": []}
    for seed in range(20):
        W = random(n, d, 100 + seed, torch.float32)
        for histogram in (cosine_histogram(W, bins=40), nearest_histogram(W, bins=40)):
            total = n * (n - 1) / 2 if histogram.of == "pairs" else n
            assert float(histogram.chance.sum()) == pytest.approx(total)
            busy = histogram.chance > 5
            good = (histogram.count >= histogram.chance_low) & (histogram.count <= histogram.chance_high)
            inside[histogram.of].append(float(good[busy].double().mean()))
    # Pairs: exact binomial law, 95 %. Atoms: doubled variance, so at least that.
    assert np.mean(inside["pairs"]) == pytest.approx(0.95, abs=0.03)
    assert np.mean(inside["atoms"]) > 0.95


def test_a_learned_looking_frame_leaves_the_null() -> None:
    W = random(600, 30, 12)
    paired = Dictionary(torch.cat([W.atoms[:300], W.atoms[:300] + 0.3 * W.atoms[300:]]))
    histogram = nearest_histogram(paired, bins=20)
    assert float((histogram.count - histogram.chance_high).clamp(min=0).sum()) > 300
    assert mean_max_cosine(paired).value > 1.2 * mean_max_cosine(paired).chance


def test_histogram_table() -> None:
    histogram = cosine_histogram(random(30, 5, 13), bins=4)
    table = histogram.table()
    assert set(table) == {"series", "low", "high", "count"}
    assert {len(column) for column in table.values()} == {8}
    assert table["low"][:4] == [-1.0, -0.5, 0.0, 0.5]
    assert sum(table["count"][:4]) == 435
    assert sum(table["count"][4:]) == pytest.approx(435)


def test_weighted_energy() -> None:
    W, n, d = random(80, 16, 14), 80, 16
    p = torch.rand(n, generator=torch.Generator().manual_seed(15)).double()
    gram = overlaps(W).square()
    found = weighted_interference_energy(W, p)
    assert found.value == pytest.approx(float(p @ gram @ p / p.sum()))
    assert found.chance == pytest.approx(float((p.sum() ** 2 - p.square().sum()) / d / p.sum()))
    # Equal densities: p times the plain energy. A dead atom drops out.
    even = weighted_interference_energy(W, torch.full((n,), 0.25, dtype=torch.float64))
    assert even.value == pytest.approx(0.25 * interference_energy(W).value)
    p[40:] = 0
    assert weighted_interference_energy(W, p).value == pytest.approx(
        weighted_interference_energy(Dictionary(W.atoms[:40]), p[:40]).value
    )


def test_weighted_dimensions() -> None:
    W = Dictionary(torch.eye(4, dtype=torch.float64))
    weights = torch.tensor([4.0, 2.0, 2.0, 0.0])
    values = [m.value for m in effective_dimensions(W, weights=weights)]
    entropy = math.exp(scipy.stats.entropy([0.5, 0.25, 0.25]))
    assert values == pytest.approx([3, entropy, 1 / (0.25 + 0.0625 * 2), 2])


def test_dimensions_per_feature() -> None:
    assert dimensions_per_feature(polygon(5)).value == pytest.approx(0.4)
    assert dimensions_per_feature(Dictionary(torch.zeros(3, 2))).value is None


def test_gradients_are_off() -> None:
    W = Dictionary(torch.nn.Parameter(random(20, 6, 16).atoms))
    assert coherence(W).value > 0
    assert not nearest(W).magnitude.requires_grad
    assert not capacities(W).requires_grad


@pytest.mark.slow
def test_memory_stays_within_blocks() -> None:
    """131 072 atoms in R^64: their Gram matrix would be 64 GiB, the pass holds 16 MB of it."""
    import resource

    W = random(131_072, 64, 17, torch.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = coherence(W)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 4 * W.atoms.numel() * 4 + 2**29
    assert found.value == pytest.approx(found.chance, abs=0.05)


@pytest.mark.slow
def test_largest_dictionaries_need_four_gigabytes_beside_themselves() -> None:
    """131 072 atoms in R^4096, some ten minutes of one core: the whole process, against the 2 GiB of the matrix."""
    import subprocess
    import sys

    script = (
        "import resource, torch\n"
        "from superscope.core import Dictionary\n"
        "from superscope.measure import coherence\n"
        "W = Dictionary(torch.empty(131_072, 4096).normal_(generator=torch.Generator().manual_seed(0)))\n"
        "found = coherence(W)\n"
        "print(found.value, found.chance, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    value, chance, peak = map(float, out.split())
    assert value == pytest.approx(chance, abs=0.01)
    assert peak * 1024 - 131_072 * 4096 * 4 < 4 * 2**30
