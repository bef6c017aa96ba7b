"""W, f and the step between them: shapes, sparse against dense, and every refusal's sentence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from superscope.core import Activations, Dictionary, ShapeError, Site, SparseCode


def sparse_rows(rows: int, n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    f = torch.randn(rows, n, generator=generator)
    return f * (torch.rand(rows, n, generator=generator) < 0.3)


@given(rows=st.integers(1, 6), n=st.integers(1, 9), d=st.integers(1, 5), seed=st.integers(0, 9999))
def test_sparse_and_dense_codes_compose_alike(rows: int, n: int, d: int, seed: int) -> None:
    f = sparse_rows(rows, n, seed)
    code = SparseCode.from_dense(f)
    assert torch.equal(code.dense(), f)
    assert torch.equal(code.l0, (f != 0).sum(-1))
    assert torch.equal(code.support, f != 0)
    assert torch.equal(code.uses, (f != 0).sum(0))
    generator = torch.Generator().manual_seed(seed + 1)
    W = Dictionary(torch.randn(n, d, generator=generator), bias=torch.randn(d, generator=generator))
    torch.testing.assert_close(W.compose(code), W.compose(f))
    torch.testing.assert_close(W.compose(f), (W.W @ f.T).T + W.bias)


def test_unused_slot_may_repeat_an_index() -> None:
    code = SparseCode(torch.tensor([[2.0, 0.0]]), torch.tensor([[1, 1]]), n=3)
    assert code.dense().tolist() == [[0.0, 2.0, 0.0]]
    assert code.l0.tolist() == [1]
    assert code.uses.tolist() == [0, 1, 0]


def test_codes_of_any_batch_shape() -> None:
    f = sparse_rows(6, 7, 0).reshape(2, 3, 7)
    W = Dictionary(torch.randn(7, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(W.compose(SparseCode.from_dense(f)), f @ W.atoms)
    assert W.compose(SparseCode.from_dense(f[0, 0])).shape == (4,)
    assert torch.equal(SparseCode.from_dense(f).uses, (f != 0).sum((0, 1)))


def test_unit_keeps_directions_and_refuses_zero() -> None:
    W = Dictionary(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    assert W.unit().norms.tolist() == pytest.approx([1, 1])
    assert W.unit().atoms[0].tolist() == pytest.approx([0.6, 0.8])
    with pytest.raises(ValueError, match=r"atom 1 is zero and has no direction. Drop it first"):
        Dictionary(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).unit()


def test_atoms_by_label() -> None:
    W = Dictionary(torch.eye(2), labels=("sugar", "salt"))
    assert W["salt"].tolist() == [0, 1]
    assert W[0].tolist() == [1, 0]
    with pytest.raises(KeyError, match="Did you mean sugar"):
        W["suger"]


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="code indexes 3 features but this dictionary has 2 atoms"):
        Dictionary(torch.eye(2)).compose(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"atom 1 has a NaN or infinite entry"):
        Dictionary(torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(ShapeError, match="1 labels for 2 atoms"):
        Dictionary(torch.eye(2), labels=("a",))
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 3\)"):
        SparseCode(torch.ones(1, 1), torch.tensor([[3]]), n=3)
    with pytest.raises(ShapeError, match="code has 2 rows for 3 activations"):
        Activations(torch.zeros(3, 2), SparseCode(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.long), n=2))


def test_shape_hook_is_on() -> None:
    """The suite runs with jaxtyping's import hook: a wrong rank is caught where the value is made."""
    with pytest.raises((TypeCheckError, ShapeError)):
        Dictionary(torch.zeros(2, 2, 2))
    with pytest.raises((TypeCheckError, ShapeError)):
        Dictionary(torch.eye(2), bias=torch.zeros(3))


def test_site_says_its_side() -> None:
    assert str(Site("h.3")) == "h.3"
    assert str(Site("h.3.mlp", "in")) == "h.3.mlp:in"
