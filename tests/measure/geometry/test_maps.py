"""Maps of rows: a plane is kept, noise is not, layers lie on each other, and what is missing is said."""

from __future__ import annotations

import sys

import pytest
import torch

from superscope.core import Measurement, ShapeError
from superscope.measure import (
    MAPS,
    intrinsic_dimensions,
    laid_flat,
    procrustes,
    row_neighbours_kept,
)


def normal(rows: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def plane() -> torch.Tensor:
    """A square of two dimensions hidden in 16, shifted away from zero."""
    square = torch.rand(250, 2, generator=torch.Generator().manual_seed(0))
    frame, _ = torch.linalg.qr(normal(16, 2, 1))
    return square @ frame.T + 3.0


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    """Sixteen dimensions and nothing to see."""
    return normal(250, 16, 2)


def score(x: torch.Tensor, how: str) -> Measurement:
    return row_neighbours_kept(x, laid_flat(x, how, neighbours=10), neighbours=10)


def test_a_plane_hidden_in_16_dimensions_is_kept_and_has_two(plane: torch.Tensor) -> None:
    assert score(plane, "pca").value == pytest.approx(1.0, abs=0.005)
    assert (score(plane, "tsne").value or 0) > 0.6
    assert (score(plane, "flat").value or 0) > 0.6
    for m in intrinsic_dimensions(plane):
        assert m.low is not None
        assert m.high is not None
        assert 1.5 < m.low < m.high < 2.5
        assert m.reference == 16


@pytest.mark.parametrize("how", ["pca", "flat", "tsne"])
def test_noise_keeps_few_of_its_neighbours_on_any_map(noise: torch.Tensor, how: str) -> None:
    found = score(noise, how)
    assert found.chance == pytest.approx(10 / 249)
    assert found.value is not None
    # No map of 16-dimensional noise keeps half; a random one keeps one in 25.
    assert found.value < {"pca": 0.15, "flat": 0.45, "tsne": 0.45}[how]
    assert all((m.value or 0) > 8 for m in intrinsic_dimensions(noise))


def test_the_score_of_a_random_map_is_its_chance(noise: torch.Tensor) -> None:
    found = row_neighbours_kept(noise, normal(250, 2, 3), neighbours=10)
    assert found.low is not None
    assert found.high is not None
    assert found.chance is not None
    assert found.low - 0.005 <= found.chance <= found.high + 0.005


def test_rows_at_one_place_are_no_neighbours_of_themselves() -> None:
    x = torch.cat([torch.zeros(6, 3), torch.ones(6, 3)])
    (kept,) = {row_neighbours_kept(x, x[:, :2], neighbours=5).value}
    assert kept == 1.0
    assert row_neighbours_kept(normal(12, 3, 0), torch.zeros(12, 2), neighbours=3).value is not None


def test_an_interval_over_documents_is_wider_where_they_differ(noise: torch.Tensor, plane: torch.Tensor) -> None:
    both = torch.cat([noise, plane - plane.mean(0) + 50])
    places = laid_flat(both, "pca")
    documents = torch.arange(500) // 50
    by_rows, by_documents = (row_neighbours_kept(both, places, documents=given) for given in (None, documents))
    assert by_rows.low is not None
    assert by_documents.low is not None
    assert by_rows.value == by_documents.value
    assert by_rows.low > by_documents.low


def test_a_map_turned_mirrored_and_scaled_is_laid_back(plane: torch.Tensor) -> None:
    places = laid_flat(plane, "pca")
    turn = torch.tensor([[0.6, 0.8], [0.8, -0.6]])
    back, share = procrustes(7 * places @ turn - 2, places)
    torch.testing.assert_close(back, places, atol=1e-4, rtol=1e-4)
    assert share == pytest.approx(1.0)
    _, other = procrustes(places[torch.randperm(250, generator=torch.Generator().manual_seed(0))], places)
    assert other < 0.05
    level, none = procrustes(torch.zeros(250, 2), places)
    assert none == 0
    assert torch.isfinite(level).all()


@pytest.mark.parametrize("how", ["flat", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_a_seed_gives_one_map_and_clusters_stand_as_the_start_has_them(how: str) -> None:
    if how == "umap":
        pytest.importorskip("umap", reason="needs the extra superscope[umap]")
    three = 8 * torch.eye(6)[:3].repeat_interleave(30, 0) + normal(90, 6, 0)
    start = laid_flat(three, "pca")
    mirrored = start * torch.tensor([-1.0, 1.0])
    first = laid_flat(three, how, start=start, seed=1)
    torch.testing.assert_close(first, laid_flat(three, how, start=start, seed=1))
    turns = [clockwise(each) for each in (start, first, laid_flat(three, how, start=mirrored, seed=1))]
    assert turns[0] == turns[1] != turns[2]


def clockwise(places: torch.Tensor) -> bool:
    """Which way round three clusters stand."""
    a, b, c = places.view(3, -1, 2).mean(1)
    return bool((b - a)[0] * (c - a)[1] < (b - a)[1] * (c - a)[0])


def test_what_cannot_be_laid_flat_is_said(monkeypatch: pytest.MonkeyPatch, plane: torch.Tensor) -> None:
    assert set(MAPS) == {"pca", "flat", "tsne", "umap"}
    with pytest.raises(ValueError, match="no map 'som'. Maps are pca, flat, tsne, umap"):
        laid_flat(plane, "som")
    with pytest.raises(ValueError, match="3 rows are no population"):
        laid_flat(plane[:3])
    for how, module, command in (("umap", "umap", "umap"), ("tsne", "sklearn.manifold", "classical")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ModuleNotFoundError, match=rf"pip install 'superscope\[{command}\]'"):
            laid_flat(plane, how)
    with pytest.raises(ShapeError, match="10 places for 250 rows"):
        row_neighbours_kept(plane, torch.zeros(10, 2))
    with pytest.raises(ShapeError, match="cannot be laid onto"):
        procrustes(torch.zeros(4, 2), torch.zeros(5, 2))


def test_dimensions_of_few_or_equal_rows() -> None:
    for m in intrinsic_dimensions(normal(40, 3, 0)):
        assert m.value is None
        assert "too few" in m.caution
    copied = torch.cat([normal(200, 3, 0)] * 2)
    for m in intrinsic_dimensions(copied):
        assert m.n == 200
        assert "200 copies" in m.caution
        assert m.value == pytest.approx(3, abs=0.6)
