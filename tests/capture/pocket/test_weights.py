"""What is shipped: whole, small, loadable without a network, and as good as its card says."""

from __future__ import annotations

import hashlib
import json
import socket
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from superscope.capture import pocket
from superscope.capture.pocket import weights

HISTORY = pocket.folder().parent / "history"


@pytest.fixture(scope="module")
def loaded() -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    return pocket.load()


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads((pocket.folder() / "results.json").read_text("utf-8"))


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_loads_without_network_or_warning(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, tokenizer = pocket.load()
    assert capfd.readouterr() == ("", "")
    assert not model.training
    assert model.dtype == torch.float32
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert len(tokenizer) == model.config.vocab_size == 4096
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == model.config.bos_token_id == 0
    assert tokenizer.model_max_length == model.config.n_positions == 256


def test_architecture_and_count(
    loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast], results: dict[str, Any]
) -> None:
    model, _ = loaded
    # Per block two LayerNorms, then attention in and out, then the MLP in and out, each with its bias.
    block = 2 * 2 * 192 + 192 * 576 + 576 + 192 * 192 + 192 + 192 * 768 + 768 + 768 * 192 + 192
    assert model.num_parameters() == (4096 + 256) * 192 + 4 * block + 2 * 192 == results["pocket"]["parameters"]
    assert model.lm_head.weight is model.transformer.wte.weight


def test_small_enough_to_ship() -> None:
    assert size(pocket.folder()) <= 8_000_000
    assert size(HISTORY) <= 12_000_000


@pytest.mark.parametrize("folder", [pocket.folder(), HISTORY], ids=["model", "history"])
def test_files_are_the_ones_that_were_hashed(folder: Path) -> None:
    lines = (folder / "SHA256").read_text("utf-8").splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(listed) == {file.name for file in folder.iterdir()} - {"SHA256"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_weights_are_stored_once_in_half_precision() -> None:
    for file in (pocket.folder() / "model.safetensors", *(checkpoint.file for checkpoint in pocket.history())):
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}, file
        assert all(tensor.isfinite().all() for tensor in tensors.values()), file
        assert "lm_head.weight" not in tensors, "it is the embedding"


@pytest.mark.parametrize("folder", [pocket.folder(), HISTORY], ids=["model", "history"])
def test_no_path_of_the_machine_it_was_made_on(folder: Path) -> None:
    for file in folder.glob("*config.json"):
        for key, value in json.loads(file.read_text("utf-8")).items():
            assert "path" not in key
            assert not (isinstance(value, str) and ("/" in value or "\\" in value)), (file.name, key, value)


def test_card_quotes_the_results(results: dict[str, Any]) -> None:
    card = (pocket.folder() / "MODEL_CARD.md").read_text("utf-8")
    quoted = [
        f"{results['bits_per_byte']['value']:.4f} [",
        f"{results['pocket']['parameters']:,} parameters",
        f"| tokens | {results['pocket']['tokens']:,} | {results['twin']['tokens']:,} |",
        f"| steps | {results['pocket']['steps']:,} | {results['twin']['steps']:,} |",
        results["text"]["sha256"],
        results["text"]["copyright"].rstrip("."),
        f"Python {results['made_with']['python']}, torch {results['made_with']['torch']}",
        f"| byte 5-gram model, same training text | {results['byte_models']['5']:.3f} |",
    ]
    for name, figures in results["compressors"].items():
        quoted.append(f"| {name}, given the training text first | {figures['conditional']:.3f} |")
        quoted.append(f"| {name}, held-out bytes alone | {figures['alone']:.3f} |")
    assert [line for line in quoted if line not in card] == []


def test_model_beats_what_it_is_compared_with(results: dict[str, Any]) -> None:
    value = results["bits_per_byte"]["value"]
    assert value <= 1.40
    assert value < min(results["byte_models"].values())
    assert value < min(figure for figures in results["compressors"].values() for figure in figures.values())
    assert value < results["bits_per_byte_without_overlap"] < results["bits_per_byte_untrained"]


def test_sample_of_held_out_text(loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]) -> None:
    _, held_out = pocket.split()
    sample = [document for document in held_out if len(document.text) < 11_000]
    assert len(sample) >= 5
    assert pocket.bits_per_byte(*loaded, sample).value < 1.6


