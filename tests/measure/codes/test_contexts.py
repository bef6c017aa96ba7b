from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import SparseCode
from superscope.measure import (
    KINDS,
    activations_around,
    clarity,
    token_kind,
    token_kinds,
    token_shares,
    token_words,
    top_contexts,
)


def text(sequences=12, length=9, n=5, seed=0, density=0.4):
    """Random dense activations at every place of a small text, and the text."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.rand(sequences * length, n, generator=generator)
    f = f * (torch.rand(sequences * length, n, generator=generator) < density)
    places = torch.stack([torch.arange(sequences * length) // length, torch.arange(sequences * length) % length], 1)
    return f, places


def stream(f, places, size=10, order=None):
    order = torch.arange(len(f)) if order is None else order
    for rows in order.split(size):
        yield SparseCode.from_dense(f[rows]), places[rows]


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 12), per_document=st.integers(1, 3), seed=st.integers(0, 99), documents=st.sampled_from([1, 3])
)
def test_against_sorting_everything(count, per_document, seed, documents):
    f, places = text(seed=seed)
    of = torch.arange(12) // documents
    order = torch.randperm(len(f), generator=torch.Generator().manual_seed(seed))
    found = top_contexts(stream(f, places, order=order), count=count, per_document=per_document, documents=of)
    for latent in range(5):
        expected, used = [], {}
        ranked = sorted((-float(f[r, latent]), *places[r].tolist()) for r in range(len(f)) if f[r, latent] > 0)
        for value, sequence, position in ranked:
            document = int(of[sequence])
            if used.get(document, 0) < per_document and len(expected) < count:
                used[document] = used.get(document, 0) + 1
                expected.append((-value, sequence, position, document))
        filled = len(expected)
        assert int(found.filled[latent]) == filled
        assert found.values[latent, :filled].tolist() == pytest.approx([e[0] for e in expected])
        assert found.sequences[latent, :filled].tolist() == [e[1] for e in expected]
        assert found.positions[latent, :filled].tolist() == [e[2] for e in expected]
        assert found.documents[latent, :filled].tolist() == [e[3] for e in expected]
        assert (found.values[latent, filled:] == 0).all()
        assert (found.sequences[latent, filled:] == -1).all()


def test_a_small_buffer_gives_the_same_answer(monkeypatch):
    f, places = text(sequences=40, n=6)
    whole = top_contexts(stream(f, places), count=4)
    monkeypatch.setattr("superscope.measure.codes.contexts._PENDING", 16)
    parts = top_contexts(stream(f, places, size=7), count=4)
    for name in ("values", "sequences", "positions", "documents"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))


def test_ties_go_to_the_earlier_place():
    f = torch.ones(6, 1)
    places = torch.tensor([[2, 0], [0, 5], [0, 1], [1, 3], [1, 2], [2, 9]])
    found = top_contexts(stream(f, places, size=2), count=3)
    assert list(zip(found.sequences[0].tolist(), found.positions[0].tolist(), strict=True)) == [(0, 1), (1, 2), (2, 0)]


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("per_document", [1, 3])
def test_windows_hold_the_activations_around(most, per_document):
    f, places = text()
    dense = torch.zeros(12, 9, 5)
    dense[places[:, 0], places[:, 1]] = f
    top = top_contexts(stream(f, places), count=6, per_document=per_document)
    order = torch.randperm(len(f), generator=torch.Generator().manual_seed(3))
    found = activations_around(stream(f, places, order=order), top, before=2, after=3, most=most)
    assert found.shape == (5, most or 6, 6)
    for latent in range(5):
        for slot in range(most or 6):
            sequence, position = int(top.sequences[latent, slot]), int(top.positions[latent, slot])
            for offset in range(-2, 4):
                inside = sequence >= 0 and 0 <= position + offset < 9
                expected = float(dense[sequence, position + offset, latent]) if inside else 0.0
                assert float(found[latent, slot, offset + 2]) == pytest.approx(expected)


def test_empty_streams_and_bad_sizes():
    f, places = text()
    with pytest.raises(ValueError, match="stream of codes is empty"):
        top_contexts([])
    with pytest.raises(ValueError, match="stream of codes is empty"):
        token_shares([])
    with pytest.raises(ValueError, match="at least 1; got 0 and 1"):
        top_contexts(stream(f, places), count=0)
    with pytest.raises(ValueError, match="at least 0"):
        activations_around(stream(f, places), top_contexts(stream(f, places)), before=-1)
    silent = top_contexts([(SparseCode.from_dense(torch.zeros(4, 3)), torch.zeros(4, 2, dtype=torch.long))], count=2)
    assert (silent.filled == 0).all()
    assert activations_around([], silent).sum() == 0


def test_token_shares_by_hand():
    f = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [4.0, 0.0]])
    tokens = torch.tensor([7, 9, 9, 7])
    codes = [(SparseCode.from_dense(f[rows]), tokens[rows]) for rows in (slice(0, 2), slice(2, 4))]
    found = token_shares(codes, count=3)
    assert found.tokens.tolist() == [[7, 9, -1], [9, -1, -1]]
    assert found.shares.tolist() == [[5 / 8, 3 / 8, 0], [1, 0, 0]]
    assert found.kinds.tolist() == [2, 1]
    assert not found.approximate


def test_token_shares_in_little_memory_keep_the_large_ones(monkeypatch):
    monkeypatch.setattr("superscope.measure.codes.contexts._PENDING", 50)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.where(
        torch.rand(4000, generator=generator) < 0.6, 5, torch.randint(100, 4000, (4000,), generator=generator)
    )
    codes = [(SparseCode(torch.ones(100, 1), torch.zeros(100, 1, dtype=torch.long), 2), t) for t in tokens.split(100)]
    found = token_shares(codes, count=1, limit=200)
    assert found.approximate
    assert found.tokens[0, 0] == 5
    assert found.shares[0, 0] == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (" the", "lower-case word"),
        ("The", "capitalised word"),
        ("A", "capitalised word"),
        (" NOTE", "upper-case word"),
        ("camelCase", "mixed word"),
        ("x1", "mixed word"),
        ("\u65e5\u672c", "word in another script"),
        ("\u043c\u0438\u0440", "word in another script"),
        ("caf\u00e9", "lower-case word"),
        (" 42", "number"),
        ("3.14", "number"),
        ("0x", "number"),
        ("((", "opening bracket or quote"),
        ("]", "closing bracket or quote"),
        (".", "punctuation"),
        (" ==", "operator or symbol"),
        ("\n\n    ", "line break"),
        ("   ", "space"),
        ("", "other"),
        ("\x00", "other"),
    ],
)
def test_kinds_of_tokens(token, kind):
    assert KINDS[token_kind(token)] == kind


def test_words_fold_case_and_space():
    assert token_words([" The", "the", "THE ", " ", "\n", "cat"]).tolist() == [0, 0, 0, 1, 2, 3]


# ----- clarity: a text of 60 documents of 40 tokens over a vocabulary of 50 words, 5 numbers and 5 brackets ----------

TEXTS = [f" w{chr(97 + i // 10)}{chr(97 + i % 10)}" for i in range(50)] + list("12345") + list("([{<(")
KIND_OF = token_kinds(TEXTS)


@pytest.fixture(scope="module")
def ids():
    generator = torch.Generator().manual_seed(0)
    share = torch.cat([torch.full((50,), 0.8 / 50), torch.full((10,), 0.02)])
    return torch.multinomial(share, 60 * 40, replacement=True, generator=generator).reshape(60, 40)


def scored(ids, fires):
    """Clarity of latents that fire where `fires(tokens)` says, with random strength."""
    generator = torch.Generator().manual_seed(1)
    flat = ids.reshape(-1)
    f = torch.stack([(torch.rand(len(flat), generator=generator) + 0.5) * fire(flat) for fire in fires], 1)
    places = torch.stack([torch.arange(len(flat)) // 40, torch.arange(len(flat)) % 40], 1)
    top = top_contexts(stream(f, places, size=300), count=20)
    return clarity(top, ids, kinds=KIND_OF, words=token_words(TEXTS))


def test_clarity_orders_what_is_clear(ids):
    flat_before = ids.reshape(-1).roll(1)
    found = scored(
        ids,
        [
            lambda t: t == 3,
            lambda t: (t >= 50) & (t < 55),
            lambda t: t < 50,
            lambda t: torch.ones_like(t),
            lambda t: flat_before == 52,
            lambda t: t < 0,
        ],
    )
    token, number, word, anything, after, never = found.score.tolist()
    assert token > 0.95
    assert number > 0.85
    assert after > 0.7
    assert word < 0.35
    assert anything < 0.2
    assert never == 0
    assert not found.judged[5]
    assert found.readings[found.reading[0]] in ("token", "word")
    assert found.readings[found.reading[1]] == "kind"
    assert found.readings[found.reading[4]] == "token before"
    assert found.chance < 0.1
    assert bool(((found.score >= 0) & (found.score <= 1)).all())


def test_random_places_score_at_chance(ids):
    generator = torch.Generator().manual_seed(5)
    f = torch.rand(ids.numel(), 200, generator=generator) * (torch.rand(ids.numel(), 200, generator=generator) < 0.05)
    places = torch.stack([torch.arange(ids.numel()) // 40, torch.arange(ids.numel()) % 40], 1)
    found = clarity(top_contexts(stream(f, places, size=400), count=20), ids, kinds=KIND_OF, words=token_words(TEXTS))
    assert float(found.score.mean()) == pytest.approx(found.chance, abs=0.03)


def test_clarity_formula_by_hand():
    """Five documents, tokens 0 0 0 1 1 at the contexts; q = (1/2, 1/4, 1/4)."""
    ids = torch.tensor([[0, 2], [0, 2], [0, 1], [1, 0], [1, 0], [0, 2], [0, 2], [0, 1]])
    share = torch.tensor([8 / 16, 4 / 16, 4 / 16])
    assert torch.equal(torch.bincount(ids.reshape(-1)) / 16, share)
    f = torch.zeros(16, 1)
    f[torch.tensor([0, 2, 4, 6, 8])] = 1.0
    places = torch.stack([torch.arange(16) // 2, torch.arange(16) % 2], 1)
    top = top_contexts(stream(f, places), count=5)
    found = clarity(top, ids, draws=0)
    agreement = (6 * (1 - 0.5) + 2 * (1 - 0.25)) / 20
    expected = float((share**2 * (1 - share)).sum())
    # The token after is 2 2 1 0 0: fewer agreements; the token reading wins.
    after = (2 * 0.75 + 2 * 0.5) / 20
    assert max(agreement, after) == agreement
    assert float(found.score[0]) == pytest.approx((agreement - expected) / (1 - expected))


def test_contexts_of_one_document_do_not_vouch_for_each_other(ids):
    f = (ids.reshape(-1, 1) == 3).float()
    places = torch.stack([torch.arange(ids.numel()) // 40, torch.arange(ids.numel()) % 40], 1)
    everything_one = torch.zeros(60, dtype=torch.long)
    top = top_contexts(stream(f, places), count=20, per_document=20, documents=everything_one)
    assert int(top.filled[0]) == 20
    found = clarity(top, ids)
    assert found.score[0] == 0
    assert not found.judged[0]


def test_padding_is_no_label(ids):
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[:, 20:] = False
    padded = ids.clone()
    padded[:, 20:] = 59
    f = (padded[:, :20] == 3).float()
    dense = torch.zeros(60, 40)
    dense[:, :20] = f
    places = torch.stack([torch.arange(2400) // 40, torch.arange(2400) % 40], 1)
    top = top_contexts(stream(dense.reshape(-1, 1), places), count=20)
    found, plain = clarity(top, padded, keep=keep), clarity(top, ids[:, :20])
    torch.testing.assert_close(found.score, plain.score)
