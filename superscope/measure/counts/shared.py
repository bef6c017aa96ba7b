"""Do directions share parts, which may be features that never occur alone?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ...theory import random_coherence


class SharedParts(NamedTuple):
    """Directions that stand closer to each other than random ones do.

    Args:
        directions: that have such a neighbour.
        groups: that they fall into, neighbours of neighbours together.
        bar: the cosine from which on two are neighbours.
    """

    directions: int
    groups: int
    bar: float

    @property
    def hidden(self) -> int:
        """How many features they may hide: a tree of m leaves has at most m - 1 inner nodes."""
        return self.directions - self.groups


@torch.no_grad()
def shared_parts(directions: Float[Tensor, "n d"]) -> SharedParts:
    r"""Groups of directions with cosines above the median of the largest among n random directions in d dimensions.

    A feature that is on only where its parent is, and never beside its siblings, lends the parent's direction to
    each of them: parent + child recurs between dictionaries, and the parent recurs by itself only as far as it
    occurs by itself. A count of directions is then one of the trees' leaves and of such inner nodes as occur alone; up
    to `hidden` more may be there. Of n random directions .35 pairs are neighbours on average.

    Args:
        directions: of any length above 0, best of rows of equal variance in all directions (`levelled`): what many
            share is large there and shrinks, and what few share remains. d at least 2.
    """
    n, d = directions.shape
    if n < 2:
        return SharedParts(0, 0, 1.0)
    bar = random_coherence(n, d)
    unit = torch.nn.functional.normalize(directions.float(), dim=1)
    near = (unit @ unit.T > bar).fill_diagonal_(False)
    alone = ~near.any(1)
    groups, _ = connected_components(csr_matrix(near[~alone][:, ~alone].cpu().numpy()), directed=False)
    return SharedParts(n - int(alone.sum()), groups, bar)


__all__ = ["SharedParts", "shared_parts"]
