"""ReLU, Gated, PAnnealed and InterferencePenalised: what their penalties are, and do."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from superscope.core import SparseCode
from superscope.dictionaries import Gated, InterferencePenalised, PAnnealed, ReLU, TopK, train
from superscope.dictionaries.sae import base, crowded, interference_penalised, positive
from superscope.testing import example


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", [ReLU, Gated, PAnnealed])
def test_sparse_and_dense_products_give_one_fit(architecture, monkeypatch):
    found = []
    for threshold in (0, 10**9):  # everything is denser than 0, nothing than one in a billion
        monkeypatch.setattr(positive, "_SPARSE", 10**9 if threshold == 0 else 0)
        sae = example(architecture).double()
        for module in (base, crowded):
            monkeypatch.setattr(module, "_CPU_BYTES", sae.n * 7 * 8)  # several blocks, the last one smaller
        assert sae.block == 7
        fit = sae.fit(rows(40, 6).double(), scale=1.5, progress=0.5)
        fit.loss.backward()
        found.append((fit, {name: p.grad for name, p in sae.named_parameters()}))
    (one, grads), (other, others) = found
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(one.code.dense(), other.code.dense())
    torch.testing.assert_close(one.x_hat, other.x_hat)
    assert torch.equal(one.fired, other.fired)
    assert one.l0 == pytest.approx(other.l0)
    for name, gradient in grads.items():
        torch.testing.assert_close(gradient, others[name])


@pytest.mark.parametrize("norm", ["unit", "weighted"])
def test_a_crowded_step_in_blocks_has_the_dense_gradient(norm, monkeypatch):
    monkeypatch.setattr(crowded, "_CPU_BYTES", 20 * 7 * 8)
    sae = ReLU(6, 20, coefficient=0.7, norm=norm).double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.2 * rows(*parameter.shape, seed=len(parameter)).double()
    other = copy.deepcopy(sae)
    x, target = rows(40, 6).double(), rows(40, 6, seed=1).double()
    fit = sae.fit(x, target=target, scale=1.5, progress=0.5)
    assert isinstance(fit, crowded.CrowdedFit)
    (3 * fit.loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="Call fit again"):
        fit.loss.backward()
    code = other.sparsify(other.pre_activations(x))
    x_hat = code.dense() @ other.atoms + other.bias
    loss = (x_hat - target).square().mean() / 1.5**2 + other.penalty(code, scale=1.5)
    (3 * loss).backward()
    torch.testing.assert_close(fit.loss, loss)
    torch.testing.assert_close(fit.code.dense(), code.dense())
    for (name, found), right in zip(sae.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found.grad, right.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("shape", [(3, 5), (16, 1024), (300, 1024), (256, 12)])
def test_counting_by_words_counts_what_is_on(shape):
    f = rows(*shape).relu()
    assert int(crowded.count(f)) == int((f > 0).sum())
    assert int(crowded.count(torch.ones(shape))) == math.prod(shape)


def test_no_latent_on_is_no_obstacle(monkeypatch):
    for threshold in (0, 10**9):
        monkeypatch.setattr(positive, "_SPARSE", threshold)
        for architecture in (ReLU, Gated, PAnnealed):
            sae = example(architecture)
            with torch.no_grad():
                sae.encoder_bias.fill_(-100.0)
            fit = sae.fit(rows(5, 6), progress=0.9)
            fit.loss.backward()
            assert int(fit.code.l0.sum()) == 0
            assert bool(torch.isfinite(sae.bias.grad).all())


def test_relu_penalty_is_the_mean_sum_of_values():
    sae = ReLU(d=3, n=5, coefficient=2.0)
    code = SparseCode(torch.tensor([[3.0, 1.0], [2.0, 0.0]]), torch.tensor([[0, 4], [1, 1]]), 5)
    # (4 + 2) / 2 rows, over d = 3 and a scale of 0.5, times 2.
    assert float(sae.penalty(code, scale=0.5)) == pytest.approx(2.0 * 3.0 / 3 / 0.5)
    weighted = ReLU(d=3, n=5, coefficient=2.0, norm="weighted")
    with torch.no_grad():
        weighted.atoms[0] *= 2
    assert float(weighted.penalty(code, scale=0.5).detach()) == pytest.approx(2.0 * 4.5 / 3 / 0.5)


def test_relu_shrinks_a_lone_latent_by_half_the_coefficient():
    # x = 3 w, one latent: 3 - lambda / 2 minimises (3 - f)^2 + lambda f.
    sae = ReLU(d=4, n=1, coefficient=0.8)
    x = 3 * sae.atoms.detach()
    with torch.no_grad():
        sae.encoder.copy_((3 - 0.4) / 3 * sae.atoms)
    sae.fit(x, progress=1.0).loss.backward()
    assert float(sae.encoder_bias.grad.abs().max()) < 1e-6


def test_penalty_rises_over_the_warm_up():
    x = rows(30, 6)
    for architecture in (ReLU, Gated):
        losses = [float(example(architecture).fit(x, progress=p).loss.detach()) for p in (0.0, 0.025, 0.05, 1.0)]
        assert losses[2] == losses[3]
        assert losses[1] - losses[0] == pytest.approx((losses[3] - losses[0]) / 2, rel=1e-4)


def test_norm_weighted_atoms_are_free_until_folded(sparse_world):
    world = sparse_world(16, 8, 2)
    sae = ReLU(8, 32, 1.0, "weighted")
    for _ in train(sae, world, steps=60, batch=64, lr=0.01):
        pass
    norms = sae.dictionary.norms
    assert float((norms - 1).abs().max()) > 0.01
    x = next(world.batches(64, seed=7)).x
    before = sae.fit(x, progress=1.0)
    sae.fold()
    after = sae.fit(x, progress=1.0)
    torch.testing.assert_close(sae.dictionary.norms, torch.ones(32))
    torch.testing.assert_close(after.loss, before.loss, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(after.x_hat, before.x_hat, rtol=1e-4, atol=1e-4)


def test_a_larger_coefficient_leaves_fewer_latents_on(sparse_world):
    world = sparse_world(16, 8, 2)
    for build in (lambda c: ReLU(8, 32, c), lambda c: Gated(8, 32, c), lambda c: PAnnealed(8, 32, c)):
        l0 = []
        for coefficient in (0.3, 3.0):
            sae = build(coefficient)
            *_, last = train(sae, world, steps=50, batch=64, lr=0.02)
            l0.append(last.numbers["l0"])
        assert l0[1] < l0[0] * 0.8


def test_gate_decides_and_magnitude_measures():
    sae = Gated(d=4, n=6)
    x = rows(20, 4)
    pre = sae.pre_activations(x)
    with torch.no_grad():
        sae.log_factor.copy_(rows(6, seed=1) * 0.3)
        sae.magnitude_bias.fill_(0.7)
    wanted = torch.where(pre > 0, (pre * sae.log_factor.exp() + 0.7).relu(), 0.0)
    torch.testing.assert_close(sae.encode(x).dense(), wanted)


def test_the_gates_own_reconstruction_leaves_the_decoder_alone():
    x = rows(20, 6)
    sae = example(Gated)
    sae.fit(x, progress=0.0).loss.backward()
    plain = copy.deepcopy(sae)
    plain.zero_grad()
    plain.squared(plain.reconstruction(x)[1], x, 1.0).backward()
    torch.testing.assert_close(sae.atoms.grad, plain.atoms.grad)
    assert not torch.allclose(sae.encoder_bias.grad, plain.encoder_bias.grad)


def test_exponent_falls_and_the_price_stays():
    sae = PAnnealed(d=6, n=11, coefficient=0.5, end=0.2, begin=0.25)
    assert [round(sae.exponent_at(p), 6) for p in (0.0, 0.25, 0.625, 1.0)] == [1.0, 1.0, 0.6, 0.2]
    with torch.no_grad():
        code = sae.encode(rows(40, 6))
    before = float(sae.penalty(code, scale=2.0))
    relu = ReLU(d=6, n=11, coefficient=0.5)
    floor = 0.5 * 1e-3 * float(code.l0.double().mean()) / 6
    assert before == pytest.approx(float(relu.penalty(code, scale=2.0).detach()) + floor, rel=1e-5)
    sae.anneal(code, scale=2.0, progress=1.0)
    assert float(sae.exponent) == pytest.approx(0.2)
    assert float(sae.penalty(code, scale=2.0)) == pytest.approx(before, rel=1e-5)
    # Towards p = 0 the price of a latent no longer grows with its value.
    small, large = (SparseCode(torch.tensor([[v]]), torch.tensor([[0]]), 11) for v in (1.0, 8.0))
    assert float(sae.penalty(large) / sae.penalty(small)) == pytest.approx(8**0.2, rel=1e-3)


def cofiring(atoms, code):
    """Over all pairs, by the n x n matrices that the architecture avoids."""
    on = code.support.to(atoms)
    squares = (atoms @ atoms.T).square()
    return ((on.T @ on) * (squares - torch.diag(squares.diagonal()))).sum()


@pytest.mark.parametrize("block", [1, 50, 2**21])
def test_overlaps_are_those_of_atoms_that_fire_together(block, monkeypatch):
    monkeypatch.setattr(interference_penalised, "_BLOCK", block)
    atoms = rows(11, 6).double().requires_grad_()
    code = TopK(6, 11, 4).double().encode(rows(30, 6).double())
    assert bool((code.l0 < 4).any())
    interference_penalised.overlaps(atoms, code).backward()
    found = atoms.grad.clone()
    atoms.grad = None
    wanted = cofiring(atoms, code)
    wanted.backward()
    torch.testing.assert_close(interference_penalised.overlaps(atoms, code), wanted)
    torch.testing.assert_close(found, atoms.grad)
    orthogonal = torch.eye(11).double()
    assert float(interference_penalised.overlaps(orthogonal, code)) == 0.0


def test_the_penalty_lowers_overlaps_of_what_fires_together(sparse_world):
    world = sparse_world(32, 8, 2)
    found = []
    for coefficient in (0.0, 1.0):
        sae = InterferencePenalised(8, 32, 3, coefficient)
        for _ in train(sae, world, steps=80, batch=64, lr=0.02):
            pass
        code = sae.encode(next(world.batches(512, seed=5)).x)
        found.append(float(cofiring(sae.atoms.detach(), code)))
    assert found[1] < 0.5 * found[0]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ReLU(4, 8, -1.0), "ReLU: coefficient must be at least 0"),
        (lambda: ReLU(4, 8, math.inf), "finite; got inf"),
        (lambda: ReLU(4, 8, warmup=2), r"warmup must be a share in \[0, 1\]"),
        (lambda: Gated(4, 8, math.nan), "Gated: coefficient"),
        (lambda: PAnnealed(4, 8, end=0.0), r"end must be an exponent in \(0, 1\]"),
        (lambda: PAnnealed(4, 8, begin=1.0), r"begin must be a share in \[0, 1\)"),
        (lambda: InterferencePenalised(4, 8, 9), "InterferencePenalised: k must be in 1..n = 8"),
        (lambda: InterferencePenalised(4, 8, 2, -0.1), "InterferencePenalised: coefficient"),
    ],
)
def test_impossible_arguments_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
