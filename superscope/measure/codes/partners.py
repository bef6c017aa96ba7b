r"""Who disturbs a feature, how often and at what cost; and with whom does it fire?

Cosines alone do not say: a close neighbour that never fires disturbs nobody, a distant one that fires always does. The
read-out of feature i gets $\cos_{ij} z_j$ from feature j, z_j being its value in the length of its atom; what that
costs depends on how often j fires, how loudly, and whether i is on at the time (see `interference`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from ...core import Dictionary, ShapeError, SparseCode
from .co_occurrence import active

_BLOCK = 2**23
"""Numbers of a dense table at once."""


@dataclass(frozen=True, eq=False)
class Partners:
    """Some features, each with m others; -1 where it has fewer.

    Args:
        features: whose.
        others: the partners, the first one first.
        cosine: of the two atoms, with its sign.
        both: rows on which both fire.
        energy: $\\cos_{ij}^2 E z_j^2 / E z_i^2$: the partner's part of the feature's interference energy.
        while_on: $\\cos_{ij} E[z_i z_j] / E z_i^2$: what the partner adds to the feature while both are on, as a share
            of it; below 0 it takes away.
    """

    features: Int[Tensor, "f"]
    others: Int[Tensor, "f m"]
    cosine: Float[Tensor, "f m"]
    both: Int[Tensor, "f m"]
    energy: Float[Tensor, "f m"]
    while_on: Float[Tensor, "f m"]


@dataclass(frozen=True, eq=False)
class Company:
    """What `company` found.

    Args:
        disturbers: the largest parts of each feature's interference energy first.
        companions: the others that fire on the same rows, by the Jaccard index.
        on: rows on which each of the n features fires.
        rows: how many there are.
        energy: of each chosen feature, all parts together.
    """

    disturbers: Partners
    companions: Partners
    on: Int[Tensor, "n"]
    rows: int
    energy: Float[Tensor, "f"]


@torch.no_grad()
def company(W: Dictionary, codes: Iterable[SparseCode], features: Int[Tensor, "f"], *, most: int = 8) -> Company:
    r"""Of each chosen feature, those that disturb its read-out the most, and those that fire when it does.

    Disturbers are ranked by $\cos_{ij}^2 E z_j^2$: overlap *weighted by how often and how loudly the other fires*. The
    parts of all others sum to the feature's `energy` (`signed_interference`), and their `while_on` to its own.
    Companions are ranked by rows with both over rows with either, of those that share two rows at least.

    Costs O(rows k^2) for the pairs and O(f n d) for the cosines, in blocks.

    Args:
        W: the atoms.
        codes: of rows, by these atoms.
        features: whose company is sought; one that never fires has none.
        most: partners of each.

    Raises:
        ShapeError: if the codes are not of W.
        ValueError: if there are no codes.

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]]))
        >>> code = SparseCode.from_dense(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
        >>> found = company(W, [code], torch.tensor([0]), most=1)
        >>> [v.item() for v in (found.disturbers.others, found.disturbers.cosine, found.disturbers.energy)]
        [2, -1.0, 2.0]
    """
    A = active(codes)
    rows, n = cast("tuple[int, int]", A.shape)
    if n != W.n:
        raise ShapeError(f"company: codes of {n} features for {W.n} atoms. Give the codes of W.")
    norms = W.norms.detach().double().cpu().numpy()
    Z = csr_matrix(A @ diags(norms))
    on = csr_matrix(A != 0, dtype=np.float64)
    often = np.asarray(on.sum(0)).ravel()
    square = np.asarray(Z.multiply(Z).sum(0)).ravel()
    chosen = features.cpu().numpy()
    unit = W.unit().atoms.detach().double().cpu()
    most = min(most, n - 1)
    parts, friends, energies = [], [], []
    size = max(1, _BLOCK // n)
    for start in range(0, len(chosen), size):
        these = chosen[start : start + size]
        cosine = (unit[torch.from_numpy(these)] @ unit.T).numpy()
        both = np.asarray((on[:, these].T @ on).todense())
        shared = np.asarray((Z[:, these].T @ Z).todense())
        own = np.maximum(square[these], 1e-300)[:, None]
        energy, while_on = cosine**2 * square / own, cosine * shared / own
        itself = np.arange(len(these))
        alive = often[these] > 0
        for table in (energy, while_on, both):
            table[itself, these] = 0.0
            table[~alive] = 0.0
        jaccard = both / np.maximum(often[these][:, None] + often - both, 1)
        jaccard[both < 2] = 0.0
        energies.append(energy.sum(1))
        for found, key in ((parts, energy), (friends, jaccard)):
            # Ties go to the lower number, so that the answer does not depend on the machine.
            best = np.argsort(-key, axis=1, kind="stable")[:, :most]
            columns = (np.take_along_axis(t, best, 1) for t in (cosine, both, energy, while_on))
            found.append((np.where(np.take_along_axis(key, best, 1) > 0, best, -1), *columns))
    energy = np.concatenate(energies) if energies else np.zeros(0)
    return Company(
        _partners(features, parts, most),
        _partners(features, friends, most),
        torch.from_numpy(often).long(),
        rows,
        torch.from_numpy(energy),
    )


def _partners(features: Tensor, blocks: list[tuple[np.ndarray, ...]], most: int) -> Partners:
    if not blocks:
        none = torch.zeros((0, most), dtype=torch.float64)
        return Partners(features, none.long(), none, none.long(), none, none)
    others, cosine, both, energy, while_on = (torch.from_numpy(np.concatenate(b)) for b in zip(*blocks, strict=True))
    return Partners(features, others.long(), cosine, both.long(), energy, while_on)
