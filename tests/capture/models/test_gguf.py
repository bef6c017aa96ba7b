"""GGUF files as models: what is read is what was written, and everything that can be wrong with one is a sentence."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from superscope.capture import blocks, control, default_sites, harvest, load, tokens
from superscope.core import FormatError
from superscope.studies import Plan

from ..conftest import TEXTS, make_tokenizer

F32, Q8_0, Q4_1 = (gguf.GGMLQuantizationType[name] for name in ("F32", "Q8_0", "Q4_1"))
HEADS, KEYS = 4, 2
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Modules of a Llama, and what a GGUF file calls their tensors."""


def make_llama(tied: bool = True) -> transformers.LlamaForCausalLM:
    """Wide enough that a row is a whole number of blocks of 32."""
    config = transformers.LlamaConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        intermediate_size=96,
        vocab_size=300,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        rms_norm_eps=2.0**-17,  # which float32 holds exactly
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = transformers.LlamaForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8) if parameter.ndim == 2 else parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def rotated(weight: Tensor, heads: int) -> Tensor:
    """Rows in llama.cpp's order: the two numbers that a position turns stand side by side, not half a head apart."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def tensors_of(model: transformers.LlamaForCausalLM) -> dict[str, Tensor]:
    """A model's weights as a GGUF file names and orders them."""
    named = {}
    for name, weight in model.named_parameters():
        path = name.removesuffix(".weight").removeprefix("model.layers.")
        layer, _, part = path.partition(".")
        target = f"blk.{layer}.{NAMES[part]}" if layer.isdigit() else NAMES[path]
        heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": KEYS}.get(part)
        named[f"{target}.weight"] = weight.detach() if heads is None else rotated(weight.detach(), heads)
    return named


def write(
    file: Path,
    model: transformers.LlamaForCausalLM,
    kind: gguf.GGMLQuantizationType = F32,
    *,
    architecture: str = "llama",
    with_tokenizer: bool = True,
    without: str = "",
) -> Path:
    """The model in a GGUF file, matrices quantised as `kind`, norms in float32 as everyone keeps them."""
    config = model.config
    out = gguf.GGUFWriter(file, architecture)
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KEYS)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_vocab_size(config.vocab_size)
    if with_tokenizer:
        saved = json.loads(make_tokenizer(bos_token="<|endoftext|>").backend_tokenizer.to_str())
        by_id = sorted(saved["model"]["vocab"], key=saved["model"]["vocab"].__getitem__)
        special = {token["id"] for token in saved["added_tokens"]}
        out.add_tokenizer_model("gpt2")
        out.add_tokenizer_pre("gpt-2")
        out.add_token_list(by_id)
        out.add_token_types([gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(300)])
        out.add_token_merges([" ".join(pair) for pair in saved["model"]["merges"]])
        out.add_bos_token_id(0)
        out.add_eos_token_id(0)
    for name, tensor in tensors_of(model).items():
        if name != without:
            sort = kind if tensor.ndim == 2 else F32
            out.add_tensor(name, gguf.quantize(tensor.numpy(), sort), raw_dtype=sort)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


@pytest.fixture(scope="module")
def model() -> transformers.LlamaForCausalLM:
    return make_llama()


