"""What a metric promises: its range, its unit, and what leaves it unchanged. Tests read the promise and check it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Declaration:
    """The promise of one metric.

    Args:
        range: smallest and largest value it can take.
        unit: of the value.
        invariant: changes of its first argument that must not change it, among
            "rotation" (of R^d), "permutation" (of atoms or features), "scale" (of each atom or of the whole), "sign".
    """

    range: tuple[float, float]
    unit: str
    invariant: tuple[str, ...] = ()


def metric(
    *, range: tuple[float, float], unit: str, invariant: tuple[str, ...] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Attaches a Declaration as `function.declaration` and switches gradients off; it registers nothing."""

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        measured = torch.no_grad()(function)
        measured.declaration = Declaration(range, unit, invariant)  # type: ignore[attr-defined]
        return measured

    return declare
