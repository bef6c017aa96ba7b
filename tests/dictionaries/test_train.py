from __future__ import annotations

import pytest
import torch

from superscope.core import Activations, ActivationSource, ShapeError
from superscope.dictionaries import TopK, train
from superscope.dictionaries.sae.base import geometric_median
from superscope.dictionaries.train import rows_for_dead, trapezoid

PARAMETERS = ("encoder", "encoder_bias", "atoms", "bias")


def trained(world, *, steps=40, n=32, k=2, **arguments):
    sae = TopK(world.d, n, k, seed=1)
    history = list(train(sae, world, steps=steps, batch=64, lr=0.01, **arguments))
    return sae, history


@pytest.fixture(scope="module")
def recovered(sparse_world):
    world = sparse_world(64, 24, 3, scale=7.0, offset=2.0)
    sae = TopK(24, 128, 3, seed=0)
    return world, sae, list(train(sae, world, steps=700, batch=512, lr=0.01))


def test_recovers_the_truth_of_a_sparse_world(recovered):
    world, sae, history = recovered
    nearest = (world.W.atoms @ sae.atoms.detach().T).amax(1)
    assert float(nearest.mean()) >= 0.98
    assert history[-1].numbers["fraction_variance_unexplained"] < 0.12
    assert history[-1].numbers["fraction_variance_unexplained"] < history[0].numbers["fraction_variance_unexplained"]


def test_atoms_stay_on_the_sphere(recovered):
    _, sae, _ = recovered
    torch.testing.assert_close(sae.dictionary.norms, torch.ones(128))


def test_steps_report_their_numbers(recovered):
    _, _, history = recovered
    assert [step.index for step in history] == list(range(1, 701))
    assert set(history[0].numbers) == {"fraction_variance_unexplained", "l0", "dead", "rows_per_second"}
    assert all(0 < step.numbers["l0"] <= 3 for step in history)


def test_twice_the_same_bits(sparse_world):
    world = sparse_world(16, 8, 2)
    first, one = trained(world, seed=3)
    second, two = trained(world, seed=3)
    assert [step.loss for step in one] == [step.loss for step in two]
    for name in PARAMETERS:
        assert torch.equal(getattr(first, name), getattr(second, name))
    other, _ = trained(world, seed=4)
    assert not torch.equal(first.atoms, other.atoms)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_training_does_not_depend_on_the_units_of_x(sparse_world, scale):
    plain, _ = trained(sparse_world(16, 8, 2, offset=0.5))
    scaled, _ = trained(sparse_world(16, 8, 2, scale=scale, offset=0.5 * scale))
    for name in ("encoder", "atoms"):
        torch.testing.assert_close(getattr(scaled, name), getattr(plain, name), rtol=1e-3, atol=1e-3)
    for name in ("encoder_bias", "bias"):
        torch.testing.assert_close(getattr(scaled, name) / scale, getattr(plain, name), rtol=1e-3, atol=1e-3)


def test_stopping_early_leaves_a_whole_sae(sparse_world):
    world = sparse_world(16, 8, 2, scale=50.0, offset=20.0)
    sae = TopK(8, 32, 2)
    for step in train(sae, world, steps=1000, batch=64):
        if step.index == 5:
            break
    x = next(world.batches(64, seed=9)).x
    error = (x - sae(x).detach()).square().sum() / (x - x.mean(0)).square().sum()
    assert float(error) < 1.0
    torch.testing.assert_close(sae.dictionary.norms, torch.ones(32))


def test_no_steps_change_nothing(sparse_world):
    sae = TopK(8, 32, 2)
    before = sae.encoder.clone()
    assert list(train(sae, sparse_world(16, 8, 2), steps=0)) == []
    assert torch.equal(sae.encoder, before)


def test_start_is_the_least_squares_scale(sparse_world):
    world = sparse_world(16, 8, 2, scale=3.0, offset=1.0)
    x = next(world.batches(256, seed=0)).x
    sae = TopK(8, 32, 2)
    sae.start(x)
    torch.testing.assert_close(sae.bias.detach(), x.mean(0))

    def squared(factor):
        other = TopK(8, 32, 2)
        other.load_state_dict(sae.state_dict())
        with torch.no_grad():
            other.encoder.mul_(factor)
        return float((x - other(x).detach()).square().sum())

    assert squared(1.0) < min(squared(0.99), squared(1.01))


def test_geometric_median_known_answers():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator)
    # A vertex of an equilateral triangle's centre; far outliers do not move it much, while they move the mean.
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    torch.testing.assert_close(geometric_median(triangle), triangle.mean(0), atol=1e-4, rtol=0)
    spoiled = torch.cat([x, torch.full((10, 3), 1e4)])
    assert float(geometric_median(spoiled).norm()) < 1 < float(spoiled.mean(0).norm())
    torch.testing.assert_close(geometric_median(x + 5), geometric_median(x) + 5, atol=1e-4, rtol=0)
    same = torch.ones(4, 2)
    assert torch.equal(geometric_median(same), same[0])


def test_median_start_resists_outliers(held):
    x = torch.randn(1024, 4, generator=torch.Generator().manual_seed(0))
    x[::100] += 1e3
    sae = TopK(4, 8, 1)
    next(train(sae, held(x), steps=10, batch=512, lr=1e-9, centre="median"))
    assert float(sae.bias.detach().norm()) < 1


def test_trapezoid_rises_stays_and_falls():
    factors = [trapezoid(100, 0.1, 0.2)(i) for i in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10:80] == [1.0] * 70
    assert factors[-1] == pytest.approx(0.05)
    assert all(0 < f <= 1 for f in factors)
    assert trapezoid(10, 0.0, 0.0)(9) == 1.0


