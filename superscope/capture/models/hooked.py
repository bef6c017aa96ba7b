"""How is a model of TransformerLens run as ours are? A module around it, with its own names for modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "transformer_lens:"
"""Before a model's name or folder: load it with TransformerLens (extra `transformer-lens`)."""


class Hooked(nn.Module):
    """A model of TransformerLens as `harvest` and the studies run models: its modules under its own names.

    `HookedTransformer` and `TransformerBridge` both; weights and hooks are shared with it, not copied. Roles name its
    hooks (`resid_post.2` is `blocks.2.hook_resid_post`, or `blocks.2.hook_out` of a bridge). A `HookedTransformer`
    loaded with its defaults has folded norms and centred weights, and its stream is therefore not that of
    `transformers`; a bridge's is, unless `enable_compatibility_mode` was called.

    Args:
        model: of TransformerLens.

    Raises:
        TypeError: if it is none.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not (isinstance(model, nn.Module) and hasattr(model, "cfg") and hasattr(model, "blocks")):
            raise TypeError(
                f"Hooked: a {type(model).__name__} is no model of TransformerLens; give a HookedTransformer or a "
                "TransformerBridge."
            )
        # No child, so that modules keep the names that TransformerLens gives them.
        self.whole = (model,)
        for name, child in model.named_children():
            if name != "original_model":
                self.add_module(name, child)
        cfg: Any = model.cfg
        self.config = SimpleNamespace(
            num_hidden_layers=cfg.n_layers,
            hidden_size=cfg.d_model,
            intermediate_size=cfg.d_mlp,
            num_attention_heads=cfg.n_heads,
            max_position_embeddings=cfg.n_ctx,
            vocab_size=cfg.d_vocab,
            is_encoder_decoder=False,
        )
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters."""
        return next(self.parameters()).dtype

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As of any module, but each by the name that TransformerLens documents.

        A bridge holds its hooks twice, also inside the modules of `transformers` that it wraps; torch would take the
        first.
        """
        later: list[tuple[str, nn.Module]] = [(prefix, self)]
        seen = set() if memo is None else memo
        while later:
            path, module = later.pop(0)
            if remove_duplicate and module in seen:
                continue
            seen.add(module)
            yield path, module
            inner = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
            wrapped = [each for each in inner if each[0].endswith("_original_component")]
            later = [each for each in inner if each not in wrapped] + later + wrapped

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        """Logits [b, t, vocabulary] of ids [b, t], padded on the right."""
        return SimpleNamespace(logits=self.whole[0](input_ids, return_type="logits", prepend_bos=False))


def boot(name: str, device: torch.device, dtype: torch.dtype) -> Hooked:
    """`transformer_lens:NAME`: a folder or a name of the hub, by TransformerLens's bridge, weights as they are.

    Raises:
        ModuleNotFoundError: without the extra `transformer-lens`.
    """
    try:
        from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ModuleNotFoundError(
            f"'{PREFIX}{name}' is read by TransformerLens 3 or later: pip install 'superscope[transformer-lens]'."
        ) from error
    folder = Path(name).expanduser()
    bridge = TransformerBridge.boot_transformers(str(folder) if folder.is_dir() else name, device=device, dtype=dtype)
    return Hooked(bridge)
