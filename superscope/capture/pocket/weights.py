"""Where are the pocket model, its control and its twin's history, and how are they loaded?

Plain transformers objects from files inside the package: no network, no cache, no code of ours in the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

_HERE = Path(__file__).parent


def folder() -> Path:
    """The pocket model's folder, as transformers' `from_pretrained` takes it; MODEL_CARD.md in it says what it is.

    Raises:
        FileNotFoundError: if the weights are not there.
    """
    return _holding(_HERE / "model", "model.safetensors")


def load() -> tuple[transformers.GPT2LMHeadModel, transformers.PreTrainedTokenizerFast]:
    """The trained pocket model in float32 and evaluation mode, and its tokenizer.

    The tokenizer sets no separator by itself: put `tokenizer.bos_token` before a text whose first token matters,
    as every document began with it in training.

    Raises:
        FileNotFoundError: if the weights are not there.

    Example:
        >>> model, tokenizer = load()
        >>> model.config.n_embd, model.config.n_layer, tokenizer.decode(tokenizer.encode("def f(x):"))
        (192, 4, 'def f(x):')
    """
    with without_progress_bars():
        model = transformers.GPT2LMHeadModel.from_pretrained(folder(), dtype=torch.float32, local_files_only=True)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder(), local_files_only=True)
    return model.eval(), tokenizer


def control(seed: int = 0) -> transformers.GPT2LMHeadModel:
    """The pocket model's architecture with fresh random weights: what an untrained network of this shape shows.

    Weights are drawn by the architecture's own initialisation; the global random state is left as it was.

    Args:
        seed: of the weights. Training started from seed 0, so `control(0)` is the model before its first step.

    Example:
        >>> torch.equal(control(1).lm_head.weight, control(1).lm_head.weight)
        True
    """
    return fresh(transformers.GPT2Config.from_pretrained(folder(), local_files_only=True), seed)


@dataclass(frozen=True)
class Checkpoint:
    """The pocket model's narrow twin at one step of its training.

    Args:
        step: optimizer steps done.
        tokens: tokens seen.
        held_out_bits_per_byte: over all held-out documents, from these weights as stored, in windows without overlap.
        file: float16 weights.
    """

    step: int
    tokens: int
    held_out_bits_per_byte: float
    file: Path

    def load(self) -> transformers.GPT2LMHeadModel:
        """The twin at this step, in float32 and evaluation mode; it shares the pocket model's tokenizer."""
        model = fresh(transformers.GPT2Config.from_pretrained(self.file.parent, local_files_only=True), seed=0)
        stored = {name: tensor.float() for name, tensor in load_file(self.file).items()}
        missing, unexpected = model.load_state_dict(stored, strict=False)
        # The unembedding is the embedding, so it is stored once and is the one name that may be missing.
        if unexpected or set(missing) - {"lm_head.weight"}:
            raise ValueError(f"'{self.file}' is no checkpoint of the twin: {missing} missing, {unexpected} unexpected.")
        return model


def history() -> tuple[Checkpoint, ...]:
    """The twin (64 wide where the pocket model is 192) from before its first step to its last, log-spaced in steps.

    For watching superposition form: the same text and tokenizer, a third of the width, so more features to a dimension.

    Raises:
        FileNotFoundError: if the history is not there.

    Example:
        >>> [checkpoint.step for checkpoint in history()][:2]
        [0, 10]
    """
    place = _holding(_HERE / "history", "index.json")
    index = json.loads((place / "index.json").read_text(encoding="utf-8"))
    return tuple(
        Checkpoint(row["step"], row["tokens"], row["held_out_bits_per_byte"], place / row["file"])
        for row in index["checkpoints"]
    )


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing a bar for a file that loads in a blink; what the user had set comes back."""
    drawn = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            transformers_logging.enable_progress_bar()


def fresh(config: transformers.GPT2Config, seed: int) -> transformers.GPT2LMHeadModel:
    """A model of this architecture with random weights, in evaluation mode; the global random state stays."""
    config.dtype = torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU alone; torch.manual_seed reaches every device
        return transformers.GPT2LMHeadModel(config).eval()


def _holding(place: Path, file: str) -> Path:
    if not (place / file).is_file():
        raise FileNotFoundError(
            f"'{place}' holds no {file}: install superscope with its data files, or make them with "
            "`python scripts/train_pocket.py` in a checkout."
        )
    return place
