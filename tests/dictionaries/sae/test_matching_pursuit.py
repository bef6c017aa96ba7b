from __future__ import annotations

import pytest
import torch

from superscope import recovery
from superscope.core import Dictionary
from superscope.dictionaries import MatchingPursuit, TopK, train
from superscope.dictionaries.sae import matching_pursuit


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("gram", [0, 2**26])
def test_inference_is_the_pursuit_of_recovery(gram, monkeypatch):
    monkeypatch.setattr(matching_pursuit, "_GRAM", gram)
    sae = MatchingPursuit(6, 14, 4).double()
    with torch.no_grad():
        sae.bias.copy_(rows(6, seed=3))
        sae.normalise()  # to rounding of float64, as the solver has its atoms
    x = rows(50, 6)
    solver = recovery.MatchingPursuit(Dictionary(sae.atoms.detach()), k=4, steps=4, nonnegative=True)
    with torch.no_grad():
        found = sae.encode(x)
    torch.testing.assert_close(found.dense(), solver.encode(x - sae.bias.detach()).dense())
    assert bool((found.l0 < 4).any())  # some row chose an atom again, or had nothing positive left


def test_reconstruction_is_the_code_composed_and_its_gradient_that_of_the_steps():
    sae = MatchingPursuit(6, 14, 5).double()
    x = rows(40, 6)
    code, x_hat = sae.reconstruction(x)
    torch.testing.assert_close(x_hat, sae.decode(sae.encode(x)))
    weights = rows(40, 14, seed=1)
    # Through both outputs at once: a loss of values alone, one of x_hat alone, and x itself.
    for of_code, of_x in ((1.0, 0.0), (0.0, 1.0)):
        grads = []
        for forward in (sae.reconstruction, lambda x: type(sae).__base__.reconstruction(sae, x)):
            given = x.clone().requires_grad_()
            code, x_hat = forward(given)
            loss = of_code * (code.dense() * weights).sum() + of_x * (x_hat - x).pow(3).sum()
            grads.append(torch.autograd.grad(loss, [sae.atoms, sae.bias, given]))
        for fast, slow in zip(*grads, strict=True):
            torch.testing.assert_close(fast, slow)


def test_there_is_nothing_to_train_but_atoms_and_bias():
    sae = MatchingPursuit(6, 14, 5)
    assert {name for name, _ in sae.named_parameters()} == {"atoms", "bias"} == set(sae.state_dict())
    with pytest.raises(AttributeError, match="no attribute 'decoder'"):
        sae.decoder  # noqa: B018


def test_the_gram_matrix_follows_the_atoms(sparse_world):
    world = sparse_world(16, 8, 2)
    sae = MatchingPursuit(8, 20, 2)
    x = next(world.batches(32, seed=3)).x
    with torch.no_grad():
        for step in train(sae, world, steps=3, batch=32, lr=0.05):
            after = sae.encode(x)
            fresh = MatchingPursuit(8, 20, 2)
            fresh.load_state_dict(sae.state_dict())
            assert torch.equal(after.dense(), fresh.encode(x).dense()), step.index
        sae.double()
        assert sae.encode(x.double()).values.dtype == torch.float64


def test_a_parent_and_its_child_are_told_apart():
    # A child's atom is its parent's direction and something of its own. Read in parallel the child's atom also
    # answers to the parent alone, at 0.8 of it; once the parent is explained there is nothing left to answer to.
    atoms = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    pursuit, parallel = MatchingPursuit(3, 3, 2), TopK(3, 3, 2)
    with torch.no_grad():
        for sae in (pursuit, parallel):
            sae.atoms.copy_(atoms)
        parallel.encoder.copy_(atoms)
        x = torch.tensor([[2.0, 0.0, 0.0]])
        assert pursuit.encode(x).dense().tolist() == [[2.0, 0.0, 0.0]]
        torch.testing.assert_close(parallel.encode(x).dense(), torch.tensor([[2.0, 1.6, 0.0]]))


def test_median_start_and_impossible_k():
    x = torch.cat([rows(99, 4).float(), torch.full((1, 4), 1e4)])
    sae = MatchingPursuit(4, 8, 2)
    sae.start(x, centre="median")
    assert float(sae.bias.detach().norm()) < 1
    with pytest.raises(ValueError, match="k must be in 1..n = 8"):
        MatchingPursuit(4, 8, 0)
