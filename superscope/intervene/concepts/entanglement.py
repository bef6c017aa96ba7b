"""What shares a concept's direction? Other concepts, and the features of a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Dictionary
from .finder import Direction
from .reading import ContrastRows
from .reliability import d_prime


@dataclass(frozen=True, eq=False)
class Entanglement:
    """How concepts at one site hang together.

    Args:
        names: of the concepts, in the order of rows and columns.
        cosines: of their directions.
        effects: (i, j) how far apart, in standard deviations within a side, the held-out sides of concept j lie along
            direction i: on the diagonal each one's own d', beside it what its probe also answers to.
    """

    names: tuple[str, ...]
    cosines: Float[Tensor, "c c"]
    effects: Float[Tensor, "c c"]

    @property
    def crosstalk(self) -> Float[Tensor, "c"]:
        """Largest |effect| of another concept on each probe, over its own."""
        other = self.effects.abs().clone()
        own = other.diagonal().clone()
        other.fill_diagonal_(0.0)
        return other.max(1).values / own.clamp_min(1e-300)


def entanglement(directions: Mapping[str, Direction], held: Mapping[str, ContrastRows]) -> Entanglement:
    """The matrix of concepts by concepts.

    Args:
        directions: by concept, all found at one site.
        held: held-out rows of each.

    Raises:
        ValueError: if a concept has no rows.
        ShapeError: if directions and rows differ in length.
    """
    missing = [name for name in directions if name not in held]
    if missing:
        raise ValueError(f"entanglement: {', '.join(missing)} has a direction and no held-out rows; give them.")
    names = tuple(directions)
    units = torch.stack([directions[name].unit for name in names])
    effects = torch.tensor(
        [
            [d_prime(directions[i].read(held[j].positive), directions[i].read(held[j].negative)) for j in names]
            for i in names
        ],
        dtype=torch.float64,
    )
    return Entanglement(names, units @ units.T, effects)


@dataclass(frozen=True, eq=False)
class SharedFeatures:
    """What a direction reads, feature by feature.

    With x = W f + b the read-out is $v \\cdot x = \\sum_j f_j (v \\cdot w_j)$ and what the dictionary leaves over.

    Args:
        latent: numbers, those that carry most of the distance between the sides first.
        cosine: of each atom with the direction.
        carries: share of the distance between the sides that each carries; negative where it works against it.
        own: how many of them, from the first, carry the share asked of what all carry.
        explained: share of the distance that all latents together carry; the rest is in what the dictionary leaves.
        interference: share of the read-out's variance within a side that comes from the latents that are not its own.
    """

    latent: Int[Tensor, "n"]
    cosine: Float[Tensor, "n"]
    carries: Float[Tensor, "n"]
    own: int
    explained: float
    interference: float


def shared_features(
    direction: Direction,
    dictionary: Dictionary,
    code: Callable[[Tensor], Tensor],
    held: ContrastRows,
    *,
    share: float = 0.9,
) -> SharedFeatures:
    r"""Which features a probe answers to, and how much of its noise is the interference of those it is not about.

    Own features are the fewest that carry `share` of the distance that all together carry. Interference is
    $\mathrm{Cov}(\sum_{j\,\mathrm{other}} f_j\, v \cdot w_j,\; v \cdot x) / \mathrm{Var}(v \cdot x)$ within sides: 0
    where the probe's noise is its own features' doing or the residual's, 1 where it is all crosstalk; it may leave
    [0, 1] where parts cancel.

    Args:
        direction: of the concept.
        dictionary: W.
        code: rows to dense codes; see `dense_code`.
        held: rows of the contrast.
        share: see above.

    Raises:
        ShapeError: if the direction has another dimension.
    """
    direction.read(held.positive[:1])
    atoms = dictionary.atoms.detach().double().cpu()
    f = code(held.x).double().cpu()
    written = f * (atoms @ direction.vector)
    positive = held.labels == 1
    apart = written[positive].mean(0) - written[~positive].mean(0)
    read = direction.read(held.x)
    distance = float(read[positive].mean() - read[~positive].mean())
    order = apart.argsort(descending=True)
    total = float(apart.sum())
    running = apart[order].cumsum(0)
    own = int((running < share * total).sum()) + 1 if total > 0 else 0
    own = min(own, len(order))
    others = written[:, order[own:]].sum(1)
    within = lambda y: torch.cat([y[positive] - y[positive].mean(), y[~positive] - y[~positive].mean()])  # noqa: E731
    noise = within(read)
    variance = float(noise.square().mean())
    interference = float((within(others) * noise).mean()) / variance if variance > 0 else 0.0
    unit = atoms / atoms.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return SharedFeatures(
        order,
        (unit @ direction.unit)[order],
        apart[order] / distance if distance else torch.zeros_like(apart),
        own,
        total / distance if distance else 0.0,
        interference,
    )
