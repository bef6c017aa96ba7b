"""Which latents belong to one feature? Those whose atoms lie near each other, or that come together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ...core import Dictionary, SparseCode, SparseCoder

_STEP = 0.1
_ON = 0.3


Groups = tuple[tuple[int, ...], ...]


def groups_by_cosine(
    W: Dictionary, alive: Bool[Tensor, "n"], *, cosine: float = 0.5, neighbours: int = 2, least: int = 3, most: int = 24
) -> Groups:
    """Components of the graph that joins each atom to its nearest others: many tiles of one shape lie so.

    A component larger than `most` is taken apart by asking for cosines 0.1 higher, as often as is needed; what is then
    smaller than `least` is left out, since no fewer than three nonnegative latents go round a circle. Costs O(n^2 d).

    Args:
        W: dictionary.
        alive: latents that are ever active; the others are left out.
        cosine: from which two atoms are joined.
        neighbours: nearest atoms that each is joined to.
        least, most: latents of a group.

    Source:
        Engels et al., 2024 (arXiv 2405.14860), appendix: the graph, without its limit on size.
    """
    unit = W.unit().atoms
    return _components(alive, lambda rows, columns: unit[rows] @ unit[columns].T, cosine, neighbours, least, most)


def groups_by_firing(
    code: SparseCode, *, correlation: float = 0.1, neighbours: int = 2, least: int = 3, most: int = 24
) -> Groups:
    """The same graph of the correlations between latents' being on.

    Few tiles of one ring, 72 degrees from each other say, are no nearer by cosine than strangers in few dimensions are,
    but neighbours among them come together. Costs O(n^2) memory in blocks, and O(rows k^2) time.

    Args:
        code: rows of code.
        correlation: from which two latents are joined (phi coefficient).
        neighbours, least, most: as for `groups_by_cosine`.
    """
    there = code.values != 0
    row, slot = there.nonzero(as_tuple=True)
    column = code.indices[row, slot]
    fires = csr_matrix(
        (np.ones(len(row), dtype=np.float32), (row.cpu().numpy(), column.cpu().numpy())),
        shape=(len(code.indices), code.n),
    )
    fires.data[:] = 1.0
    both = (fires.T @ fires).tocsr()
    p = torch.from_numpy(np.asarray(fires.mean(0)).ravel()).double()
    deviation = (p * (1 - p)).sqrt().clamp(min=1e-12)

    def phi(rows: Tensor, columns: Tensor) -> Tensor:
        joint = torch.from_numpy(both[rows.numpy()][:, columns.numpy()].toarray()).double() / len(code.indices)
        return (joint - p[rows, None] * p[columns]) / (deviation[rows, None] * deviation[columns])

    return _components((p > 0) & (p < 1), phi, correlation, neighbours, least, most)


def _components(
    alive: Bool[Tensor, "n"],
    alike: Callable[[Tensor, Tensor], Tensor],
    bar: float,
    neighbours: int,
    least: int,
    most: int,
) -> Groups:
    among = alive.nonzero().flatten()
    n = len(among)
    if n < max(least, 2):
        return ()
    rows, columns, near = [], [], []
    for start in range(0, n, 2048):
        part = torch.arange(start, min(start + 2048, n))
        products = alike(among[part], among)
        products[torch.arange(len(part)), part] = -1.0
        values, indices = products.topk(min(neighbours, n - 1), dim=1)
        rows.append(part.repeat_interleave(values.shape[1]))
        columns.append(indices.flatten())
        near.append(values.flatten())
    first, second, closeness = (torch.cat(part).cpu().numpy() for part in (rows, columns, near))
    found: list[tuple[int, ...]] = []
    waiting = [(np.arange(n), bar)]
    while waiting:
        own, least_alike = waiting.pop()
        inside = np.zeros(n, dtype=bool)
        inside[own] = True
        joined = inside[first] & inside[second] & (closeness > least_alike)
        graph = coo_matrix((np.ones(int(joined.sum())), (first[joined], second[joined])), shape=(n, n))
        _, label = connected_components(graph, directed=False)
        order = own[np.argsort(label[own], kind="stable")]
        for part in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
            if len(part) > most and least_alike < 1:
                waiting.append((part, least_alike + _STEP))
            elif least <= len(part) <= most:
                found.append(tuple(sorted(among[torch.from_numpy(part)].tolist())))
    return tuple(sorted(found))


@torch.no_grad()
def rows_of_group(
    coder: SparseCoder, x: Float[Tensor, "rows d"], code: SparseCode, group: tuple[int, ...], *, most: int
) -> tuple[Float[Tensor, "some m"], Float[Tensor, "m d"]]:
    r"""$Q (x - \sum_{i \notin group} f_i w_i)$ in rows where the group is on, and the basis Q.

    What the other latents leave of x, in the span of the group's atoms. What the group itself writes would be its own
    artefact: with two latents of five on, a ring becomes five spokes. On is a group whose part of the code is as long
    as three tenths of its own 95 % quantile: latents take up a little of what is left of others, too.

    Args:
        coder: whose code it is.
        x, code: rows and their code.
        group: latents.
        most: rows at most.
    """
    W = coder.dictionary
    mine = torch.zeros(code.n, dtype=torch.bool)
    mine[list(group)] = True
    there = mine[code.indices] & (code.values != 0)
    size = torch.where(there, code.values, 0.0).norm(dim=1)
    on = size > 0
    if not bool(on.any()):
        return x.new_zeros(0, len(group)).double(), torch.zeros(len(group), x.shape[1], dtype=torch.float64)
    rows = (size > _ON * size[on].quantile(0.95)).nonzero().flatten()[:most]
    others = SparseCode(torch.where(there[rows], 0.0, code.values[rows]), code.indices[rows], code.n)
    rest = (x[rows] - coder.decode(others)).double()
    basis = torch.linalg.qr(W.atoms[list(group)].double().T).Q
    return rest @ basis, basis.T
