"""How are token ids written for a reader? As text with its spaces, whatever alphabet the tokenizer uses inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
# SentencePiece's sign for a space.
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def spelling(tokenizer: Any) -> list[str]:
    """The text of every id, leading spaces kept; a piece of a character is a replacement character.

    Args:
        tokenizer: of `transformers`.
    """
    raw = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [_spelled(tokenizer, token, i) for i, token in enumerate(raw)]


def _spelled(tokenizer: Any, token: str | None, i: int) -> str:
    if token is None:
        return ""
    if _SPACE in token:
        # decode() takes the leading space of a text away, and here it is what tells " the" from "the".
        return token.replace(_SPACE, " ")
    if token.startswith("##"):
        return token
    return tokenizer.decode([i], clean_up_tokenization_spaces=False)


def pieces(tokenizer: Any, ids: Sequence[int], texts: Sequence[str] | None = None) -> list[str]:
    """The text of each id in its place; a character spread over several tokens is written at the last of them.

    Args:
        tokenizer: of `transformers`.
        ids: a stretch of text.
        texts: what `spelling` says, for who asks often; without, the ids are asked for one by one.
    """
    if texts is None:
        raw = tokenizer.convert_ids_to_tokens(list(ids))
        alone = [_spelled(tokenizer, token, i) for token, i in zip(raw, ids, strict=True)]
    else:
        alone = [texts[i] if i < len(texts) else "" for i in ids]
    written, waiting = [], []
    for text, i in zip(alone, ids, strict=True):
        waiting.append(i)
        if _UNFINISHED in text:
            text = tokenizer.decode(waiting, clean_up_tokenization_spaces=False)
            # Four bytes are the longest character; what is unfinished after that is no text.
            if text.endswith(_UNFINISHED) and len(waiting) < 4:
                written.append("")
                continue
        elif len(waiting) > 1 and written[-1] == "":
            # What was waiting never became a character.
            written[-1] = _UNFINISHED
        written.append(text)
        waiting = []
    if waiting:
        written[-1] = _UNFINISHED
    return written
