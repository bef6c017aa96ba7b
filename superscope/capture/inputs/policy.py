"""Which rows are read, and which are left out? One object, stored with everything that is made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

_DEVIATIONS = 6.0
"""Of the logarithm of a norm: of 10^6 log-normal norms none is farther out, of a Pareto law's, exponent 2, 136 are."""

_BULK = (0.95, 1.6449)
"""The quantile that the deviation of the logarithm is read from, and where it stands for a normal one."""


@dataclass(frozen=True)
class Policy:
    """How text becomes rows. Two stores are of one kind only if their policies are the same.

    A dictionary learned with one treatment of beginnings and special tokens does not fit activations of another: the
    activations there are of another size, and a model that was trained with a beginning-of-sequence token computes
    something else without one (Gemma 7B's perplexity on LAMBADA rises from 3.46 to 5.9e9).

    Args:
        context: ids in a window.
        bos: put the tokenizer's beginning-of-sequence token before each window, where it has one. It is never a row.
        drop_first: tokens of text at the beginning of each window that are computed and left out. Where there is no
            beginning-of-sequence token, the first token takes over its part as a sink of attention.
        drop_ids: tokens that are never rows.
        keep_special: keep the special tokens of chat templates as rows.
        outlier: rows whose norm is over this many times the median, and far outside the spread of the others
            (`outlier_limit`), are left out and kept apart; None keeps all. Massive activations at a handful of tokens
            are otherwise most of the variance that a dictionary explains.
        packed: put several short windows into one row of the batch, kept apart by their positions; only for models in
            which a test at the start finds that they are.

    Raises:
        ValueError: if a number is out of range.

    Source:
        Sun et al., "Massive Activations in Large Language Models", 2024. The factor 10 is the dictionary_learning
        library's, which takes the median over a batch with its pads; here it is taken after they are gone, once for
        each site.

    Example:
        >>> Policy(context=64).outlier
        10.0
    """

    context: int = 128
    bos: bool = True
    drop_first: int = 0
    drop_ids: tuple[int, ...] = ()
    keep_special: bool = False
    outlier: float | None = 10.0
    packed: bool = False

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Policy:
        """The policy that was saved as a dict of its fields, by JSON too."""
        return cls(**{**saved, "drop_ids": tuple(saved["drop_ids"])})

    def __post_init__(self) -> None:
        if self.context < 2:
            raise ValueError(f"Policy: context is {self.context}; give at least 2 ids to a window.")
        if not 0 <= self.drop_first < self.context:
            raise ValueError(
                f"Policy: drop_first is {self.drop_first}, "
                f"which leaves nothing of a window of {self.context}; give less."
            )
        if self.outlier is not None and self.outlier <= 1:
            raise ValueError(f"Policy: outlier is {self.outlier}; give a multiple of the median above 1, or None.")


def outlier_limit(norms: Float[Tensor, "rows"], multiple: float = 10.0) -> float:
    r"""The norm above which a row is an outlier: $m \cdot \max(c,\ (q / m)^{6 / 1.645})$, c being the multiple.

    m is the median norm and q the 95th percentile of the norms up to c m. Where the bulk of the norms is log-normal the
    second term is six of its deviations, so that a wide but ordinary spread loses no row: of 10^6 norms whose logarithm
    has deviation 1, the largest is at 5. Where the bulk is narrow, as in most residual streams, the first decides. The
    rule knows no units, and up to half of the rows may be outliers.

    Args:
        norms: of rows seen in the text that is learned from.
        multiple: c, above 1.

    Returns:
        A norm; infinite where there are no norms, or half of them are 0, for then there is no scale.

    Raises:
        ValueError: if the multiple is not above 1.

    Example:
        >>> import torch
        >>> outlier_limit(torch.tensor([1.0, 1.0, 1.0, 1.0, 70.0]))
        10.0
        >>> outlier_limit(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        inf
    """
    if not multiple > 1:
        raise ValueError(f"outlier_limit: the multiple is {multiple}; give one above 1.")
    if not len(norms):
        return math.inf
    ordered = norms.double().sort().values
    middle = float(ordered[(len(ordered) - 1) // 2])
    if not middle > 0:
        return math.inf
    bulk = ordered[ordered <= multiple * middle]
    share, deviations = _BULK
    high = float(bulk[min(int(share * len(bulk)), len(bulk) - 1)])
    return middle * max(multiple, (high / middle) ** (_DEVIATIONS / deviations))
