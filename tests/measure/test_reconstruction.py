from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from superscope.core import Activations, Dictionary, ShapeError
from superscope.measure import cross_entropy_recovered, effective_number, evaluate, gini


@pytest.fixture
def scene(fixed, held):
    """Rows with a code that is right but for noise, spread over 20 documents of 2 sequences of 10 rows."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(12, 5, generator=generator)
    atoms /= atoms.norm(dim=1, keepdim=True)
    f = torch.rand(400, 12, generator=generator) * (torch.rand(400, 12, generator=generator) < 0.2)
    f[:, 11] = 0.0
    x = f @ atoms + 3.0 + 0.1 * torch.randn(400, 5, generator=generator)
    places = torch.stack([torch.arange(400) // 10, torch.arange(400) % 10], 1)
    coder = fixed(Dictionary(atoms, torch.full((5,), 3.0)), f, x)
    return coder, held(x, places), f, x


def test_against_the_definitions(scene):
    coder, source, f, x = scene
    found = evaluate(coder, source, documents=torch.arange(40) // 2, size=80)
    error = (x - coder.reconstruct(x)).double().square().sum()
    variance = (x - x.double().mean(0)).square().sum()
    assert found["fraction_variance_unexplained"].value == pytest.approx(float(error / variance))
    assert found["l0"].value == pytest.approx(float((f != 0).sum(1).double().mean()))
    assert found["alive_latents"].value == 11
    density = (f != 0).double().mean(0)
    torch.testing.assert_close(found.density, density)
    assert found["median_density"].value == pytest.approx(float(density[:11].median()))
    assert found["code_gini"].value == pytest.approx(float(gini(f).nanmean()))
    assert found["entropy_effective_latents"].value == pytest.approx(float(effective_number(f.sum(0))))
    torch.testing.assert_close(found.max_active, f.double().amax(0))
    torch.testing.assert_close(found.mean_active, f.double().sum(0) / (f != 0).sum(0).clamp(min=1))
    torch.testing.assert_close(found.mass, f.double().mean(0))
    assert found.tokens == 400
    for name in ("fraction_variance_unexplained", "l0", "code_gini", "entropy_effective_latents"):
        assert found[name].low < found[name].value < found[name].high
        assert "20 " in found[name].how
        assert "documents" in found[name].how
    assert "no interval" in found["alive_latents"].how


def test_the_order_and_size_of_batches_do_not_matter(scene):
    coder, source, _, _x = scene
    one, other = evaluate(coder, source, size=400, seed=0), evaluate(coder, source, size=50, seed=1)
    for a, b in zip(one, other, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-9)
    assert evaluate(coder, source, size=50, batches=3).tokens == 150


def test_predicting_the_mean_leaves_everything_unexplained(fixed):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 100.0
    silent = fixed(Dictionary(torch.eye(3), x.mean(0)), torch.zeros(50, 3), x)
    found = evaluate(silent, [Activations(x)])
    assert found["fraction_variance_unexplained"].value == pytest.approx(1, abs=1e-4)
    assert found["alive_latents"].value == 0
    for name in ("median_density", "entropy_effective_latents", "code_gini"):
        assert found[name].value is None
        assert found[name].caution


@pytest.mark.parametrize("offset", [0.0, 5.0, -1000.0])
@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
def test_a_large_mean_does_not_flatter(fixed, offset, scale):
    """The uncentred version would fall to 0 as the mean grows; this one must not move."""
    noise = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double()
    x = scale * (noise + offset)
    mean = torch.full((4,), scale * offset, dtype=torch.float64)
    half = fixed(Dictionary(torch.eye(4).double(), mean), scale * 0.5 * noise, x)
    expected = float((0.25 * noise**2).sum() / (noise - noise.mean(0)).square().sum())
    found = evaluate(half, [Activations(x)])["fraction_variance_unexplained"]
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_constant_and_missing_activations(fixed):
    x = torch.ones(5, 3)
    coder = fixed(Dictionary(torch.eye(3)), torch.zeros(5, 3), x)
    with pytest.raises(ValueError, match="constant"):
        evaluate(coder, [Activations(x)])
    with pytest.raises(ValueError, match="no activations"):
        evaluate(coder, [])
    with pytest.raises(KeyError, match="there are fraction_variance_unexplained"):
        evaluate(coder, [Activations(torch.eye(3))])["fvu"]


def losses(clean, spliced, ablated, tokens=10, sequences=8):
    noise = torch.linspace(-0.1, 0.1, sequences).double() * tokens
    made = [torch.full((sequences,), nats * tokens).double() + noise for nats in (clean, spliced, ablated)]
    return (*made, torch.full((sequences,), tokens))


def test_cross_entropy_by_hand():
    share, added = cross_entropy_recovered(*losses(2.0, 2.5, 6.0))
    assert share.value == pytest.approx(3.5 / 4)
    assert added.value == pytest.approx(0.5)
    assert added.reference == pytest.approx(4.0)
    assert share.n == added.n == 80
    assert (share.chance, share.reference) == (0.0, 1.0)
    assert share.low <= share.value <= share.high


def test_cross_entropy_weighs_tokens_not_sequences():
    clean, spliced, ablated = torch.tensor([1.0, 90.0]), torch.tensor([2.0, 90.0]), torch.tensor([3.0, 180.0])
    share, added = cross_entropy_recovered(clean, spliced, ablated, torch.tensor([1, 90]))
    assert share.value == pytest.approx(91 / 92)
    assert added.value == pytest.approx(1 / 91)


def test_cross_entropy_intervals_are_over_documents():
    arguments = losses(2.0, 2.5, 6.0)
    assert "8 sequences" in cross_entropy_recovered(*arguments)[0].how
    assert "4 documents" in cross_entropy_recovered(*arguments, documents=torch.arange(8) // 2)[0].how


def test_nothing_to_recover_is_undefined_not_a_number():
    share, added = cross_entropy_recovered(*losses(2.0, 2.5, 1.0), ablation="zero")
    assert share.value is None
    assert "zero ablation does not raise the loss" in share.caution
    assert added.value == pytest.approx(0.5)
    assert "uncertain" in cross_entropy_recovered(*losses(2.0, 2.001, 2.002))[0].caution


def test_cross_entropy_refuses_what_does_not_fit():
    clean, spliced, ablated, tokens = losses(2.0, 2.5, 6.0)
    with pytest.raises((ShapeError, TypeCheckError)):
        cross_entropy_recovered(clean[:3], spliced, ablated, tokens)
    with pytest.raises(ValueError, match="finite"):
        cross_entropy_recovered(clean * math.nan, spliced, ablated, tokens)
    with pytest.raises(ValueError, match="at least one token"):
        cross_entropy_recovered(clean, spliced, ablated, tokens * 0)
