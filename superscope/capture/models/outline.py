"""How large is a model, by its configuration alone: no weights are read or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from .. import pocket, sycophant
from . import gguf
from .facts import text_config_of
from .load import quiet, read_config
from .roles import blocks


@dataclass(frozen=True)
class Outline:
    """A model's size.

    Args:
        name: as it was asked for.
        d: dimensions of the residual stream.
        block_parameters: of each block, in order. A mixture of experts counts all of its experts.
        parameters: of the whole model, embeddings included, its head left out where that is tied or separate.
        positions: tokens it can read at once; 0 where the configuration does not say.
    """

    name: str
    d: int
    block_parameters: tuple[int, ...]
    parameters: int
    positions: int

    def up_to(self, layer: int) -> int:
        """Parameters that a forward pass uses to reach the output of block `layer`, embeddings left out.

        Raises:
            ValueError: if the model has no such block.
        """
        if not 0 <= layer < len(self.block_parameters):
            raise ValueError(
                f"{self.name} has blocks 0 to {len(self.block_parameters) - 1}; there is no block {layer}."
            )
        return sum(self.block_parameters[: layer + 1])


def outline(model: str) -> Outline:
    """The size of a model: "pocket" or "sycophant", a folder with a config.json, a GGUF file, or a name on the hub.

    Args:
        model: as for `load`.

    Raises:
        FileNotFoundError, FormatError, ValueError: as `load`.

    Example:
        >>> small = outline("pocket")
        >>> small.d, len(small.block_parameters)
        (192, 4)
    """
    import transformers

    carried = {"pocket": pocket.folder, "sycophant": sycophant.folder}
    place = carried[model]() if model in carried else Path(model).expanduser()
    folder = place if model.strip() and place.is_dir() else None
    if model.strip() and (file := gguf.file_at(place)) is not None:
        with quiet():
            config = gguf.config(file)
    else:
        config = read_config(model if folder is None else str(folder), folder)
    # On the meta device a model of any size has shapes and no numbers.
    with torch.device("meta"):
        network = transformers.AutoModel.from_config(config)
    sizes = tuple(sum(p.numel() for p in network.get_submodule(block).parameters()) for block in blocks(network))
    text = text_config_of(network)
    return Outline(
        name=model,
        d=int(text.hidden_size),
        block_parameters=sizes,
        parameters=sum(p.numel() for p in network.parameters()),
        positions=int(getattr(text, "max_position_embeddings", 0) or 0),
    )
