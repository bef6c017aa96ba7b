"""If latents of one feature are exchanged between two rows, does that feature change hands, and nothing else?

With truth both can be read off: x is written back by the dictionary, and the true features are read from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Activations, Dictionary, Measurement, ShapeError, SparseCoder
from ..interval import bootstrap


@torch.no_grad()
def interchange(
    coder: SparseCoder,
    batch: Activations,
    truth: Dictionary,
    latent: Int[Tensor, "features"],
    *,
    features: int = 64,
    seed: int = 0,
) -> tuple[Measurement, ...]:
    r"""Cause and isolation of exchanging one latent between a row with the feature and a row without it.

    For feature j with latent i: rows where f_j = 0 get the value that i has where f_j is not, all else of their code
    and their error staying, and every true feature is read from what comes out by the linear read-out g that is best on
    these rows (ridge regression of f on x). With t_j the mean of f_j where it is active:

    - `interchange_cause` = the change of $g_j$ over t_j: 1 where the feature changes hands whole.
    - `interchange_isolation` = $1 - \sqrt{\sum_{l \ne j} \Delta_l^2} / \sqrt{\sum_l \Delta_l^2}$, $\Delta_l$ the
      change of $g_l$: 1 where nothing else moves.
    - `multi_concept_moves`: how many features the exchange moves by more than half of what it moves j by, j included: 1
      where a concept has a latent to itself in what it does, too. Latents that are each correlated with one concept
      may yet move several.

    Chance is a latent drawn at random in the place of i, set to its own mean active value; the true atom in its place
    is the reference.

    Args:
        coder: what is judged.
        batch: rows with their true code.
        truth: the true atoms.
        latent: of each feature its latent; -1 for none, which counts as no change.
        features: most frequent ones to look at.
        seed: of random latents.

    Raises:
        ShapeError: if the rows carry no code, or numbers disagree.
        ValueError: if no feature is both active and silent in at least 5 rows.

    Source:
        Huang et al., "RAVEL", 2024 (arXiv 2402.17700), for cause and isolation; "multi-concept disentanglement", 2025
        (arXiv 2512.15134), for what one latent moves. Both train masks or probes where here truth is known.
    """
    if batch.code is None:
        raise ShapeError("interchange: the rows carry no code; give rows of a world.")
    if len(latent) != truth.n or batch.code.n != truth.n:
        raise ShapeError(f"interchange: {len(latent)} latents and codes of {batch.code.n} for {truth.n} true atoms.")
    x, f = batch.x.double(), batch.code.dense().double()
    code = coder.encode(batch.x)
    mean = x.mean(0)
    centred = x - mean
    gram = centred.T @ centred
    ridge = 1e-3 * float(gram.diagonal().mean()) * torch.eye(len(gram), dtype=torch.float64)
    read = torch.linalg.solve(gram + ridge, centred.T @ (f - f.mean(0)))
    on = f != 0
    counts = on.sum(0)
    usable = ((counts >= 5) & (counts <= len(f) - 5)).nonzero().flatten()
    if not len(usable):
        raise ValueError("interchange: no feature is active in 5 rows and silent in 5 others. Give more rows.")
    chosen = usable[counts[usable].argsort(descending=True, stable=True)[:features]]
    atoms = coder.dictionary.atoms.double()
    dense = code.dense().double()
    random = torch.Generator().manual_seed(seed)
    results: dict[str, list[tuple[float, float, float]]] = {"own": [], "random": [], "true": []}
    for j in chosen.tolist():
        target = float(f[on[:, j], j].mean())
        i = int(latent[j])
        change = torch.zeros(x.shape[1], dtype=torch.float64)
        if i >= 0:
            change = (dense[on[:, j], i].mean() - dense[~on[:, j], i].mean()) * atoms[i]
        other = int(torch.randint(len(atoms), (1,), generator=random))
        active = dense[:, other][dense[:, other] != 0]
        drawn = (active.mean() if len(active) else dense.new_zeros(())) * atoms[other]
        for kind, delta in (("own", change), ("random", drawn), ("true", target * truth.atoms[j].double())):
            results[kind].append(_effects(delta @ read, j, target))
    tables = {kind: np.array(rows) for kind, rows in results.items()}
    found = []
    for column, (name, unit) in enumerate(
        (
            ("interchange_cause", "share of the feature"),
            ("interchange_isolation", "share of the change"),
            ("multi_concept_moves", "features"),
        )
    ):
        values = tables["own"][:, column]
        table = np.column_stack([values, np.ones(len(values))])
        fields: dict[str, Any] = bootstrap(lambda s: s[:, 0] / s[:, 1], table, of="features", seed=seed).fields
        found.append(
            Measurement(
                name=name,
                value=float(values.mean()),
                unit=unit,
                n=len(values),
                of="features",
                reference=float(tables["true"][:, column].mean()),
                reference_is="the true atom",
                chance=float(tables["random"][:, column].mean()),
                chance_is="a latent drawn at random",
                **fields,
            )
        )
    return tuple(found)


def _effects(moved: Float[Tensor, "n"], j: int, target: float) -> tuple[float, float, float]:
    total = float(moved.square().sum())
    if total <= 0 or target == 0:
        return 0.0, 0.0, 0.0
    rest = max(total - float(moved[j].square()), 0.0)
    several = float((moved.abs() >= 0.5 * moved[j].abs()).sum()) if float(moved[j].abs()) > 0 else float(len(moved))
    return float(moved[j]) / target, 1 - (rest / total) ** 0.5, several