@pytest.fixture(scope="module")
def folder(model: transformers.LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a plain folder."""
    folder = tmp_path_factory.mktemp("plain")
    model.save_pretrained(folder)
    make_tokenizer(bos_token="<|endoftext|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(model: transformers.LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("whole") / "model.gguf", model, Q8_0).read_bytes()


@pytest.fixture
def file(whole: bytes, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    (tmp_path / "model.gguf").write_bytes(whole)
    return tmp_path / "model.gguf"


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(2, 62).view(2, 30)).logits


# --- what is read ---------------------------------------------------------------------------------------------------


def test_unquantised_it_is_the_plain_folder(model, folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", model)
    plain, loaded = load(str(folder)), load(str(tmp_path / "model.gguf"))
    assert loaded.name == str(tmp_path / "model.gguf")
    assert (loaded.kind, loaded.d) == ("causal", 64)
    assert not loaded.model.training
    assert torch.equal(logits(loaded.model), logits(plain.model))
    one, two = (tokens(each.tokenizer, TEXTS, context=16) for each in (plain, loaded))
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.keep, two.keep)
    for a, b in zip(
        harvest(plain.model, default_sites(plain.model), one), harvest(loaded.model, default_sites(loaded.model), two)
    ):
        assert all(torch.equal(a[site].x, b[site].x) for site in a)


@pytest.mark.parametrize(("kind", "error"), [(Q8_0, 0.01), (Q4_1, 0.1)], ids=["Q8_0", "Q4_1"])
def test_quantised_it_is_what_quantising_leaves(model, kind, error: float, tmp_path: Path) -> None:
    loaded = load(str(write(tmp_path / "model.gguf", model, kind)))
    rounded = make_llama()
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.ndim == 2:
                # Blocks lie inside rows, so the order of the rows makes no difference.
                parameter.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(parameter.numpy(), kind), kind)))
    found, exact, original = (logits(each) for each in (loaded.model, rounded, model))
    assert torch.equal(found, exact)
    assert 0 < (found - original).norm() / original.norm() < 5 * error
    for one, other in zip(loaded.model.parameters(), model.parameters(), strict=True):
        with torch.no_grad():
            away = ((one - other).norm() / other.norm()).item()
        assert error / 10 < away < error if one.ndim == 2 else away == 0


def test_an_untied_head_is_its_own(tmp_path: Path) -> None:
    model = make_llama(tied=False)
    loaded = load(str(write(tmp_path / "model.gguf", model)))
    assert torch.equal(loaded.model.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(loaded.model.lm_head.weight, loaded.model.model.embed_tokens.weight)


def test_what_was_read_is_a_plain_model(file: Path, tmp_path: Path) -> None:
    loaded = load(str(file))
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    again = load(str(tmp_path / "saved"))
    assert torch.equal(logits(again.model), logits(loaded.model))
    assert again.model.lm_head.weight is again.model.model.embed_tokens.weight
    assert load(str(file), dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_a_folder_that_holds_one_is_a_model_too(file: Path, folder: Path) -> None:
    loaded = load(str(file.parent))
    assert loaded.name == str(file.parent)
    assert torch.equal(logits(loaded.model), logits(load(str(file)).model))


def test_its_tokenizer_is_its_own_whatever_lies_beside_it(file: Path, tmp_path: Path) -> None:
    alone = load(str(file)).tokenizer
    assert alone.bos_token == "<|endoftext|>"
    for name in ("saved", "other"):
        (tmp_path / name).mkdir()
        beside = Path(shutil.copy(file, tmp_path / name))
        (alone if name == "saved" else make_tokenizer(bos_token="<other>")).save_pretrained(tmp_path / name)
        found = load(str(beside)).tokenizer
        assert found.special_tokens_map == alone.special_tokens_map
        assert found("some text").input_ids == alone("some text").input_ids


def test_safetensors_come_first(file: Path, folder: Path, tmp_path: Path) -> None:
    for each in folder.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    quantised, plain = logits(load(str(file)).model), logits(load(str(folder)).model)
    assert not torch.equal(quantised, plain)
    assert torch.equal(logits(load(str(tmp_path)).model), plain)


def test_control_and_plan(file: Path, folder: Path) -> None:
    loaded = load(str(file))
    one, two = control(loaded, 1), control(loaded, 1)
    assert one.name == f"{file}, random weights (seed 1)"
    assert torch.equal(logits(one.model), logits(two.model))
    assert not torch.equal(logits(one.model), logits(loaded.model))
    assert blocks(one.model) == blocks(loaded.model)
    plans = [Plan(latents=128, tokens=1e6, model=str(path)).run() for path in (file, file.parent, folder)]
    assert plans[0].measurements == plans[1].measurements == plans[2].measurements


def test_loading_says_nothing(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(str(file))
    assert capfd.readouterr() == ("", "")


# --- what can be wrong ----------------------------------------------------------------------------------------------


def test_no_such_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file 'nowhere\.gguf'"):
        load("nowhere.gguf")


def test_several_files_in_a_folder(file: Path) -> None:
    (file.parent / "other.GGUF").write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"holds 2 GGUF files \(model\.gguf, other\.GGUF\); give the path of one"):
        load(str(file.parent))
    assert load(str(file)).d == 64


@pytest.mark.parametrize(("gone", "sentence"), [("gguf", "gguf is not"), ("accelerate", "accelerate is not")])
def test_without_the_extra(gone: str, sentence: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == gone else find(name, *rest))
    with pytest.raises(ModuleNotFoundError, match=rf"{sentence} installed: pip install 'superscope\[gguf\]'"):
        load(str(file))


@pytest.mark.parametrize("keep", [4, 23, 40, 500, 0.3, 0.9, -1], ids=str)
def test_cut_short(keep: float, file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(FormatError, match=r"model\.gguf' is damaged or cut short \([\d,]+ bytes; .*download it again"):
        load(str(file))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", b"<html>rate limited</html>"])
def test_no_gguf_file_at_all(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(FormatError, match=r"is no GGUF file: it begins with b'.*instead of b'GGUF'"):
        load(str(file))


def test_damaged_headers_are_sentences(file: Path) -> None:
    """Bytes of the header turned over, one at a time: refused as a sentence, or still a model."""
    whole = file.read_bytes()
    refused = 0
    for place in np.random.default_rng(0).integers(4, 1200, 25).tolist():
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load(str(file))
        except (FormatError, FileNotFoundError):
            refused += 1
    assert refused > 5


def test_an_architecture_that_is_not_read(model, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", model, architecture="unheard-of")
    with pytest.raises(FormatError, match=r"does not read from GGUF \(.*unheard-of.*Take a newer transformers"):
        load(str(tmp_path / "model.gguf"))


def test_without_a_tokenizer(model, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", model, with_tokenizer=False)
    with pytest.raises(FileNotFoundError, match="carries no tokenizer"):
        load(str(tmp_path / "model.gguf"))


def test_without_a_tensor(model, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", model, without="blk.1.ffn_up.weight")
    with pytest.raises(FormatError, match=r"lack 1 tensors that it computes with, as model\.layers\.1\.mlp\.up_proj"):
        load(str(tmp_path / "model.gguf"))
