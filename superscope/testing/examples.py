"""A small instance of every architecture, for laws that are checked over all of them."""

from __future__ import annotations

from typing import Any

from ..dictionaries import ARCHITECTURES, SAE, TRANSCODERS


def example(architecture: type[SAE], d: int = 6, n: int = 11, seed: int = 3, *, k: int = 3) -> SAE:
    """An instance of one of our architectures, with about k latents per row or a penalty that is felt.

    A crosscoder has two sites, the first of one dimension less than half of d; a transcoder predicts d + 1 numbers.

    Example:
        >>> from superscope.dictionaries import TopK
        >>> example(TopK)
        TopK(d=6, n=11, k=3, seed=3)
    """
    settings: dict[str, Any] = {"d": d, "n": n, "seed": seed}
    names = architecture.__init__.__annotations__
    if "k" in names:
        settings["k"] = min(k, n)
    if "coefficient" in names:
        settings["coefficient"] = 0.5
    if "candidates" in names:
        settings["candidates"] = 20
    if "widths" in architecture.sized_by:
        first = max(d // 2 - 1, 1)
        settings["widths"] = (first, d - first)
    if "d_out" in names:
        settings["d_out"] = d + 1
    return architecture(**settings)


EVERY: tuple[type[SAE], ...] = (*ARCHITECTURES, *TRANSCODERS)
"""All architectures: SAEs, transcoders and crosscoders."""
