"""One projector, three names; and that nothing of its rank keeps more."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import ShapeError
from superscope.intervene.collateral import second_moment
from superscope.intervene.compression import feature_moment, projection


def moments(d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    A, B = (torch.randn(d, 2 * d, generator=g, dtype=torch.float64) for _ in range(2))
    return A @ A.T / d, B @ B.T / d


def lost(P: torch.Tensor, C: torch.Tensor, F: torch.Tensor) -> float:
    rest = torch.eye(len(C), dtype=torch.float64) - P
    return float(torch.trace(F @ rest @ C @ rest.T))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 1000), st.data())
def test_it_projects_and_no_other_of_its_rank_loses_less(d: int, seed: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, d))
    C, F = moments(d, seed)
    found = projection(C, rank, metric=F)
    P = found.matrix
    assert torch.allclose(P @ P, P, atol=1e-7)
    assert torch.linalg.matrix_rank(P, atol=1e-6) == rank
    assert lost(P, C, F) == pytest.approx(found.lost, rel=1e-6, abs=1e-8 * found.whole)
    assert lost(torch.zeros_like(P), C, F) == pytest.approx(found.whole)
    g = torch.Generator().manual_seed(seed)
    for _ in range(5):
        # An oblique projector of that rank: any range, any kernel beside it.
        A, B = (torch.randn(d, rank, generator=g, dtype=torch.float64) for _ in range(2))
        other = A @ torch.linalg.solve(B.T @ A, B.T)
        assert lost(other, C, F) >= found.lost * (1 - 1e-9) - 1e-8 * found.whole


def test_without_a_metric_it_is_pca() -> None:
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
    mean = x.double().mean(0)
    found = projection(second_moment(x, centred=True), 2, mean=mean)
    _, _, V = torch.linalg.svd(x.double() - mean, full_matrices=False)
    assert torch.allclose(found.matrix, V[:2].T @ V[:2], atol=1e-10)
    assert torch.allclose(found(mean[None]), mean[None])
    assert found.lost == pytest.approx(float((x - found(x)).double().square().sum(1).mean()), rel=1e-5)


def test_features_known_and_uncorrelated_make_the_same_moment_as_data() -> None:
    g = torch.Generator().manual_seed(0)
    atoms = torch.randn(20, 5, generator=g)
    f = torch.rand(20_000, 20, generator=g) * (torch.rand(20_000, 20, generator=g) < 0.1)
    of_data = second_moment(f @ atoms, centred=True)
    assert torch.allclose(feature_moment(atoms, f.double().var(0)), of_data, rtol=0.1, atol=0.03)


def test_what_the_output_does_not_notice_goes_first() -> None:
    C, F = torch.diag(torch.tensor([9.0, 4.0, 1.0])), torch.diag(torch.tensor([1e-6, 1.0, 1.0]))
    assert projection(C, 2).matrix.diagonal().tolist() == pytest.approx([1, 1, 0])
    assert projection(C, 2, metric=F).matrix.diagonal().tolist() == pytest.approx([0, 1, 1])


def test_refusals_are_sentences() -> None:
    C = torch.eye(4)
    for rank in (0, 5, -1):
        with pytest.raises(ValueError, match="rank must be from 1 to 4, the dimensions there are"):
            projection(C, rank)
    singular = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match=r"the metric has rank 3 of 4.*damping of 0\.001"):
        projection(C, 2, metric=singular)
    assert projection(C, 2, metric=singular, damping=1e-3).rank == 2
    with pytest.raises(ValueError, match="rank 0 of 4"):
        projection(C, 2, metric=torch.zeros(4, 4))
    with pytest.raises(ValueError, match="negative eigenvalue"):
        projection(-C, 2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        projection(C * torch.nan, 2)
    with pytest.raises(ValueError, match="damping must be finite"):
        projection(C, 2, damping=-1.0)
    with pytest.raises(ShapeError, match="the metric has shape"):
        projection(C, 2, metric=torch.eye(3))
    with pytest.raises(ShapeError, match="the mean has shape"):
        projection(C, 2, mean=torch.zeros(3))
    with pytest.raises(ValueError, match="a weight is negative"):
        feature_moment(C, -torch.ones(4))
    with pytest.raises(ShapeError, match="give one each"):
        feature_moment(C, torch.ones(3))
