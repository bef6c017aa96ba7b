"""Shapes whose answer is known, rings above all, and what must not be called one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from superscope.core import ShapeError
from superscope.measure.manifolds.indices import mixture_index, separability_index
from superscope.measure.manifolds.order import ordered
from superscope.measure.manifolds.plane import shape
from superscope.measure.manifolds.shapes import contest


def _ring(rows: int, random: torch.Generator, clusters: int = 0) -> torch.Tensor:
    angle = 2 * math.pi * torch.rand(rows, generator=random)
    if clusters:
        step = 2 * math.pi / clusters
        angle = (angle / step).floor() * step + 0.08 * torch.randn(rows, generator=random)
    points = torch.stack([angle.cos(), angle.sin()], 1)
    return points + 0.05 * torch.randn(rows, 2, generator=random)


def _turned(parts: list[torch.Tensor], random: torch.Generator) -> torch.Tensor:
    x = torch.cat([*parts, 0.05 * torch.randn(len(parts[0]), 4, generator=random)], 1)
    turn = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(9))).Q
    return 7 * x @ turn


def _uniform(rows: int, random: torch.Generator, variance: float) -> torch.Tensor:
    return (torch.rand(rows, 1, generator=random) - 0.5) * math.sqrt(12 * variance)


PLANTED = {
    # A ring of radius 1 has variance 1/2 along each axis.
    "beside a linear factor of its own variance": lambda n, r: _turned([_ring(n, r), _uniform(n, r, 0.5)], r),
    "beside a linear factor of its own radius": lambda n, r: _turned(
        [_ring(n, r), torch.randn(n, 1, generator=r).sign()], r
    ),
    "of clusters, beside a Gaussian factor": lambda n, r: _turned(
        [_ring(n, r, clusters=7), math.sqrt(0.5) * torch.randn(n, 1, generator=r)], r
    ),
}
NONE = {
    "Gaussian": lambda n, r: torch.randn(n, 4, generator=r),
    "independent uniforms": lambda n, r: torch.rand(n, 3, generator=r),
    "sparse and independent": lambda n, r: torch.rand(n, 4, generator=r) * (torch.rand(n, 4, generator=r) < 0.3),
    "one of five": lambda n, r: (
        torch.eye(5)[torch.randint(5, (n,), generator=r)] * (1 + 0.1 * torch.randn(n, 1, generator=r))
    ),
    "a line": lambda n, r: _turned([_uniform(n, r, 1.0)], r),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_ring_is_found(name: str) -> None:
    random = torch.Generator().manual_seed(1)
    seen = shape(PLANTED[name](700, random), PLANTED[name](500, random))
    assert seen.verdict == ("clusters on a ring" if "clusters" in name else "ring")
    assert seen.clusters == (7 if "clusters" in name else 0)


def test_the_first_two_components_would_have_missed_it() -> None:
    random = torch.Generator().manual_seed(1)
    x = PLANTED["beside a linear factor of its own radius"](700, random)
    centred = x - x.mean(0)
    plane = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    squared = (centred @ plane.T).square().sum(1)
    assert float(squared.var() / squared.mean().square()) > 0.05
    assert shape(x[:400], x[400:]).components == (2, 3)


def _controls(x: torch.Tensor, rows: int, random: torch.Generator) -> dict[str, torch.Tensor]:
    """What a ring leaves where its coordinates are dealt anew, and Gaussian rows of its mean and covariance."""
    away = x - x.mean(0)
    root = torch.linalg.cholesky(away.T @ away / len(x) + 1e-9 * torch.eye(x.shape[1]))
    dealt = [column[torch.randperm(len(x), generator=random)] for column in x.T]
    return {
        "shuffled": torch.stack(dealt, 1)[:rows],
        "matched": torch.randn(rows, x.shape[1], generator=random) @ root.T + x.mean(0),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_hidden_rings_are_found_from_fresh_seeds_and_not_in_controls(name: str) -> None:
    seeds, found, false = range(1000, 1020), 0, {"shuffled": 0, "matched": 0}
    for seed in seeds:
        random = torch.Generator().manual_seed(seed)
        discovery, test = (PLANTED[name](rows, random) for rows in (700, 500))
        found += shape(discovery, test).is_circular
        first, second = _controls(discovery, 700, random), _controls(discovery, 500, random)
        for control in false:
            false[control] += shape(first[control], second[control]).is_circular
    assert found >= 18
    assert max(false.values()) <= 2, false


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_ring_is_not_called_one(name: str) -> None:
    random = torch.Generator().manual_seed(2)
    assert not shape(NONE[name](700, random), NONE[name](500, random)).is_circular


def test_parameters_are_counted() -> None:
    random = torch.Generator().manual_seed(3)
    points = _ring(600, random, clusters=5).double().numpy()
    seen = contest(points[:400], points[400:])
    for name, count in (("clusters on a ring", lambda k: 2 * k + 4), ("mixture", lambda k: 6 * k - 1)):
        assert seen.fitted[name].parameters == count(seen.fitted[name].clusters)
    assert (seen.fitted["ring"].parameters, seen.fitted["blob"].parameters) == (4, 5)
    assert seen.verdict == "clusters on a ring"


def test_densities_integrate_to_one() -> None:
    random = torch.Generator().manual_seed(4)
    points = _ring(300, random).double().numpy()
    seen = contest(points[:150], points[150:])
    axis = np.linspace(-6, 6, 601)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    for fitted in seen.fitted.values():
        total = np.exp(fitted.log_density(grid)).sum() * (axis[1] - axis[0]) ** 2
        assert total == pytest.approx(1, abs=0.03), fitted.shape


def test_indices_know_no_scale() -> None:
    random = torch.Generator().manual_seed(5)
    ring = _ring(600, random).double().numpy()
    independent = torch.rand(600, 2, generator=random).double().numpy()
    assert mixture_index(ring) == pytest.approx(mixture_index(1e3 * ring))
    assert separability_index(ring)[0] == pytest.approx(separability_index(1e3 * ring)[0])
    bits, doubt = separability_index(independent)
    assert bits < doubt < separability_index(ring)[0]
    # Of two features that exclude each other, one linear function is silent on one half.
    either = np.where(np.arange(600)[:, None] % 2 == np.arange(2), 1 + ring[:, :1], 0.0)
    assert mixture_index(either) > 0.45 > mixture_index(ring)


def test_few_rows_have_no_shape() -> None:
    assert shape(torch.randn(30, 4), torch.randn(30, 4)).verdict == "too few rows"
    with pytest.raises(ValueError, match="at least 20 points"):
        contest(np.zeros((5, 2)), np.zeros((50, 2)))


def _things(kind: str, k: int = 7, contexts: int = 16) -> torch.Tensor:
    random = torch.Generator().manual_seed(6)
    axes = torch.linalg.qr(torch.randn(40, 40, generator=random)).Q
    place = torch.arange(k).float()
    means = {
        "circle": torch.stack([(2 * math.pi * place / k).cos(), (2 * math.pi * place / k).sin()], 1) @ axes[:2],
        "line": 3 * (place / k)[:, None] @ axes[:1],
        "bent line": torch.stack([3 * place / k, 8 * (place / k - 0.5) ** 2], 1) @ axes[:2],
        "no order": axes[:k],
    }[kind]
    own = torch.randn(contexts, 1, 40, generator=random)
    return means + own + 0.2 * torch.randn(contexts, k, 40, generator=random)


@pytest.mark.parametrize("kind", ["circle", "line", "bent line", "no order"])
def test_an_order_is_seen(kind: str) -> None:
    seen = ordered(_things(kind, k=12 if kind == "bent line" else 7), orders=199, controls=20, draws=50)
    assert seen.verdict == kind
    rates = [m for m in seen.measurements if m.name == "false_circle_rate"]
    assert len(rates) == 2
    assert all((m.value or 0) <= 0.2 and m.n == 20 for m in rates)


def test_an_order_wants_contexts_and_things() -> None:
    with pytest.raises(ShapeError, match="4 contexts and 4 things"):
        ordered(torch.randn(8, 3, 5))
    with pytest.raises(ValueError, match="same mean"):
        ordered(torch.ones(8, 7, 5))
