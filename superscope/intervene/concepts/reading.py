"""What does a model hold of each text? One row of x for a text, at several sites in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...capture.inputs.as_corpus import as_corpus
from ...capture.models.load import Subject
from ...capture.models.sites import one_site
from ...capture.reading.harvest import harvest
from ...core import ShapeError, Site
from .contrast import ContrastSet

Token = Literal["mean", "last"]
"""What a text's row is: the mean over its tokens, or its last token."""


@dataclass(frozen=True, eq=False)
class ContrastRows:
    """Rows of texts that have a concept, and of texts that have not.

    Args:
        positive, negative: a row for each text, float64; where `paired`, rows of one number are twins.
        paired: whether they are pairs.
        name: of the concept.

    Raises:
        ShapeError: if rows differ in length, or pairs in number.
        ValueError: if a side has no row, or a number is NaN or infinite.
    """

    positive: Float[Tensor, "p d"]
    negative: Float[Tensor, "q d"]
    paired: bool = False
    name: str = "concept"

    def __post_init__(self) -> None:
        for side in ("positive", "negative"):
            rows = getattr(self, side)
            object.__setattr__(self, side, rows.detach().double())
            if not len(rows):
                raise ValueError(f"{self.name}: there is no {side} row, so the contrast is one-sided; give both sides.")
            if not bool(torch.isfinite(rows).all()):
                raise ValueError(f"{self.name}: a {side} row has a NaN or infinite entry; give sound rows.")
        if self.positive.shape[1] != self.negative.shape[1]:
            raise ShapeError(
                f"{self.name}: positive rows have {self.positive.shape[1]} numbers and negative ones "
                f"{self.negative.shape[1]}; read both at one site."
            )
        if self.paired and len(self.positive) != len(self.negative):
            raise ShapeError(
                f"{self.name}: {len(self.positive)} and {len(self.negative)} rows are no pairs; give as many of each."
            )

    @property
    def d(self) -> int:
        """Dimension of the rows."""
        return self.positive.shape[1]

    @property
    def x(self) -> Float[Tensor, "n d"]:
        """All rows, the positive ones first."""
        return torch.cat([self.positive, self.negative])

    @property
    def labels(self) -> Float[Tensor, "n"]:
        """1 for each positive row and 0 for each negative one."""
        return torch.cat([self.positive.new_ones(len(self.positive)), self.negative.new_zeros(len(self.negative))])

    @property
    def differences(self) -> Float[Tensor, "pairs d"]:
        """Of each pair, positive less negative.

        Raises:
            ValueError: if rows are not paired.
        """
        if not self.paired:
            raise ValueError(f"{self.name}: these are two sets and no pairs; give pairs for their differences.")
        return self.positive - self.negative


def text_rows(
    subject: Subject, texts: Sequence[str], sites: Sequence[Site | str], *, token: Token = "mean", context: int = 128
) -> dict[Site, Float[Tensor, "texts d"]]:
    """x of each text at each site.

    Args:
        subject: the model.
        texts: any number; a text longer than the context is read in windows.
        sites: where.
        token: "mean" over a text's tokens, or the "last".
        context: ids in a window at most.

    Raises:
        SiteNotFound: if a site is not in the model.
        ValueError: if a text has no token.
    """
    corpus: Any = as_corpus(list(texts), tokenizer=subject.tokenizer, context=context)
    known = [
        one
        for site in sites
        for one in ([site] if isinstance(site, Site) else one_site(subject.model, site, many=True))
    ]
    sums: dict[Site, Tensor] = {}
    counts = torch.zeros(len(texts), dtype=torch.float64)
    for batch in harvest(subject.model, known, corpus, device="cpu"):
        for index, (site, rows) in enumerate(batch.items()):
            assert rows.places is not None
            of = corpus.document[rows.places[:, 0]]
            whole = sums.setdefault(site, torch.zeros(len(texts), rows.x.shape[1], dtype=torch.float64))
            if token == "mean":
                whole.index_add_(0, of, rows.x.double())
            else:
                # Rows come in the text's order, so that the last written is the last token; duplicates of one text
                # in one call would be written in any order.
                last = torch.cat([of[1:] != of[:-1], torch.ones(1, dtype=torch.bool)])
                whole[of[last]] = rows.x[last].double()
            if index == 0:
                counts += torch.bincount(of, minlength=len(texts))
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"text {empty[0]} has no token in this model; leave it out.")
    return {site: rows / counts[:, None] if token == "mean" else rows for site, rows in sums.items()}


def contrast_rows(
    subject: Subject, contrast: ContrastSet, sites: Sequence[Site | str], *, token: Token = "mean"
) -> dict[Site, ContrastRows]:
    """The rows of a contrast set at each site; errors as for `text_rows`."""
    count = len(contrast.positive)
    read = text_rows(subject, (*contrast.positive, *contrast.negative), sites, token=token)
    return {
        site: ContrastRows(rows[:count], rows[count:], paired=contrast.paired, name=contrast.name)
        for site, rows in read.items()
    }
