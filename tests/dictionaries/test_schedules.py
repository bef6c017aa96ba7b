"""k and penalty that move while training, and the encoder's product in bfloat16."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

from superscope.dictionaries import Ramp, TopK, train
from superscope.dictionaries.step import precision
from superscope.dictionaries.train import Training
from superscope.kernels import choice
from superscope.testing import EVERY, example
from superscope.testing.coder import source_for
from superscope.worlds import exactly_k

WITH_K = [kind for kind in EVERY if "k" in inspect.signature(kind).parameters]
WITH_COEFFICIENT = [kind for kind in EVERY if "coefficient" in inspect.signature(kind).parameters]


def seen(architecture, name: str, steps: int = 8, **arguments) -> list:
    """The values of an attribute inside each step's fit."""
    sae = example(architecture)
    found, fit = [], sae.fit
    sae.fit = lambda *given, **further: found.append(getattr(sae, name)) or fit(*given, **further)
    for _ in train(sae, source_for(sae), steps=steps, batch=64, **arguments):
        assert getattr(sae, name) == sae.about[name], "between steps the SAE is as it was made"
    return found


def test_ramps_are_their_formula():
    line, ratios = Ramp(4, 0.5), Ramp(4, 0.5, "geometric")
    assert [line(p) for p in (0.0, 0.125, 0.25, 0.5, 0.9)] == [4.0, 3.25, 2.5, 1.0, 1.0]
    assert [ratios(p) for p in (0.0, 0.25, 0.5, 1.0)] == [4.0, 2.0, 1.0, 1.0]
    assert Ramp(0, 0)(0.0) == 1.0
    for arguments in ((-1.0,), (float("inf"),), (2.0, 1.5), (0.0, 0.5, "geometric")):
        with pytest.raises(ValueError, match="Ramp:"):
            Ramp(*arguments)


@pytest.mark.parametrize("architecture", WITH_K, ids=lambda a: a.__name__)
def test_k_falls_to_what_it_was_made_with(architecture):
    assert seen(architecture, "k", k_ramp=Ramp(3, 0.5)) == [9, 8, 6, 4, 3, 3, 3, 3]
    assert max(seen(architecture, "k", steps=2, k_ramp=Ramp(100))) == 11, "no more than there are latents"


@pytest.mark.parametrize("architecture", WITH_COEFFICIENT, ids=lambda a: a.__name__)
def test_the_penalty_rises_to_what_it_was_made_with(architecture):
    assert seen(architecture, "coefficient", penalty_ramp=Ramp(0, 0.5)) == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("architecture", WITH_COEFFICIENT, ids=lambda a: a.__name__)
def test_the_penalty_is_proportional_to_the_coefficient_of_the_moment(architecture):
    losses = []
    for factor in (0.0, 1.0, 2.0):
        sae = example(architecture).double()
        x = next(source_for(sae).batches(64, seed=0)).x.double()
        sae.start(x)
        sae.coefficient = factor * sae.about["coefficient"]
        losses.append(float(sae.fit(x, progress=0.5).loss.detach()))
    assert losses[1] > losses[0]
    assert losses[2] - losses[0] == pytest.approx(2 * (losses[1] - losses[0]))


def test_a_falling_k_uses_fewer_latents_as_it_falls():
    l0 = [step.numbers["l0"] for step in train(TopK(16, 64, 2), exactly_k(64, 16, 3), steps=20, k_ramp=Ramp(4, 0.5))]
    assert l0[0] == pytest.approx(8, abs=0.5)
    assert l0[-1] <= 2


def test_a_ramp_without_anything_to_act_on_is_refused():
    world = exactly_k(64, 16, 3)
    with pytest.raises(ValueError, match="penalty_ramp has nothing to act on: TopK has no coefficient"):
        train(TopK(16, 64, 2), world, steps=1, penalty_ramp=Ramp(0))
    relu = next(kind for kind in EVERY if kind.__name__ == "ReLU")
    with pytest.raises(ValueError, match="k_ramp has nothing to act on: ReLU has no k"):
        train(example(relu), source_for(example(relu)), steps=1, k_ramp=Ramp(4))


