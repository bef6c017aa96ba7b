"""Ids and texts stand wherever a corpus does, and read the same rows; what is neither is refused in a sentence."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from superscope.capture import HookSource, Images, Subject, as_corpus, harvest, outlier_limits, record, tokens
from superscope.core import ShapeError
from superscope.core.source import Site
from superscope.intervene import next_token_loss

from ..conftest import TEXTS, make_model, make_tokenizer

IDS = torch.randint(1, 300, (5, 12), generator=torch.Generator().manual_seed(0))


def test_a_corpus_and_pictures_stay_what_they_are() -> None:
    corpus = tokens(make_tokenizer(), TEXTS, context=16)
    images = Images(torch.zeros(2, 3, 4, 4), context=5)
    assert as_corpus(corpus) is corpus
    assert as_corpus(images) is images


@pytest.mark.parametrize(
    "ids",
    [IDS, IDS.int(), IDS.to(torch.uint8) if int(IDS.max()) < 256 else IDS.short(), IDS.numpy(), IDS.tolist(), [*IDS]],
)
def test_ids_of_every_kind_are_one_corpus(ids: Any) -> None:
    corpus = as_corpus(ids)
    assert not isinstance(corpus, Images)
    assert corpus.ids.dtype == torch.int64
    assert torch.equal(corpus.ids, IDS)
    assert bool(corpus.keep.all())
    assert (corpus.lead, corpus.context, corpus.n_tokens) == (0, 12, 60)
    assert corpus.document.tolist() == [0, 1, 2, 3, 4]


def test_lists_may_differ_in_length_and_what_fills_them_up_is_no_row() -> None:
    model = make_model("gpt2")
    lists = [IDS[0, :9].tolist(), IDS[1].tolist(), IDS[2, :3].tolist()]
    found = torch.cat([batch[Site("transformer.h.1")].x for batch in harvest(model, ["transformer.h.1"], lists)])
    alone = [next(harvest(model, ["transformer.h.1"], [row]))[Site("transformer.h.1")].x for row in lists]
    torch.testing.assert_close(found, torch.cat(alone))


def test_texts_keep_their_order_and_become_the_windows_that_tokens_makes() -> None:
    tokenizer = make_tokenizer()
    corpus = as_corpus(TEXTS, tokenizer=tokenizer, context=16)
    cut = tokens(tokenizer, TEXTS, context=16)
    assert not isinstance(corpus, Images)
    assert corpus.document.tolist() == sorted(corpus.document.tolist())
    assert sorted(map(tuple, corpus.ids.tolist())) == sorted(map(tuple, cut.ids.tolist()))
    assert corpus.n_tokens == cut.n_tokens
    # Of short texts no more pads than the longest needs.
    assert as_corpus(["ab", "abc"], tokenizer=tokenizer).context < 16


def test_wherever_a_corpus_is_taken(tmp_path: Path) -> None:
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    subject, site = Subject(model, tokenizer, "gpt2", "causal"), Site("transformer.h.1")
    for given in (IDS, IDS.tolist(), TEXTS):
        corpus = as_corpus(given, tokenizer=tokenizer, context=32)
        if given is TEXTS:
            given = [text[:20] for text in TEXTS]
            corpus = as_corpus(given, tokenizer=tokenizer)
        assert not isinstance(corpus, Images)
        rows = torch.cat([batch[site].x for batch in harvest(model, [site], corpus)])
        assert torch.equal(
            rows, torch.cat([batch[site].x for batch in harvest(model, [site], given, tokenizer=tokenizer)])
        )
        source = HookSource(model, site, given, tokenizer=tokenizer)
        assert len(source) == len(rows)
        live = next(source.batches(len(rows), seed=0))
        torch.testing.assert_close(live.x.sort(0).values, rows.sort(0).values)
        for number, folder in enumerate((None, tmp_path / str(len(rows)))):
            kept = list_of(record(subject, [site], given, folder))[site]
            assert len(kept) == len(rows), number
            torch.testing.assert_close(next(kept.batches(len(rows), seed=0)).x.sort(0).values, rows.sort(0).values)
        assert outlier_limits(model, [site], given, tokenizer=tokenizer) == outlier_limits(model, [site], corpus)
        loss = next_token_loss(subject, given)
        assert torch.equal(loss.nats, next_token_loss(model, corpus).nats)
        assert torch.equal(loss.nats, next_token_loss(model, given, tokenizer=tokenizer).nats)


def list_of(recording: Any) -> Any:
    while True:
        try:
            next(recording)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        (IDS[0], ShapeError, r"shape \[12\]; give \[b, t\], b sequences of t ids; of one sequence ids\[None\]"),
        (IDS[None], ShapeError, r"shape \[1, 5, 12\]; give \[b, t\]"),
        (IDS[:0], ShapeError, r"shape \[0, 12\]"),
        (IDS.float(), TypeError, r"a tensor of torch.float32 is no ids; give ids \[b, t\]"),
        (IDS > 3, TypeError, "a tensor of torch.bool is no ids"),
        (IDS.double().numpy(), TypeError, "an array of float64 is no ids"),
        (np.array([["a", "b"]]), TypeError, "an array of <U1 is no ids"),
        (IDS[0].tolist(), ShapeError, r"a list of at least one id for each sequence, as in \[\[5, 6, 7\], \[8, 9\]\]"),
        ([], ShapeError, "a list of at least one id"),
        ([[1, 2], []], ShapeError, "a list of at least one id"),
        ([[1, 2.0]], TypeError, r"2.0 \(float\) is no id"),
        ([[1, True]], TypeError, r"True \(bool\) is no id"),
        ([[1, 2], [3, -100]], ValueError, r"id -100 at position 1 of sequence 1 is negative; ids count from 0"),
        (-IDS, ValueError, "is negative"),
        ("a text", TypeError, r"this is one string; give a list, \[text\]"),
        (["a text"], ValueError, "texts become ids by a tokenizer, and there is none; give tokenizer="),
        (["a text", [1, 2]], ValueError, "there is none"),
        (UserDict(input_ids=IDS), TypeError, "a UserDict is no corpus; give ids"),
        (None, TypeError, "a NoneType is no corpus"),
    ],
)
def test_what_is_no_corpus_is_refused(given: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        as_corpus(given)
    if given is not None and not isinstance(given, UserDict):
        # The same sentence where the user meets it.
        with pytest.raises(error, match=sentence):
            HookSource(make_model("gpt2"), "transformer.h.1", given)


def test_texts_and_ids_in_one_list() -> None:
    with pytest.raises(TypeError, match="item 1 of the list of texts is a list; give strings or documents"):
        as_corpus(["a text", [1, 2]], tokenizer=make_tokenizer())


def test_blank_texts() -> None:
    with pytest.raises(ValueError, match="holds no text, only blanks"):
        as_corpus([" ", "\n"], tokenizer=make_tokenizer())


def test_ids_that_the_model_does_not_know() -> None:
    with pytest.raises(ValueError, match="the corpus has token 300 and this model knows 300 tokens"):
        harvest(make_model("gpt2"), ["transformer.h.1"], [[1, 300]])
