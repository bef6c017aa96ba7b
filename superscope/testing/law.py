"""A law is a function that raises LawBroken with a sentence, and says by its name what it holds a thing to."""

from __future__ import annotations

import torch
from torch import Tensor


class LawBroken(AssertionError):
    """What a law found: the thing's name, the law, and the first difference."""


def require(holds: bool, sentence: str) -> None:
    """Raises LawBroken with the sentence unless it holds."""
    if not holds:
        raise LawBroken(sentence)


def same(found: Tensor, wanted: Tensor, what: str, *, tolerance: float = 0.0) -> None:
    """Raises LawBroken unless two tensors agree to `tolerance` of the largest wanted entry (0: to the bit).

    Two NaN in one place agree: what a law compares may be undefined, but in both.
    """
    require(found.shape == wanted.shape, f"{what} has shape {tuple(found.shape)}, not {tuple(wanted.shape)}.")
    if not found.numel():
        return
    if not tolerance:
        equal = (found == wanted) | (found.isnan() & wanted.isnan()) if found.is_floating_point() else found == wanted
        require(bool(equal.all()), f"{what} differs in {int((~equal).sum())} of {equal.numel()} entries.")
        return
    found, wanted = found.detach().double(), wanted.detach().double()
    largest = float(wanted.nan_to_num().abs().max())
    gap = (found - wanted).abs()
    undefined = found.isnan() & wanted.isnan()
    far = float(torch.where(undefined, 0.0, gap).max())
    require(
        far <= tolerance * max(largest, torch.finfo(torch.float64).tiny),
        f"{what} differs by up to {far:.3g}, where its largest entry is {largest:.3g}.",
    )
