"""Worlds in which overlap and firing together go with each other, against each other, or not at all."""

from __future__ import annotations

import pytest
import torch

from superscope import frames
from superscope.core import Dictionary, ShapeError, SparseCode
from superscope.measure import co_occurrence

N, D, ROWS = 60, 16, 6000


def random_codes(seed: int = 0, density: float = 0.1) -> torch.Tensor:
    return (torch.rand(ROWS, N, generator=torch.Generator().manual_seed(seed)) < density).float()


def measured(W: torch.Tensor, f: torch.Tensor, **settings):
    return co_occurrence(Dictionary(W), [SparseCode.from_dense(part) for part in f.split(2000)], **settings)


def test_independent_features_on_random_directions_show_no_trend() -> None:
    found = measured(frames.random_unit(n=N, d=D, seed=0).atoms, random_codes())
    for name in ("overlap", "cosine", "neurons"):
        trend = found[f"co_occurrence_{name}"]
        assert trend.low < 0 < trend.high, trend
        assert abs(trend.value) < 0.08, trend
        assert "gave as much" in trend.caution
    assert sum(found.bins["pairs"]) == N * (N - 1) // 2


def test_features_that_never_meet_and_share_directions_are_seen() -> None:
    # Sets of four that exclude each other lie in a plane of their own, as toy models store them.
    f = random_codes()
    W = torch.zeros(N, 2 * N // 4)
    angle = torch.tensor([0.0, 0.5, 1.0, 1.5]) * torch.pi
    for first in range(0, N, 4):
        taken = torch.randint(4, (ROWS,), generator=torch.Generator().manual_seed(first))
        f[:, first : first + 4] = torch.nn.functional.one_hot(taken, 4).float() * f[:, first : first + 1]
        W[first : first + 4, first // 2] = angle.cos()
        W[first : first + 4, first // 2 + 1] = angle.sin()
    found = measured(W, f, expected=0.3)
    overlap = found["co_occurrence_overlap"]
    assert overlap.high < 0, overlap
    assert not overlap.caution
    # Pairs that never meet are opposed or at right angles, never alike.
    exclusive = found.bins["together"].index("1/8 to 1/2")
    assert found["co_occurrence_cosine"].value > 0
    assert found.bins["overlap"][exclusive] is None or found.bins["overlap"][exclusive] > 0


def test_features_that_fire_together_and_point_the_same_way_are_seen() -> None:
    # Groups of four that fire together lie round a direction of their own: bag-of-words superposition.
    generator = torch.Generator().manual_seed(1)
    centres = frames.random_unit(n=N // 4, d=D, seed=1).atoms.repeat_interleave(4, 0)
    W = centres + 0.2 * torch.randn(N, D, generator=generator)
    topic = (torch.rand(ROWS, N // 4, generator=generator) < 0.15).float().repeat_interleave(4, 1)
    f = topic * (torch.rand(ROWS, N, generator=generator) < 0.6).float()
    found = measured(W, f, expected=1.0)
    cosine = found["co_occurrence_cosine"]
    assert cosine.low > 0, cosine
    assert not cosine.caution
    assert found.bins["cosine"][3] > 0.5
    # The same codes with atoms dealt anew have no trend.
    other = measured(W[torch.randperm(N, generator=generator)], f, expected=1.0)["co_occurrence_cosine"]
    assert other.low < 0 < other.high, other


def test_sharing_neurons_is_apart_from_sharing_directions() -> None:
    # Two features on the same neurons with opposite signs on half of them: no cosine, the same neurons.
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    W = torch.block_diag(*[signs] * (N // 2))
    f = random_codes()
    f[:, 1::2] *= 1 - f[:, ::2]
    found = measured(W, f)
    assert found["co_occurrence_neurons"].high < 0
    assert not found["co_occurrence_neurons"].caution
    assert found["co_occurrence_overlap"].value == pytest.approx(0, abs=1e-9)


def test_too_little_is_said() -> None:
    W = torch.eye(N)
    with pytest.raises(ValueError, match="Give more rows"):
        measured(W, random_codes()[:20])
    with pytest.raises(ShapeError, match="codes of W"):
        co_occurrence(Dictionary(torch.eye(3)), [SparseCode.from_dense(random_codes()[:5])])
    with pytest.raises(ValueError, match="no codes"):
        co_occurrence(Dictionary(W), [])
