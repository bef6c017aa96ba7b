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
from matplotlib.patches import Patch

from ..core import Report
from ..measure.toy import dimensionalities
from ..theory.toy_loss import PHASES_3_2, phase_boundary

# Okabe and Ito's colours: told apart by every kind of colour vision, and in grey.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442")
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
        densities, ratios, image, cmap=colours, norm=BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
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
    axes.legend(handles=handles, loc="lower left", framealpha=0.95)
    return figure


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
    """D_i of every represented feature over density, with the polytopes' values as lines.

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
    axes.scatter(x * jitter, y, s=6, color=COLOURS[4], alpha=0.35, linewidths=0)
    axes.set(xscale="log", xlabel=f"{ACTIVE} (dense on the left)", ylabel="dimensionality of a feature", ylim=(0, 1.05))
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
    figure = Figure(figsize=(2.4 * len(densities), 2.7), layout="constrained")
    for axes, W, p in zip(np.atleast_1d(figure.subplots(1, len(densities))), models, densities, strict=True):
        _arrows(axes, W.numpy())
        axes.set_title(f"{ACTIVE} {p:g}", fontsize=9)
    return figure


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
    W = W[np.linalg.norm(W, axis=1) > 0.1]
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.add_subplot(projection="3d")
    distance = np.linalg.norm(W[:, None] - W[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    for i, j in itertools.combinations(range(len(W)), 2):
        # Edges: pairs not much farther apart than either one's nearest neighbour.
        if distance[i, j] < 1.25 * max(distance[i].min(), distance[j].min()):
            axes.plot(*W[[i, j]].T, color="0.6", lw=1)
    for i, w in enumerate(W):
        axes.plot(*np.stack([0 * w, w]).T, color=COLOURS[i % len(COLOURS)], lw=1.6)
        axes.plot(*w[:, None], "o", color=COLOURS[i % len(COLOURS)], ms=7)
    axes.set(box_aspect=(1, 1, 1), title=f"{len(W)} features, {ACTIVE} {density:g}")
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
    figure = Figure(figsize=(9, 6.4 if flat else 4.4), layout="constrained")
    grid = figure.add_gridspec(3 if flat else 2, 6, height_ratios=[1.2, 1, 1] if flat else [1, 1])
    if flat:
        for column, place in enumerate(np.linspace(0, len(steps) - 1, 6).round().astype(int)):
            axes = figure.add_subplot(grid[0, column])
            _arrows(axes, W[place].numpy())
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"step {steps[place]:,}", fontsize=9)
    top = figure.add_subplot(grid[-2, :])
    top.plot(*zip(*losses, strict=True), color="black", lw=1.2)
    top.set(yscale="log", ylabel="loss on the batch")
    top.tick_params(labelbottom=False)
    bottom = figure.add_subplot(grid[-1, :], sharex=top)
    bottom.plot(steps, dimensionalities(W).numpy(), lw=1, alpha=0.8)
    bottom.set(xlabel="training step", ylabel="dimensionality", ylim=(0, 1.05))
    figure.suptitle(f"Training at {ACTIVE} {density:g}, seed {seed}")
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
    figure = Figure(figsize=(2.3 * len(densities), 2.9), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(densities)))
    image = None
    for axes, W, b, p in zip(panels, models, biases, densities, strict=True):
        columns = torch.cat([W @ W.T, torch.full((len(W), 1), math.nan), b[:, None]], 1)
        image = axes.imshow(columns.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{ACTIVE} {p:g}", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=panels.tolist(), label="W'W; last column: bias", shrink=0.8)
    return figure


def _models(report: Report, seed: int | None) -> tuple[torch.Tensor, list[float]]:
    densities, seeds = list(report.settings["densities"]), list(report.settings["seeds"])
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ValueError(f"the report has seeds {seeds}; got {seed}.")
    first = seeds.index(seed) * len(densities)
    return report.arrays["W"][first : first + len(densities)], densities
