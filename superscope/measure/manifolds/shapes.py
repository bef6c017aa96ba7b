"""What shape have these points of a plane: a ring, clusters on a ring, a line, clusters anywhere, or none?

Each shape is a density that is fitted to discovery rows and judged by its log-likelihood on others, so that a shape
with more parameters has no advantage of them alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, logsumexp

_CLUSTERS = {"clusters on a ring": (4, 5, 6, 7, 8, 10, 12), "line": (1, 2, 3, 5, 8), "mixture": (1, 2, 3, 4, 6, 8)}
"""Numbers of clusters tried. Three points always lie on a circle, so a ring of clusters has at least four."""
_ROUNDS = 40
_FLOOR = 1e-4
"""Smallest variance of a cluster: that of all points is 1."""
_NEAR = 0.1
"""Share of the mixture's gain over a Gaussian that a circle may miss: it has a third of the parameters."""
_CERTAIN = 2.0
"""Standard errors by which one shape must beat another."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A shape with its parameters.

    Args:
        shape: its name.
        parameters: how many numbers were fitted.
        log_density: nats of each point, (rows, 2) to (rows,).
        clusters: how many, 0 where there are none.
    """

    shape: str
    parameters: int
    log_density: Callable[[np.ndarray], np.ndarray]
    clusters: int = 0


@dataclass(frozen=True, eq=False)
class Contest:
    """Shapes held against each other on rows that none was fitted to.

    Args:
        fitted: each shape, its number of clusters chosen on the discovery rows.
        nats: mean held-out log-likelihood of each, per row.
        gain: of the better ring over the best of Gaussian and line, nats per row; None where there was no contest.
        error: its standard error.
        verdict: "ring", "clusters on a ring", "line", "mixture" or "blob".
    """

    fitted: dict[str, Fitted]
    nats: dict[str, float]
    gain: float | None
    error: float | None
    verdict: str

    @property
    def is_circular(self) -> bool:
        """Whether a circle won, with clusters on it or without."""
        return self.verdict in ("ring", "clusters on a ring")


def contest(discovery: np.ndarray, test: np.ndarray, *, seed: int = 0) -> Contest:
    r"""Which shape foretells the test rows best?

    | shape | density | parameters |
    |---|---|---|
    | blob | a Gaussian | 5 |
    | ring | angle uniform, radius normal, cut at 0 | 4 |
    | clusters on a ring | one centre, one radius, widths along and across it, k angles and weights | 2k + 4 |
    | line | one line, one width, k places and weights | 2k + 2 |
    | mixture | k Gaussians anywhere | 6k - 1 |

    k is chosen on the discovery rows by the Bayesian information criterion. A circle wins if it beats blob and line by
    two standard errors of the paired difference, and if the free mixture does not beat it by as much, or by a tenth
    of its own gain at most. With one width for both the ring of clusters has 2k + 3; strengths that vary, as
    features' do, ask for two.

    Args:
        discovery, test: (rows, 2), different rows.
        seed: of the starts.

    Raises:
        ValueError: if there are fewer than 20 rows of either.
    """
    for name, rows in (("discovery", discovery), ("test", test)):
        if rows.ndim != 2 or rows.shape[1] != 2 or len(rows) < 20:
            raise ValueError(f"contest: {name} must hold at least 20 points of a plane; got shape {rows.shape}.")
    random = np.random.default_rng(seed)
    # One scale for all: likelihoods are then comparable between groups, and floors mean the same everywhere.
    centre, scale = discovery.mean(0), max(float(discovery.std()), 1e-12)
    discovery, test = (discovery - centre) / scale, (test - centre) / scale
    fitted = {"blob": _mixture(discovery, 1, "mixture", random), "ring": _ring(discovery)}
    for shape, counts in _CLUSTERS.items():
        tried = [_mixture(discovery, k, shape, random) for k in counts if 8 * k <= len(discovery)]
        half = math.log(len(discovery)) / 2
        fitted[shape] = max(tried, key=lambda f: float(f.log_density(discovery).sum()) - half * f.parameters)
    rows = {shape: f.log_density(test) for shape, f in fitted.items()}
    nats = {shape: float(values.mean()) for shape, values in rows.items()}
    circle = "ring"
    if _beats(rows["clusters on a ring"], rows["ring"]):
        circle = "clusters on a ring"
    rival = max(("blob", "line"), key=nats.__getitem__)
    gain, error = _difference(rows[circle], rows[rival])
    # A free mixture of many parts comes a little nearer to any shape.
    near = nats["mixture"] - nats[circle] < _NEAR * (nats["mixture"] - nats["blob"])
    if gain > _CERTAIN * error and (near or not _beats(rows["mixture"], rows[circle])):
        verdict = circle
    else:
        others = ("blob", "line", "mixture")
        best = max(others, key=nats.__getitem__)
        # Of those that cannot be told from the best, the one with the fewest parameters.
        equal = [shape for shape in others if not _beats(rows[best], rows[shape])]
        verdict = min([best, *equal], key=lambda shape: fitted[shape].parameters)
    return Contest(fitted, nats, gain, error, verdict)


