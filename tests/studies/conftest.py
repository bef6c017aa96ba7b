"""Models small enough to be scanned in a second, and text for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SENTENCES = (
    "The cat sat on the mat and looked at the dog.",
    "A list has a length; an empty list has none.",
    "def area(width, height): return width * height",
    "for name in names: print(name)",
    "Colours such as red, green and blue are mixed from light.",
    "If the file does not exist, an error is raised.",
    "Numbers: 1, 2, 3 and 42 <b>bold</b> </script> ünïcödé 漢字.",
)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty documents that differ."""
    folder = tmp_path_factory.mktemp("text")
    for i in range(20):
        words = [SENTENCES[(i * j + j) % len(SENTENCES)].replace("cat", f"cat{i}") for j in range(1, 16)]
        (folder / f"document{i:02d}.txt").write_text("\n".join(words), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "[CLS]", "[SEP]", "[PAD]", "[MASK]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "vocab_size": 300,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 3,
}

CONFIGS: dict[str, Callable[[], Any]] = {
    "GPT-2": lambda: transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=300, bos_token_id=0, eos_token_id=0
    ),
    "Llama": lambda: transformers.LlamaConfig(**_SIZES),
    "GPT-NeoX": lambda: transformers.GPTNeoXConfig(**{k: v for k, v in _SIZES.items() if "head_dim" not in k}),
    "Gemma-2": lambda: transformers.Gemma2Config(**_SIZES, query_pre_attn_scalar=8),
    "Qwen-2": lambda: transformers.Qwen2Config(**_SIZES),
    "BERT": lambda: transformers.BertConfig(**_SIZES),
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Callable[[str], Path]:
    """The folder of a randomly initialised model of one family, as save_pretrained writes it."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            config = CONFIGS[family]()
            encoder = family == "BERT"
            auto = transformers.AutoModel if encoder else transformers.AutoModelForCausalLM
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = auto.from_config(config)
            special = (
                {"cls_token": "[CLS]", "sep_token": "[SEP]"} if encoder else {"bos_token": "<s>", "eos_token": "<s>"}
            )
            fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", **special)
            path = tmp_path_factory.mktemp(family.lower())
            transformers.utils.logging.disable_progress_bar()
            model.save_pretrained(path)
            fast.save_pretrained(path)
            made[family] = path
        return made[family]

    return folder
