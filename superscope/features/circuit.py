"""Booleans and what is computed from them: gates over gates over independent inputs."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import SparseCode
from .distribution import FeatureDistribution, check_count, check_density
from .magnitudes import ONE, Magnitude

_Polynomial: TypeAlias = dict[frozenset[int], int]
"""A boolean as a multilinear polynomial of the inputs: the coefficient of each product of inputs."""


@dataclass(frozen=True)
class Circuit(FeatureDistribution):
    r"""Inputs $\mathrm{Bernoulli}(p)$, then layers of gates $a \wedge b$ and $a \vee b$ over earlier variables.

    Every variable, input or gate, is a feature. No gate is a linear combination of variables before it (as $a \vee b$
    would be beside $a \wedge b$), so that the n features can be told apart at all. A gate is a multilinear polynomial
    of the inputs, $a \wedge b = ab$ and $a \vee b = a + b - ab$, so $P(f_i \ne 0) = \sum_S c_S p^{|S|}$ exactly.

    Args:
        n: number of variables.
        inputs: of them that are inputs, the first ones.
        p: P(an input is true).
        depth: layers of gates, at most 3; a gate of a layer has at least one argument in the layer before it.
        seed: of which gates.
        magnitude: the law of a true variable.

    Raises:
        ValueError: if a number is out of its range, or no further gate can be told apart.

    Source:
        Vaintrob, Mendel and Hanni, "Toward a mathematical framework for computation in superposition", 2024 (circuits
        of sparse booleans as what a network computes).

    Example:
        >>> law = Circuit(n=6, inputs=4, p=0.2, depth=1)
        >>> law.density[:4]
        tensor([0.2000, 0.2000, 0.2000, 0.2000], dtype=torch.float64)
    """

    n: int
    inputs: int
    p: float
    depth: int = 2
    seed: int = 0
    magnitude: Magnitude = ONE

    def __post_init__(self) -> None:
        check_count("Circuit", "inputs", self.inputs, 2)
        check_count("Circuit", "n", self.n, self.inputs)
        check_density("Circuit", self.p, "p")
        if not 1 <= self.depth <= 3:
            raise ValueError(f"Circuit: depth must be 1, 2 or 3; got {self.depth}.")
        _ = self._built

    @cached_property
    def _built(self) -> tuple[tuple[tuple[bool, int, int], ...], tuple[_Polynomial, ...], tuple[int, ...]]:
        """Gates (is it an or, first, second), the polynomial of every variable, and where each layer begins."""
        random = np.random.default_rng(self.seed)
        polynomials: list[_Polynomial] = [{frozenset([i]): 1} for i in range(self.inputs)]
        span: dict[frozenset[int], dict[frozenset[int], Fraction]] = {}
        for each in polynomials:
            _enters(each, span)
        gates: list[tuple[bool, int, int]] = []
        starts = [0, self.inputs]
        sizes = [len(part) for part in np.array_split(np.arange(self.n - self.inputs), self.depth)]
        for size in sizes:
            before, end = starts[-2], starts[-1]
            for _ in range(size):
                for _attempt in range(200):
                    one, other = int(random.integers(before, end)), int(random.integers(end))
                    either = bool(random.random() < 0.5)
                    if one == other:
                        continue
                    polynomial = _gate(either, polynomials[one], polynomials[other])
                    if _enters(polynomial, span):
                        break
                else:
                    raise ValueError(
                        f"Circuit: {self.inputs} inputs and depth {self.depth} give no {self.n} variables that can be "
                        "told apart. Take more inputs, or a smaller n."
                    )
                gates.append((either, one, other))
                polynomials.append(polynomial)
            starts.append(len(polynomials))
        return tuple(gates), tuple(polynomials), tuple(starts)

    @property
    def wires(self) -> tuple[tuple[bool, int, int], ...]:
        """For each gate: whether it is an or, and its two arguments."""
        return self._built[0]

    @property
    def noise(self) -> int:
        return self.inputs + self.n

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.inputs, self.depth, self.seed)

    def knobs(self) -> tuple[Float[Tensor, "..."], ...]:
        return (torch.tensor([self.p]),)

    def _true(self, inputs: Bool[Tensor, "*batch inputs"]) -> Bool[Tensor, "*batch n"]:
        """Every variable of some inputs."""
        starts, values = self._built[2], inputs
        for begin, end in pairwise(starts[1:]):
            if begin == end:
                continue
            part = torch.tensor(self.wires[begin - self.inputs : end - self.inputs], device=inputs.device)
            either, (one, other) = part[:, 0].bool(), part[:, 1:].T
            a, b = values[..., one], values[..., other]
            values = torch.cat([values, torch.where(either, a | b, a & b)], -1)
        return values

    def draw(
        self, u: Float[Tensor, "*batch noise"], knobs: tuple[Float[Tensor, "..."], ...] | None = None
    ) -> Float[Tensor, "*drawn n"]:
        (p,) = (own.to(u) for own in self.knobs()) if knobs is None else knobs
        lot, q = u.split([self.inputs, self.n], dim=-1)
        return torch.where(self._true(lot < p), self.magnitude.quantile(q), u.new_zeros(()))

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        check_count("Circuit.sample", "count", count)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        device, size = generator.device, max(1, 2**22 // self.n)
        # Most variables are false, so magnitudes are drawn for the others alone.
        parts = []
        for start in range(0, count, size):
            lot = torch.rand(min(size, count - start), self.inputs, generator=generator, device=device)
            row, feature = self._true(lot < self.p).nonzero(as_tuple=True)
            parts.append((row + start, feature))
        rows, features = (torch.cat(part) for part in zip(*parts, strict=True))
        q = torch.rand(len(rows), generator=generator, device=device)
        return SparseCode.from_entries(rows, features, self.magnitude.quantile(q), (count, self.n))

    def density_at(self, p: float) -> Float[Tensor, "n"]:
        """The densities that the same gates have where inputs are true with another probability, in float64."""
        return torch.tensor([_chance(each, p) for each in self._built[1]], dtype=torch.float64)

    @property
    def density(self) -> Float[Tensor, "n"]:
        return self.density_at(self.p)

    def gates(self) -> Float[Tensor, "n n"]:
        polynomials, joint = self._built[1], torch.empty(self.n, self.n, dtype=torch.float64)
        for i, one in enumerate(polynomials):
            for j, other in enumerate(polynomials[: i + 1]):
                joint[i, j] = joint[j, i] = _chance(_gate(False, one, other), self.p)
        return joint

    def _supports(self) -> Float[Tensor, "sets"]:
        bits = torch.tensor([[s >> i & 1 for i in range(self.inputs)] for s in range(2**self.inputs)])
        number = (self._true(bits.bool()).long() << torch.arange(self.n)).sum(1)
        chance = torch.where(bits.bool(), self.p, 1 - self.p).double().prod(1)
        return torch.zeros(2**self.n, dtype=torch.float64).index_add_(0, number, chance)


def _gate(either: bool, a: _Polynomial, b: _Polynomial) -> _Polynomial:
    """a and b, or a or b; a square is the input itself."""
    answer: _Polynomial = {}
    for one, c in a.items():
        for other, e in b.items():
            both = one | other
            answer[both] = answer.get(both, 0) + (-c * e if either else c * e)
    if either:
        for part in (a, b):
            for term, c in part.items():
                answer[term] = answer.get(term, 0) + c
    return {term: c for term, c in answer.items() if c}


def _chance(polynomial: _Polynomial, p: float) -> float:
    return sum(c * p ** len(term) for term, c in polynomial.items())


def _enters(polynomial: _Polynomial, span: dict[frozenset[int], dict[frozenset[int], Fraction]]) -> bool:
    """Whether it is no combination of those that span; then it is added to them. Exact."""
    rest = {term: Fraction(c) for term, c in polynomial.items()}
    while rest:
        lead = max(rest, key=lambda term: (len(term), sorted(term)))
        if lead not in span:
            span[lead] = rest
            return True
        factor = rest[lead] / span[lead][lead]
        for term, c in span[lead].items():
            if value := rest.get(term, Fraction(0)) - factor * c:
                rest[term] = value
            else:
                rest.pop(term, None)
    return False
