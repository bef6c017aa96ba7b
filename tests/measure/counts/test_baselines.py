"""Baselines say what their sources say, failures included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from superscope.capture import MemorySource
from superscope.core import Activations
from superscope.dictionaries import SHORT, TopK, train
from superscope.features import Independent, Uniform
from superscope.measure import Evidence, Wanted, effective_number
from superscope.measure.counts.baselines import BASELINES, TiedEntropy
from superscope.measure.counts.baselines.intrinsic import neighbour_distances, neighbour_likelihood, two_nn
from superscope.measure.counts.baselines.tied import tied_entropy
from superscope.toys import Ensemble, Recipe, Tied
from superscope.toys import train as train_toys

# Made with scikit-dimension 0.5.0 of the very rows below:
#   python -c "import numpy as np, skdim; r = np.random.default_rng(0); x = r.normal(size=(300, 5));
#   print(skdim.id.TwoNN().fit(x).dimension_, skdim.id.MLE().fit(x).dimension_,
#   skdim.id.MLE().fit(x, n_neighbors=10).dimension_); t = r.uniform(size=(400, 2));
#   y = np.c_[t, np.sin(3 * t), t[:, :1] * t[:, 1:]]; print(...the same of y)"
SCIKIT_DIMENSION = {
    "ball": (4.602505517659335, 4.794887963682109, 4.996748006929375),
    "curved": (2.0676709020722224, 1.975611003773945, 1.962131443479861),
}


def clouds() -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    ball = random.normal(size=(300, 5))
    t = random.uniform(size=(400, 2))
    return {
        "ball": torch.from_numpy(ball),
        "curved": torch.from_numpy(np.c_[t, np.sin(3 * t), t[:, :1] * t[:, 1:]]),
    }


@pytest.mark.parametrize("name", ["ball", "curved"])
def test_intrinsic_dimensions_are_those_of_scikit_dimension(name: str) -> None:
    x, (nearest, twenty, ten) = clouds()[name], SCIKIT_DIMENSION[name]
    assert two_nn(x) == pytest.approx(nearest, rel=1e-6)
    assert neighbour_likelihood(x) == pytest.approx(twenty, rel=1e-6)
    assert neighbour_likelihood(x, k=10) == pytest.approx(ten, rel=1e-6)


def test_neighbours_are_the_nearest_others_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clouds()["ball"][:50]
    whole = torch.cdist(x, x).fill_diagonal_(math.inf).sort(1).values[:, :3]
    monkeypatch.setattr("superscope.measure.counts.baselines.intrinsic._BLOCK", 120)
    assert torch.allclose(neighbour_distances(x, 3), whole)
    with pytest.raises(ValueError, match="at least 51"):
        neighbour_distances(x, 50)


@pytest.fixture(scope="module")
def noise() -> Evidence:
    """Gaussian rows and three dictionaries learned of them."""
    x = torch.randn(12_000, 16, generator=torch.Generator().manual_seed(0))
    source, learned = MemorySource(x[:10_000]), {}
    for seed in range(3):
        sae = TopK(d=16, n=64, k=2, seed=seed)
        for _ in train(sae, source, steps=300, **{**SHORT, "batch": 512, "seed": seed}):
            pass
        learned[Wanted(64, 2, seed)] = sae
    return Evidence(rows=list(source.rows()), held=[Activations(x[10_000:])], learned=learned)


def answers(seen: Evidence) -> dict:
    found = {}
    for counter in BASELINES:
        wanted = counter.wants(64, 2, (0, 1, 2))
        first = next(iter(counter.count(seen, wanted)))
        assert first.name == counter.name
        found[first.name] = first
    return found


def test_on_noise_widths_and_dimensions_come_back(noise) -> None:
    found = answers(noise)
    assert found["entropy_effective_latents"].value > 0.9 * 64
    assert found["alive_latents"].value == 64
    assert found["participation_ratio"].value == pytest.approx(16, abs=0.5)
    # Between nothing and the width: F of a tied autoencoder is about 2 d, and its chance level says so.
    tied = found["tied_entropy"]
    assert 16 < tied.value
    assert tied.value == pytest.approx(tied.chance, rel=0.15)
    # Neighbours of 2 000 rows in 16 dimensions are too far for the right number.
    assert 8 < found["two_nn_dimension"].value < 16
    assert 8 < found["likelihood_dimension"].value < 16
    # Half of the others is one of two here: a quarter of the latents are "stable" in noise, and chance is near 0.
    assert 4 < found["stable_latents"].value < 32


def test_copies_and_constant_rows_are_abstentions(noise) -> None:
    for x, words in ((torch.ones(2000, 4), "too few"), (torch.zeros(2000, 1), "too few")):
        seen = Evidence(rows=[Activations(x)], held=[Activations(x)], learned={})
        for counter in BASELINES:
            if counter.name in ("two_nn_dimension", "likelihood_dimension"):
                first = next(iter(counter.count(seen, ())))
                assert first.value is None
                assert words in first.caution
    constant = Evidence(rows=[Activations(torch.ones(2000, 4))], held=[], learned={})
    assert next(iter(TiedEntropy().count(constant, ()))).caution == "x is constant."
    one_seed = (Wanted(64, 2, 0),)
    for counter in BASELINES:
        if counter.name in ("stable_latents", "pooled_features"):
            assert "at least 2" in next(iter(counter.count(noise, one_seed))).caution


def toys(count: int = 40):
    """20 features, 5 dimensions, importance 0.7^i, densities from 0.001 to 1 in the order of the sweep."""
    densities = torch.logspace(math.log10(0.999), -3, count).tolist()
    laws = [Independent(20, density, magnitude=Uniform(0.0, 1.0)) for density in densities]
    importance = 0.7 ** torch.arange(20.0)
    ensemble = Ensemble(Tied(20, 5), laws, importance=importance, seeds=list(range(count)))
    for _ in train_toys(ensemble, Recipe(steps=3500, batch=1024, weight_decay=0.0), every=3500):
        pass
    W = ensemble.parameters["W"]
    rows = []
    for model, law in enumerate(laws):
        f = law.sample(10_000, generator=torch.Generator().manual_seed(1000 + model)).dense()
        rows.append(f @ W[model])
    return W, torch.stack(rows)


@pytest.mark.slow
def test_the_published_correlation_and_the_bias_that_it_hides() -> None:
    """Bereska et al., section 5.1: r = 0.94 between F of the autoencoder and F of W; a weak lambda multiplies F."""
    W, x = toys()
    on_weights = effective_number(W.norm(dim=2))
    published = tied_entropy(x, 40, coefficient=0.1)
    r = float(torch.corrcoef(torch.stack([published, on_weights]))[0, 1])
    assert r >= 0.92
    assert float((published / on_weights).mean()) == pytest.approx(1.0, abs=0.15)
    weak = tied_entropy(x, 40, coefficient=0.01, mean_loss=True)
    bias = float((weak / on_weights).mean())
    assert bias > 2.5
    assert float(torch.corrcoef(torch.stack([weak, on_weights]))[0, 1]) > 0.8
