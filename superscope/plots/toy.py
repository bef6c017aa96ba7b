"""Figures of the toy lab: phases, dimensionalities, directions, polytopes, training. Axes say P(feature active)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..core import Report
from ..measure.toy import dimensionalities
from ..theory.toy_loss import PHASES_3_2, phase_boundary
from .style import COLOURS, plain_ticks

ACTIVE = "P(feature active)"
_LINES = (
    (1.0, "dedicated"),
    (3 / 4, "tetrahedron 3/4"),
    (2 / 3, "triangle 2/3"),
    (1 / 2, "digon 1/2"),
    (2 / 5, "pentagon 2/5"),
    (3 / 8, "antiprism 3/8"),
    (1 / 4, "icosahedron 1/4"),
)
# Panels beside each other before a new row begins.
_ACROSS = 6
# Two values too near each other for their names to stand on one height.
_ALIGN = {"pentagon 2/5": "bottom", "antiprism 3/8": "top"}


def phase_diagram(report: Report) -> Figure:
    """What the best model of each cell does, with the boundaries of the simple theory drawn over it.

    Args:
        report: of a `PhaseDiagram` study.

    Raises:
        KeyError: if it is another report.
    """
    cells = report.tables["cells"]
    densities, ratios = sorted(set(cells["density"])), sorted(set(cells["ratio"]))
    names = sorted(set(cells["phase"]) | {name for name in cells["theory"] if name})
    number = {name: i for i, name in enumerate(names)}
    image = np.zeros((len(ratios), len(densities)))
    for p, r, name in zip(cells["density"], cells["ratio"], cells["phase"], strict=True):
        image[ratios.index(r), densities.index(p)] = number[name]
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    colours = ListedColormap([COLOURS[i % len(COLOURS)] for i in range(len(names))])
    axes.pcolormesh(
        _edges(densities),
        _edges(ratios),
        image,
        cmap=colours,
        norm=BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names)),
    )
    handles: list[Artist] = [Patch(color=colours(i), label=name) for name, i in number.items()]
    if any(cells["theory"]):
        handles.append(_theory(axes, ratios, three=PHASES_3_2[0] in names or PHASES_3_2[2] in names))
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=ACTIVE,
        ylabel="importance of the last feature (others 1)",
        xlim=(densities[0], densities[-1]),
        ylim=(ratios[0], ratios[-1]),
        title=report.title,
    )
    plain_ticks(axes.xaxis, axes.yaxis)
    axes.legend(handles=handles, loc="lower left", framealpha=0.95)
    return figure


def _edges(centres: Sequence[float]) -> np.ndarray:
    """Cells' edges, half way in logarithms: the boundaries drawn over them are curves in the same."""
    if len(centres) == 1:
        return np.array([centres[0] / 2, centres[0] * 2])
    logs = np.log(centres)
    middle = (logs[1:] + logs[:-1]) / 2
    return np.exp(np.concatenate([[2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]]]))


def _theory(axes: Axes, ratios: Sequence[float], *, three: bool) -> Artist:
    r = np.geomspace(ratios[0], ratios[-1], 400)
    second, first = (np.array(side) for side in zip(*(phase_boundary(x) for x in r), strict=True))
    style = {"color": "black", "lw": 1.5}
    if three:
        # Below ratio 1 the third feature shares or is ignored; above it the other two share, or one of them is ignored.
        (line,) = axes.plot(np.where(r <= 1, second, np.nan), r, label="theory (simple models)", **style)
        axes.plot([4 / 7, 4 / 7], [1, ratios[-1]], **style)
        axes.plot([axes.get_xlim()[0], 1], [1, 1], **style)
    else:
        (line,) = axes.plot(np.where(r <= 1, second, np.nan), r, label="theory (simple models)", **style)
        axes.plot(np.where(r >= 1, first, np.nan), r, **style)
        axes.plot([4 / 7, 1], [1, 1], **style)
    return line


