"""Each method's known answers, and what all of a kind share."""

from __future__ import annotations

import pytest
import torch

from superscope.core import ShapeError
from superscope.intervene.compression import METHODS, PCA, SVD, SVDLLM, Magnitude, SparseGPT, Wanda
from superscope.intervene.compression.method import output_error

SPARSE = [method for method in METHODS if method.kind == "sparse"]
LOW_RANK = [method for method in METHODS if method.kind == "low-rank"]


@pytest.fixture(scope="module")
def layer() -> tuple[torch.Tensor, torch.Tensor]:
    """W [12, 8] and the second moment of correlated inputs of unlike sizes."""
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=g) * torch.logspace(0, -1, 8)[:, None]
    x = torch.randn(400, 8, generator=g) @ mixing.T
    return torch.randn(12, 8, generator=g), (x.T @ x / len(x)).double()


def test_all_are_there() -> None:
    assert {type(method) for method in METHODS} == {Magnitude, Wanda, SparseGPT, SVD, SVDLLM, PCA}


@pytest.mark.parametrize("method", SPARSE, ids=lambda m: m.name)
def test_a_share_is_zero_and_nothing_at_none(method, layer) -> None:
    W, H = layer
    for sparsity in (0.25, 0.5, 0.875):
        new = method.sparse(W, H, sparsity)
        assert new.shape == W.shape
        assert new.dtype == W.dtype
        assert float((new == 0).float().mean()) == pytest.approx(sparsity)
    assert torch.equal(method.sparse(W, H, 0.0), W)


@pytest.mark.parametrize("method", LOW_RANK, ids=lambda m: m.name)
def test_the_rank_is_what_was_asked_and_the_whole_at_full_rank(method, layer) -> None:
    W, H = layer
    for rank in (1, 3, 7):
        assert torch.linalg.matrix_rank(method.low_rank(W, H, rank), rtol=1e-5) == rank
    assert torch.allclose(method.low_rank(W, H, 8), W, atol=1e-5)


def test_magnitude_takes_the_smallest() -> None:
    W = torch.tensor([[1.0, -4.0], [3.0, 2.0]])
    assert Magnitude().sparse(W, torch.eye(2), 0.5).tolist() == [[0.0, -4.0], [3.0, 0.0]]


def test_wanda_weighs_by_inputs_within_each_row() -> None:
    W = torch.tensor([[1.0, 3.0], [10.0, 20.0]])
    H = torch.diag(torch.tensor([16.0, 1.0]))
    # Scores: 4 and 3; 40 and 20. Ranked over the whole, both of the first row would go.
    assert Wanda().sparse(W, H, 0.5).tolist() == [[1.0, 0.0], [10.0, 0.0]]


def test_sparsegpt_on_diagonal_inputs_is_magnitude_scaled(layer) -> None:
    W, _ = layer
    sizes = torch.logspace(0, 2, 8).double()
    found = SparseGPT(columns=8, damping=1e-9).sparse(W, torch.diag(sizes), 0.5)
    scaled = Magnitude().sparse(W * sizes.sqrt(), torch.eye(8), 0.5)
    assert torch.allclose(found, torch.where(scaled != 0, W, 0.0))
    assert torch.equal(SparseGPT(columns=8).sparse(W, torch.eye(8), 0.5), Magnitude().sparse(W, torch.eye(8), 0.5))


def test_sparsegpt_gives_what_stays_the_least_squares_answer() -> None:
    # One row, the first column the one that goes: the rest is the regression of the output on the other inputs.
    g = torch.Generator().manual_seed(1)
    x = torch.randn(300, 4, generator=g, dtype=torch.float64) @ torch.randn(4, 4, generator=g, dtype=torch.float64)
    H = x.T @ x / len(x)
    W = torch.tensor([[1e-3, 2.0, -3.0, 4.0]], dtype=torch.float64)
    found = SparseGPT(damping=1e-12).sparse(W, H, 0.25)
    assert found[0, 0] == 0
    expected = torch.linalg.lstsq(x[:, 1:], x @ W[0]).solution
    assert torch.allclose(found[0, 1:], expected, atol=1e-8)


def test_what_knows_the_inputs_loses_less_of_the_output(layer) -> None:
    W, H = layer
    errors = {m.name: output_error(W, m.sparse(W, H, 0.5), H) for m in SPARSE}
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"]
    ranks = {m.name: output_error(W, m.low_rank(W, H, 3), H) for m in LOW_RANK}
    assert ranks["svd-llm"] < min(ranks["pca"], ranks["svd"])


def test_svd_llm_is_the_optimum_of_eckart_and_young(layer) -> None:
    W, H = layer
    values = torch.linalg.svdvals(W.double() @ torch.linalg.cholesky(H))
    whole = float(values.square().sum())
    g = torch.Generator().manual_seed(2)
    for rank in (1, 3, 6):
        best = float(values[rank:].square().sum()) / whole
        assert output_error(W, SVDLLM(damping=0.0).low_rank(W, H, rank), H) == pytest.approx(best, rel=1e-4)
        # The best W' of a random column space is worse.
        Q, _ = torch.linalg.qr(torch.randn(12, rank, generator=g))
        assert output_error(W, Q @ Q.T @ W, H) > best


def test_svd_llm_on_white_inputs_is_svd(layer) -> None:
    W, _ = layer
    assert torch.allclose(SVDLLM().low_rank(W, torch.eye(8), 3), SVD().low_rank(W, torch.eye(8), 3), atol=1e-5)


def test_pca_slices_what_inputs_do_not_fill(layer) -> None:
    W, _ = layer
    H = torch.diag(torch.tensor([3.0, 0.0, 2.0, 0.0, 1.0, 0.0, 0.0, 0.0]))
    found = PCA().low_rank(W, H, 3)
    assert torch.allclose(found[:, [0, 2, 4]], W[:, [0, 2, 4]], atol=1e-5)
    assert float(found[:, [1, 3, 5, 6, 7]].abs().max()) < 1e-5


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_refusals_are_sentences(method, layer) -> None:
    W, H = layer
    if method.kind == "sparse":
        for sparsity in (1.0, -0.1, float("nan")):
            with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\)"):
                method.sparse(W, H, sparsity)
        with pytest.raises(TypeError, match="ask it for a sparsity"):
            method.low_rank(W, H, 2)
        bad = method.sparse
    else:
        for rank in (0, 9):
            with pytest.raises(ValueError, match="rank must be from 1 to 8"):
                method.low_rank(W, H, rank)
        with pytest.raises(TypeError, match="ask it for a rank"):
            method.sparse(W, H, 0.5)
        bad = method.low_rank
    amount = 0.5 if method.kind == "sparse" else 2
    with pytest.raises(ShapeError, match="one row and one column per input"):
        bad(W, torch.eye(7), amount)
    with pytest.raises(ValueError, match="H has an entry that is NaN or infinite"):
        bad(W, H * torch.inf, amount)


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match="columns must be at least 1"):
        SparseGPT(columns=0)
    with pytest.raises(ValueError, match="damping above 0"):
        SparseGPT(damping=0.0)
    with pytest.raises(ValueError, match="damping must be finite"):
        SVDLLM(damping=-1.0)
    with pytest.raises(ValueError, match="second moment has no inverse"):
        SVDLLM(damping=0.0).low_rank(torch.ones(2, 2), torch.zeros(2, 2), 1)
