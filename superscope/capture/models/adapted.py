"""How is a model that TransformerLens or nnsight holds read? As a Subject: the rows that it computes, at our sites."""

from __future__ import annotations

from typing import Any

from torch import nn

from .hooked import PREFIX, Hooked
from .load import Subject


def from_transformer_lens(model: Any, tokenizer: Any = None, *, name: str | None = None) -> Subject:
    """A `HookedTransformer` or `TransformerBridge` as a Subject, to be harvested and measured like any other.

    Args:
        model: of TransformerLens.
        tokenizer: of text; the model's own without it.
        name: what tables call it; the name it was loaded by without it.

    Raises:
        TypeError: if it is no model of TransformerLens.
    """
    read = Hooked(model)
    called = name or f"{PREFIX}{getattr(model.cfg, 'model_name', None) or 'model'}"
    return Subject(read, getattr(model, "tokenizer", None) if tokenizer is None else tokenizer, called, "causal")


def from_nnsight(model: Any, *, name: str | None = None) -> Subject:
    """An nnsight `LanguageModel` as a Subject. What it wraps is a model of `transformers`, and that is what is read.

    Sites are the paths of its envoys: `model.transformer.h[2].output` is `transformer.h.2` (`capture.site_of_envoy`).

    Args:
        model: of nnsight, with its weights: `LanguageModel(name, dispatch=True)`.
        name: what tables call it; the name it was loaded by without it.

    Raises:
        TypeError: if it is no model of nnsight.
        ValueError: if its weights were not loaded yet.
    """
    # nnsight 0.4 and later call it _module, earlier ones _model.
    network = getattr(model, "_module", None)
    network = getattr(model, "_model", None) if network is None else network
    if not isinstance(network, nn.Module) or not hasattr(network, "config"):
        raise TypeError(f"from_nnsight: a {type(model).__name__} is no LanguageModel of nnsight.")
    if any(parameter.is_meta for parameter in network.parameters()):
        raise ValueError(
            "from_nnsight: its weights are not loaded, since nnsight waits for the first trace; load the model with "
            "LanguageModel(..., dispatch=True)."
        )
    called = name or str(getattr(network.config, "_name_or_path", "") or "nnsight")
    return Subject(network.eval(), model.tokenizer, called, "causal")