def dimensionality_scatter(report: Report) -> Figure:
    """D_i of every represented feature over density, with the polytopes' values as lines, and the dimensions per
    feature `d / ||W||^2` over them, which also hold where directions are arbitrary (dense features).

    Args:
        report: of a `ToySweep`.

    Raises:
        KeyError: if it is another report.
    """
    features = report.tables["features"]
    rows = [i for i, norm in enumerate(features["norm"]) if norm > 0.5]
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    x = np.array([features["density"][i] for i in rows])
    y = np.array([features["dimensionality"][i] for i in rows])
    # A little horizontal noise tells a hundred features on one plateau from one; it is smaller than the grid's step.
    jitter = np.exp(np.random.default_rng(0).uniform(-0.03, 0.03, len(rows)))
    for value, name in _LINES:
        axes.axhline(value, color="0.75", lw=0.8, zorder=0)
        axes.text(
            1.005,
            value,
            name,
            transform=axes.get_yaxis_transform(),
            va=_ALIGN.get(name, "center"),
            fontsize=8,
            color="0.3",
        )
    dots = axes.scatter(x * jitter, y, s=14, color=COLOURS[4], alpha=0.4, linewidths=0)
    dots.set_label("a feature of norm above 1/2")
    densities = list(report.settings["densities"])
    W = report.arrays["W"].double().unflatten(0, (-1, len(densities)))
    # The median: a model that diverged, or one unlike the others, does not carry the line away.
    star = (W.shape[-1] / W.square().sum((-2, -1))).nanmedian(0).values.numpy()
    order = np.argsort(densities)
    axes.plot(
        np.array(densities)[order],
        star[order],
        "o-",
        color=COLOURS[5],
        lw=1.2,
        ms=3.5,
        label="dimensions per feature, d / ||W||²\n(median over seeds)",
    )
    axes.legend(loc="lower left", fontsize=8, framealpha=0.95)
    axes.set(xscale="log", xlabel=f"{ACTIVE} (dense on the left)", ylabel="dimensionality of a feature", ylim=(0, 1.05))
    plain_ticks(axes.xaxis)
    axes.set_title(report.title)
    axes.invert_xaxis()
    return figure


def feature_arrows(report: Report, *, seed: int | None = None) -> Figure:
    """Each feature's direction in two dimensions, one panel per density.

    Args:
        report: of a `ToySweep` with d = 2.
        seed: whose models to draw; None is the first.

    Raises:
        ValueError: if d is not 2 or the seed was not trained.
    """
    models, densities = _models(report, seed)
    if models.shape[-1] != 2:
        raise ValueError(
            f"feature_arrows: draws d = 2; this report has d = {models.shape[-1]}. Use `polytope` for d = 3."
        )
    figure, panels = _panels(len(densities), 2.4, 2.7)
    for axes, W, p in zip(panels, models, densities, strict=True):
        _arrows(axes, W.numpy())
        axes.set_title(f"{ACTIVE} {p:.3g}", fontsize=9)
    _name_features(figure, models.shape[-2])
    return figure


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes in rows of at most six; what is left of the last row stays empty."""
    across = min(count, _ACROSS)
    down = math.ceil(count / across)
    figure = Figure(figsize=(max(width * across, 3.6), height * down), layout="constrained")
    return figure, [figure.add_subplot(down, across, i + 1) for i in range(count)]


def _name_features(figure: Figure, n: int) -> None:
    """A legend of the features' colours, where each has one of its own."""
    if n <= len(COLOURS):
        handles = [Line2D([], [], color=COLOURS[i], lw=2, label=f"feature {i}") for i in range(n)]
        figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)


def _arrows(axes: Axes, W: np.ndarray) -> None:
    for i, (x, y) in enumerate(W):
        axes.annotate(
            "",
            (x, y),
            (0, 0),
            arrowprops={"arrowstyle": "-|>", "color": COLOURS[i % len(COLOURS)], "lw": 1.8, "shrinkA": 0, "shrinkB": 0},
        )
    reach = 1.35
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    axes.axhline(0, color="0.85", lw=0.6, zorder=0)
    axes.axvline(0, color="0.85", lw=0.6, zorder=0)


