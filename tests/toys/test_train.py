from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import FormatError
from superscope.features import Correlated, ExactlyK, Fixed, Independent, Uniform
from superscope.measure.toy import dimensionalities
from superscope.toys import (
    FAMILIES,
    AbsoluteValue,
    And,
    Ensemble,
    Family,
    Recipe,
    ReLUHidden,
    ResidualMLP,
    Tied,
    Untied,
    attacked,
    best_of,
    train,
)
from superscope.toys.family import mix
from superscope.toys.train import _GRADIENTS, _Batches, _uniforms

MODELS = [
    Tied(5, 2),
    Tied(5, 2, "linear"),
    Untied(5, 2),
    Untied(5, 2, "linear", bias=False),
    ReLUHidden(5, 3),
    ReLUHidden(5, 3, hidden_bias=True),
    AbsoluteValue(5, 4),
    And(5, 4),
    ResidualMLP(5, 3),
    ResidualMLP(5, 3, width=4),
]


def law_for(family, p=0.3):
    magnitude = Fixed() if isinstance(family, And) else Uniform(-1.0, 1.0)
    if isinstance(family, Tied | Untied | ReLUHidden):
        magnitude = Uniform()
    return Independent(family.n, p, magnitude)


def run(ensemble, recipe):
    steps = list(train(ensemble, recipe, every=max(1, recipe.steps // 2)))
    return ensemble, steps


def same(a, b):
    return all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)


def test_every_family_is_among_the_models():
    assert {type(model) for model in MODELS} == set(FAMILIES)


@pytest.mark.parametrize("family", MODELS, ids=repr)
@pytest.mark.parametrize("l1", [0.0, 0.1])
def test_written_gradients_agree_with_autograd(family, l1):
    g = torch.Generator().manual_seed(0)
    parameters = {
        name: 0.5 * torch.randn(3, *shape, generator=g, dtype=torch.float64) for name, shape in family.shapes().items()
    }
    f = law_for(family).draw(torch.rand(3, 40, 5, generator=g, dtype=torch.float64))
    seen = f + 0.05
    for importance in (None, torch.rand(3, family.outputs, generator=g, dtype=torch.float64)):
        loss, slopes = family.loss_gradient(parameters, f, importance, l1, seen)
        expected_loss, expected = Family.loss_gradient(family, parameters, f, importance, l1, seen)
        assert torch.allclose(loss, expected_loss)
        for name in parameters:
            assert torch.allclose(slopes[name], expected[name], atol=1e-12), name


def offers(family, estimator):
    linear = not family.activation_is_relu()
    if estimator == "exact":
        return isinstance(family, Tied | Untied)
    no_responses = isinstance(family, And | ResidualMLP) or getattr(family, "hidden_bias", False)
    return estimator == "sampled" or not (linear or no_responses)


@pytest.mark.parametrize("family", MODELS, ids=repr)
@pytest.mark.parametrize("estimator", ["sampled", "stratified", "exact"])
def test_a_model_is_the_same_alone_and_in_a_crowd(family, estimator):
    laws = [law_for(family, p) for p in torch.linspace(0.05, 0.9, 11).tolist()]
    recipe = Recipe(steps=12, batch=64, lr=0.01, estimator=estimator)
    crowd = Ensemble(family, laws, seeds=range(11))
    if not offers(family, estimator):
        with pytest.raises(TypeError, match="Use the estimator"):
            run(crowd, recipe)
        return
    run(crowd, recipe)
    for model in (0, 7):
        alone, _ = run(Ensemble(family, laws[model], seeds=model), recipe)
        assert same(alone, crowd.select([model])), model


@pytest.mark.parametrize("estimator", ["sampled", "exact"])
@pytest.mark.parametrize("family", [Tied(6, 2), Tied(7, 3, "linear"), Untied(6, 3)], ids=repr)
def test_in_float64_too_where_no_later_rounding_hides_an_order_of_sums(family, estimator):
    laws = [law_for(family, p) for p in torch.linspace(0.05, 0.9, 11).tolist()]
    recipe = Recipe(steps=6, batch=64, lr=0.01, estimator=estimator)
    crowd, _ = run(Ensemble(family, laws, seeds=range(11), dtype=torch.float64), recipe)
    for model in (0, 7, 10):
        alone, _ = run(Ensemble(family, laws[model], seeds=model, dtype=torch.float64), recipe)
        assert same(alone, crowd.select([model])), model
        assert torch.equal(alone.expected_loss()[0][0], crowd.expected_loss()[0][model])


def test_a_large_model_is_the_same_alone_and_in_a_crowd():
    laws = [Independent(150, p) for p in (0.5, 0.1, 0.02)]
    recipe = Recipe(steps=5, batch=1024)
    crowd, _ = run(Ensemble(Tied(150, 10), laws), recipe)
    alone, _ = run(Ensemble(Tied(150, 10), laws[1]), recipe)
    assert same(alone, crowd.select([1]))


@pytest.mark.parametrize("p", [0.1, 1.0, (0.02, 0.5, 0.9) * 50])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_large_models_have_the_gradient_of_their_batch(p, activation):
    law, importance = Independent(150, p), torch.linspace(0.1, 2, 150)
    ensemble = Ensemble(Tied(150, 10, activation), law, importance, seeds=4, dtype=torch.float64)
    ensemble.parameters["b"] += 0.1
    loss, slopes = _GRADIENTS["sampled"](ensemble, Recipe(batch=1024))(2, True)
    f = law.draw(_uniforms(mix(4, 3), (1024, 150), torch.float64))[None]
    expected = ensemble.family.loss_gradient(ensemble.parameters, f, importance[None].double())
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-6)
    for name, slope in expected[1].items():
        assert torch.allclose(slopes[name], slope, atol=1e-6 * float(slope.abs().max())), name


def test_phase_diagram_kernel_is_the_same_alone_and_in_a_crowd():
    laws = [Independent(2, p) for p in torch.linspace(0.1, 1, 30).tolist()]
    recipe = Recipe(steps=20, lr=0.02, estimator="exact")
    crowd, _ = run(Ensemble(Tied(2, 1), laws, seeds=range(30)), recipe)
    alone, _ = run(Ensemble(Tied(2, 1), laws[13], seeds=13), recipe)
    assert same(alone, crowd.select([13]))


def test_models_with_different_kinds_of_laws_train_side_by_side():
    laws = [Independent(6, 0.2), Correlated(3, 2, 0.2), ExactlyK(6, 2), Independent(6, 0.4), Independent(6, 0.5)]
    recipe = Recipe(steps=6, batch=32)
    crowd, _ = run(Ensemble(Tied(6, 2), laws), recipe)
    for model, law in enumerate(laws):
        alone, _ = run(Ensemble(Tied(6, 2), law), recipe)
        assert same(alone, crowd.select([model])), law
    assert bool(torch.isfinite(crowd.parameters["W"]).all())


@pytest.mark.parametrize("estimator", ["sampled", "stratified", "exact"])
def test_resumed_training_is_bit_equal(tmp_path, estimator):
    def fresh():
        return Ensemble(Tied(5, 2), [Independent(5, p) for p in (0.05, 0.3)], [1.0, 0.9, 0.8, 0.7, 0.6], seeds=[4, 5])

    recipe = Recipe(steps=30, batch=32, schedule="cosine", estimator=estimator)
    whole, _ = run(fresh(), recipe)
    first = fresh()
    for step in train(first, recipe, every=1):
        if step.index == 13:
            break
    first.save(tmp_path / "state.safetensors")
    again = fresh()
    again.restore(tmp_path / "state.safetensors")
    assert again.step == 13
    run(again, recipe)
    assert same(again, whole)


def test_state_of_other_models_is_refused(tmp_path):
    Ensemble(Tied(5, 2), Independent(5, 0.1)).save(tmp_path / "state.safetensors")
    with pytest.raises(FormatError, match="other models"):
        Ensemble(Tied(5, 2), Independent(5, 0.2)).restore(tmp_path / "state.safetensors")


def test_divergence_is_data():
    ensemble = Ensemble(Tied(4, 2), [Independent(4, 0.3), Independent(4, 0.3)], seeds=[0, 1])
    alone, _ = run(ensemble.select([1]), Recipe(steps=20, batch=32))
    ensemble.parameters["W"][0] = 1e30
    _, steps = run(ensemble, Recipe(steps=20, batch=32))
    assert ensemble.diverged.tolist() == [True, False]
    assert not math.isfinite(float(steps[-1].loss[0]))
    assert torch.equal(ensemble.parameters["W"][1], alone.parameters["W"][0])
    assert best_of(ensemble.expected_loss()[0], ["a", "a"]) == {"a": 1}


def test_adamw_is_torchs():
    ensemble = Ensemble(Tied(6, 2), Independent(6, 0.4), seeds=3)
    W = torch.nn.Parameter(ensemble.parameters["W"][0].clone())
    b = torch.nn.Parameter(ensemble.parameters["b"][0].clone())
    optimizer = torch.optim.AdamW([W, b], lr=3e-3)
    recipe = Recipe(steps=25, batch=64, lr=3e-3)

    batches = _Batches(ensemble, recipe)
    for index in range(25):
        f = ensemble.laws[0].draw(batches.uniforms(index, slice(0, 1)))
        loss = ((f - torch.relu(f @ W @ W.T + b)) ** 2).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run(ensemble, recipe)
    assert torch.allclose(ensemble.parameters["W"][0], W.detach(), atol=1e-5)
    assert torch.allclose(ensemble.parameters["b"][0], b.detach(), atol=1e-5)


def test_start_does_not_depend_on_the_crowd_and_has_xaviers_scale():
    family = Tied(200, 20)
    norms = Ensemble(family, Independent(200, 0.1), seeds=0).atoms.norm(dim=-1)
    assert float(norms.mean()) == pytest.approx((20 * 2 / 220) ** 0.5, rel=0.05)
    many = Ensemble(family, Independent(200, 0.1), seeds=range(30))
    assert torch.equal(many.parameters["W"][0], Ensemble(family, Independent(200, 0.1), seeds=0).parameters["W"][0])


def test_common_random_numbers_leave_each_law_as_it_is():

    laws = [Independent(4, p) for p in (0.05, 0.3, 1.0)]
    ensemble = Ensemble(Tied(4, 2), laws)
    batches = _Batches(ensemble, Recipe(batch=20_000))
    u = batches.uniforms(0, slice(0, 3))
    for law in laws:
        f = law.draw(u).double()
        rows = f.shape[0]
        assert torch.allclose((f != 0).double().mean(0), law.density, atol=5 * 0.5 / rows**0.5)
        assert torch.allclose(f.mean(0), law.mean, atol=5 * 0.6 / rows**0.5)
        assert torch.allclose(torch.cov(f.T), law.covariance, atol=5 * 0.4 / rows**0.5)
    # Another step and another seed give other rows.
    assert not torch.equal(u, batches.uniforms(1, slice(0, 3)))


def test_linear_model_reaches_its_optimum():
    importance = 0.7 ** torch.arange(8)
    ensemble = Ensemble(Tied(8, 3, "linear"), Independent(8, 0.1), importance, seeds=range(2))
    run(ensemble, Recipe(steps=1200, lr=0.02, schedule="cosine", weight_decay=0.0, estimator="exact"))
    best = 0.1 / 3 - 0.01 / 4
    expected = best * float(importance.double()[3:].sum())
    loss, _ = ensemble.expected_loss()
    assert expected * (1 - 1e-6) <= float(loss.min()) <= expected * 1.001


def test_pentagon():
    ensemble = Ensemble(Tied(5, 2), Independent(5, 0.05), seeds=range(4))
    run(ensemble, Recipe(steps=300, lr=0.03, schedule="cosine", weight_decay=0.0, estimator="exact"))
    best = best_of(ensemble.expected_loss()[0], ["all"] * 4)["all"]
    W = ensemble.atoms[best]
    angles = torch.rad2deg(torch.atan2(W[:, 1], W[:, 0])).sort().values
    gaps = torch.cat([angles.diff(), angles[:1] + 360 - angles[-1:]])
    assert torch.allclose(gaps, torch.full((5,), 72.0), atol=3)
    assert torch.allclose(W.norm(dim=1), torch.full((5,), 1.135), atol=0.02)


def test_small_sweep_stands_on_the_digon_plateau():
    laws = [Independent(100, p) for p in (0.4, 0.3)]
    ensemble = Ensemble(Tied(100, 10), laws)
    run(ensemble, Recipe(steps=2500, batch=256, lr=3e-3, schedule="linear", weight_decay=0.0))
    W = ensemble.atoms.double()
    D = dimensionalities(W)
    star = 10 / W.square().sum((1, 2))
    assert bool(((star > 0.48) & (star < 0.54)).all()), star
    assert bool((D.sum(1) > 9.9).all())
    for e in range(2):
        stored = W[e].norm(dim=1) > 0.5
        assert float(((D[e][stored] - 0.5).abs() < 0.02).double().mean()) >= 0.95


def test_attack_pushes_by_its_reach_along_a_row_of_responses():
    g = torch.Generator().manual_seed(0)
    W = torch.randn(2, 4, 2, generator=g)
    G = W @ W.mT
    f = torch.rand(2, 50, 4, generator=g)
    pushed = attacked(G, f, torch.rand(50, generator=g), torch.tensor([0.1, 0.5])) - f
    assert torch.allclose(pushed.norm(dim=-1), torch.tensor([[0.1], [0.5]]).expand(2, 50), atol=1e-5)
    directions = G / G.norm(dim=-1, keepdim=True)
    cosines = (pushed[1] @ directions[1].T) / 0.5
    assert torch.allclose(cosines.max(1).values, torch.ones(50), atol=1e-4)


@settings(max_examples=10)
@given(st.integers(0, 10), st.integers(0, 3), st.sampled_from(["constant", "linear", "cosine"]))
def test_learning_rate(warmup, at, schedule):
    recipe = Recipe(steps=20, lr=0.1, warmup=warmup, schedule=schedule)
    assert 0 < recipe.rate(at) <= 0.1
    if schedule != "constant":
        assert recipe.rate(19) < recipe.rate(12)


def test_negative_decay_pulls_norms_to_one():
    ensemble = Ensemble(Tied(4, 8), Independent(4, 1e-9), seeds=0)
    run(ensemble, Recipe(steps=400, batch=4, lr=0.02, weight_decay=-1.0))
    assert torch.allclose(ensemble.atoms.norm(dim=-1), torch.ones(4), atol=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Tied(0, 1), "n must be at least 1"),
        (lambda: Tied(3, -1), "d must be at least 1"),
        (lambda: And(1, 3), "n must be at least 2"),
        (lambda: ResidualMLP(3, 3, width=0), "width must be at least 1"),
        (lambda: Recipe(steps=0), "steps must be at least 1"),
        (lambda: Recipe(lr=0.0), "lr must be finite and above 0"),
        (lambda: Recipe(lr=math.nan), "lr must be finite"),
        (lambda: Recipe(batch=0), "batch must be at least 1"),
        (lambda: Recipe(l1=-1.0), "l1 must be"),
        (lambda: Recipe(estimator="exact", attack=0.1), "need the estimator 'sampled'"),
        (lambda: Ensemble(Tied(3, 2), Independent(4, 0.5)), "law of 4 features for models of n = 3"),
        (lambda: Ensemble(Tied(3, 2), [Independent(3, 0.5)] * 2, seeds=[1, 2, 3]), "2 laws for 3 models"),
        (lambda: Ensemble(Tied(3, 2), Independent(3, 0.5), [1.0, 1.0]), "importance must have shape"),
        (lambda: Ensemble(Tied(3, 2), Independent(3, 0.5), [1.0, 1.0, -1.0]), "importance must be finite and >= 0"),
        (lambda: next(train(Ensemble(Tied(3, 2), Independent(3, 0.5)), Recipe(), every=0)), "every must be at least 1"),
        (lambda: best_of(torch.ones(2), ["a"]), "1 groups for 2 losses"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("family", "law", "estimator"),
    [
        (Tied(9, 2), Independent(9, 0.5), "exact"),
        (Tied(3, 2), Independent(3, 0.5, Uniform(0.0, 2.0)), "exact"),
        (ReLUHidden(3, 2), Independent(3, 0.5), "exact"),
        (Tied(4, 2), Correlated(2, 2, 0.5), "stratified"),
        (Tied(4, 2, "linear"), Independent(4, 0.5), "stratified"),
        (AbsoluteValue(4, 2), Independent(4, 0.5), "stratified"),
        (ReLUHidden(4, 2, hidden_bias=True), Independent(4, 0.5), "stratified"),
    ],
)
def test_estimators_that_do_not_fit_say_so(family, law, estimator):
    with pytest.raises(TypeError, match="Use the estimator|needs independent features"):
        next(train(Ensemble(family, law), Recipe(steps=1, estimator=estimator)))
