"""What is kept of pre-activations, as data: the rule that a file says, or an architecture of ours follows."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rectify:
    """f = ReLU(pre)."""


@dataclass(frozen=True, eq=False)
class Jump:
    """f = pre where pre > max(threshold, 0), else 0."""

    threshold: Float[Tensor, "n"]


@dataclass(frozen=True)
class Largest:
    """f = the k largest of each row, those below zero set to 0; with `signed` the k largest in size, sign kept."""

    k: int
    signed: bool = False


@dataclass(frozen=True)
class BatchLargest:
    """Trained with k times the rows largest of a batch; alone, f = pre where pre > max(threshold, 0).

    Args:
        k: mean number kept per row while training.
        threshold: what a pre-activation must exceed.
        groups: ends of the nested prefixes of latents, for Matryoshka dictionaries; () for one.
    """

    k: int
    threshold: float
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Gate:
    """f = ReLU(exp(log_gain) E (x - c) + magnitude_bias) where E (x - c) + e > 0, else 0."""

    log_gain: Float[Tensor, "n"]
    magnitude_bias: Float[Tensor, "n"]


@dataclass(frozen=True)
class Pursuit:
    """k times the atom with the largest product with what is left of x - c, and that product, if positive."""

    k: int


Rule = Rectify | Jump | Largest | BatchLargest | Gate | Pursuit
"""Every rule that a format can say."""
