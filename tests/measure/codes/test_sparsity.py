from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import Activations, SparseCode
from superscope.measure import (
    activation_sparsity,
    code_gini,
    code_sparsity,
    effective_number,
    gini,
    hoyer,
    participation_number,
    treves_rolls,
)

SPREADS = (gini, hoyer, treves_rolls)
NUMBERS = (effective_number, participation_number)
masses = st.lists(st.floats(0.0, 100.0, width=32), min_size=2, max_size=12).filter(lambda c: sum(c) > 1e-3)


def value(measure, entries, **arguments):
    return float(measure(torch.tensor(entries, dtype=torch.float64), **arguments))


@pytest.mark.parametrize("n", [2, 3, 10])
def test_known_answers(n):
    one_hot, uniform = [0.0] * (n - 1) + [3.0], [2.0] * n
    assert value(gini, one_hot) == pytest.approx(1 - 1 / n)
    assert value(gini, uniform) == pytest.approx(0, abs=1e-12)
    for measure in (hoyer, treves_rolls):
        assert value(measure, one_hot) == pytest.approx(1)
        assert value(measure, uniform) == pytest.approx(0, abs=1e-7)
    for order in (0, 0.5, 1, 2, 3, math.inf):
        assert value(effective_number, one_hot, order=order) == pytest.approx(1)
        assert value(effective_number, uniform, order=order) == pytest.approx(n)
    assert value(participation_number, uniform) == pytest.approx(n)


def test_worked_examples():
    # Hurley and Rickard's formula by hand: c = (1, 2, 5), n = 3.
    assert value(gini, [5.0, 1.0, 2.0]) == pytest.approx(1 - 2 * (1 / 8 * 2.5 / 3 + 2 / 8 * 1.5 / 3 + 5 / 8 * 0.5 / 3))
    assert value(hoyer, [3.0, 4.0]) == pytest.approx((math.sqrt(2) - 7 / 5) / (math.sqrt(2) - 1))
    assert value(effective_number, [1.0, 1.0, 2.0]) == pytest.approx(math.exp(1.5 * math.log(2)))
    assert value(effective_number, [1.0, 1.0, 2.0], order=2) == pytest.approx(1 / (1 / 16 + 1 / 16 + 1 / 4))
    assert value(treves_rolls, [1.0, 3.0]) == pytest.approx((1 - 4 / 5) / (1 - 1 / 2))


@settings(max_examples=60)
@given(masses, st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_declared_ranges_and_invariances(entries, factor, random):
    shuffled = entries.copy()
    random.shuffle(shuffled)
    signs = [random.choice((-1.0, 1.0)) * c for c in entries]
    for measure in (*SPREADS, *NUMBERS):
        base = value(measure, entries)
        low, high = measure.declaration.range
        assert low - 1e-9 <= base <= high
        assert set(measure.declaration.invariant) == {"scale", "permutation", "sign"}
        assert value(measure, [factor * c for c in entries]) == pytest.approx(base, abs=1e-6)
        assert value(measure, shuffled) == pytest.approx(base, abs=1e-9)
        assert value(measure, signs) == pytest.approx(base, abs=1e-9)


@settings(max_examples=60)
@given(masses, st.data())
def test_gini_has_the_six_properties(entries, data):
    base = value(gini, entries)
    n, largest, smallest = len(entries), max(entries), min(entries)
    # Robin Hood: taking from the rich to give to the poor lowers it.
    if largest - smallest > 1e-3:
        amount = data.draw(st.floats(0.05, 0.45)) * (largest - smallest)
        taken = entries.copy()
        taken[entries.index(largest)] -= amount
        taken[entries.index(smallest)] += amount
        assert value(gini, taken) < base
        # Rising tide: adding the same to all lowers it (where they are not already equal).
        assert value(gini, [c + 1.0 for c in entries]) < base
    # Scaling, cloning: neither changes it.
    assert value(gini, [7.0 * c for c in entries]) == pytest.approx(base, abs=1e-9)
    assert value(gini, entries * 2) == pytest.approx(base, abs=1e-9)
    # Bill Gates: one who is rich enough getting richer still raises it.
    rich = entries.copy()
    rich[0] = sum(entries) + 1
    richer = rich.copy()
    richer[0] *= 2
    assert value(gini, richer) > value(gini, rich) or n == 1 or sum(entries[1:]) == 0
    # Babies: adding a zero raises it.
    assert value(gini, [*entries, 0.0]) > base


@settings(max_examples=60)
@given(masses)
def test_hill_numbers_fall_with_the_order_and_ignore_padding(entries):
    profile = [value(effective_number, entries, order=q) for q in (0, 0.5, 1, 2, 4, math.inf)]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(profile))
    assert value(effective_number, [*entries, 0.0, 0.0]) == pytest.approx(profile[2])
    assert value(participation_number, entries) == pytest.approx(profile[3])


