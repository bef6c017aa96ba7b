"""What outliers hold is what a plain computation over all rows says; without them, figures are those of clean rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from superscope import measure
from superscope.capture import MemorySource, outlier_limit
from superscope.core import Activations, Dictionary, Measurement
from superscope.dictionaries import TopK, train
from superscope.measure import Moments, outlier_coordinates, outlier_share

ROWS, D = 6000, 24
FEATURES = 40


def clean() -> Tensor:
    """Rows of a few of 40 features, two coordinates of which have ten times the deviation."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(FEATURES, D, generator=generator), dim=1)
    f = (torch.rand(ROWS, FEATURES, generator=generator) < 0.1) * (1 + torch.rand(ROWS, FEATURES, generator=generator))
    x = f @ atoms + 0.05 * torch.randn(ROWS, D, generator=generator)
    x = x / x.std(0)
    x[:, [5, 17]] *= 10
    return x


def planted(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same with one row in 1 000 on one direction, 70 times as long as the median row; and which those are."""
    x, far = x.clone(), torch.zeros(len(x), dtype=torch.bool)
    far[77::1000] = True
    direction = torch.nn.functional.normalize(torch.randn(D, generator=torch.Generator().manual_seed(1)), dim=0)
    x[far] = 70 * x.norm(dim=1).median() * direction
    return x, far


def moments(x: Tensor) -> Moments:
    return measure.moments([Activations(x)])


def test_shares_and_ratios_are_those_of_all_rows() -> None:
    x, far = planted(clean())
    share = outlier_share(moments(x[~far]), x[far])
    wide = x.double()
    squares, variances = wide.square().sum(1), (wide - wide.mean(0)).square().sum(1)
    assert (share.rows, share.of) == (6, ROWS)
    assert share.squared_norm == pytest.approx(float(squares[far].sum() / squares.sum()))
    assert share.variance == pytest.approx(float(variances[far].sum() / variances.sum()))
    torch.testing.assert_close(share.deviations, wide.std(0, correction=0))
    for value, rows in ((share.participation_with, wide), (share.participation_without, wide[~far])):
        covariance = moments(rows).covariance
        assert value == pytest.approx(float(covariance.trace() ** 2 / covariance.square().sum()))


def test_nothing_is_held_by_no_rows_and_constant_rows_have_no_ratio() -> None:
    share = outlier_share(moments(clean()), torch.empty(0, D))
    assert (share.rows, share.squared_norm, share.variance) == (0, 0.0, 0.0)
    assert share.participation_with == pytest.approx(share.participation_without)
    constant = outlier_share(Moments(5, torch.ones(1), torch.zeros(1, 1)), torch.empty(0, 1))
    assert math.isnan(constant.participation_with)
    assert constant.variance == 0.0


def test_coordinates_that_deviate_are_named_the_largest_first() -> None:
    x = clean()
    x[:, 5] *= 2
    coordinates, multiples = outlier_coordinates(moments(x).covariance.diagonal().sqrt())
    assert coordinates.tolist() == [5, 17]
    assert multiples.tolist() == pytest.approx([20, 10], rel=1e-4)
    for deviations in (torch.ones(9), torch.zeros(9), torch.tensor([3.0])):
        assert len(outlier_coordinates(deviations)[0]) == 0


def test_without_outliers_figures_are_those_of_clean_rows_within_their_intervals() -> None:
    x = clean()
    mixed, far = planted(x)
    found = mixed.norm(dim=1) > outlier_limit(mixed.norm(dim=1))
    assert torch.equal(found, far)
    assert not bool((x.norm(dim=1) > outlier_limit(x.norm(dim=1))).any())
    figures = {name: reading(rows) for name, rows in (("clean", x), ("left out", mixed[~found]), ("kept", mixed))}
    for name in ("participation_ratio", "fraction_variance_unexplained"):
        one, two, three = (figures[rows][name] for rows in figures)
        assert one.low is not None
        assert one.high is not None
        assert one.low <= two.value <= one.high, name
        assert not one.low <= three.value <= one.high, name
    # What recurs among directions drawn with the rows' covariance: a pair of long coordinates already gives some.
    chances = {rows: figures[rows]["recurring_features"].chance for rows in figures}
    assert abs(chances["left out"] - chances["clean"]) <= 2
    assert chances["kept"] > chances["clean"] + 10


def reading(x: Tensor) -> dict[str, Measurement]:
    sae = TopK(d=D, n=2 * FEATURES, k=4, seed=0)
    for _ in train(sae, MemorySource(x), steps=60, batch=512, seed=0):
        pass
    rows = [Activations(x)]
    mixing = [Dictionary(torch.randn(200, D, generator=torch.Generator().manual_seed(seed))) for seed in (0, 1)]
    recurring = measure.recurring_features(mixing, covariance=moments(x).covariance, seed=0)
    found = [*measure.activation_sparsity(rows), *measure.evaluate(sae, rows), *recurring]
    return {m.name: m for m in found}
