"""Can a direction be relied on? Whether pairs agree on it, whether it holds out, and how many others do as well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .finder import Direction, Finder
from .reading import ContrastRows

LEAST_COSINE = 0.2
"""Mean cosine of pair differences with their mean below which steering is known to be unreliable."""
MOST_WRONG = 0.3
"""Share of held-out pairs moving the wrong way above which it is."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """What is known of a direction before anything is steered by it.

    Args:
        correct: held-out texts on the right side of it, for each text 1 or 0, the positive ones first.
        d_prime: distance of the held-out sides along it, in standard deviations within a side.
        wrong: of each held-out pair, or of each held-out text where there are no pairs, whether it goes the wrong way:
            its read-out falls, or it lies on the other side's half of the line.
        cosine: mean cosine of the pair differences with their mean; None without pairs.
        class_dimension: mutually orthogonal directions whose held-out d' reaches the share asked of the first's.
        capped: whether the search for more ended at its limit.
    """

    correct: Float[Tensor, "held"]
    d_prime: float
    wrong: Float[Tensor, "pairs"]
    cosine: float | None
    class_dimension: int
    capped: bool

    @property
    def accuracy(self) -> float:
        """Share of held-out texts on the right side."""
        return float(self.correct.mean())

    @property
    def wrong_way(self) -> float:
        """Share that goes the wrong way."""
        return float(self.wrong.mean())

    @property
    def caution(self) -> str:
        """Why not to steer by it; empty where nothing speaks against it."""
        said = []
        if self.cosine is not None and self.cosine < LEAST_COSINE:
            said.append(f"pairs hardly agree on a direction (mean cosine {self.cosine:.2f}, below {LEAST_COSINE})")
        if self.wrong_way > MOST_WRONG:
            said.append(f"{self.wrong_way:.0%} of held-out texts go the wrong way (over {MOST_WRONG:.0%})")
        return "; ".join(said)


def reliability(
    direction: Direction,
    held: ContrastRows,
    *,
    train: ContrastRows,
    finder: Finder,
    share: float = 0.9,
    limit: int = 16,
) -> Reliability:
    """Reliability of a direction on rows that it was not found on.

    Args:
        direction: found on `train`.
        held: held-out rows.
        train: where the direction, and those beside it, were found.
        finder: how.
        share: of the first direction's d' that another must reach to do as well.
        limit: directions to look for at most.

    Raises:
        ShapeError: if rows have another length than the direction.
        ValueError: if share is not in (0, 1], or limit below 1.

    Source:
        Tan et al., "Analysing the generalisation and reliability of steering vectors", 2024 (pair cosine, wrong way);
        2602.06801 (directions are one of a class).
    """
    if not 0 < share <= 1 or limit < 1:
        raise ValueError(f"reliability: share is {share} and limit {limit}; give a share in (0, 1] and at least 1.")
    read_positive, read_negative = direction.read(held.positive), direction.read(held.negative)
    correct = torch.cat([(read_positive > 0).double(), (read_negative <= 0).double()])
    if held.paired:
        wrong = (read_positive <= read_negative).double()
    else:
        middle = (read_positive.mean() + read_negative.mean()) / 2
        wrong = torch.cat([(read_positive <= middle).double(), (read_negative >= middle).double()])
    dimension, capped = class_dimension(train, held, finder, share=share, limit=limit)
    return Reliability(correct, d_prime(read_positive, read_negative), wrong, pair_cosine(train), dimension, capped)


def d_prime(positive: Float[Tensor, "p"], negative: Float[Tensor, "q"]) -> float:
    r"""$(\mu_+ - \mu_-) / \sqrt{(\sigma_+^2 + \sigma_-^2) / 2}$; infinite where neither side spreads.

    Example:
        >>> d_prime(torch.tensor([2.0, 4.0]), torch.tensor([0.0, 2.0]))
        2.0
    """
    spread = float((positive.var(correction=0) + negative.var(correction=0)) / 2) ** 0.5
    apart = float(positive.mean() - negative.mean())
    if spread > 0:
        return apart / spread
    return 0.0 if apart == 0 else float("inf") if apart > 0 else -float("inf")


def pair_cosine(rows: ContrastRows) -> float | None:
    """Mean cosine of the pair differences with their mean, 1 / sqrt(pairs) by chance; None without pairs."""
    if not rows.paired:
        return None
    differences = rows.differences
    unit = differences / differences.norm(dim=1, keepdim=True).clamp_min(1e-300)
    mean = differences.mean(0)
    return float((unit @ mean / mean.norm().clamp_min(1e-300)).mean())


def class_dimension(
    train: ContrastRows, held: ContrastRows, finder: Finder, *, share: float = 0.9, limit: int = 16
) -> tuple[int, bool]:
    r"""How many mutually orthogonal directions tell the held-out sides apart as well as the first does.

    The first is the finder's; each further one is what it finds in rows that the former have been projected out of. The
    rank of the class of directions whose held-out d' is at least `share` of the first's, as far as one after another
    finds it: 1 says that the direction is *the* direction.

    Returns:
        The number, and whether it is the limit.
    """
    basis = train.positive.new_zeros(0, train.d)
    first = None
    for count in range(min(limit, train.d)):
        left = [rows - (rows @ basis.T) @ basis for rows in (train.positive, train.negative)]
        try:
            unit = finder.find(ContrastRows(left[0], left[1], train.paired, train.name)).unit
        except ValueError:
            return count, False
        # Shrunk or rounded solutions may lean back a little.
        unit = unit - (unit @ basis.T) @ basis
        if float(unit.norm()) < 1e-6:
            return count, False
        unit = unit / unit.norm()
        found = d_prime(held.positive @ unit, held.negative @ unit)
        first = found if first is None else first
        if found < share * first:
            return count, False
        basis = torch.cat([basis, unit[None]])
    return len(basis), True
