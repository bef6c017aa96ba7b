"""Bits per byte: every token once, whatever the windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from superscope.capture import pocket
from superscope.capture.pocket import Document, bits_per_byte, document_bits
from superscope.capture.pocket.scoring import ratio

WINDOW = 16


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return pocket.load()[1]


@pytest.fixture(scope="module")
def tiny() -> GPT2LMHeadModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=4096, n_positions=WINDOW, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
        return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def indifferent(tiny: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Gives every token the same probability."""
    model = GPT2LMHeadModel(tiny.config).eval()
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
    return model


def given_text(*texts: str) -> list[Document]:
    return [Document(f"{i}", text, "given") for i, text in enumerate(texts)]


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=4), stride=st.integers(1, WINDOW))
def test_indifference_costs_twelve_bits_a_token_whatever_the_stride(
    indifferent: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], stride: int
) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    found = document_bits(indifferent, tokenizer, given_text(*texts), stride=stride)
    tokens = [len(tokenizer.encode(text)) for text in texts]
    np.testing.assert_allclose(found, 12.0 * np.array(tokens), rtol=1e-5)


def test_without_overlap_it_is_the_plain_sum(tiny: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    text = "def f(x):\n    return x + 1\n" * 4
    ids = [0, *tokenizer.encode(text)]
    expected = 0.0
    for start in range(0, len(ids) - 1, WINDOW):
        piece = torch.tensor([ids[start : start + WINDOW + 1]])
        nats = tiny(piece[:, :-1]).logits.log_softmax(-1).gather(-1, piece[:, 1:, None])
        expected -= nats.sum().item() / math.log(2)
    assert document_bits(tiny, tokenizer, given_text(text), stride=WINDOW)[0] == pytest.approx(expected, rel=1e-5)


def test_every_token_sees_all_before_it_where_stride_is_one(
    tiny: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = [0, *tokenizer.encode("class A:\n    pass\n" * 6)]
    expected = 0.0
    for at in range(1, len(ids)):
        piece = torch.tensor([ids[max(0, at - WINDOW) : at]])
        expected -= tiny(piece).logits[0, -1].log_softmax(-1)[ids[at]].item() / math.log(2)
    found = document_bits(tiny, tokenizer, given_text("class A:\n    pass\n" * 6), stride=1)[0]
    assert found == pytest.approx(expected, rel=1e-5)


def test_documents_batched_together_do_not_touch(tiny: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    found = given_text("one", "a second, longer one: " * 9, "", "drei 🐢")
    together = document_bits(tiny, tokenizer, found, stride=5, rows=16)
    alone = np.concatenate([document_bits(tiny, tokenizer, [document], stride=5, rows=1) for document in found])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert together[2] == 0


def test_measurement_says_what_it_counted(indifferent: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    found = bits_per_byte(indifferent, tokenizer, given_text("🐢", "żółw"), stride=WINDOW)
    assert found.n == len("🐢żółw".encode())
    assert found.value == pytest.approx(12 * len(tokenizer.encode("🐢") + tokenizer.encode("żółw")) / found.n)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    assert found.at == {"stride": WINDOW, "documents": 2}


def test_interval_of_documents_that_agree_is_a_point() -> None:
    same = ratio(np.full(7, 30.0), np.full(7, 20.0), stride=1)
    assert (same.low, same.value, same.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("stride", [0, -3, WINDOW + 1])
def test_stride_outside_the_window(tiny: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride is {stride}; give one from 1 to {WINDOW}"):
        document_bits(tiny, tokenizer, given_text("x"), stride=stride)


@pytest.mark.parametrize("texts", [(), ("",), ("", "")])
def test_no_text_no_score(tiny: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="without a single byte"):
        bits_per_byte(tiny, tokenizer, given_text(*texts))
