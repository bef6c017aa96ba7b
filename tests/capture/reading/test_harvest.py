from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from superscope.capture import Capture, Corpus, Subject, blocks, default_sites, harvest, mlp_hidden, sites, tokens
from superscope.capture.reading.harvest import batch_that_fits
from superscope.core import Site

from ..conftest import CAUSAL, ENCODERS, FAMILIES, TEXTS, make_model, make_tokenizer


def hooks(model):
    return {name: (*module._forward_hooks, *module._forward_pre_hooks) for name, module in model.named_modules()}


def gathered(batches):
    batches = list(batches)
    return {site: torch.cat([batch[site].x for batch in batches]) for site in batches[0]}


def corpus_for(family, tokenizer, context=16):
    if family in ENCODERS:
        tokenizer = make_tokenizer(cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")
    return tokens(tokenizer, TEXTS, context=context, seed=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_of_each_window_run_alone(family, model_of, tokenizer):
    """The whole point: neither batch, nor pads, nor early exit may show in x."""
    model = model_of(family)
    corpus = corpus_for(family, tokenizer)
    assert (corpus.length < corpus.context).any()
    chosen = (*default_sites(model), *sites(model, [mlp_hidden(model, blocks(model)[0])]))
    read = gathered(harvest(model, chosen, corpus, batch_tokens=70))
    assert list(read) == list(chosen)
    for site in chosen:
        alone = []
        for ids, keep, length in zip(corpus.ids, corpus.keep, corpus.length):
            with Capture(model, [site]) as cap:
                x = cap(input_ids=ids[None, :length])[site]
                alone.append(x.reshape(-1, x.shape[-1])[keep[:length]])
        expected = torch.cat(alone)
        assert read[site].shape == expected.shape
        assert torch.allclose(read[site], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())), site


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_aligned_and_placed(family, model_of, tokenizer):
    model = model_of(family)
    corpus = corpus_for(family, tokenizer)
    chosen = default_sites(model)
    n = 0
    for batch in harvest(model, chosen, corpus, batch_tokens=50):
        first = batch[chosen[0]]
        for activations in batch.values():
            assert activations.x.dtype == torch.float32
            assert torch.equal(activations.places, first.places)
            assert torch.equal(activations.tokens, first.tokens)
        sequence, position = first.places.T
        assert torch.equal(corpus.ids[sequence, position], first.tokens)
        assert corpus.keep[sequence, position].all()
        n += len(first)
    assert n == corpus.n_tokens


def test_batches_hold_no_more_than_asked(model_of, corpus):
    sizes = [len(next(iter(batch.values()))) for batch in harvest(model_of("gpt2"), ["h.0"], corpus, batch_tokens=48)]
    assert max(sizes) <= 2 * 23
    one = [len(next(iter(batch.values()))) for batch in harvest(model_of("gpt2"), ["h.0"], corpus, batch_tokens=1)]
    assert one == corpus.keep.sum(1).tolist()


def test_the_same_twice(model_of, corpus):
    model = model_of("llama")
    first, second = (gathered(harvest(model, ["model.layers.*"], corpus)) for _ in range(2))
    for site in first:
        assert torch.equal(first[site], second[site])


def test_dropout_is_off_and_modes_are_put_back(corpus):
    model = make_model("gpt2")
    expected = gathered(harvest(model, ["h.2"], corpus))
    model.train()
    model.transformer.h[1].eval()
    modes = [module.training for module in model.modules()]
    batches = harvest(model, ["h.2"], corpus, batch_tokens=48)
    read = [next(batches)]
    assert [module.training for module in model.modules()] == modes  # also between two batches
    read.extend(batches)
    assert [module.training for module in model.modules()] == modes
    assert torch.allclose(gathered(read)[Site("transformer.h.2")], expected[Site("transformer.h.2")], atol=1e-5)


def test_the_model_is_the_callers_between_batches(model_of, corpus):
    model = model_of("gpt2")
    # transformers leaves hooks of its own once it has been asked for hidden states, as another test does.
    standing = hooks(model)
    ids = corpus[:1]
    with torch.no_grad():
        before = model(ids).logits
    for i, _ in enumerate(harvest(model, ["h.0"], corpus, batch_tokens=48)):
        with torch.no_grad():
            assert torch.equal(model(ids).logits, before)
        if i == 2:
            break
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
    assert hooks(model) == standing


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_is_given_where_it_is_needed_and_only_there(family, model_of, tokenizer):
    model = model_of(family)
    seen = []
    base = model if family in ENCODERS else model.base_model
    handle = base.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["input_ids"], kwargs.get("attention_mask"))), with_kwargs=True
    )
    corpus = corpus_for(family, tokenizer)
    list(harvest(model, [blocks(model)[0]], corpus, batch_tokens=16))
    handle.remove()
    assert len(seen) == len(corpus)
    # One window at a time is cut at its own length, so nothing is ever padded.
    assert all(mask is None for _, mask in seen)
    seen.clear()
    handle = base.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["input_ids"], kwargs.get("attention_mask"))), with_kwargs=True
    )
    list(harvest(model, [blocks(model)[0]], corpus))
    handle.remove()
    ((ids, mask),) = seen
    assert ids.shape == corpus.ids.shape
    if family in ENCODERS:
        assert torch.equal(mask.sum(1), corpus.length)
    elif family != "bloom":  # whose attention does not say that it is causal
        assert mask is None