def _difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    paired = one - other
    return float(paired.mean()), float(paired.std(ddof=1) / math.sqrt(len(paired)))


def _beats(one: np.ndarray, other: np.ndarray) -> bool:
    gain, error = _difference(one, other)
    return gain > _CERTAIN * error


def _circle(z: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and radius by least squares of |z|^2 on (z, 1): Kasa's circle."""
    design = np.column_stack([2 * z, np.ones(len(z))])
    solution = np.linalg.lstsq(design, (z**2).sum(1), rcond=None)[0]
    centre = solution[:2]
    return centre, float(np.linalg.norm(z - centre, axis=1).mean())


def _ring(z: np.ndarray) -> Fitted:
    centre, radius = _circle(z)
    width = max(float(np.linalg.norm(z - centre, axis=1).std()), math.sqrt(_FLOOR))

    def log_density(points: np.ndarray) -> np.ndarray:
        rho = np.maximum(np.linalg.norm(points - centre, axis=1), 1e-9)
        normal = -0.5 * ((rho - radius) / width) ** 2 - math.log(width) - 0.5 * math.log(2 * math.pi)
        return normal - float(log_ndtr(radius / width)) - np.log(2 * math.pi * rho)

    return Fitted("ring", 4, log_density)


def _mixture(z: np.ndarray, k: int, shape: str, random: np.random.Generator) -> Fitted:
    """Expectation-maximisation from the better of two starts, the means held to what the shape allows."""
    best: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None
    for _ in range(1 if k == 1 else 2):
        weights, means, covariances = np.full(k, 1 / k), _starts(z, k, random), np.tile(np.eye(2) / k, (k, 1, 1))
        before = -math.inf
        total = -math.inf
        for _ in range(_ROUNDS):
            logs = _logs(z, weights, means, covariances)
            rows = _total(logs)
            total = float(rows.sum())
            if total - before < 1e-5 * len(z):
                break
            before = total
            share = np.exp(logs - rows[:, None])
            mass = share.sum(0) + 1e-9
            weights = mass / mass.sum()
            means = share.T @ z / mass[:, None]
            if shape != "mixture":
                means = _held(z, means, weights, shape)
            away = z[:, None, :] - means
            covariances = _covariances(away, share, mass, means, shape)
        if best is None or total > best[0]:
            best = total, weights, means, covariances
    assert best is not None
    _, weights, means, covariances = best
    parameters = {"mixture": 6 * k - 1, "line": 2 * k + 2, "clusters on a ring": 2 * k + 4}[shape]
    return Fitted(shape, parameters, lambda p: _total(_logs(p, weights, means, covariances)), clusters=k)


def _covariances(away: np.ndarray, share: np.ndarray, mass: np.ndarray, means: np.ndarray, shape: str) -> np.ndarray:
    """(k, 2, 2): each cluster's own, one round one for all, or one along and across the ring."""
    if shape == "mixture":
        return np.einsum("nk,nki,nkj->kij", share, away, away) / mass[:, None, None] + _FLOOR * np.eye(2)
    total = mass.sum()
    whole = float((share * (away**2).sum(2)).sum()) / total
    if shape == "line":
        return np.tile(max(whole / 2, _FLOOR) * np.eye(2), (len(means), 1, 1))
    # Strength moves a point across the ring, and the cluster's own spread along it: two widths.
    outward = means - means.mean(0)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    across = float((share * np.einsum("nki,ki->nk", away, outward) ** 2).sum()) / total
    along = max(whole - across, _FLOOR)
    radial = outward[:, :, None] * outward[:, None, :]
    return max(across, _FLOOR) * radial + along * (np.eye(2) - radial)


def _held(z: np.ndarray, means: np.ndarray, weights: np.ndarray, shape: str) -> np.ndarray:
    """The means moved to the nearest line through their middle, or circle."""
    middle = weights @ means
    if shape == "line":
        away = means - middle
        if len(means) == 1:
            return means
        axis = np.linalg.eigh((weights[:, None] * away).T @ away)[1][:, -1]
        return middle + (away @ axis)[:, None] * axis
    centre, _ = _circle(z)
    away = means - centre
    length = np.maximum(np.linalg.norm(away, axis=1), 1e-9)
    return centre + float(weights @ length) * away / length[:, None]


def _starts(z: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """Points far from each other: k-means++."""
    chosen = [z[random.integers(len(z))]]
    nearest = ((z - chosen[0]) ** 2).sum(1)
    for _ in range(k - 1):
        total = nearest.sum()
        at = random.choice(len(z), p=nearest / total) if total > 0 else random.integers(len(z))
        chosen.append(z[at])
        nearest = np.minimum(nearest, ((z - chosen[-1]) ** 2).sum(1))
    return np.stack(chosen)


def _logs(z: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    determinant = np.maximum(a * c - b * b, 1e-12)
    x, y = (z[:, None, :] - means).transpose(2, 0, 1)
    square = (c * x * x - 2 * b * x * y + a * y * y) / determinant
    return np.log(weights) - 0.5 * square - 0.5 * np.log(determinant) - math.log(2 * math.pi)


def _total(logs: np.ndarray) -> np.ndarray:
    return np.asarray(logsumexp(logs, axis=1))
