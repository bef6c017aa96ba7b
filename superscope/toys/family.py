"""What a toy model is: parameters with a leading instance axis, a map from f to outputs, and a target."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Magnitude, Uniform
from ..theory import toy_loss

Parameters: TypeAlias = Mapping[str, Tensor]
"""Tensors by name, each with the instance axis e first."""


class Family(ABC):
    """A kind of toy model. E models live in one set of tensors, parameters[name][e]; they never see each other."""

    n: int
    d: int

    name: ClassVar[str]
    """What commands call it."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Further names, each with the arguments that it stands for."""
    magnitude: ClassVar[Magnitude] = Uniform()
    """The law of active features that its definition has in mind."""

    def best_known(self, importance: Sequence[float], density: float, magnitude: Magnitude) -> tuple[float | None, str]:
        """A loss to compare with, on independent features, and what reaches it; None where none is known.

        Args:
            importance: of each output.
            density: P(f_i != 0), one for all features.
            magnitude: the law of an active feature.
        """
        return None, ""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter of one model. A name that begins with "b" is a bias and starts at 0."""

    @abstractmethod
    def hidden(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows d"]:
        """The representation of f."""

    @abstractmethod
    def output(self, parameters: Parameters, h: Float[Tensor, "e rows d"]) -> Float[Tensor, "e rows outputs"]:
        """What the model makes of its representation."""

    def forward(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows outputs"]:
        """The model's outputs."""
        return self.output(parameters, self.hidden(parameters, f))

    def target(self, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows outputs"]:
        """What the outputs should be."""
        return f

    @property
    def outputs(self) -> int:
        """Number of outputs: the length of the importance."""
        return self.n

    @abstractmethod
    def atoms(self, parameters: Parameters) -> Float[Tensor, "e n d"]:
        """W: for each feature the direction it is written to."""

    def start(self, seed: int, scale: float = 1.0) -> dict[str, Tensor]:
        r"""One model's first parameters: normal with Xavier's $\sigma^2 = 2/(fan_{in} + fan_{out})$, biases 0.

        The fans are those of one model. The published code calls Xavier on the batch of models, whose fans then contain
        the number of models: for (200, 20) its columns start at norm 0.09 where this starts at 0.42.

        Args:
            seed: of this model; nothing else about the ensemble matters.
            scale: factor on the standard deviation.
        """
        generator = torch.Generator().manual_seed(mix(seed, 0))
        parameters = {}
        for name, shape in self.shapes().items():
            if name.startswith("b"):
                parameters[name] = torch.zeros(shape)
            else:
                sigma = scale * math.sqrt(2 / (shape[-1] + shape[-2]))
                parameters[name] = sigma * torch.randn(shape, generator=generator)
        return parameters

    def loss_gradient(
        self,
        parameters: Parameters,
        f: Float[Tensor, "e rows n"],
        importance: Float[Tensor, "e outputs"] | None,
        l1: float = 0.0,
        f_seen: Float[Tensor, "e rows n"] | None = None,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        r"""$L = \frac1B \sum_{rows} \sum_i I_i (y_i - y_i')^2 + \lambda \|h\|_1$ of each model, and its gradient.

        By autograd here; families that train in thousands write it by hand, and a test holds the two together.

        Args:
            parameters: of all models.
            f: a batch for each.
            importance: I, or None for ones.
            l1: lambda on the representation.
            f_seen: what the model sees instead of f (a perturbed input); the target stays that of f.
        """
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
            seen = f if f_seen is None else f_seen
            squares = (self.forward(leaves, seen) - self.target(f)) ** 2
            if importance is not None:
                squares = squares * importance[:, None]
            loss = squares.sum((1, 2)) / f.shape[1]
            if l1:
                loss = loss + l1 * self.hidden(leaves, seen).abs().sum((1, 2)) / f.shape[1]
            gradient = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
        zeros = (
            torch.zeros_like(value) if g is None else g for g, value in zip(gradient, leaves.values(), strict=True)
        )
        return loss.detach(), dict(zip(leaves, zeros, strict=True))

    def responses(self, parameters: Parameters) -> tuple[tuple[float, Float[Tensor, "e n n"]], ...]:
        """For one active feature x in [0, 1], output j is activation(G_ji x + b_j): G, with the share of inputs it
        serves.

        Raises:
            TypeError: if the family's outputs are no such function.
        """
        raise TypeError(
            f"{type(self).__name__} has no closed form for one active feature. Use the estimator 'sampled'."
        )

    def reads_linearly(self) -> bool:
        """Whether outputs are activation(G f + b) for every f, with G of `responses`."""
        return False

    def activation_is_relu(self) -> bool:
        """Whether the outputs pass a ReLU."""
        return True


def mix(seed: int, stream: int) -> int:
    """A 63-bit seed for one of a seed's streams (splitmix64): neighbouring seeds and streams share nothing.

    Example:
        >>> mix(0, 1) != mix(1, 0)
        True
    """
    z = (seed * 0x9E3779B97F4A7C15 + stream * 0xD1342543DE82EF95 + 0x632BE59BD9B4E019) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (z ^ (z >> 31)) >> 1


def without_superposition(
    importance: Sequence[float], density: float, d: int, magnitude: Magnitude
) -> tuple[float | None, str]:
    """What a model that gives f back reaches by keeping the d most important features: superposition must beat it."""
    if magnitude != Uniform():
        return None, ""
    return toy_loss.linear_loss(importance, density, d), "no superposition"


def check_sizes(family: str, **sizes: int) -> None:
    """A size below 1 is an error that names the family and the argument."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{family}: {name} must be at least 1; got {value}.")
