"""Do things with an order (weekdays, digits, positions) lie on a circle, on a line, on a bent line, or in no order?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Measurement, ShapeError
from ..interval import wilson

_CERTAIN = 0.05


@dataclass(frozen=True, eq=False)
class Ordered:
    """How the means of k things in an order lie.

    Args:
        verdict: "circle", "line", "bent line" or "no order".
        foretold: of each layout, the share of variance between things that it foretells: a thing's mean in new
            contexts from those of the other things in old ones.
        measurements: the circle's share with interval and chance, its advantage, and the false-circle rates.
        p: of the circle's share among orders drawn at random.
        closing: distance from the last thing to the first over the mean distance of neighbours: 1 on a circle,
            k - 1 on a line.
        plane: the things' means on the two axes of the circle.
    """

    verdict: str
    foretold: dict[str, float]
    measurements: tuple[Measurement, ...]
    p: float
    closing: float
    plane: np.ndarray

    @property
    def is_circular(self) -> bool:
        """Whether a circle foretells most, and more than it would in another order."""
        return self.verdict == "circle"


@torch.no_grad()
def ordered(
    x: Float[Tensor, "contexts k d"],
    *,
    orders: int = 999,
    controls: int = 100,
    draws: int = 200,
    name: str = "things",
    seed: int = 0,
) -> Ordered:
    r"""Leave-one-thing-out prediction of the means of k things from their place in the order.

    Half of the contexts are learned from, the others tested on. Each thing's mean in the test half is foretold from the
    other things' means in the first half by regression on its place c:

    | layout | regressors |
    |---|---|
    | circle | 1, cos 2 pi c / k, sin 2 pi c / k |
    | line | 1, c |
    | bent line | 1, c, c^2 |

    and scored by $R^2 = 1 - \sum_c |m_c - \hat m_c|^2 / \sum_c |m_c - \bar m_{-c}|^2$, which no scale enters. No plane
    is searched for: in many dimensions some plane shows any k points on a circle, in whatever order is asked for. The
    chance level is the same for orders drawn at random. A circle is said only where its R^2 is positive, beyond 95 % of
    the orders', and above both lines' in 95 % of resamples of the contexts; with fewer than 5 things never, for four
    points leave too few others.

    The same verdict is asked of orders drawn at random, and of Gaussian things with the covariance of these: its rates
    of false circles stand beside it.

    Args:
        x: activations of each thing in each context; every context holds all of them.
        orders: drawn for the chance level.
        controls: verdicts on each control.
        draws: resamples of contexts.
        name: of the things, for the record.
        seed: of everything random.

    Raises:
        ShapeError: if x is no [contexts, k, d] with k >= 4 and at least 4 contexts.
        ValueError: if x is not finite, or all things are the same.

    Source:
        Engels et al., 2024 (arXiv 2405.14860), for weekdays and months on circles, found by eye.
    """
    if x.ndim != 3 or x.shape[1] < 4 or len(x) < 4:
        raise ShapeError(
            f"ordered: x has shape {tuple(x.shape)}; give [contexts, things, d] with 4 contexts and 4 things or more."
        )
    if not bool(torch.isfinite(x).all()):
        raise ValueError("ordered: x holds NaN or infinite numbers. Remove those contexts first.")
    contexts, k, d = x.shape
    rows = x.double().reshape(contexts, k, d)
    # What a context adds to all things alike says nothing of their order.
    rows = rows - rows.mean(1, keepdim=True)
    # Distances between means need no more than the things' and contexts' own span.
    flat = rows.reshape(-1, d)
    if d > len(flat):
        flat = flat @ torch.linalg.qr(flat.T).Q
    rows = flat.reshape(contexts, k, -1).numpy()
    random = np.random.default_rng(seed)
    # Contexts are dealt to the halves at random: neighbours in a list resemble each other.
    lot = random.permutation(contexts)
    old, new = rows[lot[: contexts // 2]], rows[lot[contexts // 2 :]]
    if float(np.ptp(rows.mean(0), axis=0).max()) <= 1e-12:
        raise ValueError("ordered: all things have the same mean, so there is nothing to order.")
    layouts = {layout: _smoother(k, layout) for layout in ("circle", "line", "bent line")}
    halves = _resampled(old, new, draws, random)
    first = old.mean(0), new.mean(0)
    verdict, foretold, p, shares, lots = _judged(first, halves, layouts, orders, random)
    rates: dict[str, int] = {}
    spread = np.concatenate([old, new]).mean(0)
    spread = spread - spread.mean(0)
    for control in ("orders drawn at random", "Gaussian things of the same covariance"):
        hits = 0
        for _ in range(controls):
            if control.startswith("orders"):
                order = random.permutation(k)
                changed = [(a[:, order], b[:, order]) for a, b in ((first[0][None], first[1][None]), halves)]
            else:
                mix = random.standard_normal((k, k)) / np.sqrt(k)
                turned = mix @ spread
                # What a context adds stays: only the things themselves are drawn anew.
                changed = [
                    (a - spread + turned, b - spread + turned) for a, b in ((first[0][None], first[1][None]), halves)
                ]
            (a, b), resampled = changed
            hits += _judged((a[0], b[0]), resampled, layouts, 99, random)[0] == "circle"
        rates[control] = hits
    means = rows.mean(0)
    steps = np.linalg.norm(np.roll(means, -1, 0) - means, axis=1)
    closing = float(steps[-1] / steps[:-1].mean())
    measurements = _measurements(foretold, p, shares, lots, rates, controls, k, contexts, name, closing)
    return Ordered(verdict, foretold, measurements, p, closing, _plane(means, k))


def _smoother(k: int, layout: str) -> np.ndarray:
    """(k, k) weights: row c says what the others' means foretell of thing c."""
    place = np.arange(k)
    angle = 2 * np.pi * place / k
    columns = {
        "circle": (np.cos(angle), np.sin(angle)),
        "line": (place - place.mean(),),
        "bent line": (place - place.mean(), (place - place.mean()) ** 2),
    }[layout]
    design = np.column_stack([np.ones(k), *columns])
    weights = np.zeros((k, k))
    for c in range(k):
        others = place != c
        weights[c, others] = design[c] @ np.linalg.pinv(design[others])
    return weights


