"""How many bits does a language model need for a byte of text? The score in which models with any tokenizer compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import transformers
from jaxtyping import Float
from torch.nn import functional

from ...core import Measurement
from .text import Document

N_BOOTSTRAP = 2000


def document_bits(
    model: transformers.GPT2LMHeadModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    documents: Sequence[Document],
    *,
    stride: int = 128,
    rows: int = 16,
) -> Float[np.ndarray, " documents"]:
    r"""Bits to write each document down: $-\sum_i \log_2 p(t_i \mid t_{<i})$ over all its tokens, each counted once.

    A document is the separator and then its tokens, so its first token is predicted too; the end of a document is not.
    Windows are as long as the model allows and start `stride` tokens apart; a window counts only the tokens no earlier
    one has, which thus have at least window - stride tokens of context (but for the first window). Smaller strides
    score better and cost more. One tokenization is scored, so the bits of the *text* are at most these.

    Args:
        model: a causal model; its mode and device are used as they are.
        tokenizer: its own.
        documents: any text.
        stride: tokens between the starts of two windows.
        rows: windows in one call of the model.

    Raises:
        ValueError: if stride is not between 1 and the model's window.
    """
    window = int(model.config.n_positions)
    if not 1 <= stride <= window:
        raise ValueError(f"document_bits: stride is {stride}; give one from 1 to {window}, the model's window.")
    bits = np.zeros(len(documents))
    device = next(model.parameters()).device
    pieces = _pieces(tokenizer, documents, window, stride)
    with torch.inference_mode():
        while chunk := [piece for _, piece in zip(range(rows), pieces)]:
            width = max(len(piece[1]) for piece in chunk)
            ids = torch.zeros(len(chunk), width, dtype=torch.long)
            counted = torch.zeros(len(chunk), width - 1, dtype=torch.bool)
            for i, (_, tokens, first) in enumerate(chunk):
                ids[i, : len(tokens)] = torch.tensor(tokens)
                counted[i, first : len(tokens) - 1] = True
            ids = ids.to(device)
            # Padding stands on the right, where a causal model cannot see it from a counted token.
            logits = model(ids[:, :-1], use_cache=False).logits.float()
            nats = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            sums = (nats.view(len(chunk), -1).double().cpu() * counted).sum(1) / math.log(2)
            np.add.at(bits, [piece[0] for piece in chunk], sums.numpy())
    return bits


def bits_per_byte(
    model: transformers.GPT2LMHeadModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    documents: Sequence[Document],
    *,
    stride: int = 128,
) -> Measurement:
    r"""Bits for all documents over their bytes in UTF-8: $\sum_j b_j / \sum_j B_j$, windows as in `document_bits`.

    The interval is over documents, the unit that was held out; bytes within one are far from independent.

    Args:
        model: a causal model.
        tokenizer: its own.
        documents: at least one, not all empty.
        stride: tokens between the starts of two windows.

    Returns:
        Bits per byte, >= 0; 8 is what bytes cost uncompressed.

    Raises:
        ValueError: if the documents hold no text.

    Example:
        >>> from superscope.capture import pocket
        >>> model, tokenizer = pocket.load()
        >>> sample = [document for document in pocket.documents() if document.name == "stdlib/urllib/response.py"]
        >>> pocket.is_held_out("stdlib/urllib/response.py"), pocket.bits_per_byte(model, tokenizer, sample).value < 2
        (True, True)
    """
    sizes = np.array([len(document.text.encode()) for document in documents], dtype=np.float64)
    if sizes.sum() == 0:
        raise ValueError(f"bits_per_byte: {len(documents)} documents without a single byte; give some text.")
    return ratio(document_bits(model, tokenizer, documents, stride=stride), sizes, stride=stride)


def ratio(bits: Float[np.ndarray, " documents"], sizes: Float[np.ndarray, " documents"], *, stride: int) -> Measurement:
    """Total bits over total bytes, with an interval that resamples documents.

    Args:
        bits: per document.
        sizes: bytes per document.
        stride: how the bits were counted, for the record.
    """
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(bits), size=(N_BOOTSTRAP, len(bits)))
    ratios = bits[drawn].sum(1) / sizes[drawn].sum(1).clip(min=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Measurement(
        name="bits_per_byte",
        value=float(bits.sum() / sizes.sum()),
        unit="bits per byte",
        n=int(sizes.sum()),
        of="bytes",
        low=float(low),
        high=float(high),
        how=f"95 %, {N_BOOTSTRAP} bootstrap draws over {len(bits)} whole documents",
        chance=8.0,
        chance_is="uniform over bytes",
        at={"stride": stride, "documents": len(bits)},
    )


def _pieces(
    tokenizer: transformers.PreTrainedTokenizerFast, documents: Sequence[Document], window: int, stride: int
) -> Iterator[tuple[int, list[int], int]]:
    """Document's index, up to window + 1 tokens, and the first position whose next token is counted."""
    separator = tokenizer.convert_tokens_to_ids(str(tokenizer.bos_token))
    assert isinstance(separator, int)
    for index, document in enumerate(documents):
        tokens = [separator, *tokenizer.encode(document.text, add_special_tokens=False, verbose=False)]
        done = 0
        start = 0
        while done < len(tokens) - 1:
            piece = tokens[start : start + window + 1]
            yield index, piece, done - start
            done = start + len(piece) - 1
            start += stride
