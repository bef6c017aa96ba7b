from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.capture import Corpus, HookSource, MemorySource, RowBuffer, harvest
from superscope.core import Activations, ShapeError, Site, SiteNotFound

from ..conftest import make_model


def rows_of(batches):
    return [tuple(place) for batch in batches for place in batch.places.tolist()]


@pytest.fixture(scope="module", params=["stored", "hook", "hook with a small buffer"])
def source(request, corpus, model_of):
    model = model_of("gpt2")
    if request.param == "stored":
        (batch,) = harvest(model, ["h.1"], corpus)
        ((site, activations),) = batch.items()
        return MemorySource.gather([activations], site)
    buffer = 65_536 if request.param == "hook" else 64
    return HookSource(model, site="transformer.h.1", tokens=corpus, batch_tokens=48, buffer=buffer)


def test_the_laws_of_a_source(source, corpus, model_of):
    assert source.d == 16
    assert source.site == Site("transformer.h.1")
    assert len(source) == corpus.n_tokens
    for size in (1, 7, 32, len(source)):
        first, same, other = (list(source.batches(size, seed=seed)) for seed in (4, 4, 5))
        assert [len(batch) for batch in first] == [size] * (len(source) // size)
        rows = rows_of(first)
        assert len(set(rows)) == len(rows) == len(source) // size * size  # each row once
        assert rows == rows_of(same)
        assert rows != rows_of(other)
        for one, two in zip(first, same):
            assert torch.equal(one.x, two.x)
            assert torch.equal(one.tokens, two.tokens)
    places = torch.tensor(rows_of(source.batches(1, seed=0)))
    assert corpus.keep[places[:, 0], places[:, 1]].all()


def test_every_row_is_the_activation_of_its_place(source, corpus, model_of):
    (whole,) = harvest(model_of("gpt2"), ["h.1"], corpus)
    ((_, known),) = whole.items()
    at = {tuple(place): i for i, place in enumerate(known.places.tolist())}
    for batch in source.batches(19, seed=2):
        rows = torch.tensor([at[tuple(place)] for place in batch.places.tolist()])
        assert torch.allclose(batch.x, known.x[rows], atol=1e-4)
        assert torch.equal(batch.tokens, known.tokens[rows])


def test_sequences_are_mixed(source, corpus):
    first = next(iter(source.batches(40, seed=1)))
    assert len(first.places[:, 0].unique()) > 40 / 23 + 1  # more than the fewest windows that hold 40 tokens


def test_two_epochs_side_by_side(source):
    one, two = source.batches(16, seed=1), source.batches(16, seed=1)
    for _ in range(3):
        assert torch.equal(next(one).x, next(two).x)


def test_sizes_that_cannot_be(source):
    for size in (0, -1, len(source) + 1):
        with pytest.raises(ValueError, match=f"size is {size} and there are {len(source)} rows"):
            source.batches(size, seed=0)


@given(n=st.integers(1, 30), size=st.integers(1, 30), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_stored_rows_are_permuted_not_changed(n, size, seed):
    source = MemorySource(torch.arange(n * 2.0).view(n, 2), torch.arange(n))
    if size > n:
        with pytest.raises(ValueError, match="size is"):
            source.batches(size, seed=seed)
        return
    for batch in source.batches(size, seed=seed):
        assert batch.places is None
        assert torch.equal(batch.x, source.x[batch.tokens])


def test_what_cannot_be_stored():
    with pytest.raises(ValueError, match="no rows"):
        MemorySource(torch.zeros(0, 3))
    # With shape checks on, jaxtyping is quicker to say it.
    with pytest.raises((ShapeError, TypeError), match="tokens"):
        MemorySource(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="no batches to gather"):
        MemorySource.gather([])


def test_gathering_keeps_only_what_all_parts_have():
    parts = [Activations(torch.ones(2, 3), tokens=torch.tensor([1, 2])), Activations(torch.zeros(1, 3))]
    source = MemorySource.gather(parts)
    assert source.x.shape == (3, 3)
    assert source.tokens is None


def test_a_source_of_no_site_or_several(model_of, corpus):
    with pytest.raises(SiteNotFound, match=r"Did you mean transformer\.h\.[0-2]"):
        HookSource(model_of("gpt2"), "transformer.h.9", corpus)
    with pytest.raises(ValueError, match="names 3 sites"):
        HookSource(model_of("gpt2"), "transformer.h.*", corpus)
    empty = Corpus(
        corpus.ids, torch.zeros_like(corpus.keep), corpus.length, corpus.document, corpus.start, corpus.names
    )
    with pytest.raises(ValueError, match="no sequences"):
        HookSource(model_of("gpt2"), "transformer.h.0", empty)


def test_a_damaged_model_is_told_before_the_first_batch(corpus):
    model = make_model("gpt2")
    with torch.no_grad():
        model.transformer.h[0].ln_1.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"transformer\.h\.0 is NaN"):
        HookSource(model, "transformer.h.0", corpus)


def test_rows_gathered_in_place_are_those_that_came() -> None:
    x, tokens = torch.randn(7, 3), torch.arange(7)
    buffer = RowBuffer(7)
    for first, past in ((0, 4), (4, 6)):
        buffer.add(Activations(x[first:past], tokens=tokens[first:past]))
    found = buffer.source(Site("h.1"))
    assert torch.equal(found.x, x[:6])
    assert found.tokens is not None
    assert torch.equal(found.tokens, tokens[:6])
    assert found.places is None
    assert found.site == Site("h.1")
    with pytest.raises(ShapeError, match="there are 8 rows already, and 7 were to come"):
        buffer.add(Activations(x[:2], tokens=tokens[:2]))
    with pytest.raises(ValueError, match="no rows have come"):
        RowBuffer(3).source()
