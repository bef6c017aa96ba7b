"""Tiny models of every family of the map, with random weights, and what to run them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "vocab_size": 300,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_ENDS: dict[str, Any] = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0}
_FEW: dict[str, Any] = {**_SIZES, "num_key_value_heads": 1}
_GPT: dict[str, Any] = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, **_ENDS}
_IMAGE: dict[str, Any] = {
    **{key: _SIZES[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")},
    "image_size": 8,
    "patch_size": 4,
}
_FALCON = {key: value for key, value in _SIZES.items() if key != "intermediate_size"}

CAUSAL: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "gpt2": lambda: transformers.GPT2Config(**_GPT),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_SIZES),
    "gpt_neox_serial": lambda: transformers.GPTNeoXConfig(**_SIZES, use_parallel_residual=False),
    "llama": lambda: transformers.LlamaConfig(**_SIZES),
    "mistral": lambda: transformers.MistralConfig(**_FEW),
    "qwen2": lambda: transformers.Qwen2Config(**_FEW),
    # Heads wider than the model has room for: z is 24 wide where the stream is 16.
    "qwen3": lambda: transformers.Qwen3Config(**_FEW, head_dim=12),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **_FEW, head_dim=12, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    ),
    "gemma2": lambda: transformers.Gemma2Config(**_FEW, head_dim=12),
    "gemma3": lambda: transformers.Gemma3TextConfig(**_FEW, head_dim=12),
    "phi3": lambda: transformers.Phi3Config(**_FEW),
    "olmo2": lambda: transformers.Olmo2Config(**_SIZES),
    "opt": lambda: transformers.OPTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        ffn_dim=40,
        max_position_embeddings=32,
        word_embed_proj_dim=16,
        pad_token_id=0,
        **_ENDS,
    ),
    "gpt_neo": lambda: transformers.GPTNeoConfig(
        hidden_size=16,
        num_layers=3,
        attention_types=[[["global"], 3]],
        num_heads=2,
        intermediate_size=40,
        max_position_embeddings=32,
        **_ENDS,
    ),
    "bloom": lambda: transformers.BloomConfig(hidden_size=16, n_layer=3, n_head=2, **_ENDS),
    "mamba": lambda: transformers.MambaConfig(hidden_size=16, num_hidden_layers=3, state_size=4, vocab_size=300),
    "phi": lambda: transformers.PhiConfig(**_SIZES),
    "falcon": lambda: transformers.FalconConfig(**_FALCON),
    "gptj": lambda: transformers.GPTJConfig(**_GPT, rotary_dim=4),
    "mixtral": lambda: transformers.MixtralConfig(**_FEW, num_local_experts=4),
    "cohere": lambda: transformers.CohereConfig(**_SIZES),
    "stablelm": lambda: transformers.StableLmConfig(**_SIZES, num_key_value_heads=2),
    "glm4": lambda: transformers.Glm4Config(**_FEW, head_dim=8),
}
OTHERS: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "bert": lambda: transformers.BertConfig(**_SIZES),
    "distilbert": lambda: transformers.DistilBertConfig(
        dim=16, n_layers=3, n_heads=2, hidden_dim=40, vocab_size=300, max_position_embeddings=32
    ),
    "modernbert": lambda: transformers.ModernBertConfig(**_SIZES, cls_token_id=0, sep_token_id=0),
    "t5": lambda: transformers.T5Config(d_model=16, d_kv=8, d_ff=40, num_layers=3, num_heads=2, vocab_size=300),
    "vit": lambda: transformers.ViTConfig(**_IMAGE),
    "clip": lambda: transformers.CLIPVisionConfig(**_IMAGE),
}
ARCHITECTURES = (*CAUSAL, *OTHERS)
PARALLEL = ("gpt_neox", "phi", "falcon", "gptj", "cohere")
"""Attention and MLP read the same stream."""

POST_NORM = ("bert", "distilbert")
"""The stream is normalised behind each sum, so parts do not add up to it."""

EXPERTS = ("qwen3_moe", "mixtral")


def make(name: str) -> nn.Module:
    """The model, its weights drawn from a fixed seed and made sharp enough that places and tokens matter."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model: Any
        if name in CAUSAL:
            model = transformers.AutoModelForCausalLM.from_config(CAUSAL[name]())
        else:
            model = transformers.AutoModel.from_config(OTHERS[name]())
        if name == "t5":
            model = model.get_encoder()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4)
    return model.eval()


def given(name: str) -> dict[str, Any]:
    """Keywords to run it with."""
    generator = torch.Generator().manual_seed(1)
    if name in ("vit", "clip"):
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    return {"input_ids": torch.randint(1, 300, (2, 7), generator=generator)}
