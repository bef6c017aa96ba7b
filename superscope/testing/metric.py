"""What a metric has declared, held to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core import Dictionary, Measurement
from .law import LawBroken, require


def _orthogonal(d: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def _changed(W: Dictionary, change: str, generator: torch.Generator) -> Dictionary:
    """The dictionary after one of the changes that a declaration can name."""
    atoms = W.atoms
    if change == "rotation":
        bias = W.bias
        turn = _orthogonal(W.d, generator).to(atoms)
        return Dictionary(atoms @ turn, None if bias is None else bias @ turn)
    if change == "permutation":
        return Dictionary(atoms[torch.randperm(W.n, generator=generator)], W.bias)
    if change == "scale":
        return Dictionary(atoms * (0.5 + 3 * torch.rand(W.n, 1, generator=generator)).to(atoms), W.bias)
    if change == "sign":
        return Dictionary(atoms * (torch.randint(0, 2, (W.n, 1), generator=generator) * 2 - 1).to(atoms), W.bias)
    raise ValueError(f"check_metric: unknown invariance {change!r}. Known: rotation, permutation, scale, sign.")


def _changed_code(c: Tensor, change: str, generator: torch.Generator) -> Tensor:
    """Codes, one per row, after one of the changes that a declaration can name."""
    if change == "permutation":
        return c[..., torch.randperm(c.shape[-1], generator=generator)]
    if change == "scale":
        return c * (0.5 + 3 * torch.rand(*c.shape[:-1], 1, generator=generator)).to(c)
    if change == "sign":
        return c * (torch.randint(0, 2, c.shape, generator=generator) * 2 - 1).to(c)
    raise ValueError(f"check_metric: codes have no {change}. Known: permutation, scale, sign.")


def _changed_all(subject: tuple[Any, ...], change: str, generator: torch.Generator) -> tuple[Any, ...]:
    """A metric's arguments after a change of the first; a rotation is one of the space that dictionaries share."""
    first, *others = subject
    if isinstance(first, Tensor):
        return _changed_code(first, change, generator), *others
    if change != "rotation":
        return _changed(first, change, generator), *others
    state = generator.get_state()
    turned = []
    for each in subject:
        generator.set_state(state)
        turned.append(_changed(each, change, generator))
    return tuple(turned)


def _copied(subject: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments again, the first wanting gradients."""
    first, *others = subject
    if isinstance(first, Tensor):
        return first.detach().clone().requires_grad_(), *others
    return Dictionary(first.atoms.detach().clone().requires_grad_(), first.bias), *others


def check_metric(
    metric: Callable[..., Any],
    subjects: Sequence[Dictionary | Tensor | tuple[Any, ...]],
    *,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> tuple[str, ...]:
    """Holds a metric of a dictionary, of codes, or of two dictionaries to its declaration, on every subject.

    Its values lie in the declared range, the invariances hold, the same call gives the same value, gradients are off,
    the dictionary is as it was, and a returned Measurement has the declared unit and an interval around its value.

    Args:
        metric: declared with `measure.metric`, giving a Measurement, a number or a tensor.
        subjects: what to try it on, in float64, so that rounding is no difference: a dictionary, a tensor of codes, or
            a tuple of arguments that begins with one of them. Changes are of the first; all rotate together.
        seed: of the rotations, orders, factors and signs.
        tolerance: two values within it, relative or absolute, are one.

    Returns:
        The names of the laws it was held to.

    Raises:
        TypeError: if the function has no declaration.
        LawBroken: with the metric's name, the law, and what differed.
    """
    declaration = getattr(metric, "declaration", None)
    name = getattr(metric, "__name__", repr(metric))
    if declaration is None:
        raise TypeError(f"check_metric: {name} declares nothing. Decorate it with measure.metric(range=..., unit=...).")

    def numbers(subject: tuple[Any, ...]) -> list[float]:
        found = metric(*subject)
        if isinstance(found, Measurement):
            require(found.unit == declaration.unit, f"its unit is {found.unit!r}, declared {declaration.unit!r}.")
            if found.value is None:  # undefined, with a caution: so it must be after every change
                return []
            if found.low is not None and found.high is not None:
                holds = found.low <= found.value + tolerance and found.value <= found.high + tolerance
                require(holds, f"the interval ({found.low}, {found.high}) does not hold its value {found.value}.")
            return [float(found.value)]
        if isinstance(found, Tensor):
            require(not found.requires_grad, "its value carries gradients.")
            return [float(value) for value in found.flatten().sort().values]
        return [float(found)]

    def alike(one: list[float], other: list[float]) -> bool:
        return len(one) == len(other) and all(
            math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) for a, b in zip(one, other, strict=True)
        )

    generator = torch.Generator().manual_seed(seed)
    low, high = declaration.range
    try:
        for index, given in enumerate(subjects):
            subject = given if isinstance(given, tuple) else (given,)
            held = subject[0] if isinstance(subject[0], Tensor) else subject[0].atoms
            before = held.detach().clone()
            values = numbers(_copied(subject))
            for value in values:
                holds = low - tolerance <= value <= high + tolerance
                require(holds, f"subject {index} has {value}, outside the declared range [{low}, {high}].")
            require(alike(values, numbers(subject)), f"subject {index} has one value now and another then.")
            require(torch.equal(before, held), f"subject {index} was changed.")
            for change in declaration.invariant:
                other = numbers(_changed_all(subject, change, generator))
                require(alike(values, other), f"subject {index} has {values[:4]}, and {other[:4]} after a {change}.")
    except LawBroken as broken:
        raise LawBroken(f"{name} breaks its declaration: {broken}") from broken
    return ("range", "repeatable", "subject unchanged", *declaration.invariant)
