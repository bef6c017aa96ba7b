"""The metric of a linear network is its Gram matrix, everywhere."""

from __future__ import annotations

import pytest
import torch

from superscope.intervene.jacobian import pullback_metric


def test_of_a_linear_network_it_is_its_gram_matrix() -> None:
    A = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    F = pullback_metric(lambda x: x @ A.T, torch.randn(400, 3), draws=30)
    assert torch.allclose(F.float(), A.T @ A, rtol=0.1, atol=0.1)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="do not depend on x"):
        pullback_metric(lambda x: torch.ones(len(x), 2, requires_grad=True), torch.ones(3, 2))
    with pytest.raises(ValueError, match="no rows"):
        pullback_metric(lambda x: x, torch.ones(0, 2))
