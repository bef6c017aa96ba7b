from __future__ import annotations

import pytest
import torch

from superscope.capture import Subject, blocks, mlp_hidden
from superscope.core import Site, SiteNotFound
from superscope.intervene import next_token_loss

from ..capture.conftest import CAUSAL


@pytest.mark.parametrize("family", tuple(CAUSAL))
def test_equals_cross_entropy_of_each_window_alone(family, model_of, tokenizer, corpus):
    model = model_of(family)
    loss = next_token_loss(Subject(model, tokenizer, family, "causal"), corpus, batch_tokens=100)
    for i, (ids, keep, length) in enumerate(zip(corpus.ids, corpus.keep, corpus.length)):
        with torch.no_grad():
            logits = model(ids[None, :length]).logits[0, :-1].double()
        expected = torch.nn.functional.cross_entropy(logits, ids[1:length], reduction="sum")
        assert keep[1:length].all()
        assert loss.counts[i] == length - 1
        assert loss.nats[i] == pytest.approx(float(expected), rel=1e-4)
    assert loss.mean == pytest.approx(float(loss.nats.sum()) / corpus.n_tokens)
    assert loss.nats.dtype == torch.float64


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary(corpus):
    class Uniform(torch.nn.Module):
        def forward(self, input_ids):
            return torch.zeros(*input_ids.shape, 300)

    loss = next_token_loss(Uniform(), corpus)
    assert loss.mean == pytest.approx(torch.tensor(300.0).log().item(), rel=1e-6)
    assert int(loss.counts.sum()) == corpus.n_tokens


@pytest.mark.parametrize("family", tuple(CAUSAL))
def test_splices(family, model_of, corpus):
    model = model_of(family)
    clean = next_token_loss(model, corpus)
    block, hidden = blocks(model)[1], mlp_hidden(model, blocks(model)[1])
    for site in (block, hidden):
        same = next_token_loss(model, corpus, splice={site: lambda x: x})
        assert torch.equal(same.nats, clean.nats)
        broken = next_token_loss(model, corpus, splice={site: torch.zeros_like})
        assert not torch.allclose(broken.nats, clean.nats, rtol=1e-3)
        assert torch.equal(broken.counts, clean.counts)
    both = next_token_loss(model, corpus, splice={Site(block): torch.zeros_like, hidden: torch.zeros_like})
    # Zeroing the block's output hides what its MLP does.
    assert torch.allclose(both.nats, next_token_loss(model, corpus, splice={block: torch.zeros_like}).nats)
    assert torch.equal(next_token_loss(model, corpus).nats, clean.nats)


def test_special_tokens_are_left_alone(model_of, corpus):
    seen = []

    def record(x):
        seen.append(x)
        return x

    next_token_loss(model_of("gpt2"), corpus, splice={"h.0": record}, batch_tokens=100)
    assert sum(len(x) for x in seen) == corpus.n_tokens
    assert all(x.ndim == 2 for x in seen)


def test_what_has_no_next_token(model_of, tokenizer, corpus):
    with pytest.raises(TypeError, match="'tiny' is an encoder"):
        next_token_loss(Subject(model_of("bert"), tokenizer, "tiny", "encoder"), corpus)
    with pytest.raises(TypeError, match="BertModel gives no logits"):
        next_token_loss(model_of("bert"), corpus)
    with pytest.raises(SiteNotFound):
        next_token_loss(model_of("gpt2"), corpus, splice={"h.9": torch.zeros_like})
    with pytest.raises(ValueError, match="a replacement keeps the shape"):
        next_token_loss(model_of("gpt2"), corpus, splice={"h.1": lambda x: x[:1]})


def test_a_model_in_training_mode_is_measured_without_dropout(model_of, corpus):
    model = model_of("gpt2")
    clean = next_token_loss(model, corpus)
    model.train()
    try:
        assert torch.allclose(next_token_loss(model, corpus).nats, clean.nats)
        assert model.training
    finally:
        model.eval()


def test_rows_that_are_left_out_stay_as_they_are(model_of, corpus):
    model, seen = model_of("gpt2"), []
    where = corpus.keep.clone()
    where[0, 1:4] = False

    def zeros(x):
        seen.append(len(x))
        return torch.zeros_like(x)

    own = next_token_loss(model, corpus)
    loss = next_token_loss(model, corpus, splice={"h.0": zeros}, where=where, batch_tokens=100)
    assert sum(seen) == int(where.sum())
    assert torch.equal(loss.counts, own.counts)
    nowhere = next_token_loss(model, corpus, splice={"h.0": torch.zeros_like}, where=torch.zeros_like(where))
    torch.testing.assert_close(nowhere.nats, own.nats)
    whole = next_token_loss(model, corpus, splice={"h.0": torch.zeros_like})
    assert not torch.allclose(loss.nats[:1], whole.nats[:1])
    torch.testing.assert_close(loss.nats[1:], whole.nats[1:])
