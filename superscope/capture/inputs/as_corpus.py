"""What may stand where a corpus is wanted? A corpus, pictures, plain ids, or texts with their tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ...core import ShapeError
from .images import Images
from .policy import Policy
from .text import Corpus, Document, documents, frame, framed, room, tokenized, windows_of

Readable: TypeAlias = Corpus | Images | Tensor | np.ndarray | Sequence[Any]
"""A corpus, pictures, ids [b, t] (tensor, array or lists), or texts."""

_WANTED = (
    "give ids [b, t] (a tensor, array or list of lists of whole numbers), a list of texts with their tokenizer, or a "
    "Corpus made by tokens(...)"
)


def as_corpus(given: Any, *, tokenizer: Any = None, context: int = 128) -> Corpus | Images:
    """The corpus that `given` is, or is made into.

    Everything that reads a corpus takes the same things and asks here. Ids are taken as they are: each row is a
    sequence and a document of its own, and every position of it is a row, special tokens too; lists may differ in
    length. Texts are cut into windows in their order, each with the special tokens that `tokens` puts around it.

    Args:
        given: a corpus or pictures, which come back as they are; ids [b, t]; or texts. All else is refused.
        tokenizer: of the texts.
        context: ids in a window at most, of texts; fewer where all are shorter.

    Raises:
        ShapeError: if ids are no matrix, or there are none.
        TypeError: if ids are no whole numbers, or it is something else altogether.
        ValueError: if an id is negative, or there are texts and no tokenizer, or nothing but blanks.

    Example:
        >>> corpus = as_corpus([[5, 6, 7], [8, 9]])
        >>> corpus.ids.tolist(), corpus.n_tokens
        ([[5, 6, 7], [8, 9, 0]], 5)
    """
    if isinstance(given, Corpus | Images):
        return given
    if isinstance(given, str | bytes):
        raise TypeError("as_corpus: this is one string; give a list, [text], or read a file by documents(path).")
    if isinstance(given, np.ndarray):
        if given.dtype.kind not in "iu":
            raise TypeError(f"as_corpus: an array of {given.dtype} is no ids; {_WANTED}.")
        given = torch.from_numpy(given.astype(np.int64))
    if isinstance(given, Tensor):
        return _of_tensor(given)
    if not isinstance(given, Sequence):
        raise TypeError(f"as_corpus: a {type(given).__name__} is no corpus; {_WANTED}.")
    if any(isinstance(each, str | Document) for each in given):
        return _of_texts(given, tokenizer, context)
    return _of_lists(given)


def _of_tensor(ids: Tensor) -> Corpus:
    if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
        raise TypeError(f"as_corpus: a tensor of {ids.dtype} is no ids; {_WANTED}.")
    if ids.ndim != 2 or not ids.numel():
        fix = "; of one sequence ids[None]" if ids.ndim == 1 else ""
        raise ShapeError(f"as_corpus: ids have the shape {list(ids.shape)}; give [b, t], b sequences of t ids{fix}.")
    ids = ids.detach().to(device="cpu", dtype=torch.int64)
    return _of_ids(ids, torch.full((len(ids),), ids.shape[1]))


def _of_lists(rows: Sequence[Any]) -> Corpus:
    plain = [each.tolist() if isinstance(each, Tensor | np.ndarray) else each for each in rows]
    if not plain or not all(isinstance(row, list | tuple) and row for row in plain):
        raise ShapeError(
            "as_corpus: a list of ids has a list of at least one id for each sequence, as in [[5, 6, 7], [8, 9]]; "
            "of one sequence give [ids]."
        )
    for row in plain:
        for each in row:
            if isinstance(each, bool) or not isinstance(each, int):
                raise TypeError(f"as_corpus: {each!r} ({type(each).__name__}) is no id; {_WANTED}.")
    length = torch.tensor([len(row) for row in plain])
    ids = torch.zeros(len(plain), int(length.max()), dtype=torch.int64)
    for i, row in enumerate(plain):
        ids[i, : len(row)] = torch.tensor(row)
    return _of_ids(ids, length)


def _of_ids(ids: Tensor, length: Tensor) -> Corpus:
    if int(ids.min()) < 0:
        sequence, position = (ids < 0).nonzero()[0].tolist()
        raise ValueError(
            f"as_corpus: id {int(ids[sequence, position])} at position {position} of sequence {sequence} is negative; "
            "ids count from 0. Leave out what is no token (-100 marks it in labels), or pad by making a Corpus."
        )
    return Corpus(
        ids=ids,
        keep=torch.arange(ids.shape[1]) < length[:, None],
        length=length,
        document=torch.arange(len(ids)),
        start=torch.zeros(len(ids), dtype=torch.int64),
        names=tuple(f"sequence {i}" for i in range(len(ids))),
        policy={"context": ids.shape[1], "before": [], "after": [], "pad": 0, "windows": "ids as they were given"},
    )


def _of_texts(texts: Sequence[Any], tokenizer: Any, context: int) -> Corpus:
    if tokenizer is None:
        raise ValueError(
            "as_corpus: texts become ids by a tokenizer, and there is none; give tokenizer=, or the Subject that "
            "capture.load returns where one is taken."
        )
    given = documents(texts)
    policy = Policy(context=max(context, 2))
    before, after = frame(tokenizer, policy)
    body = room(context, before, after)
    pieces = [windows_of(ids, i, body) for batch in tokenized(tokenizer, enumerate(given)) for i, ids in batch if ids]
    if not pieces:
        raise ValueError("as_corpus: the texts have no tokens; give text that the tokenizer knows.")
    text, length, document, start = (torch.cat(columns) for columns in zip(*pieces))
    longest = int(length.max())
    policy = replace(policy, context=max(longest + len(before) + len(after), 2))
    names = tuple(document.name for document in given)
    return framed(text[:, :longest], length, document, start, tokenizer, policy, names, {"order": "as given"})