def cut(architecture, at: int, **arguments):
    """Weights of a whole run, and of one that was cut and taken up again."""
    settings = {"steps": 12, "batch": 64, "lr": 0.01, "dead_after": 200, **arguments}
    whole, first, again = (example(architecture) for _ in range(3))
    list(train(whole, source_for(whole), **settings))
    training = train(first, source_for(first), **settings)
    for _ in range(at):
        next(training)
    list(train(again, source_for(again), **settings).restore(training.state()))
    return whole.state_dict(), again.state_dict()


@pytest.mark.parametrize("architecture", EVERY, ids=lambda a: a.__name__)
def test_with_ramps_and_bfloat16_a_run_resumes_to_the_bit(architecture):
    ramps = {"k_ramp": Ramp(3, 0.6)} if architecture in WITH_K else {}
    ramps |= {"penalty_ramp": Ramp(0.1, 0.6, "geometric")} if architecture in WITH_COEFFICIENT else {}
    whole, again = cut(architecture, 5, precision="bfloat16", **ramps)
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.parametrize("architecture", EVERY, ids=lambda a: a.__name__)
def test_in_bfloat16_the_loss_stays_within_two_percent(architecture):
    lost = []
    for kept in ("full", "bfloat16"):
        sae = example(architecture, d=16, n=48) if architecture.__name__ != "Crosscoder" else example(architecture)
        steps = list(train(sae, source_for(sae), steps=40, batch=256, lr=3e-3, precision=kept))
        lost.append(sum(step.loss for step in steps[-10:]) / 10)
        assert all(tensor.dtype == torch.float32 for tensor in sae.state_dict().values())
    assert lost[1] == pytest.approx(lost[0], rel=0.02)


def test_bfloat16_products_are_made_in_bfloat16_and_chosen_values_in_float32():
    sae = TopK(16, 64, 3)
    x = next(exactly_k(64, 16, 3).batches(128, seed=0)).x
    sae.start(x)
    with precision.using(torch.bfloat16):
        pre = sae.pre_activations(x)
        code = sae.fit(x).code
    exact = sae.pre_activations(x)
    assert 1e-4 < float((pre - exact).detach().abs().max()) < 0.02 * float(exact.detach().abs().max())
    torch.testing.assert_close(code.values, exact.gather(1, code.indices).relu(), atol=1e-6, rtol=1e-5)
    assert torch.equal(sae.pre_activations(x), exact), "outside, nothing has changed"


def test_float64_weights_are_left_as_they_are():
    sae = TopK(16, 64, 3).double()
    x = next(exactly_k(64, 16, 3).batches(32, seed=0)).x.double()
    exact = sae.pre_activations(x)
    with precision.using(torch.bfloat16):
        assert torch.equal(sae.pre_activations(x), exact)
    with pytest.raises(ValueError, match="for float32 weights, and these are torch.float64"):
        train(sae, exactly_k(64, 16, 3), steps=1, precision="bfloat16")
    assert train(sae, exactly_k(64, 16, 3), steps=1, precision="auto").settings["precision"] == "full"


@pytest.mark.parametrize(("can", "chosen"), [(True, "bfloat16"), (False, "full")])
def test_auto_follows_the_device(monkeypatch, can, chosen):
    trainer = importlib.import_module("superscope.dictionaries.train")
    monkeypatch.setattr(trainer, "multiplies_bfloat16", lambda device: can)
    training = train(TopK(16, 64, 3), exactly_k(64, 16, 3), steps=1, precision="auto")
    assert isinstance(training, Training)
    assert training.settings["precision"] == chosen


def test_the_device_is_asked_for_its_instructions(monkeypatch):
    try:
        for amx, avx in ((True, False), (False, True), (False, False)):
            choice.multiplies_bfloat16.cache_clear()
            answer = {"amx_bf16": amx, "avx512_bf16": avx}
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda answer=answer: answer)
            assert choice.multiplies_bfloat16("cpu") == (amx or avx)
        assert choice.multiplies_bfloat16("mps") is False
    finally:
        choice.multiplies_bfloat16.cache_clear()


def test_the_window_of_silence_suits_the_length_of_the_run():
    world = exactly_k(64, 16, 3)
    windows = {
        (steps, batch): train(TopK(16, 64, 3), world, steps=steps, batch=batch).settings["dead_after"]
        for steps, batch in ((10, 64), (400, 1024), (100_000, 2048))
    }
    assert windows == {(10, 64): 128, (400, 1024): 20_480, (100_000, 2048): 50_000}
