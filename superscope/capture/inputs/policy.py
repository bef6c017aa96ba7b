"""Which rows are read, and which are left out? One object, stored with everything that is made from them."""

from __future__ import annotations

from dataclasses import dataclass


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
        outlier: rows of the residual stream whose norm is over this many times the median of their unit are left out,
            counted, and their largest norms kept; None keeps all. Massive activations at a handful of tokens are
            otherwise most of the variance that a dictionary explains.
        packed: put several short windows into one row of the batch, kept apart by their positions; only for models in
            which a test at the start finds that they are.

    Raises:
        ValueError: if a number is out of range.

    Source:
        Sun et al., "Massive Activations in Large Language Models", 2024. The factor 10 is the dictionary_learning
        library's, which takes the median over a batch with its pads; here it is taken after they are gone.

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
