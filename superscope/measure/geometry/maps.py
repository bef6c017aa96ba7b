"""What do rows look like laid flat, which neighbours stay together there, and how do maps of several layers compare?

A map of few dimensions always shows something. So each goes with the share of neighbours that it keeps, beside what a
random map would keep.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from ...core import Dictionary, Measurement, ShapeError
from ..interval import bootstrap
from .flat_map import flat_map

_BLOCK = 2**24
_SPREAD = 1e-4
"""Of the start of t-SNE along its first axis, as scikit-learn's own start by principal axes has it: a wide start holds
clusters apart that belong together."""

_LIFT = 4.0
"""Of rows onto a sphere, in lengths of the longest one about the mean."""

Map = Callable[[Float[Tensor, "rows d"], Float[Tensor, "rows 2"] | None, int, int], Float[Tensor, "rows 2"]]
"""From rows, places to start from, neighbours and a seed to places."""


def _pca(x: Tensor, start: Tensor | None, neighbours: int, seed: int) -> Tensor:
    centred = (x - x.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    leading = vectors[:, -2:].flip(1)
    # An axis has no sign of its own: its largest entry is made positive.
    signs = leading.gather(0, leading.abs().argmax(0, keepdim=True)).sign()
    return (centred @ (leading * signs)).float()


def _flat(x: Tensor, start: Tensor | None, neighbours: int, seed: int) -> Tensor:
    centred = x - x.mean(0)
    # One more coordinate, the same for all and long against the others: then the nearest by cosine are the nearest.
    lift = _LIFT * centred.norm(dim=1).max().clamp(min=1e-12)
    lifted = torch.cat([centred, lift.expand(len(x), 1)], 1)
    return flat_map(Dictionary(lifted), neighbours=neighbours, seed=seed, start=start).places


def _tsne(x: Tensor, start: Tensor | None, neighbours: int, seed: int) -> Tensor:
    manifold = _extra("sklearn.manifold", "t-SNE", "scikit-learn", "classical")
    begin = (_pca(x, None, neighbours, seed) if start is None else start).double()
    begin = (begin - begin.mean(0)) / begin[:, 0].std().clamp(min=1e-12) * _SPREAD
    # Its own rule: a perplexity is about a third of the neighbours that count.
    perplexity = min(30.0, (len(x) - 1) / 3)
    learner = manifold.TSNE(2, perplexity=perplexity, init=begin.float().numpy(), random_state=seed, n_jobs=1)
    return torch.from_numpy(learner.fit_transform(x.float().cpu().numpy()))


def _umap(x: Tensor, start: Tensor | None, neighbours: int, seed: int) -> Tensor:
    umap = _extra("umap", "UMAP", "umap-learn", "umap")
    begin = "spectral" if start is None else (10 * (start - start.mean(0)) / start.std().clamp(min=1e-12)).numpy()
    with warnings.catch_warnings():
        # That a seed takes its threads away.
        warnings.simplefilter("ignore", UserWarning)
        learner = umap.UMAP(n_neighbors=min(neighbours, len(x) - 1), init=begin, random_state=seed)
        return torch.from_numpy(np.asarray(learner.fit_transform(x.float().cpu().numpy())))


MAPS: dict[str, Map] = {"pca": _pca, "flat": _flat, "tsne": _tsne, "umap": _umap}
"""Ways to lay rows flat: two principal axes; `flat_map` of the rows, by distance; t-SNE (scikit-learn, extra
`classical`); UMAP (umap-learn, extra `umap`)."""


def laid_flat(
    x: Float[Tensor, "rows d"],
    how: str = "flat",
    *,
    start: Float[Tensor, "rows 2"] | None = None,
    neighbours: int = 12,
    seed: int = 0,
) -> Float[Tensor, "rows 2"]:
    """Places of rows in the plane. The same seed and thread give the same map.

    Args:
        x: rows.
        how: a name of MAPS.
        start: places of the same rows to begin at, from the map of another layer; "pca" has no start.
        neighbours: of each row, where the way counts any; t-SNE has its perplexity, 30.
        seed: of everything random.

    Raises:
        ValueError: if there is no such way, or fewer than 4 rows.
        ModuleNotFoundError: if its package is not there, with the command that installs it.

    Source:
        van der Maaten and Hinton, "Visualizing data using t-SNE", 2008; McInnes et al., "UMAP", 2018; that the start
        decides what is kept between clusters: Kobak and Linderman, "Initialization is critical for preserving global
        data structure in both t-SNE and UMAP", 2021.
    """
    if how not in MAPS:
        raise ValueError(f"laid_flat: there is no map {how!r}. Maps are {', '.join(MAPS)}.")
    if len(x) < 4:
        raise ValueError(f"laid_flat: {len(x)} rows are no population. Give at least 4.")
    return MAPS[how](x.detach(), start, neighbours, seed).float().cpu()


def nearest_rows(x: Float[Tensor, "rows d"], count: int) -> Int[Tensor, "rows count"]:
    """The `count` nearest other rows of each, by distance. O(rows^2 d) time."""
    x = x.detach().double()
    found = []
    size = max(1, _BLOCK // len(x))
    for at in range(0, len(x), size):
        distances = torch.cdist(x[at : at + size], x)
        own = torch.arange(len(distances))
        distances[own, own + at] = torch.inf
        found.append(distances.topk(count, dim=1, largest=False).indices.cpu())
    return torch.cat(found)


def row_neighbours_kept(
    x: Float[Tensor, "rows d"],
    places: Float[Tensor, "places 2"],
    *,
    neighbours: int = 12,
    documents: Int[Tensor, "rows"] | None = None,
    seed: int = 0,
) -> Measurement:
    r"""$\frac1N \sum_i |K_i \cap L_i| / k$: of each row's k nearest others, those among its k nearest on the map.

    Distances are Euclidean in both. A plane hidden in d dimensions keeps all, d-dimensional noise of N rows little more
    than chance: what a map keeps is bounded by the dimension of the rows, not by the map alone.

    Args:
        x: rows.
        places: of each on the map.
        neighbours: k, made smaller where there are fewer rows.
        documents: of each row, to resample by; rows by themselves without it.
        seed: of the bootstrap.

    Raises:
        ShapeError: if there are not as many places as rows.
        ValueError: if there are fewer than 3 rows.

    Source:
        Lee and Verleysen, "Quality assessment of dimensionality reduction: rank-based criteria", 2009 (Q_NX(k)).

    Example:
        >>> line = torch.arange(9.0)[:, None]
        >>> row_neighbours_kept(line, torch.cat([line, 0 * line], 1), neighbours=2).value
        1.0
    """
    if len(x) != len(places):
        raise ShapeError(f"row_neighbours_kept: {len(places)} places for {len(x)} rows. Give one for each.")
    if len(x) < 3:
        raise ValueError(f"row_neighbours_kept: {len(x)} rows have no neighbours to lose. Give at least 3.")
    count = min(neighbours, len(x) - 1)
    near = nearest_rows(x, count).numpy()
    y = places.double().numpy()
    _, beside = cKDTree(y).query(y, k=count + 1)
    # Itself is no neighbour; where others share its place and it is not among the nearest, the last one goes.
    own = np.arange(len(y))[:, None]
    beside = np.where(beside == own, -1, beside)
    beside[(beside != -1).all(1), -1] = -1
    kept = np.array([len(np.intersect1d(a, b)) for a, b in zip(near, beside, strict=True)]) / count
    number = np.arange(len(kept)) if documents is None else documents.cpu().numpy()
    sums = np.stack([np.bincount(number, kept), np.bincount(number)], 1)
    interval = bootstrap(
        lambda s: s[:, 0] / s[:, 1], sums[sums[:, 1] > 0], of="rows" if documents is None else "documents", seed=seed
    )
    return Measurement(
        name="row_neighbours_kept",
        value=float(kept.mean()),
        unit="share of neighbours",
        n=len(kept),
        of="rows",
        reference=1.0,
        reference_is="every neighbour kept",
        chance=count / (len(kept) - 1),
        chance_is="a random map",
        **interval.fields,
    )


def procrustes(
    places: Float[Tensor, "rows 2"], onto: Float[Tensor, "others 2"]
) -> tuple[Float[Tensor, "others 2"], float]:
    r"""The places turned, mirrored, shifted and made as wide as another map, to lie near it; and R^2.

    With both about their means, $Y^\top Z = U S V^\top$: the places are $|Z| / |Y|\, Y U V^\top$, and
    $R^2 = (\mathrm{tr} S)^2 / (|Y|^2 |Z|^2)$ of the other map's variance is met at the best scale. That one
    shrinks what fits badly, and so is not given to the places.

    Args:
        places: Y.
        onto: Z, of the same rows.

    Source:
        Gower, "Generalized Procrustes analysis", 1975; Schönemann, "A generalized solution of the orthogonal
        Procrustes problem", 1966.

    Example:
        >>> square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> turned, share = procrustes(3 * square.flip(1) + 5, square)
        >>> torch.allclose(turned, square, atol=1e-6), round(share, 6)
        (True, 1.0)
    """
    if places.shape != onto.shape:
        raise ShapeError(f"procrustes: {tuple(places.shape)} places cannot be laid onto {tuple(onto.shape)} others.")
    y, z = (each.double() - each.double().mean(0) for each in (places, onto))
    u, s, vh = torch.linalg.svd(y.T @ z)
    norm, other = float(y.square().sum()), float(z.square().sum())
    if norm == 0 or other == 0:
        return onto.mean(0).expand_as(onto).clone(), 0.0
    total = float(s.sum())
    return ((other / norm) ** 0.5 * y @ u @ vh + onto.double().mean(0)).float(), total**2 / (norm * other)


def _extra(module: str, what: str, package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{what} is made by {package}; install it with: pip install 'superscope[{extra}]'."
        ) from error