@pytest.mark.slow
def test_all_held_out_text(loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast], results: dict[str, Any]) -> None:
    found = pocket.documents()
    _, held_out = pocket.split(found)
    score = pocket.bits_per_byte(*loaded, held_out).value
    assert score is not None
    if pocket.text_hash(found) == results["text"]["sha256"]:
        assert score <= 1.40
        assert score == pytest.approx(results["bits_per_byte"]["value"], abs=1e-4)
    else:
        assert score < 1.6, "another Python's text: close to the one it was trained on, not the same"


@pytest.mark.slow
def test_history_scores(loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast], results: dict[str, Any]) -> None:
    found = pocket.documents()
    if pocket.text_hash(found) != results["text"]["sha256"]:
        pytest.skip("the scores are of another Python's text")
    for checkpoint in (pocket.history()[0], pocket.history()[-1]):
        score = pocket.bits_per_byte(checkpoint.load(), loaded[1], pocket.split(found)[1], stride=256).value
        assert score == pytest.approx(checkpoint.held_out_bits_per_byte, abs=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0",
        "a\0b",
        "🐢🏳️‍🌈",
        "e\u0301 vs \u00e9",
        "\u202eabc",
        "\r\n\t\v\f",
        "<|endoftext|>",
        "\ufeffx",
        "中文 العربية",
    ],
)
def test_hostile_text_comes_back(loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast], text: str) -> None:
    _, tokenizer = loaded
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back(loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast], text: str) -> None:
    _, tokenizer = loaded
    text = text.encode("utf-8", "ignore").decode()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_library_text_comes_back_in_a_third_of_its_bytes(
    loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast],
) -> None:
    _, tokenizer = loaded
    text = next(document.text for document in pocket.documents() if document.name == "stdlib/tempfile.py")
    tokens = tokenizer.encode(text, verbose=False)
    assert tokenizer.decode(tokens) == text
    assert len(tokens) < len(text) / 3


def test_control_is_its_seed(loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]) -> None:
    before = torch.get_rng_state()
    one, again, other = pocket.control(1), pocket.control(1), pocket.control(2)
    assert torch.equal(torch.get_rng_state(), before)
    trained = loaded[0].state_dict()
    assert one.state_dict().keys() == trained.keys()
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
        assert weight.shape == trained[name].shape
        assert weight.dtype == torch.float32
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert not one.training


def test_control_knows_nothing(loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = loaded
    sample = [document for document in pocket.split()[1] if len(document.text) < 3_000]
    blind = pocket.bits_per_byte(pocket.control(), tokenizer, sample).value
    seeing = pocket.bits_per_byte(model, tokenizer, sample).value
    assert blind is not None
    assert seeing is not None
    assert blind > 2 * seeing


def test_history_is_a_training() -> None:
    found = pocket.history()
    assert len(found) == 8
    steps = [checkpoint.step for checkpoint in found]
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    gaps = [after / before for before, after in pairwise(steps[1:])]
    assert max(gaps) < 1.3 * min(gaps), "log-spaced"
    rate = found[-1].tokens // found[-1].step
    assert [checkpoint.tokens for checkpoint in found] == [rate * step for step in steps]
    scores = [checkpoint.held_out_bits_per_byte for checkpoint in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.6 * scores[0]


def test_history_loads_and_moves() -> None:
    first, last = pocket.history()[0].load(), pocket.history()[-1].load()
    assert first.config.n_embd == last.config.n_embd == 64
    assert first.num_parameters() == (4096 + 256) * 64 + 4 * (12 * 64**2 + 13 * 64) + 2 * 64 == last.num_parameters()
    assert not last.training
    assert last.dtype == torch.float32
    assert last.lm_head.weight is last.transformer.wte.weight
    assert last(torch.tensor([[0, 5, 9]])).logits.isfinite().all()
    assert not torch.equal(first.lm_head.weight, last.lm_head.weight)


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    for file in HISTORY.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    wrong = tmp_path / "step-000000.safetensors"
    save_file({"transformer.wte.weight": torch.zeros(4096, 64)}, wrong)
    with pytest.raises(ValueError, match="is no checkpoint of the twin"):
        pocket.Checkpoint(0, 0, 0.0, wrong).load()


def test_missing_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_HERE", tmp_path)
    for ask in (pocket.folder, pocket.load, pocket.history, pocket.control):
        with pytest.raises(FileNotFoundError, match=r"scripts/train_pocket\.py"):
            ask()
