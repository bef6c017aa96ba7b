"""Which tokens may stand in a prompt that is searched for, and does the prompt come back from its own text?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ...capture.inputs.spelling import spelling

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_ROUNDS = 20


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens that can be proposed: none that is special, empty or a piece of a character.

    Args:
        tokenizer: of `transformers`.
        ids: of the tokens.
    """

    tokenizer: Any
    ids: Int[Tensor, "v"]

    @classmethod
    def of(cls, tokenizer: Any, size: int) -> Vocabulary:
        """Of a model that knows `size` tokens.

        Raises:
            ValueError: if all of its tokens are special, or none can be written as text.
        """
        texts = spelling(tokenizer)[:size]
        special = set(tokenizer.all_special_ids)
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special |= {i for i, token in added.items() if token.special}
        plain = [i for i, text in enumerate(texts) if i not in special and text and _UNFINISHED not in text]
        if not plain:
            raise ValueError(
                f"of this tokenizer's {len(texts)} tokens {len(special)} are special and none of the others can be "
                "written as text, so no prompt can be made. Give a model with its own tokenizer."
            )
        return cls(tokenizer, torch.tensor(plain))

    def returns(self, prompts: Int[Tensor, "b t"]) -> Bool[Tensor, "b"]:
        """Whether a prompt's text is tokenized to the very prompt: only then can anybody type it."""
        if not len(prompts):
            return torch.zeros(0, dtype=torch.bool)
        rows = prompts.tolist()
        texts = self.tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)
        again = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return torch.tensor([list(one) == row for one, row in zip(again, rows, strict=True)])

    def drawn(self, count: int, length: int, generator: torch.Generator) -> Int[Tensor, "count length"]:
        """Prompts of tokens drawn alike, of those that come back from their text as far as that can be had."""
        kept = torch.zeros(0, length, dtype=torch.int64)
        spare = kept
        for _ in range(_ROUNDS if count else 0):
            some = self.ids[torch.randint(len(self.ids), (2 * count, length), generator=generator)]
            returning = self.returns(some)
            kept, spare = torch.cat([kept, some[returning]]), some[~returning]
            if len(kept) >= count:
                break
        return torch.cat([kept, spare])[:count]
