"""Axes that mean something, the same axes turned away, and axes that never did."""

from __future__ import annotations

import pytest
import torch

from superscope.core import Activations
from superscope.measure import privileged_basis


def _neurons(rows: int = 1500, d: int = 24) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.rand(rows, d, generator=random) * (torch.rand(rows, d, generator=random) < 0.05)


def _turn(d: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1))).Q


def test_sparse_neurons_have_a_privileged_basis_and_their_rotation_has_none() -> None:
    x = _neurons()
    own = privileged_basis([Activations(x)], rotations=39)
    turned = privileged_basis([Activations(x @ _turn(24))], rotations=39)
    assert own.p == pytest.approx(1 / 40)
    assert (own.measurement.value or 0) > 3 * (own.measurement.chance or 0)
    assert turned.p > 0.05
    assert "not distinguishable" in turned.measurement.caution


def test_heavy_tails_alone_are_no_basis() -> None:
    random = torch.Generator().manual_seed(2)
    x = torch.randn(1500, 16, generator=random) * torch.randn(1500, 1, generator=random).exp()
    seen = privileged_basis([Activations(x)], rotations=39)
    assert (seen.measurement.value or 0) > 3
    assert seen.p > 0.05


def test_one_coordinate_that_holds_the_tails_makes_the_axes_lighter_than_their_rotations() -> None:
    x = torch.randn(1500, 24, generator=torch.Generator().manual_seed(3))
    x[:, 5] *= 10 * (2 * x[:, 0]).exp()
    seen = privileged_basis([Activations(x)], rotations=39)
    assert seen.p > 0.95
    assert "lighter-tailed than random rotations" in seen.measurement.caution
    assert int(seen.kurtosis.argmax()) == 5


def test_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        privileged_basis([Activations(torch.randn(50, 4))])
    with pytest.raises(ValueError, match="nothing to turn"):
        privileged_basis([Activations(torch.randn(500, 1))])
    with pytest.raises(ValueError, match="at least 19"):
        privileged_basis([Activations(torch.randn(500, 4))], rotations=5)