def _share(old: np.ndarray, new: np.ndarray, smoother: np.ndarray) -> np.ndarray:
    """R^2 of a batch of pairs of halves, (..., k, m) each."""
    k = smoother.shape[0]
    without = (old.sum(-2, keepdims=True) - old) / (k - 1)
    error = ((new - smoother @ old) ** 2).sum((-1, -2))
    return np.asarray(1 - error / np.maximum(((new - without) ** 2).sum((-1, -2)), 1e-300))


def _resampled(
    old: np.ndarray, new: np.ndarray, draws: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    halves = []
    for half in (old, new):
        counts = random.multinomial(len(half), np.full(len(half), 1 / len(half)), size=draws) / len(half)
        halves.append(np.einsum("bc,ckm->bkm", counts, half))
    return halves[0], halves[1]


def _judged(
    first: tuple[np.ndarray, np.ndarray],
    halves: tuple[np.ndarray, np.ndarray],
    layouts: dict[str, np.ndarray],
    orders: int,
    random: np.random.Generator,
) -> tuple[str, dict[str, float], float, dict[str, np.ndarray], np.ndarray]:
    k = len(first[0])
    foretold = {layout: float(_share(*first, weights)) for layout, weights in layouts.items()}
    lots = np.stack([random.permutation(k) for _ in range(orders)])
    by_chance = {layout: _share(first[0][lots], first[1][lots], weights) for layout, weights in layouts.items()}
    p = {layout: (1 + int((by_chance[layout] >= foretold[layout]).sum())) / (orders + 1) for layout in layouts}
    shares = {layout: _share(*halves, weights) for layout, weights in layouts.items()}
    ahead = np.quantile(shares["circle"] - np.maximum(shares["line"], shares["bent line"]), _CERTAIN)
    if k > 4 and foretold["circle"] > 0 and p["circle"] < _CERTAIN and ahead > 0:
        verdict = "circle"
    else:
        known = [one for one in ("line", "bent line") if foretold[one] > 0 and p[one] < _CERTAIN]
        verdict = max(known, key=foretold.__getitem__, default="no order")
    return verdict, foretold, p["circle"], shares, by_chance["circle"]


def _plane(means: np.ndarray, k: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(k) / k
    axes = np.stack([np.cos(angle), np.sin(angle)]) @ (means - means.mean(0)) * 2 / k
    # Orthonormal axes of the same plane, the first along the cosine's.
    basis = np.linalg.qr(axes.T)[0]
    return (means - means.mean(0)) @ basis


def _measurements(
    foretold: dict[str, float],
    p: float,
    shares: dict[str, np.ndarray],
    lots: np.ndarray,
    rates: dict[str, int],
    controls: int,
    k: int,
    contexts: int,
    name: str,
    closing: float,
) -> tuple[Measurement, ...]:
    at = {"concept": name}
    how = f"95% percentile bootstrap over {contexts} contexts, {len(shares['circle'])} draws"
    found = [
        Measurement(
            name=f"{label}_foretold",
            value=foretold[layout],
            unit="share of variance",
            n=k,
            of="things in an order",
            low=min(float(np.quantile(shares[layout], 0.025)), foretold[layout]),
            high=max(float(np.quantile(shares[layout], 0.975)), foretold[layout]),
            how=how,
            reference=1.0,
            reference_is="foretold without error",
            chance=float(lots.mean()) if layout == "circle" else None,
            chance_is=f"orders drawn at random; p = {p:.3g}" if layout == "circle" else "",
            at=at,
        )
        for layout, label in (("circle", "circle"), ("line", "line"), ("bent line", "bent_line"))
    ]
    found.append(
        Measurement(
            name="closing_step",
            value=closing,
            unit="mean steps",
            n=k,
            of="things in an order",
            reference=1.0,
            reference_is="a regular circle",
            chance=float(k - 1),
            chance_is="a straight line",
            at=at,
        )
    )
    for control, hits in rates.items():
        found.append(
            Measurement(
                name="false_circle_rate",
                value=hits / controls,
                unit="share of verdicts",
                n=controls,
                of="controls",
                **wilson(hits, controls, of="controls").fields,
                at={**at, "control": control},
            )
        )
    return tuple(found)
