"""Rows whose concept is planted."""

from __future__ import annotations

import pytest
import torch

from superscope.intervene.concepts import ContrastRows


def planted(pairs: int, d: int = 12, *, seed: int = 0, strength: float = 3.0, paired: bool = True) -> ContrastRows:
    """The concept adds `strength` along the first axis; noise is ten times as large along the second."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.ones(d, dtype=torch.float64)
    scale[1] = 10.0
    base = torch.randn(pairs, d, generator=generator, dtype=torch.float64) * scale
    other = base if paired else torch.randn(pairs, d, generator=generator, dtype=torch.float64) * scale
    positive = other + 0.3 * torch.randn(pairs, d, generator=generator, dtype=torch.float64)
    positive[:, 0] += strength
    return ContrastRows(positive, base, paired=paired, name="planted")


@pytest.fixture(scope="module")
def train() -> ContrastRows:
    return planted(150)


@pytest.fixture(scope="module")
def held() -> ContrastRows:
    return planted(150, seed=1)
