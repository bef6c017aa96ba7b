"""What has to be known of a model before it is run? Its device and mode, how it attends, its width, its keywords."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_CACHED = 8 * 2**20
_LEAST, _MOST = 256, 8192


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside the block; each module's own mode is put back after it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            # Not .train(), which would reach children that were in evaluation mode on purpose.
            module.training = True


def is_causal(model: nn.Module) -> bool:
    """Whether all of the model's attention says that it is causal; where none says so, a mask in vain is only slow."""
    says = {module.is_causal for module in model.modules() if isinstance(getattr(module, "is_causal", None), bool)}
    return says == {True}


def text_config(model: nn.Module) -> Any:
    """The model's config, of a model of several kinds of input the part for text; None for a module without one."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def text_config_of(model: nn.Module) -> Any:
    """The config of the text part.

    Raises:
        ValueError: if the model has none.
    """
    config = text_config(model)
    if config is None:
        raise ValueError(
            f"{type(model).__name__} has no config, so its blocks are not known; name the sites by their paths."
        )
    return config


def keywords_of(module: nn.Module) -> frozenset[str]:
    """The names that the module's forward takes."""
    return frozenset(inspect.signature(module.forward).parameters)


def batch_that_fits(model: nn.Module) -> int:
    r"""Ids in one forward pass: on processors the power of two below $8\,\mathrm{MiB} / (4 d b)$, b bytes a number.

    So many that the MLP's hidden layer, the widest thing in a block, stays in the processor's cache. One thread of a
    machine with 2 MiB of second-level and 36 MiB of third-level cache read 3 060 tokens a second of a model of
    GPT-2-small's width in batches of 512 and 1 700 in batches of 8 192; at d = 192, 22 400 in batches of 2 048 and
    17 500. Other devices want large batches: 8 192 ids there.
    """
    device, d = device_of(model), getattr(text_config(model), "hidden_size", None)
    if device.type != "cpu" or not isinstance(d, int) or d < 1:
        return _MOST
    parameter = next(model.parameters())
    fits = max(_CACHED // (4 * d * parameter.element_size()), 1)
    return min(max(1 << (fits.bit_length() - 1), _LEAST), _MOST)
