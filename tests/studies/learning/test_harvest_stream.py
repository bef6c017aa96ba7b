"""A model's rows are kept where that pays and computed anew where not; by one interface, and the reason is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from superscope.capture import HookSource, MemorySource
from superscope.core import ActivationSource
from superscope.dictionaries import TopK, train
from superscope.studies import Train
from superscope.studies.learning import stream as streams
from superscope.studies.learning.stream import Stream


def opened(**options: Any) -> Stream:
    usual = {
        "text": json.__path__[0],
        "site": "resid_post.0",
        "tokens": 4000,
        "held_out": 1000,
        "context": 64,
        "steps": 6,
        "batch": 2000,
    }
    return Train("pocket", **{**usual, **options}).open_stream()


def by_place(source: ActivationSource) -> dict[tuple[int, int], torch.Tensor]:
    found = {}
    for batch in source.batches(100, seed=3):
        assert batch.places is not None
        found |= {(int(s), int(p)): x for (s, p), x in zip(batch.places, batch.x, strict=True)}
    return found


def test_rows_are_kept_or_computed_by_the_rule_which_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, once, wide = opened(), opened(steps=2), opened(n=10**7)
    assert isinstance(kept.train, MemorySource)
    assert kept.note.startswith("rows are kept: making them anew at each of")
    assert kept.note.endswith("GB in memory")
    for each, why in ((once, "they are used only once"), (wide, "would be 0% of the whole work, less than keeping")):
        assert isinstance(each.train, HookSource)
        assert each.note.startswith("rows are computed as they are needed: ")
        assert why in each.note
    monkeypatch.setattr(streams, "_ROOM", 10**6)
    large = opened()
    assert isinstance(large.train, HookSource)
    assert "GB and there are 0.001 GB in memory" in large.note
    # What is measured on is held in any case, and is the same.
    for each in (once, wide, large):
        assert isinstance(each.held_out, MemorySource)
        assert isinstance(kept.held_out, MemorySource)
        assert torch.equal(each.held_out.x, kept.held_out.x)
    rows, again = by_place(kept.train), by_place(large.train)
    together = rows.keys() & again.keys()
    assert len(together) > 3700
    assert all(torch.allclose(rows[place], again[place], atol=1e-4) for place in together)


def test_a_dictionary_learns_as_much_from_either() -> None:
    unexplained = []
    for stream in (opened(), opened(steps=2)):
        sae = TopK(d=192, n=256, k=8, seed=0)
        for step in train(sae, stream.train, steps=60, batch=256, seed=0):
            last = step.numbers["fraction_variance_unexplained"]
        unexplained.append(last)
    assert unexplained[0] < 0.6
    assert unexplained[1] == pytest.approx(unexplained[0], rel=0.05)


def test_outliers_of_a_model_are_left_out_of_learning_and_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened(outliers="keep")
    assert isinstance(kept.train, MemorySource)
    assert kept.train.left_out is None
    plain = opened()
    # The pocket model has no such row.
    for source in (plain.train, plain.held_out):
        assert isinstance(source, MemorySource)
        assert source.left_out is not None
        assert len(source.left_out) == 0
    limit = float(kept.train.x.norm(dim=1).quantile(0.9))
    monkeypatch.setattr("superscope.capture.outlier_limits", lambda model, sites, corpus: {sites[0]: limit})
    for stream in (opened(), opened(n=10**7)):
        for source, whole in ((stream.train, plain.train), (stream.held_out, plain.held_out)):
            rows = torch.stack(list(by_place(source).values()))
            assert float(rows.norm(dim=1).max()) <= limit
            assert isinstance(whole, MemorySource)
            # A last batch that is not full is dropped.
            assert len(rows) == int((whole.x.norm(dim=1) <= limit).sum()) // 100 * 100
    assert isinstance(stream.train, HookSource)
