"""Features that come in an order without an end, as months do: neighbours are active together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .distribution import FeatureDistribution, check_count, check_density, spread
from .magnitudes import UNIT, Magnitude


@dataclass(frozen=True)
class Cyclic(FeatureDistribution):
    r"""Cycles of `size` features of which, with probability p, `width` neighbours are active, else none.

    The first of them is any member of the cycle, each as likely. $P(f_i \ne 0) = p\, width / size$, and with m the
    distance around the cycle two members are active together with probability $p\, (width - m)^+ / size$, to which
    what the other way round gives is added. Features of one cycle are neighbours in number, the first beside the last.

    Args:
        cycles: number of cycles.
        size: features per cycle, so that n = cycles * size.
        width: neighbours that are active together, at most size.
        p: P(a cycle is active).
        magnitude: the law of an active feature.

    Raises:
        ValueError: if a count is below 1, width above size or p outside (0, 1].

    Source:
        Prieto et al., "Correlations in the data lead to semantically rich feature geometry under superposition", 2026
        (arXiv 2603.09972): twelve months, of which neighbours stand in one text.

    Example:
        >>> Cyclic(cycles=1, size=4, width=2, p=0.4).gates()[0]
        tensor([0.2000, 0.1000, 0.0000, 0.1000], dtype=torch.float64)
    """

    cycles: int
    size: int
    width: int
    p: float
    magnitude: Magnitude = UNIT

    def __post_init__(self) -> None:
        check_count("Cyclic", "cycles", self.cycles)
        check_count("Cyclic", "size", self.size)
        if not 1 <= self.width <= self.size:
            raise ValueError(f"Cyclic: width must lie in [1, size = {self.size}]; got {self.width}.")
        check_density("Cyclic", self.p, "p")

    @property
    def n(self) -> int:  # type: ignore[override]
        return self.cycles * self.size

    @property
    def noise(self) -> int:
        return 2 * self.cycles + self.n

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.cycles, self.width)

    def knobs(self) -> tuple[Float[Tensor, "..."], ...]:
        return (torch.tensor([self.p]),)

    def draw(
        self, u: Float[Tensor, "*batch noise"], knobs: tuple[Float[Tensor, "..."], ...] | None = None
    ) -> Float[Tensor, "*drawn n"]:
        (p,) = (own.to(u) for own in self.knobs()) if knobs is None else knobs
        present, place, q = u.split([self.cycles, self.cycles, self.n], dim=-1)
        first = (place * self.size).long()
        behind = (torch.arange(self.size, device=u.device) - first[..., None]) % self.size
        gate = ((behind < self.width) & (present < p)[..., None]).flatten(-2)
        return torch.where(gate, self.magnitude.quantile(q), u.new_zeros(()))

    def gates(self) -> Float[Tensor, "n n"]:
        member = torch.arange(self.size)
        behind = (member[:, None] - member) % self.size
        # First members from which a window covers both, in either direction round.
        both = (self.width - behind).clamp(min=0) + (self.width - (self.size - behind)).clamp(min=0)
        both.fill_diagonal_(self.width)
        joint = torch.full((self.n, self.n), (self.p * self.width / self.size) ** 2, dtype=torch.float64)
        for block in torch.arange(self.n).split(self.size):
            joint[block[:, None], block] = self.p * both.double() / self.size
        return joint

    def _supports(self) -> Float[Tensor, "sets"]:
        sets = torch.zeros(2**self.size, dtype=torch.float64)
        sets[0] = 1 - self.p
        for first in range(self.size):
            sets[sum(2 ** ((first + i) % self.size) for i in range(self.width))] += self.p / self.size
        return spread([sets] * self.cycles)
