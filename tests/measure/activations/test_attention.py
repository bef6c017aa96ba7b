"""Attention whose sparsity is known: uniform, to one key, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superscope.core import ShapeError
from superscope.measure import Patterns, attention_sparsity


def patterns(weights: torch.Tensor, windows: int = 3) -> list[Patterns]:
    """Windows of one document each, causal, of one head or several."""
    _heads, q, k = weights.shape
    keys = torch.ones(q, k).tril().bool().expand(windows, -1, -1)
    return [Patterns(weights.expand(windows, -1, -1, -1), keys, torch.ones(windows, q).bool(), np.arange(windows))]


def test_uniform_and_one_hot_attention_have_the_ends_of_every_scale() -> None:
    q = 40
    uniform = torch.ones(q, q).tril() / torch.arange(1, q + 1)[:, None]
    one_hot = torch.zeros(q, q)
    one_hot[:, 0] = 1.0
    found = attention_sparsity(patterns(torch.stack([uniform, one_hot])))
    m = np.arange(16, q + 1)
    assert found.heads["attention_entropy"] == pytest.approx([1, 0], abs=1e-6)
    assert found.heads["attention_gini"] == pytest.approx([0, (1 - 1 / m).mean()], abs=1e-6)
    assert found.heads["attention_top_mass"] == pytest.approx([(4 / m).mean(), 1], abs=1e-6)
    assert found.heads["attention_first_mass"] == pytest.approx([(1 / m).mean(), 1], abs=1e-6)
    entropy = found["attention_entropy"]
    assert entropy.value == pytest.approx(0.5)
    assert entropy.chance == 1
    assert entropy.n == 3 * len(m)
    assert found["attention_top_mass"].chance == pytest.approx((4 / m).mean())


def test_what_cannot_be_measured_is_said() -> None:
    short = torch.ones(1, 8, 8).tril() / torch.arange(1, 9)[:, None]
    with pytest.raises(ValueError, match="longer windows"):
        attention_sparsity(patterns(short))
    with pytest.raises(ValueError, match="below fewest"):
        attention_sparsity(patterns(short), top=16)
    (one,) = patterns(short)
    with pytest.raises(ShapeError, match="queries"):
        attention_sparsity([one._replace(queries=one.queries[:, 1:])])
