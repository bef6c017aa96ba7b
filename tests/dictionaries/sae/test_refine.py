"""encode(refine=...): for every architecture and every format, by choice, and never for the worse."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from superscope import measure
from superscope.dictionaries import SAE, Refined, TopK, formats, train
from superscope.dictionaries.step import exchange
from superscope.dictionaries.transcoders import Crosscoder, Predictor
from superscope.recovery import REFINEMENTS, Refit, refit
from superscope.testing import CODER_LAWS, EVERY, example
from superscope.testing.coder import rows_for, started
from superscope.worlds import exactly_k

COMBINE = [architecture for architecture in EVERY if not issubclass(architecture, Predictor)]
NAMES = [refinement.name for refinement in REFINEMENTS]


def shifted(architecture) -> SAE:
    return started(lambda: example(architecture))


@pytest.mark.parametrize("refine", NAMES)
@pytest.mark.parametrize("architecture", COMBINE, ids=lambda a: a.__name__)
def test_no_row_of_any_architecture_gets_worse(architecture, refine):
    sae = shifted(architecture)
    x, _ = rows_for(sae, 80, seed=5)
    plain, refined = sae.encode(x), sae.encode(x, refine=refine)
    W, rows = sae.combination(x)
    before, after = ((rows - W.compose(code)).square().sum(1) for code in (plain, refined))
    assert (after <= before + 1e-12 * rows.square().sum(1)).all()
    assert after.sum() < before.sum()
    assert (refined.l0 <= plain.l0).all()
    assert sae.signed or (refined.values >= 0).all()
    if refine == "refit":
        assert not (refined.support & ~plain.support).any()
        # More latents than dimensions have many best values; what they add up to is one.
        wanted = W.compose(refit(W, rows, plain, nonnegative=not sae.signed))
        assert torch.allclose(W.compose(refined), wanted, atol=1e-9)
    if not isinstance(sae, Crosscoder):
        assert torch.equal(rows, x)


@pytest.mark.parametrize("architecture", EVERY, ids=lambda a: a.__name__)
def test_plain_codes_stay_what_they_were_and_signs_are_told_right(architecture):
    sae = shifted(architecture)
    x, _ = rows_for(sae, 200, seed=5)
    code = sae.encode(x)
    assert torch.equal(code.values, sae.encode(x, refine=None).values)
    assert sae.signed == bool((code.values < 0).any())


@pytest.mark.parametrize("law", CODER_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("refine", NAMES)
@pytest.mark.parametrize("architecture", [a for a in COMBINE if a is not Crosscoder], ids=lambda a: a.__name__)
def test_a_refined_autoencoder_keeps_the_laws_of_coders(architecture, refine, law):
    law(lambda: Refined(shifted(architecture), refine))


@pytest.mark.parametrize("architecture", [a for a in EVERY if a not in COMBINE], ids=lambda a: a.__name__)
def test_what_adds_up_to_something_else_is_refused_in_a_sentence(architecture):
    sae = shifted(architecture)
    x, _ = rows_for(sae, 4)
    with pytest.raises(TypeError, match=r"adds up to another activation than x.*Leave out `refine`"):
        sae.encode(x, refine="refit")


def test_a_part_of_a_dictionary_is_refused():
    class Elsewhere(exchange.Exchange):
        pass

    sae = TopK(d=6, n=12, k=3)
    with exchange.using(Elsewhere()), pytest.raises(ValueError, match="Gather the dictionary"):
        sae.encode(torch.ones(2, 6), refine="refit")


def test_shapes_gradients_and_names():
    sae = TopK(d=6, n=12, k=3)
    for shape in ((6,), (0, 6), (2, 0, 6), (2, 3, 6)):
        code = sae.encode(torch.ones(shape), refine="pursuit")
        assert code.values.shape == (*shape[:-1], 3)
        assert not code.values.requires_grad
    with pytest.raises(ValueError, match="Known: refit, pursuit"):
        sae.encode(torch.ones(2, 6), refine="sharpen")
    assert torch.equal(
        sae.encode(torch.ones(2, 6), refine=Refit()).values, sae.encode(torch.ones(2, 6), refine="refit").values
    )


@pytest.mark.parametrize("format", [f for f in formats.FORMATS if f.write is not None], ids=lambda f: f.name)
def test_imported_dictionaries_are_refined_in_their_own_units(format, tmp_path):
    sae = started(lambda: example(TopK, k=3), dtype=torch.float32)
    if format.name == "openai" or format.name.startswith("gemma"):
        from superscope.dictionaries import ReLU

        sae = started(lambda: example(ReLU), dtype=torch.float32)
    x, _ = rows_for(sae, 60, seed=4)
    where = tmp_path / f"sae{format.suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formats.write(sae, where, format.name)
        imported = formats.read(where)
    for refine in NAMES:
        before, after = (
            (x - y).square().sum(1) for y in (imported.reconstruct(x), imported.reconstruct(x, refine=refine))
        )
        assert (after <= before + 1e-5 * x.square().sum(1)).all()
        assert after.sum() < before.sum()
    assert torch.allclose(imported.codes(x, refine="refit").dense(), sae.encode(x, refine="refit").dense(), atol=1e-3)


def test_on_a_world_refitting_brings_values_and_pursuit_supports():
    world = exactly_k()
    sae = TopK(d=64, n=256, k=4)
    for _ in train(sae, world, steps=400, batch=512):
        pass
    held = [next(world.batches(2048, seed=9))]
    f1, r2, unexplained = {}, {}, {}
    for name, coder in {"plain": sae, "refit": Refined(sae, "refit"), "pursuit": Refined(sae, "pursuit")}.items():
        scores = measure.code_scores(coder, held, world.dictionary)
        f1[name], r2[name] = scores["support_f1"].value, scores["feature_value_r2"].value
        unexplained[name] = measure.evaluate(coder, held)["fraction_variance_unexplained"].value
    assert unexplained["pursuit"] < unexplained["refit"] < unexplained["plain"]
    # Fitting values can turn a latent off, not on: the supports hardly change.
    assert math.isclose(f1["refit"], f1["plain"], abs_tol=0.02)
    assert r2["refit"] > r2["plain"]
    assert f1["pursuit"] > f1["plain"] + 0.03