def test_auxiliary_loss_is_the_definition_and_its_gradients_stay_with_the_dead():
    sae = TopK(5, 12, 2, seed=0).double()
    generator = torch.Generator().manual_seed(1)
    x, error = (torch.randn(9, 5, generator=generator).double() for _ in range(2))
    dead = torch.zeros(12, dtype=torch.bool)
    dead[[1, 4, 7, 8]] = True
    loss = sae.auxiliary(x, error, dead, 3)
    pre = (x - sae.bias) @ sae.encoder.T + sae.encoder_bias
    pre = torch.where(dead, pre, -torch.inf)
    values, indices = pre.topk(3, dim=1)
    f = torch.zeros(9, 12).double().scatter(1, indices, values.relu())
    expected = (error - f @ sae.atoms).square().sum() / error.square().sum()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    found = {name: getattr(sae, name).grad.clone() for name in ("encoder", "encoder_bias", "atoms")}
    sae.zero_grad()
    expected.backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, getattr(sae, name).grad)
        assert (gradient[~dead] == 0).all()
        assert (gradient[dead] != 0).any()


def test_dead_latents_come_back_with_the_auxiliary_loss(sparse_world):
    world = sparse_world(24, 8, 2)

    def outcome(auxiliary):
        sae = TopK(8, 48, 2, seed=0)
        steps = train(sae, world, steps=150, batch=128, lr=0.01, dead_after=500, auxiliary=auxiliary, initialise=False)
        with torch.no_grad():
            # 8 left for 24 features. The others stay positive but are never among the two largest: so a TopK's die.
            sae.encoder[8:] *= 0.1
        history = list(steps)
        fired = torch.zeros(48, dtype=torch.bool)
        code = sae.encode(next(world.batches(2000, seed=77)).x)
        fired[code.indices[code.values > 0]] = True
        return int(fired.sum()), history[-1].numbers["fraction_variance_unexplained"], history[10].numbers["dead"]

    alone, alone_unexplained, dead = outcome(0.0)
    helped, helped_unexplained, _ = outcome(1 / 32)
    assert dead >= 30
    assert helped >= alone + 6
    assert helped_unexplained < 0.9 * alone_unexplained


class Broken(ActivationSource):
    d = 4

    def __init__(self, spoil):
        self.spoil = spoil

    def batches(self, size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        for index in range(5):
            x = torch.randn(size, 4, generator=generator)
            if index == 2:
                x[7, 1] = self.spoil
            yield Activations(x, places=torch.stack([torch.arange(size), torch.arange(size) + 100], 1))


@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_nan_activations_name_batch_row_and_place(spoil):
    steps = train(TopK(4, 8, 1), Broken(spoil), steps=5, batch=16)
    with pytest.raises(FloatingPointError, match=r"batch 2 .* row 7 \(sequence 7, position 107\)"):
        list(steps)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e6])
def test_constant_activations_are_refused(held, value):
    with pytest.raises(ValueError, match="constant"):
        list(train(TopK(4, 8, 1), held(torch.full((64, 4), value)), steps=5, batch=16))


def test_a_finite_source_is_asked_again_in_another_order(held):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    source = held(x)
    asked = []
    whole = source.batches
    source.batches = lambda size, *, seed: asked.append(seed) or whole(size, seed=seed)
    assert len(list(train(TopK(4, 8, 1), source, steps=10, batch=16))) == 10
    assert len(asked) == len(set(asked)) == 3


def test_a_source_smaller_than_a_batch_is_refused(held):
    with pytest.raises(ValueError, match="no batch of 2048 rows"):
        list(train(TopK(4, 8, 1), held(torch.randn(64, 4)), steps=1))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"steps": -1}, "steps must be at least 0; got -1"),
        ({"batch": 1}, "batch must be at least 2"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": float("nan")}, "lr must be positive"),
        ({"warmup": 1.5}, "warmup must be a share"),
        ({"decay": -0.1}, "decay must be a share"),
        ({"dead_after": 0}, "dead_after"),
        ({"auxiliary": -1.0}, "auxiliary must be"),
        ({"auxiliary_k": 0}, "auxiliary_k must be"),
    ],
)
def test_bad_arguments_are_named_at_the_call(sparse_world, arguments, says):
    with pytest.raises(ValueError, match=says):
        train(TopK(8, 16, 2), sparse_world(16, 8, 2), **({"steps": 1} | arguments))


def test_other_dimensions_are_refused(sparse_world):
    with pytest.raises(ShapeError, match="d = 8 and the SAE d = 9"):
        train(TopK(9, 16, 2), sparse_world(16, 8, 2), steps=1)


def test_dead_latents_are_fitted_on_fewer_rows_the_more_of_them_there_are() -> None:
    rows = torch.arange(8192)
    for n_dead in (1, 256):
        assert torch.equal(rows[rows_for_dead(n_dead, 4096, 8192)], rows)
    for n_dead in (257, 1000, 4096):
        some = rows[rows_for_dead(n_dead, 4096, 8192)]
        assert 0.5 * 8192 * 4096 / 16 < len(some) * n_dead <= 8192 * 4096 / 16
        starts = range(0, 8192, 1000)
        parts = [rows[first : first + 1000][rows_for_dead(n_dead, 4096, 8192, first=first)] for first in starts]
        assert torch.equal(torch.cat(parts), some)
    # A few hundred rows are never too many.
    for batch, least in ((100, 100), (511, 511), (1024, 256)):
        assert len(rows[:batch][rows_for_dead(4096, 4096, batch)]) == least
