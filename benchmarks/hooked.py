"""The pocket model as TransformerLens has it, for the peers that read models of its kind."""

from __future__ import annotations

from typing import Any


def hooked(model: Any, tokenizer: Any, made: Any) -> Any:
    """A HookedTransformer, or what is made like one, with the weights of a GPT-2 of `transformers`."""
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    c = model.config
    config = HookedTransformerConfig(
        n_layers=c.n_layer,
        d_model=c.n_embd,
        n_ctx=c.n_positions,
        n_heads=c.n_head,
        d_head=c.n_embd // c.n_head,
        d_mlp=4 * c.n_embd,
        d_vocab=c.vocab_size,
        act_fn="gelu_new",
        normalization_type="LN",
        default_prepend_bos=False,
    )
    its = made(config)
    its.load_state_dict(convert_gpt2_weights(model, config), strict=False)
    # TransformerLens loads a tokenizer again where it adds no first token; it is given as it is.
    its.tokenizer = tokenizer
    return its
