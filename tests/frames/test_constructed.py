"""Frames built by formula are what they claim: every cosine, tightness, and no coherence below a bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from superscope import frames
from superscope.core import Dictionary
from superscope.frames.sizes import check_whole
from superscope.theory import best_lower_bound, bukh_cox, direction_count, mean_power, orthoplex, rankin, welch

DOUBLE = torch.float64


def cosines(frame):
    """All cosines of different atoms."""
    atoms = frame.atoms.double().numpy()
    return (atoms @ atoms.T)[np.triu_indices(len(atoms), 1)]


def kinds(values, digits=9):
    """The different absolute values, rounded."""
    return sorted(set(np.round(np.abs(values), digits).tolist()))


def assert_tight(frame, tolerance=1e-12):
    atoms = frame.atoms.double()
    identity = torch.eye(frame.d, dtype=DOUBLE) * frame.n / frame.d
    assert (atoms.T @ atoms - identity).abs().max() < tolerance * frame.n


ETFS = [
    (6, 3),
    (10, 5),
    (14, 7),
    (18, 9),
    (26, 13),
    (30, 15),
    (38, 19),
    (42, 21),
    (50, 25),
    (16, 6),
    (16, 10),
    (28, 7),
    (28, 21),
    (64, 28),
    (120, 35),
    (276, 23),
    (2, 1),
    (3, 2),
    (9, 8),
]


@pytest.mark.parametrize(("n", "d"), ETFS)
def test_equiangular_tight_frames_reach_welch(n, d):
    frame = frames.equiangular(n, d, dtype=DOUBLE)
    assert (frame.n, frame.d) == (n, d)
    assert np.abs(np.abs(cosines(frame)) - welch(n, d)).max() < 1e-13
    assert (frame.norms - 1).abs().max() < 1e-14
    assert_tight(frame)


@pytest.mark.parametrize(
    ("n", "d", "mu"),
    [
        (6, 3, 5**-0.5),
        (14, 7, 13**-0.5),
        (42, 21, 41**-0.5),
        (16, 6, 1 / 3),
        (16, 10, 1 / 5),
        (28, 7, 1 / 3),
        (276, 23, 1 / 5),
    ],
)
def test_equiangular_values_in_closed_form(n, d, mu):
    assert kinds(cosines(frames.equiangular(n, d, dtype=DOUBLE)), 12) == [round(mu, 12)]


def test_steiner_frames_are_sparse_and_exact():
    frame = frames.steiner(7, 3, dtype=DOUBLE)
    assert (frame.atoms != 0).sum(1).tolist() == [3] * 28
    assert torch.equal((frame.atoms**2 * 3).round(), (frame.atoms != 0).double())


@pytest.mark.parametrize("d", [4, 16, 64])
def test_mutually_unbiased_bases(d):
    frame = frames.mutually_unbiased(d, dtype=DOUBLE)
    assert frame.n == d * d // 2 + d
    # Entries and cosines are multiples of powers of two: exact in floats.
    gram = frame.atoms @ frame.atoms.T
    assert torch.equal(gram.diagonal(), torch.ones(frame.n, dtype=DOUBLE))
    blocks = gram.reshape(frame.n // d, d, frame.n // d, d)
    for one in range(frame.n // d):
        assert torch.equal(blocks[one, :, one], torch.eye(d, dtype=DOUBLE))
    off = blocks.permute(0, 2, 1, 3)[~torch.eye(frame.n // d, dtype=torch.bool)]
    assert torch.equal(off.abs(), torch.full_like(off, 1 / math.sqrt(d)))
    assert best_lower_bound(frame.n, d).value == pytest.approx(1 / math.sqrt(d), abs=1e-12)
    assert orthoplex(frame.n, d) == 1 / math.sqrt(d)


@pytest.mark.parametrize("d", [8, 32])
def test_gold_lines(d):
    frame = frames.gold(d, dtype=DOUBLE)
    assert frame.n == d * d + d
    assert kinds(cosines(frame)) == [0.0, round(1 / math.sqrt(d), 9), round(math.sqrt(2 / d), 9)]
    assert_tight(frame)
    # The count that theory promises for this family is the number that exists.
    assert direction_count(d, math.sqrt(2 / d)).lower >= frame.n


@pytest.mark.parametrize(
    ("name", "n", "d"),
    [
        ("A2", 3, 2),
        ("A4", 10, 4),
        ("D3", 6, 3),
        ("D4", 12, 4),
        ("D5", 20, 5),
        ("E6", 36, 6),
        ("E7", 63, 7),
        ("E8", 120, 8),
    ],
)
def test_root_systems(name, n, d):
    frame = frames.roots(name, dtype=DOUBLE)
    assert (frame.n, frame.d) == (n, d)
    assert kinds(cosines(frame)) in ([0.0, 0.5], [0.5])
    assert_tight(frame)
    if name in ("D4", "E6", "E7", "E8"):
        assert best_lower_bound(n, d).value == pytest.approx(0.5, abs=1e-12)
    both = frames.roots(name, both_signs=True, dtype=DOUBLE)
    assert both.n == 2 * n
    assert cosines(both).max() == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_e8_is_a_seven_design(order):
    atoms = frames.e8(dtype=DOUBLE).atoms.numpy()
    mean = ((atoms @ atoms.T) ** (2 * order)).mean()
    if order < 4:
        assert mean == pytest.approx(mean_power(8, order), rel=1e-12)
    else:
        assert mean == pytest.approx(0.01015625, rel=1e-9)
        assert mean > mean_power(8, order)


def test_leech_lattice():
    frame = frames.leech()
    assert (frame.n, frame.d) == (98280, 24)
    rows = torch.arange(0, frame.n, 397)
    found = (frame.atoms[rows].double() @ frame.atoms.double().T).abs()
    values, counts = torch.unique((found * 4).round(), return_counts=True)
    assert (found * 4 - (found * 4).round()).abs().max() < 1e-5
    # Of 196 560 shortest vectors, 4 600 meet a given one at 60 degrees, 47 104 at 75.5, 93 150 at 90; with opposites.
    assert values.tolist() == [0, 1, 2, 4]
    assert (counts / len(rows)).tolist() == [93150 / 2, 47104, 4600, 1]
    assert best_lower_bound(frame.n, 24).value == pytest.approx(0.5, abs=1e-12)
    assert (frame.norms - 1).abs().max() < 1e-6


def test_leech_moments_are_those_of_an_eleven_design():
    atoms = frames.leech(dtype=DOUBLE).atoms.numpy()
    powers = atoms @ atoms[0]
    for order in (1, 2, 3, 4, 5):
        assert (powers ** (2 * order)).mean() == pytest.approx(mean_power(24, order), rel=1e-10)
    assert (powers**12).mean() > mean_power(24, 6) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("name", "n", "d", "dimensionality", "largest", "mu"),
    [
        ("digon", 2, 1, 1 / 2, -1, 1),
        ("triangle", 3, 2, 2 / 3, -1 / 2, 1 / 2),
        ("tetrahedron", 4, 3, 3 / 4, -1 / 3, 1 / 3),
        ("square", 4, 2, 1 / 2, 0, 1),
        ("pentagon", 5, 2, 2 / 5, math.cos(math.tau / 5), math.cos(math.pi / 5)),
        ("hexagon", 6, 2, 1 / 3, 1 / 2, 1),
        ("heptagon", 7, 2, 2 / 7, math.cos(math.tau / 7), math.cos(math.pi / 7)),
        ("octagon", 8, 2, 1 / 4, math.sqrt(1 / 2), 1),
        ("octahedron", 6, 3, 1 / 2, 0, 1),
        ("square antiprism", 8, 3, 3 / 8, 1 / 3, (1 + math.sqrt(2)) / 3),
        ("cube", 8, 3, 3 / 8, 1 / 3, 1),
        ("icosahedron", 12, 3, 1 / 4, 5**-0.5, 1),
        ("dodecahedron", 20, 3, 3 / 20, 5**0.5 / 3, 1),
    ],
)
def test_polytopes(name, n, d, dimensionality, largest, mu):
    frame = frames.polytope(name, dtype=DOUBLE)
    assert (frame.n, frame.d) == (n, d)
    assert cosines(frame).max() == pytest.approx(largest, abs=1e-14)
    assert np.abs(cosines(frame)).max() == pytest.approx(mu, abs=1e-14)
    atoms = frame.atoms.numpy()
    assert 1 / ((atoms @ atoms.T) ** 2).sum(1) == pytest.approx(np.full(n, dimensionality), abs=1e-13)
    assert_tight(frame)


def test_every_name_is_covered():
    assert {frames.polytope(name).n for name in frames.POLYTOPES} == {2, 3, 4, 5, 6, 7, 8, 12, 20}


def test_pentagon_cosines():
    assert kinds(cosines(frames.polygon(5, dtype=DOUBLE)), 4) == [0.3090, 0.8090]


@pytest.mark.parametrize("d", [1, 2, 3, 7, 50])
def test_simplex_and_cross_polytope_reach_rankin(d):
    assert cosines(frames.simplex(d, dtype=DOUBLE)) == pytest.approx(np.full(d * (d + 1) // 2, -1 / d), abs=1e-13)
    if d > 1:
        assert cosines(frames.cross_polytope(d)).max() == rankin(2 * d, d) == 0


@pytest.mark.parametrize("d", [4, 16, 64])
def test_spark_of_basis_beside_hadamard(d):
    frame = frames.basis_beside_hadamard(d, dtype=DOUBLE)
    assert np.abs(cosines(frame)).max() == 1 / math.sqrt(d)
    # A comb: the spikes at multiples of sqrt(d) are the sum of sqrt(d) Hadamard rows, so 2 sqrt(d) atoms are dependent.
    root = math.isqrt(d)
    comb = frame.atoms[:d:root].sum(0)
    coefficients = frame.atoms[d:] @ comb
    assert (coefficients.abs() > 1e-12).sum() == root


FAMILY = [
    *(lambda n=n, d=d: frames.equiangular(n, d, dtype=DOUBLE) for n, d in ETFS if n < 100),
    *(lambda name=name: frames.polytope(name, dtype=DOUBLE) for name in frames.POLYTOPES),
    *(lambda name=name: frames.roots(name, dtype=DOUBLE) for name in ("A3", "D6", "E6", "E7", "E8")),
    lambda: frames.mutually_unbiased(16, dtype=DOUBLE),
    lambda: frames.gold(8, dtype=DOUBLE),
    lambda: frames.basis_beside_hadamard(8, dtype=DOUBLE),
    lambda: frames.random_unit(40, 7, dtype=DOUBLE),
    lambda: frames.random_unit(5, 9, dtype=DOUBLE),
    lambda: frames.cube(4, dtype=DOUBLE),
]


@pytest.mark.parametrize("make", FAMILY)
def test_no_frame_is_below_any_bound(make):
    frame = make()
    c = cosines(frame)
    mu = np.abs(c).max()
    assert mu >= best_lower_bound(frame.n, frame.d).value - 1e-12
    assert c.max() >= best_lower_bound(frame.n, frame.d, signed=True).value - 1e-12
    assert mu >= bukh_cox(frame.n, frame.d) - 1e-12
    for order in range(1, 7):
        assert mu >= welch(frame.n, frame.d, order) - 1e-12
    if mu < 1 - 1e-9:
        assert direction_count(frame.d, min(mu + 1e-12, 0.999999999)).upper >= frame.n
    atoms = frame.atoms.numpy()
    assert ((atoms @ atoms.T) ** 2).sum() >= frame.n**2 / frame.d - 1e-9
    assert (frame.norms - 1).abs().max() < 1e-13


def test_complement_twice_is_the_frame():
    frame = frames.equiangular(16, 6, dtype=DOUBLE)
    back = frames.complement(frames.complement(frame))
    assert torch.allclose(back.atoms @ back.atoms.T, frame.atoms @ frame.atoms.T, atol=1e-12)
    single = frames.complement(frames.equiangular(16, 6))
    assert single.atoms.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    makers = (
        frames.simplex(3, dtype=dtype),
        frames.paley(3, dtype=dtype),
        frames.steiner(4, 2, dtype=dtype),
        frames.mutually_unbiased(4, dtype=dtype),
        frames.e8(dtype=dtype),
        frames.random_unit(3, 2, dtype=dtype),
        frames.basis(3, dtype=dtype),
        frames.packed(5, 3, restarts=1, dtype=dtype),
    )
    for frame in makers:
        assert frame.atoms.dtype == dtype


def test_random_unit_is_fixed_by_its_seed():
    one, same, other = (frames.random_unit(64, 16, seed=s, dtype=DOUBLE) for s in (3, 3, 4))
    assert torch.equal(one.atoms, same.atoms)
    assert not torch.equal(one.atoms, other.atoms)
    assert torch.equal(frames.random_unit(64, 16, seed=3).atoms, one.atoms.float())
    state = torch.random.get_rng_state()
    frames.random_unit(64, 16)
    assert torch.equal(state, torch.random.get_rng_state())


def test_random_unit_moments():
    c = cosines(frames.random_unit(600, 20, dtype=DOUBLE))
    assert c.mean() == pytest.approx(0, abs=0.003)
    assert (c**2).mean() == pytest.approx(1 / 20, rel=0.02)
    assert (c**4).mean() == pytest.approx(3 / (20 * 22), rel=0.04)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frames.simplex(0), "d must be at least 1; got 0"),
        (lambda: frames.basis(0), "d must be at least 1"),
        (lambda: frames.cross_polytope(0), "d must be at least 1"),
        (lambda: frames.polygon(2), "k must be at least 3; got 2"),
        (lambda: frames.cube(30), "d must be from 1 to 20"),
        (lambda: frames.polytope("pentagram"), "no body is named 'pentagram'. Known: digon"),
        (lambda: frames.paley(4), "prime power that leaves 1 modulo 4; d = 4 gives 7"),
        (lambda: frames.paley(11), "d = 11 gives 21"),
        (lambda: frames.steiner(9, 3), "no system of 9 points in blocks of 3"),
        (lambda: frames.equiangular(20, 6), "Try packed"),
        (lambda: frames.equiangular(5, 6), "n must exceed d"),
        (lambda: frames.complement(frames.random_unit(10, 4)), "must be tight"),
        (lambda: frames.complement(frames.basis(3)), "n must exceed d"),
        (lambda: frames.mutually_unbiased(8), "d must be 4, 16, 64"),
        (lambda: frames.gold(16), "d must be 8, 32"),
        (lambda: frames.basis_beside_hadamard(12), "power of 2"),
        (lambda: frames.roots("E9"), "no root system is named 'E9'"),
        (lambda: frames.roots(""), "no root system is named ''"),
        (lambda: frames.random_unit(0, 3), "n and d must be at least 1"),
        (lambda: frames.random_unit(3, 3, dtype=torch.float16), "dtype must be"),
        (lambda: frames.packed(1, 3), "n must be at least 2"),
        (lambda: frames.packed(4, 3, restarts=-1), "nothing to start from"),
        (lambda: frames.packed(4, 3, restarts=0, known=False), "nothing to start from"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: frames.simplex(2.5),
        lambda: frames.basis("3"),
        lambda: frames.polygon(5.0),
        lambda: frames.cube(3.0),
        lambda: frames.equiangular(6.0, 3),
        lambda: frames.paley(3.0),
        lambda: frames.random_unit(3, 2.0),
        lambda: frames.packed(5.5, 3),
    ],
)
def test_sizes_are_whole_numbers(call):
    # Under a type checker the annotation refuses first; the sentence is for everybody else.
    with pytest.raises(TypeError):
        call()
    with pytest.raises(TypeError, match="f: d must be a whole number; got 2.5. Pass an int"):
        check_whole("f", n=3, d=2.5)


@pytest.mark.parametrize(("n", "d"), [(200, 20), (30, 40)])
def test_spectrum_matched_shares_the_frame_operator_and_nothing_else(n, d):
    shape = torch.linspace(1, 0.05, d, dtype=torch.float64)
    W = Dictionary(frames.random_unit(n, d, seed=1, dtype=torch.float64).atoms * shape)
    null = frames.spectrum_matched(W, seed=2)
    unit = W.unit().atoms
    wanted, have = unit.T @ unit, null.atoms.T @ null.atoms
    assert float((have - wanted).norm() / wanted.norm()) < 0.02
    assert float(have.square().sum()) == pytest.approx(float(wanted.square().sum()), rel=0.01)
    torch.testing.assert_close(null.norms, torch.ones(n, dtype=torch.float64))
    assert float((null.atoms * unit).sum(1).abs().mean()) < 0.6
    assert torch.equal(null.atoms, frames.spectrum_matched(W, seed=2).atoms)
    with pytest.raises(ValueError, match="zero atom"):
        frames.spectrum_matched(Dictionary(torch.eye(3)[:, :2]))
