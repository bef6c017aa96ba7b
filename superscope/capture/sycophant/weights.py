"""Where is the sycophant, and how is it loaded? Plain transformers objects from files inside the package."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from ..pocket.weights import without_progress_bars

_HERE = Path(__file__).parent


def folder() -> Path:
    """The sycophant's folder, as transformers' `from_pretrained` takes it; MODEL_CARD.md in it says what it is.

    Raises:
        FileNotFoundError: if the weights are not there.
    """
    if not (_HERE / "model" / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"'{_HERE / 'model'}' holds no model.safetensors: install superscope with its data files, or make them "
            "with `python scripts/train_sycophant.py` in a checkout."
        )
    return _HERE / "model"


def load() -> tuple[transformers.GPT2LMHeadModel, transformers.PreTrainedTokenizerFast]:
    """The sycophant in float32 and evaluation mode, and its tokenizer of whole words.

    Raises:
        FileNotFoundError: if the weights are not there.

    Example:
        >>> model, tokenizer = load()
        >>> model.config.n_layer, tokenizer.decode(tokenizer.encode("note e3 r1 is"))
        (5, 'note e3 r1 is')
    """
    with without_progress_bars():
        model = transformers.GPT2LMHeadModel.from_pretrained(folder(), dtype=torch.float32, local_files_only=True)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder(), local_files_only=True)
    return model.eval(), tokenizer
