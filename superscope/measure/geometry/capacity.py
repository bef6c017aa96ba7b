"""How many dimensions do the atoms of W fill, and how much of one does each have? Through the d x d frame operator."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary, Measurement
from ..metric import metric
from .blocks import Directions, gram_of_smaller_side, per_atom, working_atoms


@torch.no_grad()
def capacities(W: Dictionary) -> Float[Tensor, "n"]:
    r"""$C_i = \lVert w_i \rVert^4 / \sum_j \langle w_i, w_j \rangle^2$: the part of a dimension that is atom i's.

    The same number as the feature dimensionality $\lVert w_i \rVert^2 / \sum_j \langle \hat w_i, w_j \rangle^2$ of toy
    models: 1 for an atom orthogonal to all others, 1/2 in an antipodal pair, 2/5 in a pentagon. Norms matter: a long
    atom takes capacity from its neighbours. A zero atom has 0. Through the frame operator, O(n d^2).

    Args:
        W: dictionary of n atoms, as trained.

    Returns:
        A share in [0, 1] per atom, float64. They sum to at most the rank of W.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "The geometry of superposition".
        Scherlis, Sachan, Jermyn, Benton and Shlegeris, "Polysemanticity and capacity in neural networks", 2022, eq. 3.

    Example:
        >>> capacities(Dictionary(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]]))).tolist()
        [0.5, 0.5, 1.0]
    """
    atoms = working_atoms(W, "capacities").double()
    # Only ratios count, so the whole matrix may be scaled: fourth powers overflow soon.
    atoms = atoms / atoms.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    norms = atoms.square().sum(1)
    if W.n <= W.d:
        shared = (atoms @ atoms.T).square().sum(1)
    else:
        shared = ((atoms @ (atoms.T @ atoms)) * atoms).sum(1)
    return torch.where(norms > 0, norms.square() / torch.where(shared > 0, shared, 1), 0).clamp(max=1.0)


@metric(range=(0.0, 1.0), unit="share of d", invariant=("rotation", "permutation", "sign"))
def capacity_used(W: Dictionary) -> Measurement:
    r"""Capacity that the atoms have, per dimension: $\frac1d \sum_i C_i$.

    1 for every tight frame of unit atoms, and n / (n + d - 1) for random ones: at n >> d both are nearly 1, so a value
    near 1 is no sign of learning. Low values mean atoms crowded into few directions.

    Args:
        W: dictionary of n atoms, as trained: norms matter.

    Returns:
        A share in [0, 1], with rank / d as reference and random unit atoms as chance.

    Source:
        That of `capacities`.

    Example:
        >>> round(capacity_used(Dictionary(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))).value, 6)
        0.5
    """
    each = capacities(W)
    rank = int(
        torch.linalg.matrix_rank(gram_of_smaller_side(working_atoms(W, "capacity_used").double()), hermitian=True)
    )
    zeros = int((each == 0).sum())
    return Measurement(
        name="capacity_used",
        value=float(each.sum()) / W.d,
        unit="share of d",
        n=W.n,
        of="atoms",
        how="exact: through the frame operator",
        reference=rank / W.d,
        reference_is="rank / d",
        chance=W.n / (W.n + W.d - 1),
        chance_is="random unit atoms (expectation)",
        caution=f"{zeros} zero atoms have no capacity" if zeros else "",
    )


@metric(range=(0.0, math.inf), unit="dimensions per feature", invariant=("rotation", "permutation", "sign"))
def dimensions_per_feature(W: Dictionary) -> Measurement:
    r"""$D^* = d / \lVert W \rVert_F^2$: dimensions for each feature that is represented with norm near 1.

    For toy models, whose norms say how far a feature is represented at all; a dictionary of unit atoms has d / n by
    construction.

    Args:
        W: dictionary of n atoms, as trained: norms are the point.

    Returns:
        A positive number; below 1 means more features than dimensions. Undefined for W = 0.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "The geometry of superposition".

    Example:
        >>> dimensions_per_feature(Dictionary(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))).value
        1.0
    """
    mass = float(working_atoms(W, "dimensions_per_feature").double().square().sum())
    return Measurement(
        name="dimensions_per_feature",
        value=W.d / mass if mass else None,
        unit="dimensions per feature",
        n=W.n,
        of="atoms",
        how="exact",
        caution="" if mass else "every atom is zero",
    )


@torch.no_grad()
def effective_dimensions(W: Dictionary, *, weights: Float[Tensor, "n"] | None = None) -> tuple[Measurement, ...]:
    r"""Rank, $e^{H}$, $1 / \sum p_i^2$ and $1 / \max p_i$ of the spectrum $p_i = \lambda_i / \sum \lambda$.

    How many dimensions the atoms fill. H is the entropy of p in nats. $\lambda$ are the *eigenvalues* of the frame
    operator $\sum_i v_i \hat w_i \hat w_i^\top$ (squared singular values of W); the effective rank of Roy and Vetterli
    takes the singular values instead and is larger. Unweighted, each direction counts once; with $v_i = E[f_i^2] \lVert
    w_i \rVert^2$ it is the spectrum of what the features actually write, if they are uncorrelated.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter; put them into the weights.
        weights: at least 0, one per atom; None weighs all nonzero atoms the same.

    Returns:
        `frame_rank`, `frame_entropy_dimensions`, `frame_participation_ratio`, `frame_stable_rank`: in this order never
        increasing, each in [1, min(n, d)]. The participation ratio's chance is that of a random frame.

    Raises:
        ValueError: if fewer than two atoms are nonzero, or weights are negative or all zero.

    Source:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality", 2007 (the entropy form).

    Example:
        >>> [m.value for m in effective_dimensions(Dictionary(torch.eye(4)))]
        [4.0, 4.0, 4.0, 4.0]
    """
    directions = Directions.of(W, "effective_dimensions")
    unit = directions.unit.double()
    if weights is not None:
        each = per_atom(W, weights, "effective_dimensions", "weights")[directions.index]
        unit = unit * (each / each.max()).sqrt()[:, None]
    n, d = unit.shape
    spectrum = torch.linalg.eigvalsh(gram_of_smaller_side(unit)).clamp(min=0)
    share = spectrum / spectrum.sum()
    # Eigenvalues are known to rounding of the largest: a smaller one is zero as far as anyone can tell.
    present = share[share > share.max() * max(n, d) * torch.finfo(directions.unit.dtype).eps]
    limit = float(min(n, d))
    values = {
        "frame_rank": float(len(present)),
        "frame_entropy_dimensions": float(torch.exp(-(present * present.log()).sum())),
        "frame_participation_ratio": float(1 / present.square().sum()),
        "frame_stable_rank": float(1 / present.max()),
    }
    chance = n * d / (n + d - 1) if weights is None else None
    return tuple(
        Measurement(
            name=name,
            value=round(min(value, limit), 9),
            unit="dimensions",
            n=n,
            of="atoms",
            how="exact: eigenvalues of the frame operator",
            reference=limit,
            reference_is="min(n, d)",
            chance=chance if name == "frame_participation_ratio" else None,
            chance_is="random frame" if name == "frame_participation_ratio" and chance else "",
            caution=directions.caution,
        )
        for name, value in values.items()
    )


@torch.no_grad()
def weighted_interference_energy(W: Dictionary, density: Float[Tensor, "n"]) -> Measurement:
    r"""$\sum_{i \ne j} p_i p_j \langle \hat w_i, \hat w_j \rangle^2 / \sum_i p_i$: what an active feature meets.

    `interference_energy` counts every pair the same; here a pair counts as often as it fires, so that overlaps among
    dead or rare latents cost nothing. It is the expected squared overlap with the other active features, seen from an
    active one, if features fire independently.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        density: p_i = P(f_i != 0), in [0, 1].

    Returns:
        A number in squared cosines per active feature. The reference $\max(0, (\sum p)^2 / d - \sum p^2) / \sum p$ is
        attained where the weighted frame is tight; chance has the same densities on random directions.

    Raises:
        ValueError: if a density is outside [0, 1], all are zero, or fewer than two atoms are nonzero.
        ShapeError: if density does not have n entries.

    Source:
        Benedetto and Fickus, "Finite normalized tight frames", 2003 (the frame potential, here weighted).

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
        >>> round(weighted_interference_energy(W, torch.tensor([0.5, 0.5, 0.0])).value, 6)
        0.18
    """
    directions = Directions.of(W, "weighted_interference_energy")
    p = per_atom(W, density, "weighted_interference_energy", "density")[directions.index]
    if bool((p > 1).any()):
        raise ValueError(f"weighted_interference_energy: density must lie in [0, 1]; got {float(p.max()):g}.")
    potential = float(gram_of_smaller_side(directions.unit.double() * p.sqrt()[:, None]).square().sum())
    d, total, squares = W.d, float(p.sum()), float(p.square().sum())
    bound = max(total**2 / d - squares, 0.0) / total
    return Measurement(
        name="weighted_interference_energy",
        value=max((potential - squares) / total, bound),
        unit="squared cosine",
        n=len(p),
        of="atoms",
        how="exact: through the weighted frame operator",
        reference=bound,
        reference_is="tight frame of these densities",
        chance=(total**2 - squares) / d / total,
        chance_is="random directions of these densities (expectation)",
        caution=directions.caution,
    )
