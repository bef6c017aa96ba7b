"""Tiny models of every family, with random weights from their configs, and a tokenizer that takes any text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from superscope.capture import Corpus, tokens

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 9,
    "Superposition: more features than dimensions.\n" * 7,
    "def f(x):\n    return x + 1\n" * 11,
    "short",
]
_SIZES = {
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
_ENDS = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0}
CAUSAL: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "gpt2": lambda: transformers.GPT2Config(n_embd=16, n_layer=3, n_head=2, n_positions=32, **_ENDS),
    "llama": lambda: transformers.LlamaConfig(**_SIZES),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_SIZES),
    "gemma2": lambda: transformers.Gemma2Config(**_SIZES, num_key_value_heads=1, head_dim=8),
    "qwen2": lambda: transformers.Qwen2Config(**_SIZES, num_key_value_heads=1),
    # Blocks that return tuples, and OPT, whose MLP runs on flattened tokens.
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
}
ENCODERS: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "bert": lambda: transformers.BertConfig(**_SIZES),
    # Whose positions start after the id of its pad, so that 32 embeddings take 28 tokens.
    "roberta": lambda: transformers.RobertaConfig(**{**_SIZES, "pad_token_id": 3}),
    "distilbert": lambda: transformers.DistilBertConfig(
        dim=16, n_layers=3, n_heads=2, hidden_dim=40, vocab_size=300, max_position_embeddings=32
    ),
}
FAMILIES = (*CAUSAL, *ENCODERS)


def make_model(family: str) -> transformers.PreTrainedModel:
    """The model of a family, its weights drawn from a fixed seed, sharp enough that places and tokens matter."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        if family in CAUSAL:
            model = transformers.AutoModelForCausalLM.from_config(CAUSAL[family]())
        else:
            model = transformers.AutoModel.from_config(ENCODERS[family]())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(8)
    return model.eval()


def make_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens whose id 0 is `<|endoftext|>`, the special tokens being called as asked."""
    names = list(dict.fromkeys(["<|endoftext|>", *special.values()]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def corpus(tokenizer: PreTrainedTokenizerFast) -> Corpus:
    """Windows of 24 with BOS in front, the last of each document padded."""
    return tokens(tokenizer, TEXTS, context=24, seed=3)


@pytest.fixture(scope="session")
def model_of() -> Callable[[str], transformers.PreTrainedModel]:
    """The models, each made once. Tests that change a model make their own."""
    made: dict[str, transformers.PreTrainedModel] = {}

    def get(family: str) -> transformers.PreTrainedModel:
        if family not in made:
            made[family] = make_model(family)
        return made[family]

    return get