def polytope(report: Report, *, density: float | None = None, seed: int | None = None) -> Figure:
    """The features of a model in three dimensions, with the edges between neighbours.

    Args:
        report: of a `ToySweep` with d = 3.
        density: whose model to draw; None is the smallest.
        seed: None is the first.

    Raises:
        ValueError: if d is not 3, or density or seed were not trained.
    """
    models, densities = _models(report, seed)
    if models.shape[-1] != 3:
        raise ValueError(f"polytope: draws d = 3; this report has d = {models.shape[-1]}.")
    density = min(densities) if density is None else density
    if density not in densities:
        raise ValueError(f"polytope: the report has densities {densities}; got {density}.")
    W = models[densities.index(density)].double().numpy()
    kept = np.flatnonzero(np.linalg.norm(W, axis=1) > 0.1)
    W = W[kept]
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.add_subplot(projection="3d")
    distance = np.linalg.norm(W[:, None] - W[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    for i, j in itertools.combinations(range(len(W)), 2):
        # Edges: pairs not much farther apart than either one's nearest neighbour.
        if distance[i, j] < 1.25 * max(distance[i].min(), distance[j].min()):
            axes.plot(*W[[i, j]].T, color="0.6", lw=1)
    reach = 1.05 * float(np.abs(W).max(initial=1.0))
    for i, w in zip(kept, W, strict=True):
        axes.plot(*np.stack([0 * w, w]).T, color=COLOURS[i % len(COLOURS)], lw=1.6)
        axes.plot(*w[:, None], "o", color=COLOURS[i % len(COLOURS)], ms=7)
        place = (w + 0.13 * reach * w / np.linalg.norm(w)).tolist()
        axes.text(place[0], place[1], place[2], str(i), ha="center", va="center", fontsize=9)
    # One scale for the three axes: without it a regular polytope is drawn as an oblique one.
    limits, ticks = (-reach, reach), [-1, 0, 1]
    axes.set(xlim=limits, ylim=limits, zlim=limits, xticks=ticks, yticks=ticks, zticks=ticks)
    axes.set(xlabel="hidden 1", ylabel="hidden 2", zlabel="hidden 3")
    axes.set(box_aspect=(1, 1, 1))
    axes.set_title(f"{len(W)} features (numbered), {ACTIVE} {density:.3g}")
    return figure


def training_strip(report: Report, *, density: float | None = None, seed: int | None = None) -> Figure:
    """The loss, every feature's dimensionality, and (for d = 2) the directions at a few moments, through training.

    Args:
        report: of a `ToySweep` that recorded snapshots.
        density: whose model to follow; None is the smallest.
        seed: None is the first.

    Raises:
        ValueError: if there are no snapshots, or density or seed were not trained.
    """
    if "snapshots" not in report.arrays:
        raise ValueError("training_strip: this report has no snapshots. Run the study with record above 0.")
    settings = report.settings
    densities, seeds = list(settings["densities"]), list(settings["seeds"])
    density, seed = (min(densities) if density is None else density), (seeds[0] if seed is None else seed)
    if density not in densities or seed not in seeds:
        raise ValueError(
            f"training_strip: the report has densities {densities} and seeds {seeds}; got {density}, {seed}."
        )
    model = seeds.index(seed) * len(densities) + densities.index(density)
    W, steps = report.arrays["snapshots"][:, model], report.arrays["snapshot_steps"].tolist()
    training = report.tables["training"]
    losses = [
        (step, loss)
        for step, p, s, loss in zip(*(training[key] for key in ("step", "density", "seed", "loss")), strict=True)
        if p == density and s == seed and loss is not None
    ]
    flat = W.shape[-1] == 2
    figure = Figure(figsize=(9.6, 6 if flat else 4.4), layout="constrained")
    grid = figure.add_gridspec(3 if flat else 2, 6, height_ratios=[1, 1, 1] if flat else [1, 1])
    if flat:
        for column, place in enumerate(np.linspace(0, len(steps) - 1, 6).round().astype(int)):
            axes = figure.add_subplot(grid[0, column])
            _arrows(axes, W[place].numpy())
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"step {steps[place]:,}", fontsize=9)
    top = figure.add_subplot(grid[-2, :])
    top.plot(*zip(*losses, strict=True), color="black", lw=1.2)
    top.set(yscale="log", ylabel="loss on the batch")
    plain_ticks(top.yaxis)
    top.tick_params(labelbottom=False)
    bottom = figure.add_subplot(grid[-1, :], sharex=top)
    for i, dimensionality in enumerate(dimensionalities(W).T.numpy()):
        bottom.plot(steps, dimensionality, color=COLOURS[i % len(COLOURS)], lw=1.2, alpha=0.8)
    _name_features(figure, W.shape[-2])
    bottom.set(xlabel="training step", ylabel="dimensionality", ylim=(0, 1.05))
    figure.suptitle(f"Training at {ACTIVE} {density:.3g}, seed {seed}")
    return figure


def gram_matrices(report: Report, *, seed: int | None = None) -> Figure:
    """W'W and the biases, one panel per density: which features are read, and which disturb which.

    Args:
        report: of a `ToySweep`.
        seed: None is the first.

    Raises:
        ValueError: if the seed was not trained.
    """
    models, densities = _models(report, seed)
    seeds = list(report.settings["seeds"])
    first = (0 if seed is None else seeds.index(seed)) * len(densities)
    biases = report.arrays["b"][first : first + len(densities)]
    figure, panels = _panels(len(densities), 2.3, 2.5)
    image = None
    for axes, W, b, p in zip(panels, models, biases, densities, strict=True):
        columns = torch.cat([W @ W.T, torch.full((len(W), 1), math.nan), b[:, None]], 1)
        image = axes.imshow(columns.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{ACTIVE} {p:.3g}", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=panels, label="W'W; last column: bias", shrink=0.8, extend="both")
    return figure


def _models(report: Report, seed: int | None) -> tuple[torch.Tensor, list[float]]:
    densities, seeds = list(report.settings["densities"]), list(report.settings["seeds"])
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ValueError(f"the report has seeds {seeds}; got {seed}.")
    first = seeds.index(seed) * len(densities)
    return report.arrays["W"][first : first + len(densities)], densities
