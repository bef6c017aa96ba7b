"""The checks of sources, metrics and kernels pass what is right and catch what is not."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch

from superscope import measure
from superscope.core import Activations, ActivationSource, Dictionary, SparseCode
from superscope.kernels import gather_sum
from superscope.kernels.gather_sum import reference
from superscope.measure import metric
from superscope.testing import LawBroken, check_kernel, check_metric, check_source
from superscope.worlds.presets import exactly_k


class Noise(ActivationSource):
    d = 3

    def batch(self, size, generator, index):
        return Activations(torch.randn(size, self.d, generator=generator), tokens=torch.arange(size))

    def batches(self, size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        for index in range(9):
            yield self.batch(size, generator, index)


def test_honest_sources_pass():
    assert len(check_source(Noise())) == 5
    check_source(exactly_k(n=12, d=5, k=2))


class TooShort(Noise):
    def batch(self, size, generator, index):
        return Activations(torch.randn(size - (index == 2), self.d, generator=generator))


class NotFinite(Noise):
    def batch(self, size, generator, index):
        return Activations(torch.full((size, 3), torch.nan))


class SometimesMore(Noise):
    def batch(self, size, generator, index):
        found = super().batch(size, generator, index)
        return found if index else replace(found, tokens=None)


class OneReaderMovesAnother(Noise):
    shared = torch.Generator().manual_seed(0)

    def batch(self, size, generator, index):
        return super().batch(size, self.shared, index)


class IgnoresTheSeed(Noise):
    def batches(self, size, *, seed):
        return super().batches(size, seed=0)


class SkipsOneTooMany(Noise):
    def batches_from(self, start, size, *, seed):
        return super().batches_from(start + (start > 0), size, seed=seed)


class DrawsGlobally(Noise):
    def batch(self, size, generator, index):
        torch.rand(1)
        return super().batch(size, generator, index)


class ObeysTheGlobalSeed(Noise):
    def batch(self, size, generator, index):
        state = torch.random.get_rng_state()
        shift = torch.rand(1)
        torch.random.set_rng_state(state)
        return Activations(torch.randn(size, self.d, generator=generator) + shift)


class EndsEarly(Noise):
    def batches(self, size, *, seed):
        yield self.batch(size, torch.Generator().manual_seed(seed), 0)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (TooShort, r"shapes: batch 2 has shape \(15, 3\)"),
        (NotFinite, "shapes: batch 0 holds a NaN"),
        (SometimesMore, "shapes: some batches carry"),
        (OneReaderMovesAnother, "one seed one sequence: batch 0 read again: x differs"),
        (IgnoresTheSeed, "another seed another sequence: seeds 0 and 1"),
        (SkipsOneTooMany, r"from any batch: batches_from\(1\): x differs"),
        (DrawsGlobally, "global generator: reading moved"),
        (ObeysTheGlobalSeed, "global generator: the first batch under another"),
        (EndsEarly, "shapes: gives 1 batches"),
    ],
)
def test_a_broken_source_is_caught(source, says):
    with pytest.raises(LawBroken, match=f"{source.__name__} breaks the law of {says}"):
        check_source(source())


def frames():
    generator = torch.Generator().manual_seed(0)
    return [Dictionary(torch.randn(n, 4, generator=generator, dtype=torch.float64)) for n in (5, 7)]


def subjects(function):
    """What a metric is of: a dictionary and the truth, a dictionary, or codes."""
    first, *others = inspect.signature(function).parameters.values()
    if "Dictionary" not in str(first.annotation):
        generator = torch.Generator().manual_seed(1)
        return [torch.randn(3, n, generator=generator, dtype=torch.float64).relu() + 0.01 for n in (5, 8)]
    return [tuple(frames())] if others and others[0].name == "truth" else frames()


@pytest.mark.parametrize("function", measure.METRICS, ids=lambda function: function.__name__)
def test_declared_metrics_keep_their_promise(function):
    laws = check_metric(function, subjects(function))
    assert {"range", *function.declaration.invariant} <= set(laws)


def test_every_declaration_is_among_the_metrics():
    declared = {value for value in vars(measure).values() if hasattr(value, "declaration")}
    assert set(measure.METRICS) == declared


def test_a_broken_promise_about_codes_or_pairs_is_caught():
    wide = (-10.0, 10.0)
    codes = [torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)]
    first = metric(range=wide, unit="", invariant=("permutation",))(lambda c: c[..., 0] * 1.0)
    with pytest.raises(LawBroken, match="after a permutation"):
        check_metric(first, codes)
    with pytest.raises(ValueError, match="codes have no rotation"):
        check_metric(metric(range=wide, unit="", invariant=("rotation",))(lambda c: c.sum()), codes)
    overlap = metric(range=wide, unit="", invariant=("rotation", "sign"))(
        lambda W, V: float((W.atoms @ V.atoms.T)[0, 0])
    )
    with pytest.raises(LawBroken, match="after a sign"):
        check_metric(overlap, [tuple(frames())] * 8)


def test_a_broken_declaration_is_caught():
    def declared(function, range=(0.0, 1.0), invariant=()):
        return metric(range=range, unit="", invariant=invariant)(function)

    def first_entry(W):
        return W.atoms[0, 0] ** 2

    def sum_of_entries(W):
        return W.unit().atoms.sum()

    wide = (-100.0, 100.0)
    for change in ("rotation", "permutation", "scale"):
        with pytest.raises(LawBroken, match=f"first_entry breaks its declaration.* after a {change}"):
            check_metric(declared(first_entry, wide, (change,)), frames())
    with pytest.raises(LawBroken, match="after a sign"):
        check_metric(declared(sum_of_entries, wide, ("scale", "sign")), frames())
    with pytest.raises(LawBroken, match="outside the declared range"):
        check_metric(declared(lambda W: W.atoms.norm() + 2), frames())
    with pytest.raises(TypeError, match="declares nothing"):
        check_metric(first_entry, frames())
    with pytest.raises(ValueError, match="unknown invariance 'mirror'"):
        check_metric(declared(first_entry, wide, ("mirror",)), frames())

    def spoils(W):
        W.atoms.zero_()
        return 0.5

    with pytest.raises(LawBroken, match="was changed"):
        check_metric(declared(spoils), frames())
    calls = iter(range(100))
    with pytest.raises(LawBroken, match="one value now and another then"):
        check_metric(declared(lambda W: float(next(calls)), wide), frames())


def cases(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    for b, k, n in ((4, 2, 5), (3, 1, 1), (0, 2, 4), (2, 5, 5)):
        values = torch.randn(b, k, generator=generator, dtype=dtype)
        yield values, torch.randint(n, (b, k), generator=generator), torch.randn(n, 3, generator=generator, dtype=dtype)


def test_gather_sum_is_its_reference():
    assert check_kernel(gather_sum, reference.gather_sum, *cases(), tolerance=1e-12) == 4 * 3


def test_a_broken_kernel_is_caught():
    def both(values, indices, atoms):
        return reference.gather_sum(values, indices, atoms), values * 2

    def loses_the_second(values, indices, atoms):
        return reference.gather_sum(values, indices, atoms), values.detach() * 2 + 0 * values

    def wrong_value(values, indices, atoms):
        return reference.gather_sum(values, indices, atoms) * (1 + 1e-3), values * 2

    def overwrites(values, indices, atoms):
        found = both(values, indices, atoms)
        values.data.mul_(2)
        return found

    check_kernel(both, both, *cases())
    with pytest.raises(LawBroken, match="case 0: the gradient of output 1 to argument 0"):
        check_kernel(loses_the_second, both, *cases())
    with pytest.raises(LawBroken, match="output 0 differs"):
        check_kernel(wrong_value, both, *cases())
    with pytest.raises(LawBroken, match="2 outputs, the reference 1"):
        check_kernel(both, reference.gather_sum, *cases())
    with pytest.raises(LawBroken, match="carries no gradient"):
        check_kernel(lambda *a: both(*a)[0].detach(), reference.gather_sum, *cases())
    with pytest.raises(LawBroken, match="argument 0, which is not to be changed"):
        check_kernel(overwrites, both, *cases())
    with pytest.raises(LawBroken, match=r"output 0 is torch\.float32"):
        check_kernel(lambda *a: reference.gather_sum(*a).float(), reference.gather_sum, *cases())


def test_codes_are_compared_part_by_part():
    class Coded(Noise):
        def batch(self, size, generator, index):
            code = SparseCode(
                torch.rand(size, 1, generator=generator), torch.zeros(size, 1, dtype=torch.long), 4 + index
            )
            return Activations(torch.randn(size, self.d, generator=generator), code=code)

    with pytest.raises(LawBroken, match="another number of features"):
        check_source(Coded())
