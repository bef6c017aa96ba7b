from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.dictionaries import TopK
from superscope.dictionaries.sae import SAE
from superscope.dictionaries.step import sparse

PARAMETERS = ("encoder", "encoder_bias", "atoms", "bias")


def perturbed(d, n, k, seed):
    """A TopK away from its start, so that no gradient is special."""
    sae = TopK(d, n, k, seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name in PARAMETERS:
            getattr(sae, name).add_(0.3 * torch.randn(getattr(sae, name).shape, generator=generator).double())
    return sae


def gradients(sae, loss):
    sae.zero_grad()
    loss.backward()
    return {name: getattr(sae, name).grad.clone() for name in PARAMETERS}


@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(1, 17),
    d=st.integers(1, 9),
    n=st.integers(1, 20),
    k=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_sparse_step_has_the_gradients_of_the_dense_step(b, d, n, k, seed):
    sae = perturbed(d, n, min(k, n), seed)
    x = torch.randn(b, d, generator=torch.Generator().manual_seed(seed + 2)).double()
    weight = torch.randn(b, min(k, n), generator=torch.Generator().manual_seed(seed + 3)).double()

    def losses(reconstruction):
        leaf = x.clone().requires_grad_()
        code, x_hat = reconstruction(sae, leaf)
        # The codes enter the loss by themselves too, as a penalty would have them.
        penalty = (code.values.sort(1).values * weight).sum()
        found = gradients(sae, (leaf - x_hat).square().sum() + penalty)
        return x_hat.detach(), {**found, "x": leaf.grad}

    dense_x, dense = losses(SAE.reconstruction)
    sparse_x, quick = losses(TopK.reconstruction)
    torch.testing.assert_close(sparse_x, dense_x)
    for name, gradient in dense.items():
        torch.testing.assert_close(quick[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    x, encoder = (torch.randn(*s, generator=generator).double().requires_grad_() for s in ((5, 3), (7, 3)))
    encoder_bias, bias = (torch.randn(s, generator=generator).double().requires_grad_() for s in (7, 3))
    indices = torch.stack([torch.randperm(7, generator=generator)[:2] for _ in range(5)])

    def values(x, encoder, encoder_bias, bias):
        dense = (x - bias) @ encoder.T + encoder_bias
        known = dense.gather(1, indices).detach()
        return sparse.pre_activations(x, encoder, encoder_bias, bias, known, sparse.Chosen(indices, 7))

    assert torch.autograd.gradcheck(values, (x, encoder, encoder_bias, bias))
    atoms = torch.randn(7, 3, generator=generator).double().requires_grad_()
    weights = torch.randn(5, 2, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v, a: sparse.decode(v, a, sparse.Chosen(indices, 7)), (weights, atoms))


def test_an_atom_nobody_chose_gets_a_zero_gradient():
    sae = TopK(3, 5, 1)
    with torch.no_grad():
        sae.encoder_bias[4] = -100.0
    _, x_hat = sae.reconstruction(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
    x_hat.square().sum().backward()
    for name in ("encoder", "atoms", "encoder_bias"):
        assert (getattr(sae, name).grad[4] == 0).all()


def test_second_derivatives_are_refused_rather_than_wrong():
    sae = TopK(3, 5, 2)
    _, x_hat = sae.reconstruction(torch.ones(2, 3))
    (first,) = torch.autograd.grad(x_hat.square().sum(), sae.atoms, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()