@pytest.mark.parametrize("measure", [*SPREADS, *NUMBERS])
def test_a_row_without_mass_is_undefined_and_the_others_are_not(measure):
    rows = measure(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
    assert rows[0].isnan()
    assert rows[1].isfinite()


def test_very_large_and_very_small_entries():
    for factor in (1e-300, 1e300):
        for measure in (*SPREADS, *NUMBERS):
            assert value(measure, [1 * factor, 3 * factor]) == pytest.approx(value(measure, [1.0, 3.0]))


@pytest.mark.parametrize("measure", [hoyer, treves_rolls])
def test_one_entry_is_refused(measure):
    with pytest.raises(ValueError, match="at least 2 entries"):
        measure(torch.ones(3, 1))


def test_a_negative_order_is_refused():
    with pytest.raises(ValueError, match="order must be at least 0; got -1"):
        effective_number(torch.ones(3), order=-1)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
def test_code_gini_is_the_gini_of_the_dense_code(b, n, seed):
    f = torch.randn(b, n, generator=torch.Generator().manual_seed(seed)).relu()
    torch.testing.assert_close(code_gini(SparseCode.from_dense(f)), gini(f), equal_nan=True)


def by_name(measurements):
    return {m.name: m for m in measurements}


def test_code_sparsity_by_hand():
    codes = [SparseCode.from_dense(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0]]))]
    codes.append(SparseCode.from_dense(torch.tensor([[0.0, 0.0, 0.0, 0.0]])))
    found = by_name(code_sparsity(codes))
    assert found["l0"].value == pytest.approx(1)
    assert found["l0"].n == 3
    assert found["code_gini"].n == 2
    assert "1 rows without a nonzero" in found["code_gini"].caution
    assert found["used_latents"].value == 3
    assert found["entropy_effective_latents"].value == pytest.approx(math.exp(1.5 * math.log(2)))
    assert found["participating_latents"].value == pytest.approx(16 / 6)


def test_code_sparsity_of_silence_and_of_nothing():
    silent = by_name(code_sparsity([SparseCode.from_dense(torch.zeros(3, 4))]))
    assert silent["entropy_effective_latents"].value is None
    assert silent["code_gini"].value is None
    with pytest.raises(ValueError, match="no codes"):
        code_sparsity([])
    with pytest.raises(ValueError, match="one stream"):
        code_sparsity([SparseCode.from_dense(torch.ones(2, 4)), SparseCode.from_dense(torch.ones(2, 5))])


def test_activation_sparsity_of_a_gaussian(held):
    x = torch.randn(8192, 16, generator=torch.Generator().manual_seed(0))
    places = torch.stack([torch.arange(8192) // 64, torch.arange(8192) % 64], 1)
    found = by_name(activation_sparsity(held(x, places), size=1024))
    # For |normal| entries Gini's index is sqrt(2) - 1 in the limit; its mean over 16 entries is (1 - 1/16) of that.
    assert found["activation_gini"].value == pytest.approx((math.sqrt(2) - 1) * (1 - 1 / 16), abs=0.01)
    assert found["activation_entropy_dimension"].value == pytest.approx(16, abs=0.01)
    # (tr C)^2 / tr C^2 of a sample: d / (1 + d / N).
    assert found["participation_ratio"].value == pytest.approx(16 / (1 + 16 / 8192), abs=0.05)
    # Every coordinate is used: a count, without an interval.
    assert found.pop("activation_used_dimension").value == 16
    for measurement in found.values():
        assert measurement.n == (16 if measurement.of == "coordinates" else 8192)
        assert measurement.low <= measurement.value <= measurement.high
        assert "sequences" in measurement.how


def test_participation_ratio_is_about_the_mean_and_blind_to_rotation(held):
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 1.0, 0.0, 0.0])
    x = torch.randn(4096, 4, generator=generator, dtype=torch.float64) * spread + 1000.0
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    plain = by_name(activation_sparsity(held(x), size=512))
    turned = by_name(activation_sparsity(held(x @ rotation), size=512))
    assert plain["participation_ratio"].value == pytest.approx(100 / 82, rel=0.02)
    assert turned["participation_ratio"].value == pytest.approx(plain["participation_ratio"].value, rel=1e-6)
    assert turned["activation_gini"].value != pytest.approx(plain["activation_gini"].value, abs=1e-3)


def test_zero_rows_are_left_out_and_said():
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    found = by_name(activation_sparsity([Activations(x)]))
    assert found["activation_gini"].value == pytest.approx(0.5)
    assert found["activation_gini"].n == 2
    assert "1 all-zero rows" in found["activation_gini"].caution


def test_constant_and_broken_activations():
    assert by_name(activation_sparsity([Activations(torch.ones(5, 3))]))["participation_ratio"].value is None
    with pytest.raises(ValueError, match="NaN"):
        activation_sparsity([Activations(torch.tensor([[1.0, math.nan]]))])
    with pytest.raises(ValueError, match="no activations"):
        activation_sparsity([])
    with pytest.raises(ValueError, match="1 coordinate"):
        activation_sparsity([Activations(torch.ones(5, 1))])