def test_nan_is_named_with_its_site_and_place(corpus):
    model = make_model("gpt2")
    token = int(corpus.ids[3, 5])
    with torch.no_grad():
        model.transformer.wte.weight[token] = float("nan")
    sequence, position = next(place for place in ((corpus.ids == token) & corpus.keep).nonzero().tolist())
    name = corpus.names[int(corpus.document[sequence])]
    said = rf"h\.0:in is NaN at position {position} of sequence {sequence} \(document '{name}'\)"
    with pytest.raises(FloatingPointError, match=said):
        # Read before any attention, whose zero weights times NaN would carry it to earlier positions.
        list(harvest(model, ["h.0:in"], corpus))
    assert not any(module._forward_hooks for module in model.transformer.h)


def test_infinity_is_named(corpus):
    model = make_model("gpt2")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.bias[2] = float("inf")
    with pytest.raises(FloatingPointError, match=r"h\.0\.mlp is infinite at position 1 "):
        list(harvest(model, ["h.0.mlp"], corpus))


def test_large_but_finite_is_no_error(corpus):
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, ids):
            return self.inner(torch.full((*ids.shape, 4), 3e38))

    (batch,) = harvest(Huge(), ["inner"], corpus)
    assert batch[Site("inner")].x.sum().isinf()


def test_nan_on_a_pad_or_bos_is_nobodys_business(corpus):
    class Sink(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, ids):
            x = torch.ones(*ids.shape, 4)
            x[:, 0] = float("nan")
            return self.inner(x)

    (batch,) = harvest(Sink(), ["inner"], corpus)
    assert batch[Site("inner")].x.isfinite().all()


def test_any_module_will_do(corpus):
    model = nn.Sequential(nn.Embedding(300, 6), nn.Linear(6, 5), nn.ReLU())
    read = gathered(harvest(model, ["1", "2"], corpus))
    with torch.no_grad():
        expected = model[:2](corpus.ids)[corpus.keep]
    assert torch.allclose(read[Site("1")], expected, atol=1e-6)
    assert torch.allclose(read[Site("2")], expected.relu(), atol=1e-6)


def test_what_is_not_one_vector_per_token_is_refused(corpus, model_of):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(300, 6)
            self.heads, self.pool = nn.Identity(), nn.Identity()

        def forward(self, ids):
            x = self.table(ids)
            self.pool(x.mean(1))
            return self.heads(x.unflatten(-1, (2, 3)))

    with pytest.raises(ValueError, match=r"heads holds \(2, 3\) for each token"):
        list(harvest(Odd(), ["heads"], corpus))
    with pytest.raises(ValueError, match=r"pool has shape \(\d+, 6\), which is not one vector for each"):
        list(harvest(Odd(), ["pool"], corpus))


