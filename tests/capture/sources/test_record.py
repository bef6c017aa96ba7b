"""Rows of a text at several sites are the same rows in memory and on disk, also where the recording was cut short."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from superscope import capture
from superscope.capture import Corpus, MemorySource, StoreSource, Subject
from superscope.capture.store import fill as filling

from ..conftest import TEXTS, make_model, make_tokenizer

PATHS = ["transformer.h.0", "transformer.h.1.mlp.c_proj:in"]


@pytest.fixture(scope="module")
def loaded() -> Subject:
    return Subject(make_model("gpt2"), make_tokenizer(bos_token="<|endoftext|>"), "tiny", "causal")


@pytest.fixture(scope="module")
def corpus(loaded: Subject) -> Corpus:
    return capture.tokens(loaded.tokenizer, TEXTS, context=16, seed=3)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_UNIT_BYTES", 2**14)
    monkeypatch.setattr(filling, "batch_that_fits", lambda model: 64)


def ended(recording: Generator[int, None, Any]) -> tuple[list[int], Any]:
    counts = []
    while True:
        try:
            counts.append(next(recording))
        except StopIteration as end:
            return counts, end.value


def by_place(source: MemorySource | StoreSource) -> dict[tuple[int, int], tuple[int, torch.Tensor]]:
    found = {}
    for batch in source.rows(50):
        assert batch.places is not None
        assert batch.tokens is not None
        for (sequence, position), token, x in zip(batch.places.tolist(), batch.tokens.tolist(), batch.x, strict=True):
            assert (sequence, position) not in found
            found[sequence, position] = token, x
    return found


@pytest.mark.usefixtures("small_units")
def test_rows_are_the_same_in_memory_and_on_disk(loaded: Subject, corpus: Corpus, tmp_path: Path) -> None:
    sites = capture.sites(loaded.model, PATHS)
    counts, held = ended(capture.record(loaded, sites, corpus))
    told, stored = ended(capture.record(loaded, sites, corpus, tmp_path / "rows"))
    for each in (counts, told):
        assert each == sorted(each)
        assert (each[0], each[-1]) == (0, corpus.n_tokens)
    widths = 0
    for site in sites:
        assert isinstance(stored[site], StoreSource)
        assert len(stored[site].records) > 2
        assert str(stored[site].site) == str(held[site].site) == str(site)
        one, two = by_place(held[site]), by_place(stored[site])
        assert one.keys() == two.keys() == {(int(s), int(p)) for s, p in corpus.keep.nonzero()}
        for place, (token, x) in one.items():
            assert token == two[place][0] == int(corpus.ids[place])
            torch.testing.assert_close(x, two[place][1], atol=1e-5, rtol=1e-5)
        widths += held[site].d
    assert capture.bytes_to_record(loaded, sites, corpus) == corpus.n_tokens * widths * 4


@pytest.mark.usefixtures("small_units")
def test_a_recording_that_was_cut_short_goes_on(loaded: Subject, corpus: Corpus, tmp_path: Path) -> None:
    sites = capture.sites(loaded.model, PATHS[:1])
    recording = capture.record(loaded, sites, corpus, tmp_path)
    while not list(tmp_path.glob("units/*.json")):
        next(recording)
    recording.close()
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("units/*")}
    counts, stored = ended(capture.record(loaded, sites, corpus, tmp_path))
    assert counts[1] > 0
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert sum(len(batch) for batch in stored[sites[0]].rows()) == corpus.n_tokens


@pytest.fixture(scope="module")
def sinks(loaded: Subject, corpus: Corpus) -> tuple[Subject, int]:
    """The model with a rare token 1 000 times as long in its stream, and that token: rows of it are outliers."""
    model = make_model("gpt2")
    learned, measured = (part.ids[part.keep] for part in corpus.split(0.6, seed=0))
    token = min(set(learned.tolist()) & set(measured.tolist()), key=lambda i: int((learned == i).sum()))
    with torch.no_grad():
        model.transformer.wte.weight[token] *= 1000
    return dataclasses.replace(loaded, model=model), token


@pytest.mark.usefixtures("small_units")
def test_outliers_are_the_same_rows_in_memory_on_disk_and_as_they_are_read(
    sinks: tuple[Subject, int], corpus: Corpus, tmp_path: Path
) -> None:
    subject, token = sinks
    sites = capture.sites(subject.model, PATHS)
    learned, measured = corpus.split(0.6, seed=0)
    limits = capture.outlier_limits(subject.model, sites, learned)
    assert limits == capture.outlier_limits(subject.model, sites, learned)
    for name, part in (("learned", learned), ("measured", measured)):
        _, held = ended(capture.record(subject, sites, part, limits=limits))
        _, stored = ended(capture.record(subject, sites, part, tmp_path / name, limits=limits))
        planted = {(int(s), int(p)) for s, p in ((part.ids == token) & part.keep).nonzero()}
        assert planted
        for site in sites:
            one, two = held[site], stored[site]
            assert one.limit == two.limit == limits[site]
            for source in (one, two):
                assert {tuple(place) for place in source.left_out.places.tolist()} == planted
                assert set(source.left_out.tokens.tolist()) <= {token}
                assert by_place(source).keys() == {(int(s), int(p)) for s, p in part.keep.nonzero()} - planted
                assert len(source) + len(planted) == part.n_tokens
        # At the stream it is the length that tells them; at the other site they are left out with their fellows.
        assert bool((held[sites[0]].left_out.x.norm(dim=1) > limits[sites[0]]).all())
        assert not bool((held[sites[1]].left_out.x.norm(dim=1) > limits[sites[1]]).any())
        keep = capture.ordinary_places(part, held[sites[0]].left_out)
        assert {(int(s), int(p)) for s, p in (part.keep & ~keep).nonzero()} == planted
        live = capture.HookSource(subject.model, sites[0], part, limit=limits[sites[0]])
        read = {tuple(place) for batch in live.batches(1, seed=0) for place in batch.places.tolist()}
        assert read == by_place(held[sites[0]]).keys()


def test_limits_of_a_store_that_is_there_stand(sinks: tuple[Subject, int], corpus: Corpus, tmp_path: Path) -> None:
    sites = capture.sites(sinks[0].model, PATHS[:1])
    limits = capture.outlier_limits(sinks[0].model, sites, corpus)
    _, first = ended(capture.record(sinks[0], sites, corpus, tmp_path, limits=limits))
    # As another machine would have decided, to the last bits.
    _, again = ended(capture.record(sinks[0], sites, corpus, tmp_path, limits={sites[0]: limits[sites[0]] * 1.001}))
    assert first[sites[0]].limit == again[sites[0]].limit == limits[sites[0]]
    with pytest.raises(ValueError, match="policy is"):
        ended(capture.record(sinks[0], sites, corpus, tmp_path))


def test_a_model_without_sinks_loses_no_row(loaded: Subject, corpus: Corpus) -> None:
    sites = capture.sites(loaded.model, PATHS)
    _, held = ended(capture.record(loaded, sites, corpus, limits=capture.outlier_limits(loaded.model, sites, corpus)))
    for site in sites:
        assert len(held[site]) == corpus.n_tokens
        assert len(held[site].left_out) == 0
    _, every = ended(capture.record(loaded, sites, corpus))
    assert every[sites[0]].left_out is None
    assert capture.outlier_limits(loaded.model, sites, corpus, multiple=None) == {}


def test_rows_of_another_model_or_text_are_refused(loaded: Subject, corpus: Corpus, tmp_path: Path) -> None:
    sites = capture.sites(loaded.model, PATHS[:1])
    ended(capture.record(loaded, sites, corpus, tmp_path))
    with pytest.raises(ValueError, match="another harvest: model is"):
        ended(capture.record(capture.control(loaded, seed=1), sites, corpus, tmp_path))
    with pytest.raises(ValueError, match="the windows of another text: source is"):
        ended(capture.record(loaded, sites, corpus.take(torch.arange(4)), tmp_path))


def test_a_disk_without_room_is_told_before_the_model_reads(
    loaded: Subject, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match="and its disk has 0 MB free"):
        ended(capture.record(loaded, capture.sites(loaded.model, PATHS), corpus, tmp_path / "rows"))
    assert not (tmp_path / "rows").exists()
