"""The optimiser that sums a latent's gradient when it steps it: against torch's Adam on the dense gradients."""

from __future__ import annotations

import copy
import importlib.util
import sys

import pytest
import torch

from superscope.dictionaries import BatchTopK, JumpReLU, Matryoshka, ReLU, TopK, train
from superscope.dictionaries.step import sparse
from superscope.dictionaries.step.adam import Adam
from superscope.kernels import compiled_loops
from superscope.testing import example
from superscope.testing.coder import source_for

RATE = 0.02


def rows(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("architecture", [TopK, BatchTopK, Matryoshka, JumpReLU, ReLU])
def test_three_steps_equal_torchs_on_dense_gradients(architecture):
    sae = example(architecture).double()
    sae.start(rows(64, sae.d))
    other = copy.deepcopy(sae)
    ours = Adam([{"params": list(sae.parameters()), "lr": RATE}], unit=sae.atoms)
    theirs = torch.optim.Adam(other.parameters(), lr=RATE)
    for step in range(3):
        x = rows(32, sae.d, seed=step + 1)
        ours.zero_grad()
        with sparse.deferring(ours.deferred):
            sae.fit(x, scale=1.3, progress=0.5).loss.backward()
        if architecture is not ReLU:
            assert sae.atoms.grad is None
            assert sae.encoder.grad is None
        ours.step()
        sae.constrain(normalised=True)
        theirs.zero_grad()
        other.fit(x, scale=1.3, progress=0.5).loss.backward()
        other.project()
        theirs.step()
        other.constrain()
    for (name, found), right in zip(sae.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        for moment in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(ours.state[found][moment], theirs.state[right][moment], rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(sae.atoms.norm(dim=1), torch.ones(sae.n).double())


def test_what_is_left_in_grad_is_added_to_what_was_deferred():
    sae = TopK(5, 12, 2).double()
    other = copy.deepcopy(sae)
    x = rows(20, 5)
    found = []
    for of, defer in ((sae, True), (other, False)):
        optimizer = Adam([{"params": list(of.parameters()), "lr": RATE}], unit=of.atoms)
        with sparse.deferring(optimizer.deferred if defer else None):
            loss = of.fit(x).loss
        (loss + of.atoms.square().sum() + of.encoder.pow(4).sum()).backward()
        optimizer.step()
        assert not any(optimizer.deferred.of(p) for p in of.parameters())
        found.append([p.detach() for p in of.parameters()])
    for one, another in zip(*found, strict=True):
        torch.testing.assert_close(one, another)


def test_a_parameter_without_gradient_stays_and_a_gradient_is_forgotten():
    sae = TopK(5, 12, 2)
    optimizer = Adam([{"params": list(sae.parameters()), "lr": RATE}], unit=sae.atoms)
    before = copy.deepcopy(sae.state_dict())
    with sparse.deferring(optimizer.deferred):
        sae.fit(rows(20, 5, dtype=torch.float32)).loss.backward()
    assert optimizer.deferred.of(sae.atoms)
    optimizer.zero_grad()
    optimizer.step()
    assert not optimizer.state
    for name, tensor in sae.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_clipped_training_and_training_in_rows_agree_where_nothing_is_clipped():
    found = []
    for clip in (None, 1e9):
        sae = example(TopK).double()
        for _ in train(sae, source_for(sae), steps=5, batch=64, lr=0.01, dead_after=100, clip=clip):
            pass
        found.append(sae.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("architecture", [TopK, BatchTopK, Matryoshka, JumpReLU])
def test_training_through_the_gpus_kernels_is_the_same_training(architecture, monkeypatch):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs the extra superscope[triton]")
    if torch.cuda.is_available():
        pytest.skip("the interpreter is for machines without a GPU; on one the kernels run in every other test")
    found = []
    for kernels in (False, True):
        with monkeypatch.context() as patched:
            for module in ("bags", "topk", "adam_rows"):
                within = sys.modules[f"superscope.kernels.{module}"]
                patched.setattr(within, "on_gpu", lambda *tensors, kernels=kernels: kernels)
            sae = architecture(6, 20, k=3)
            losses = [step.loss for step in train(sae, source_for(sae), steps=2, batch=12, lr=0.01)]
        found.append((losses, sae.state_dict()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name, tensor in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], tensor, rtol=1e-4, atol=1e-6)


def test_training_in_compiled_loops_is_the_same_training(monkeypatch):
    if importlib.util.find_spec("numba") is None:
        pytest.skip("needs the extra superscope[fast]")
    monkeypatch.setattr("superscope.kernels.choice._WORTH_COMPILING", 1)
    for architecture in (TopK, BatchTopK):
        found = []
        for allowed in (False, True):
            sae = architecture(8, 640, k=1)
            training = train(sae, source_for(sae), steps=3, batch=16, lr=0.01)
            with compiled_loops(allowed):
                losses = [next(training).loss]
                moments = training.state().tensors
                losses += [step.loss for step in training]
            found.append((losses, moments))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
        # The gradient of a step shows in its first moment; Adam's step itself blows up what only rounding made.
        for name in ("adam.encoder.exp_avg", "adam.atoms.exp_avg", "adam.encoder.exp_avg_sq"):
            torch.testing.assert_close(found[0][1][name], found[1][1][name], rtol=1e-4, atol=1e-8)