def test_a_corpus_that_is_not_the_models(model_of, corpus, tokenizer):
    model = model_of("gpt2")
    long = tokens(tokenizer, TEXTS, context=40)
    with pytest.raises(ValueError, match="windows of 40 tokens and this model takes 32"):
        harvest(model, ["h.0"], long)
    roberta = tokens(make_tokenizer(cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"), TEXTS, context=29)
    with pytest.raises(ValueError, match="windows of 29 tokens and this model takes 28"):
        harvest(model_of("roberta"), ["encoder.layer.0"], roberta)
    foreign = Corpus(corpus.ids + 1000, corpus.keep, corpus.length, corpus.document, corpus.start, corpus.names)
    with pytest.raises(ValueError, match=r"token \d+ and this model knows 300 tokens"):
        harvest(model, ["h.0"], foreign)
    with pytest.raises(ValueError, match="no sequences"):
        harvest(model, ["h.0"], corpus.take(torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(ValueError, match="batch_tokens is 0"):
        harvest(model, ["h.0"], corpus, batch_tokens=0)


def test_bfloat16_gives_float32_rows(corpus):
    model = make_model("llama")
    exact = gathered(harvest(model, ["model.layers.1"], corpus))[Site("model.layers.1")]
    coarse = gathered(harvest(model.to(torch.bfloat16), ["model.layers.1"], corpus))[Site("model.layers.1")]
    assert coarse.dtype == torch.float32
    assert 0 < (coarse - exact).norm() / exact.norm() < 0.1


def test_the_batch_moves_only_the_last_bits_of_bfloat16(corpus):
    """Which is why a store's manifest says in what batches its rows were made."""
    model = make_model("llama").to(torch.bfloat16)
    site = Site("model.layers.1")
    alone, together = (gathered(harvest(model, [site], corpus, batch_tokens=n))[site] for n in (1, 4096))
    # A last bit of one product may become several behind the next; rounding once is 0.004.
    assert (alone - together).norm() / alone.norm() < 0.02


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_behind_a_norm_no_row_is_an_outlier_whatever_was_added(family, tokenizer):
    """Blocks that end with a norm have rows of one length, which tells nothing of attention sinks."""
    model = make_model(family)
    corpus = corpus_for(family, tokenizer)
    for site in default_sites(model):
        norms = gathered(harvest(model, [site], corpus))[site].norm(dim=1)
        assert norms.max() / norms.median() < 1.01


@pytest.mark.parametrize("family", tuple(CAUSAL))
def test_a_random_copy_can_be_read_too(family, model_of, tokenizer, corpus):
    from superscope.capture import control

    loaded = Subject(model_of(family), tokenizer, family, "causal")
    made = control(loaded, seed=2)
    one, two = (gathered(harvest(m.model, [blocks(m.model)[1]], corpus)) for m in (loaded, made))
    assert one.keys() == two.keys()
    for site in one:
        assert one[site].shape == two[site].shape
        assert not torch.allclose(one[site], two[site])


def test_a_batch_is_as_large_as_the_cache_holds() -> None:
    """d = 768 in float32: 8 MiB / (4 * 768 * 4) = 682, so 512; half the bytes hold twice as many."""
    found = {}
    for d in (16, 192, 768, 4096):
        model = nn.Linear(1, 1)
        model.config = SimpleNamespace(hidden_size=d)  # pyright: ignore[reportAttributeAccessIssue]
        found[d] = (batch_that_fits(model), batch_that_fits(model.to(torch.bfloat16)))
    assert found == {16: (8192, 8192), 192: (2048, 4096), 768: (512, 1024), 4096: (256, 256)}
    assert batch_that_fits(nn.Linear(3, 4)) == 8192
