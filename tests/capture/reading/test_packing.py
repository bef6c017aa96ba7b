"""Packed texts do not see each other, or packing is refused: the trap is silent, so it is tested on every model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from superscope.capture import Corpus, harvest
from superscope.capture.reading.packing import leak, packed, require_sound, rows_of

from ..conftest import make_model

PACKS = ("gpt2", "llama", "gpt_neox", "qwen2", "gemma2")


def corpus_of(lengths: list[int], context: int = 24) -> Corpus:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 300, (len(lengths), context), generator=generator)
    length = torch.tensor(lengths)
    keep = (torch.arange(context) < length[:, None]) & (torch.arange(context) >= 1)
    return Corpus(
        ids, keep, length, torch.arange(len(lengths)), torch.zeros(len(lengths), dtype=torch.int64), ("d",) * 9
    )


def test_rows_are_filled_in_order() -> None:
    corpus = corpus_of([5, 9, 10, 24, 3])
    rows = rows_of(corpus.length, 24)
    assert rows == [[0, 1, 2], [3], [4]]
    ids, keep, positions = packed(corpus, rows[:1])
    assert ids.shape == (1, 24)
    assert positions[0].tolist() == [*range(5), *range(9), *range(10)]
    assert torch.equal(ids[0, 5:14], corpus.ids[1, :9])
    assert keep[0].tolist().count(False) == 3


@pytest.mark.parametrize("family", PACKS)
def test_packed_rows_equal_padded_ones(family: str) -> None:
    model, corpus = make_model(family), corpus_of([5, 9, 10, 24, 3, 2, 20, 7])
    padded, together = (
        list(harvest(model, ["resid_post.1", "resid_post.2"], corpus, batch_tokens=48, packed=how))
        for how in (False, True)
    )
    assert sum(len(next(iter(batch.values()))) for batch in together) == corpus.n_tokens
    for site in padded[0]:
        for column in ("x", "tokens", "places"):
            one, other = (torch.cat([getattr(b[site], column) for b in batches]) for batches in (padded, together))
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4), (family, site, column)
    assert leak(model, ["resid_post.2"], corpus) < 1e-5


def test_the_trap_is_there_and_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attention mask that hides nothing makes transformers forget where texts begin, without a word."""
    from superscope.capture.reading import packing

    model, corpus = make_model("llama"), corpus_of([12, 12])
    assert leak(model, ["resid_post.2"], corpus) < 1e-5
    sound = packing.packed_inputs

    def with_mask(*arguments: object) -> dict[str, torch.Tensor]:
        given = sound(*arguments)  # type: ignore[arg-type]
        return {**given, "attention_mask": torch.ones_like(given["input_ids"])}

    monkeypatch.setattr(packing, "packed_inputs", with_mask)
    assert leak(model, ["resid_post.2"], corpus) > 0.05
    with pytest.raises(ValueError, match="packing leaks in LlamaForCausalLM: a text's activations change by"):
        list(harvest(model, ["resid_post.2"], corpus, packed=True))


def test_a_cache_is_the_other_half_of_the_trap() -> None:
    """The reason why `Capture` never asks for one: with it, the same inputs leak."""
    model, corpus = make_model("llama"), corpus_of([12, 12])
    ids, _, positions = packed(corpus, [[0, 1]])
    with torch.no_grad():
        apart = model.model(input_ids=corpus.ids[1:, :12], use_cache=False)[0]
        sound = model.model(input_ids=ids, position_ids=positions, use_cache=False)[0]
        cached = model.model(input_ids=ids, position_ids=positions, use_cache=True)[0]
    assert torch.allclose(sound[:, 12:], apart, atol=1e-4)
    assert not torch.allclose(cached[:, 12:], apart, atol=1e-2)


@pytest.mark.parametrize("family", ["bloom", "bert"])
def test_models_that_cannot_keep_texts_apart_are_refused(family: str) -> None:
    with pytest.raises(ValueError, match="Harvest without packing"):
        require_sound(make_model(family), ["resid_post.1"], corpus_of([12, 12]))


def test_right_padding_is_exact_and_left_padding_is_not() -> None:
    """Why pads stand behind: in front of the text they move its absolute positions."""
    model = make_model("gpt2")
    text = torch.arange(1, 9)[None]
    pads = torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        alone = model.transformer(input_ids=text)[0]
        right = model.transformer(input_ids=torch.cat([text, pads], 1))[0][:, :8]
        left = model.transformer(input_ids=torch.cat([pads, text], 1))[0][:, 4:]
    assert torch.allclose(alone, right, atol=1e-5)
    assert float((alone - left).norm() / alone.norm()) > 0.1


def test_packing_a_bare_module_is_refused() -> None:
    model = nn.Sequential(nn.Embedding(300, 4), nn.Linear(4, 4))
    with pytest.raises(ValueError, match="needs a causal model that is told positions; Sequential is not one"):
        harvest(model, ["1"], corpus_of([5, 5]), packed=True)


def test_beginnings_in_the_middle_of_a_row_are_left_out() -> None:
    """Packed, a beginning-of-sequence token stands anywhere in a row: leaving out position 0 would not be enough."""
    corpus = corpus_of([5, 9, 10])
    (batch,) = harvest(make_model("llama"), ["resid_post.1"], corpus, packed=True)
    (found,) = batch.values()
    assert found.places is not None
    assert len(found) == (5 + 9 + 10) - 3
    assert found.places[:, 1].min() == 1
    assert found.places[:, 0].unique().tolist() == [0, 1, 2]


def test_positions_that_begin_anew_are_as_good_as_a_mask_by_text() -> None:
    """The other exact way, a mask that lets each text see itself alone, takes memory of a row's length squared."""
    model, corpus = make_model("llama"), corpus_of([9, 15])
    ids, _, positions = packed(corpus, [[0, 1]])
    text = (torch.arange(24) >= 9).long()
    allowed = (text[:, None] == text) & torch.ones(24, 24, dtype=torch.bool).tril()
    with torch.no_grad():
        masked = model.model(
            input_ids=ids, position_ids=positions, attention_mask=allowed[None, None], use_cache=False
        )[0]
        ours = model.model(input_ids=ids, position_ids=positions, use_cache=False)[0]
    assert torch.allclose(masked, ours, atol=1e-4)


def test_left_padding_is_no_matter_where_positions_are_relative() -> None:
    model = make_model("llama")
    text, pads = torch.arange(1, 9)[None], torch.zeros(1, 4, dtype=torch.int64)
    mask = torch.cat([torch.zeros(1, 4), torch.ones(1, 8)], 1).long()
    with torch.no_grad():
        alone = model.model(input_ids=text)[0]
        left = model.model(input_ids=torch.cat([pads, text], 1), attention_mask=mask)[0][:, 4:]
    assert torch.allclose(alone, left, atol=1e-4)
