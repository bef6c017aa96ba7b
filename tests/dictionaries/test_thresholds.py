"""Thresholds midway between off and the mean when on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from superscope.capture import MemorySource
from superscope.core import Activations, ActivationSource
from superscope.dictionaries import AbsTopK, BatchTopK, Gated, JumpReLU, Transcoder, load, own_thresholds
from superscope.testing import example


def axes(threshold: float) -> BatchTopK:
    """Latent i reads and writes axis i, and is on above a threshold that all share."""
    sae = BatchTopK(d=3, n=3, k=1)
    with torch.no_grad():
        sae.atoms.copy_(torch.eye(3))
        sae.encoder.copy_(torch.eye(3))
        sae.threshold.fill_(threshold)
    return sae


class Empty(ActivationSource):
    d = 3

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        return iter(())


ROWS = MemorySource(torch.tensor([[8.0, 0.4, 0.0], [8.0, 0.0, 0.1], [2.0, 1.0, 0.2], [0.3, 3.0, 0.0]]))


def test_thresholds_are_a_share_of_the_mean_of_what_is_on() -> None:
    sae = axes(0.5)
    own = own_thresholds(sae, ROWS, batch=4)
    # 8, 8, 2 and 1, 3 are above 0.5; nothing of the third latent is, and 1 is the least that is on at all.
    assert own.threshold.tolist() == pytest.approx([3.0, 1.0, 1.0])
    assert own_thresholds(sae, ROWS, share=0.25, batch=4).threshold.tolist() == pytest.approx([1.5, 0.5, 1.0])
    x = torch.tensor([[8.0, 0.9, 0.9], [2.9, 3.0, 1.1]])
    assert own.encode(x).dense().tolist() == [[8.0, 0.0, 0.0], [0.0, 3.0, pytest.approx(1.1)]]
    assert float(sae.threshold) == 0.5


def test_it_is_saved_and_loaded_as_any_other(tmp_path: Path) -> None:
    own = own_thresholds(axes(0.5), ROWS, batch=4)
    own.save(tmp_path / "own")
    loaded = load(tmp_path / "own")
    assert isinstance(loaded, JumpReLU)
    assert torch.equal(loaded.threshold, own.threshold)


def test_what_it_refuses() -> None:
    for sae in (Gated(3, 3), AbsTopK(3, 3, k=1), example(Transcoder, d=3)):
        with pytest.raises(ValueError, match="Give a TopK, BatchTopK, Matryoshka, ReLU or JumpReLU"):
            own_thresholds(sae, ROWS, batch=4)
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]; got 0"):
        own_thresholds(axes(0.5), ROWS, share=0, batch=4)
    with pytest.raises(ValueError, match="rows must be at least 1"):
        own_thresholds(axes(0.5), ROWS, rows=0, batch=4)
    with pytest.raises(ValueError, match="no batch of 5 rows"):
        own_thresholds(axes(0.5), Empty(), batch=5)
    with pytest.raises(ValueError, match="no latent is on in 4 rows"):
        own_thresholds(axes(99.0), ROWS, batch=4)
