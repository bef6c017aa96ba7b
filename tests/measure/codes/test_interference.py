"""Signed interference: known answers, the direct sums, worlds that help and worlds that harm, chance."""

from __future__ import annotations

import math

import pytest
import torch

from superscope.core import Activations, Dictionary, SparseCode, SparseCoder
from superscope.frames import random_unit
from superscope.measure import signed_interference
from superscope.measure.codes.polysemanticity import random_directions
from superscope.measure.remembered import Remembered

NAMES = ("interference_energy_ratio", "interference_while_on", "false_alarm_power")


class Given(SparseCoder):
    """Codes that were drawn, handed out in order of rows: x's last coordinate is the row's number."""

    def __init__(self, W: Dictionary, f: torch.Tensor) -> None:
        self.dictionary, self.f = W, f

    def encode(self, x):
        return SparseCode.from_dense(self.f[x[:, 0].long()])

    @property
    def rows(self):
        index = torch.arange(len(self.f))
        x = torch.zeros(len(self.f), self.dictionary.d, dtype=self.dictionary.atoms.dtype)
        x[:, 0] = index
        places = torch.stack([index // 8, index % 8], 1)
        return [Activations(part, places=p) for part, p in zip(x.split(100), places.split(100), strict=True)]


def drawn(n, rows=800, density=0.2, *, seed=0, signed=False):
    generator = torch.Generator().manual_seed(seed)
    f = 0.5 + torch.rand(rows, n, generator=generator, dtype=torch.float64)
    if signed:
        f *= torch.randint(0, 2, (rows, n), generator=generator) * 2 - 1
    return f * (torch.rand(rows, n, generator=generator) < density)


def by_definition(W, f):
    unit = W.unit().atoms.double()
    z = f.double() * W.norms.double()
    cosines = unit @ unit.T
    J = z @ cosines - z
    on = z != 0
    square = z.square().mean(0)
    I = (cosines.square() @ square - square) / square
    S = (z * J).mean(0) / square
    N = torch.stack([J[~on[:, i], i].square().mean() / z[on[:, i], i].square().mean() for i in range(W.n)])
    return I, S, N


@pytest.mark.parametrize("signed", [False, True])
def test_each_feature_by_definition(signed):
    W = random_unit(n=24, d=8, seed=0)
    W = Dictionary(W.atoms.double() * torch.linspace(0.5, 2, 24, dtype=torch.float64)[:, None])
    coder = Given(W, drawn(24, signed=signed))
    found = signed_interference(coder, coder.rows)
    assert found.features.tolist() == list(range(24))
    for value, wanted in zip(found.each, by_definition(W, coder.f), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-12)
    assert ((found.low.while_on < found.each.while_on) & (found.each.while_on < found.high.while_on)).all()
    assert ((found.low.false_alarm < found.each.false_alarm) & (found.each.false_alarm < found.high.false_alarm)).all()


def test_the_layer_is_the_sums_before_dividing():
    W = Dictionary(random_unit(n=24, d=8, seed=1).atoms.double()).unit()
    coder = Given(W, drawn(24))
    z, unit = coder.f, W.atoms
    cosines = unit @ unit.T
    J, on, square = z @ cosines - z, z != 0, z.square()
    energy = ((cosines.square() @ square.mean(0)) - square.mean(0)).sum() / square.mean(0).sum()
    x_hat = z @ unit
    power = (J[~on].square().sum() / (~on).sum()) / (square.sum() / on.sum())
    wanted = (energy, x_hat.square().sum() / square.sum() - 1, power)
    for measured, value in zip(signed_interference(coder, coder.rows), wanted, strict=True):
        assert measured.value == pytest.approx(float(value), rel=1e-9)
        assert measured.low < measured.value < measured.high
        assert measured.n == 24


def test_orthogonal_atoms_interfere_with_nothing():
    for atoms in (torch.eye(8, dtype=torch.float64), random_directions(8, 8, torch.Generator().manual_seed(3))):
        coder = Given(Dictionary(atoms), drawn(8))
        for measured in signed_interference(coder, coder.rows):
            assert measured.value == pytest.approx(0, abs=1e-12)
            assert measured.name == "interference_while_on" or measured.chance > 0.1


def test_chance_is_what_random_directions_give_on_average():
    f = drawn(30, signed=True, rows=400)
    values = {name: [] for name in NAMES}
    chances = {}
    for seed in range(40):
        coder = Given(Dictionary(random_unit(n=30, d=10, seed=seed).atoms.double()), f)
        for measured in signed_interference(coder, coder.rows):
            values[measured.name].append(measured.value)
            chances[measured.name] = measured.chance
    for name, drawn_values in values.items():
        sample = torch.tensor(drawn_values)
        error = float(sample.std()) / math.sqrt(len(sample))
        assert float(sample.mean()) == pytest.approx(chances[name], abs=4 * error), name


def test_helping_and_cancelling_layouts_have_opposite_signs_and_the_same_energy():
    # Pairs of features that always go together, at 60 or at 120 degrees.
    generator = torch.Generator().manual_seed(0)
    together = (torch.rand(800, 6, generator=generator) < 0.2).double()
    f = torch.cat([together, together], 1)
    energies = []
    for sign in (1, -1):
        first = torch.eye(12, dtype=torch.float64)[:6]
        second = 0.5 * sign * first + math.sqrt(0.75) * torch.eye(12, dtype=torch.float64)[6:]
        coder = Given(Dictionary(torch.cat([first, second])), f)
        energy, while_on, false_alarm = signed_interference(coder, coder.rows)
        assert while_on.value == pytest.approx(0.5 * sign)
        assert false_alarm.value == pytest.approx(0, abs=1e-12)
        energies.append(energy.value)
    assert energies[0] == pytest.approx(energies[1])


def test_codes_of_the_same_size_on_other_batches_and_rotated_space_are_the_same():
    W = Dictionary(random_unit(n=20, d=6, seed=2).atoms.double())
    coder = Given(W, drawn(20))
    whole = signed_interference(coder, coder.rows)
    turn = random_directions(6, 6, torch.Generator().manual_seed(9))
    turned = Given(Dictionary(W.atoms @ turn), coder.f)
    for one, other in zip(whole, signed_interference(turned, turned.rows), strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-9, abs=1e-12)
    assert list(signed_interference(Remembered(coder), coder.rows)) == list(whole)


def test_rare_and_dead_features_are_left_out_and_nothing_is_no_number():
    f = drawn(20)
    f[:, 3] = 0
    f[5:, 4] = 0
    W = Dictionary(random_unit(n=20, d=6, seed=2).atoms.double())
    coder = Given(W, f)
    found = signed_interference(coder, coder.rows)
    kept = [i for i in range(20) if i not in (3, 4)]
    assert found.features.tolist() == kept
    # They are not spoken of, but what they do to the others counts.
    f[:5, 4] = 30.0
    found = signed_interference(coder, coder.rows)
    f[0, 3] = 1e-12  # a definition that divides by its energy needs some
    for value, wanted in zip(found.each, by_definition(W.unit(), f), strict=True):
        torch.testing.assert_close(value, wanted[kept], rtol=1e-6, atol=1e-9)
    silent = Given(W, torch.zeros_like(f))
    assert all(m.value is None and "two are needed" in m.caution for m in signed_interference(silent, silent.rows))


def test_a_batch_is_encoded_once_and_again_when_it_was_changed():
    calls = []

    class Counting(Given):
        def encode(self, x):
            calls.append(1)
            return super().encode(x)

    W = Dictionary(random_unit(n=20, d=6, seed=2).atoms.double())
    coder = Remembered(Counting(W, drawn(20, rows=90)))
    (batch,) = Given(W, drawn(20, rows=90)).rows
    first, second = coder.encode(batch.x), coder.encode(batch.x)
    assert first is second
    batch.x[:, 0] = batch.x[:, 0].flip(0)
    third = coder.encode(batch.x)
    assert len(calls) == 2
    assert torch.equal(third.dense(), first.dense().flip(0))
