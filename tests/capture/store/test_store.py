"""A store is whole whatever happens to its writers; its readers give every row once and begin anywhere."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from superscope import capture
from superscope.capture import Bijection, Manifest, Policy, Record, Store, StoreSource, Subject, Windows
from superscope.capture.store.fill import make_unit, weights_hash
from superscope.capture.store.places import hash_tensors, preferred_hash
from superscope.core import FormatError, Site
from superscope.core.units import Inline, Processes

from ..conftest import TEXTS, make_model, make_tokenizer

SITES = ["resid_post.0", "mlp_act.1"]


@pytest.fixture(scope="module")
def loaded() -> Subject:
    return Subject(make_model("gpt2"), make_tokenizer(bos_token="<|endoftext|>"), "tiny", "causal")


@pytest.fixture(scope="module")
def model_folder(loaded: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for i in range(8):
        (folder / f"{i}.txt").write_text(TEXTS[i % 3] * (1 + i % 4))
    return folder


def windowed(where: Any, loaded: Subject, policy: Policy, text: Any = TEXTS, **options: Any) -> Windows:
    place = capture.place(where)
    said = {"source": "texts", "tokenizer_hash": capture.tokenizer_hash(loaded.tokenizer), **options}
    list(capture.write_windows(place, loaded.tokenizer, capture.stream(text, seed=0), policy, **said))
    return Windows(place)


def harvested(where: Any, loaded: Subject, policy: Policy | None = None, text: Any = TEXTS, **options: Any) -> Store:
    policy = policy or Policy(context=16)
    windows = windowed(where, loaded, policy, text)
    options = {"per_unit": 7, "batch_tokens": 64, "dtype": torch.float32, **options}
    store = capture.prepare(where, loaded, SITES, windows, policy, **options)
    assert list(capture.fill(store, loaded, windows))[-1] == store.manifest.n_units
    return store


def contents(where: Any) -> dict[int, str]:
    return {record.unit: record.hash for record in Store(where).records()}


def synthetic(where: Any, rows: list[int], d: int = 5) -> Store:
    """A store of random rows, so many in each unit, whose tokens are counted through."""
    manifest = Manifest(
        model="m",
        weights="w",
        tokenizer="t",
        attention="sdpa",
        sites={"a": {"site": "h.0", "d": d}, "b": {"site": "h.1:in[0:2]", "d": 2}},
        dtype="bfloat16",
        computed="float32",
        policy={},
        text="x",
        seed=0,
        sequences=len(rows),
        per_unit=1,
        batch_tokens=64,
        hashed=preferred_hash(),
    )
    store = Store.create(where, manifest)
    at = 0
    generator = torch.Generator().manual_seed(0)
    for unit, n in enumerate(rows):
        origin = torch.arange(at, at + n, dtype=torch.int32)[:, None].repeat(1, 5)
        at += n
        x = torch.randn(n, d, generator=generator).bfloat16()
        store.write(unit, {"a": x, "b": x[:, :2] + 1, "origin": origin})
    return store


# --- the order -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@over(n=st.integers(1, 3000), seed=st.integers(0, 2**40))
def test_a_bijection_is_one_to_one(n: int, seed: int) -> None:
    found = Bijection(n, seed)(torch.arange(n))
    assert torch.equal(found.sort().values, torch.arange(n))


def test_a_bijection_mixes() -> None:
    """Far from sorted, and two seeds far from each other: as uncorrelated as a drawn permutation's places are."""
    n = 4096
    places = torch.arange(n)
    found = torch.stack([Bijection(n, seed)(places) for seed in range(8)]).double()
    assert bool((torch.corrcoef(torch.cat([found, places[None].double()])) - torch.eye(9)).abs().max() < 0.06)
    # Neighbours part: the mean distance of two drawn numbers below n is n / 3.
    assert float((found[:, 1:] - found[:, :-1]).abs().mean()) == pytest.approx(n / 3, rel=0.05)


def test_a_bijection_of_a_number_too_large_to_list() -> None:
    found = Bijection(10**15, seed=3)(torch.arange(1000))
    assert len(found.unique()) == 1000
    assert int(found.max()) < 10**15
    with pytest.raises(ValueError, match="outside 0 to 4"):
        Bijection(5, 0)(torch.tensor([5]))
    with pytest.raises(ValueError, match="give a count"):
        Bijection(-1, 0)


@settings(deadline=None, max_examples=15)
@over(
    rows=st.lists(st.integers(0, 300), min_size=1, max_size=7).filter(lambda rows: sum(rows) > 3),
    size=st.integers(1, 200),
    ring=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_every_row_comes_once_and_any_batch_can_be_the_first(rows: list[int], size: int, ring: int, seed: int) -> None:
    size = min(size, sum(rows))
    source = StoreSource(synthetic(f"memory://{uuid.uuid4()}", rows), "a", ring=ring)
    whole = list(source.batches(size, seed=seed))
    tokens = torch.cat([batch.tokens for batch in whole if batch.tokens is not None])
    assert len(tokens) == sum(rows) // size * size
    assert len(tokens.unique()) == len(tokens)
    for start in {0, 1, len(whole) // 2, len(whole)}:
        part = list(source.batches_from(start, size, seed=seed))
        assert len(part) == max(len(whole) - start, 0)
        for one, other in zip(part, whole[start:], strict=True):
            assert torch.equal(one.x, other.x)
    again = [batch.tokens for batch in source.batches(size, seed=seed)]
    assert all(torch.equal(a, b.tokens) for a, b in zip(again, whole, strict=True) if a is not None)


def test_rows_keep_their_neighbours_at_other_sites_and_their_origin(tmp_path: Path) -> None:
    store = synthetic(tmp_path, [2000, 1300])
    source = StoreSource(store, "a", target="b")
    for batch, both, origin in zip(
        source.batches(64, seed=1), source.aligned(64, seed=1), source.origins(64, seed=1), strict=True
    ):
        assert batch.target is not None
        assert torch.equal(batch.target, (batch.x[:, :2].bfloat16() + 1).float())
        assert torch.equal(both["a"].x, batch.x)
        assert torch.equal(both["b"].x, batch.target)
        assert batch.tokens is not None
        assert torch.equal(origin[:, 0].long(), batch.tokens)
    one, two = (next(source.batches(64, seed=seed)).tokens for seed in (1, 2))
    assert one is not None
    assert two is not None
    assert not torch.equal(one, two)


def test_a_batch_mixes_units_and_windows(tmp_path: Path) -> None:
    source = StoreSource(synthetic(tmp_path, [640] * 8), "a", ring=8)
    tokens = next(source.batches(512, seed=0)).tokens
    assert tokens is not None
    # Eight blocks out of eight units: 8 (1 - (7/8)^8) = 5.3 different ones are expected.
    assert len((tokens // 640).unique()) >= 4


# --- what is written ------------------------------------------------------------------------------------------------


def test_rows_are_the_models_own_at_the_token_that_is_said(tmp_path: Path, loaded: Subject) -> None:
    store = harvested(tmp_path, loaded)
    windows = Windows(store.place)
    documents = list(capture.stream(TEXTS, seed=0))
    source = StoreSource(store, "resid_post.0")
    assert source.d == 16
    assert source.site == Site("transformer.h.0", model="tiny")
    batches = zip(source.batches(50, seed=0), source.origins(50, seed=0), strict=True)
    with capture.Capture(loaded.model, ["transformer.h.0"]) as reading:
        for batch, origin in batches:
            for i in (0, 17, 49):
                token, document, offset, sequence, position = (int(each) for each in origin[i])
                corpus, number = windows.take(torch.tensor([sequence]))
                assert int(number) == document
                assert int(corpus.ids[0, position]) == token
                assert corpus.names == (documents[document].name,)
                ids = loaded.tokenizer(documents[document].text, add_special_tokens=False)["input_ids"]
                assert ids[offset] == token
                (x,) = reading(input_ids=corpus.ids[:, : int(corpus.length)]).values()
                assert torch.allclose(x[0, position], batch.x[i], atol=1e-5)


def test_nothing_is_lost_or_doubled(tmp_path: Path, loaded: Subject) -> None:
    store = harvested(tmp_path, loaded)
    origin = torch.cat([store.read(record, verify=True)["origin"] for record in store.records()])
    windows = Windows(store.place)
    corpus, _ = windows.take(torch.arange(len(windows)))
    assert len(origin) == corpus.n_tokens
    assert len(origin[:, 3:].unique(dim=0)) == len(origin)
    source = StoreSource(store, "mlp_act.1")
    assert len(source) == corpus.n_tokens
    assert source.d == 64


def test_a_memory_of_its_own_for_an_object_store(loaded: Subject, tmp_path: Path) -> None:
    there, here = harvested("memory://harvest", loaded), harvested(tmp_path, loaded)
    assert contents(there.place) == contents(here.place)
    source, other = (StoreSource(store, "resid_post.0", ring=2) for store in (there, here))
    for a, b in zip(source.batches(64, seed=5), other.batches(64, seed=5), strict=True):
        assert torch.equal(a.x, b.x)
    assert there.sweep() == 0
    with pytest.raises(FileNotFoundError, match="there is no manifest.json"):
        Store("memory://nothing")
    with pytest.raises(ValueError, match="cannot be used"):
        capture.place("nosuchthing://a/b")


def test_workers_make_what_one_process_makes(tmp_path: Path, model_folder: Path) -> None:
    named = capture.load(str(model_folder))
    whole = harvested(tmp_path / "one", named)
    policy = Policy(context=16)
    windows = windowed(tmp_path / "two", named, policy)
    store = capture.prepare(
        tmp_path / "two", named, SITES, windows, policy, per_unit=7, batch_tokens=64, dtype=torch.float32
    )
    done = list(capture.fill(store, named, windows, executor=Processes(1)))
    assert done[-1] == store.manifest.n_units
    assert contents(tmp_path / "two") == contents(whole.place)


def test_outliers_are_dropped_at_every_site_and_counted(tmp_path: Path, loaded: Subject) -> None:
    model = make_model("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[7] *= 1000
    odd = dataclasses.replace(loaded, model=model)
    text = ["".join(TEXTS)]
    ids = loaded.tokenizer(text[0], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.transformer.wte.weight[7] /= 1000
        model.transformer.wte.weight[ids[40]] *= 1000
    expected = sum(i == ids[40] for i in ids)
    windows = windowed(tmp_path, odd, Policy(context=16), text)
    store = capture.prepare(tmp_path, odd, SITES, windows, Policy(context=16), per_unit=10**6)
    list(capture.fill(store, odd, windows))
    (record,) = store.records()
    assert record.dropped == {"resid_post.0": expected}
    assert len(record.dropped_norms["resid_post.0"]) == min(expected, 16)
    assert record.rows == len(ids) - expected
    tensors = store.read(record, verify=True)
    assert len(tensors["resid_post.0"]) == len(tensors["mlp_act.1"]) == record.rows
    norms = tensors["resid_post.0"].float().norm(dim=1)
    assert float(norms.max()) < 10 * float(norms.median()) < min(record.dropped_norms["resid_post.0"])
    source = StoreSource(store, "resid_post.0")
    assert source.left_out is not None
    assert source.left_out.tokens is not None
    assert source.left_out.tokens.tolist() == [ids[40]] * expected
    assert float(source.left_out.x.norm(dim=1).min()) > source.limit == store.manifest.limits["resid_post.0"]
    # A store of the format before: it is read, it says nothing of what it did not keep, and is not gone on with.
    older = store.place.read_json("manifest.json") | {"schema": 2}
    del older["limits"]
    store.place.write_json("manifest.json", older)
    before = StoreSource(tmp_path, "resid_post.0")
    assert len(before) == record.rows
    assert before.left_out is None
    with pytest.raises(ValueError, match="schema is 2 there and 3 here"):
        capture.prepare(tmp_path, odd, SITES, windows, Policy(context=16), per_unit=10**6)
    kept = harvested(tmp_path / "all", odd, Policy(context=16, outlier=None), text)
    assert sum(each.rows for each in kept.records()) == len(ids)


def test_the_median_is_of_rows_and_not_of_pads(tmp_path: Path, loaded: Subject) -> None:
    """Short texts in long windows: four in five positions are pads, which are larger than any token, and no row is."""
    model = make_model("gpt2")
    pad = loaded.tokenizer.pad_token_id
    text = ["a few words"] * 40
    embeddings = model.get_input_embeddings().weight
    ids = loaded.tokenizer(text[0], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        embeddings[0 if pad is None else pad] *= 1000
        embeddings[ids[1]] *= 100
    odd = dataclasses.replace(loaded, model=model)
    policy = Policy(context=32)
    windows = windowed(tmp_path, odd, policy, text)
    store = capture.prepare(tmp_path, odd, ["resid_post.0"], windows, policy, per_unit=10**6, dtype=torch.float32)
    list(capture.fill(store, odd, windows))
    (record,) = store.records()
    # Among pads' norms these outliers would have been nothing special.
    assert record.dropped == {"resid_post.0": 40 * ids.count(ids[1])}
    rows = store.read(record, verify=True)["resid_post.0"]
    assert record.mean_square["resid_post.0"] == pytest.approx(float(rows.double().square().sum(1).mean()), rel=1e-6)


def test_memory_does_not_grow_with_the_text(tmp_path: Path, loaded: Subject) -> None:
    """Units come and go, however long the text: at most three live (made, waiting, being written), none at last."""
    policy = Policy(context=16)
    for times in (1, 4):
        windows = windowed(tmp_path / str(times), loaded, policy, ["".join(TEXTS)] * 3 * times)
        store = capture.prepare(
            tmp_path / str(times), loaded, SITES, windows, policy, per_unit=24, batch_tokens=96, dtype=torch.float32
        )
        gc.collect()
        gc.unfreeze()
        # Held to the end of the round: what others left behind is not counted, and its memory not given to new tensors.
        before = [each for each in gc.get_objects() if type(each) is Tensor]
        known = {each.untyped_storage().data_ptr() for each in before}
        # Frozen, the million objects of the packages need not be looked through at every unit.
        gc.freeze()
        peaks = [_bytes_alive(known, windows) for _ in capture.fill(store, loaded, windows)]
        widths = sum(said["d"] for said in store.manifest.sites.values())
        unit = max(record.rows for record in store.records()) * (widths + 5) * 4
        batch = store.manifest.batch_tokens * widths * 4
        assert len(peaks) >= (3 if times == 1 else 12)
        assert max(peaks) <= 3 * unit + batch
        gc.collect()
        assert _bytes_alive(known, windows) == 0, "something of a unit outlives its harvest"
        del before


def _bytes_alive(known: set[int], windows: Windows) -> int:
    """What tensors made since weigh; the windows are mapped files, not memory."""
    mapped = {t.untyped_storage().data_ptr() for shard in windows._open.values() for t in shard.values()}
    live = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in gc.get_objects()
        if type(each) is Tensor
    }
    return sum(size for place, size in live.items() if place not in mapped and place not in known)


# --- faults ---------------------------------------------------------------------------------------------------------


def test_damage_is_found_said_and_mended(tmp_path: Path, loaded: Subject) -> None:
    store = harvested(tmp_path, loaded)
    before = contents(tmp_path)
    files = sorted((tmp_path / "units").glob("*.safetensors"))
    generator = random.Random(0)
    flipped, cut, gone, torn = files[0], files[1], files[2], tmp_path / "units" / "000003.json"
    for _ in range(12):
        whole = flipped.read_bytes()
        place = generator.randrange(8, len(whole))
        flipped.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << generator.randrange(8))]) + whole[place + 1 :])
        assert 0 in store.missing(verify=True), f"a flipped bit in byte {place} of {len(whole)} went unseen"
        with pytest.raises(FormatError, match="has changed since it was written|not a readable safetensors"):
            list(StoreSource(store, "resid_post.0").batches(8, seed=0))
        flipped.write_bytes(whole)
    assert store.missing(verify=True) == []
    flipped.write_bytes(flipped.read_bytes()[:-3] + b"abc")
    cut.write_bytes(cut.read_bytes()[:100])
    gone.unlink()
    torn.write_text('{"unit": 3, "fi')
    assert store.missing(verify=True) == [0, 1, 2, 3]
    with pytest.raises(FormatError, match="lacks 3 of"):
        StoreSource(store, "resid_post.0")
    assert len(StoreSource(store, "resid_post.0", partial=True)) > 0
    windows = Windows(store.place)
    list(capture.fill(store, loaded, windows))
    assert store.missing(verify=True) == []
    assert contents(tmp_path) == before


def test_damaged_text_is_found(tmp_path: Path, loaded: Subject) -> None:
    windows = windowed(tmp_path, loaded, Policy(context=16))
    file = tmp_path / "text" / "000000.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] + b"xxxxx")
    with pytest.raises(FormatError, match="Remove the folder 'text' and text.json"):
        windows.take(torch.tensor([0]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"dtype": torch.bfloat16}, "dtype is 'float32' there and 'bfloat16' here"),
        ({"sites": ["resid_post.0"]}, "sites mlp_act.1 is"),
        ({"model": True}, "weights is 'sha256:"),
        ({"per_unit": 6}, "per_unit is 7 there and 6 here"),
        ({"batch_tokens": 32}, "batch_tokens is 64 there and 32 here"),
        ({"computed": True}, "computed is 'float32' there and 'bfloat16' here"),
        ({"attention": True}, "attention is 'sdpa' there and 'eager' here"),
    ],
)
def test_a_store_of_other_settings_is_refused_by_name(
    tmp_path: Path, loaded: Subject, change: dict[str, Any], sentence: str
) -> None:
    harvested(tmp_path, loaded)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    options: dict[str, Any] = {"per_unit": 7, "batch_tokens": 64, "dtype": torch.float32}
    asked, other = SITES, loaded
    if "sites" in change:
        asked = change["sites"]
    elif "computed" in change:
        other = dataclasses.replace(loaded, model=make_model("gpt2").to(torch.bfloat16))
    elif "attention" in change:
        other = dataclasses.replace(loaded, model=make_model("gpt2"))
        other.model.set_attn_implementation("eager")
    elif "model" in change:
        other = dataclasses.replace(loaded, model=make_model("gpt2"))
        with torch.no_grad():
            other.model.transformer.h[0].mlp.c_fc.weight[0, 0] += 1
    else:
        options |= change
    with pytest.raises(ValueError, match=sentence):
        capture.prepare(tmp_path, other, asked, Windows(capture.place(tmp_path)), Policy(context=16), **options)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_another_policy_or_text_is_refused_by_name(tmp_path: Path, loaded: Subject) -> None:
    windowed(tmp_path, loaded, Policy(context=16))
    with pytest.raises(ValueError, match="another text: policy is"):
        windowed(tmp_path, loaded, Policy(context=16, bos=False))
    with pytest.raises(ValueError, match="source is 'texts' there and 'others' here"):
        windowed(tmp_path, loaded, Policy(context=16), source="others")


def test_foreign_manifests_and_sites(tmp_path: Path, loaded: Subject) -> None:
    store = harvested(tmp_path, loaded)
    with pytest.raises(ValueError, match="several sites; choose one of resid_post.0, mlp_act.1"):
        StoreSource(tmp_path)
    with pytest.raises(ValueError, match="no site 'resid_post.O'. Did you mean resid_post.0"):
        StoreSource(tmp_path, "resid_post.O")
    assert StoreSource(tmp_path, "transformer.h.0").name == "resid_post.0"
    source = StoreSource(tmp_path, "resid_post.0")
    for size in (0, 10**9):
        with pytest.raises(ValueError, match="ask for 1 to"):
            source.batches(size, seed=0)
    with pytest.raises(ValueError, match="the first batch is 0"):
        source.batches_from(-1, 5, seed=0)
    with pytest.raises(ValueError, match="at least 1 unit"):
        StoreSource(tmp_path, "resid_post.0", ring=0)
    with pytest.raises(FileNotFoundError, match="superscope harvest"):
        StoreSource(tmp_path / "nothing")
    manifest = store.place.read_json("manifest.json")
    store.place.write_json("manifest.json", manifest | {"schema": 99})
    with pytest.raises(FormatError, match=r"no manifest of schema 3 \(it says 99\)"):
        Store(tmp_path)
    store.place.write_json("manifest.json", manifest | {"colour": 1})
    with pytest.raises(FormatError, match="unknown key 'colour'"):
        Store(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(FormatError, match="not valid JSON"):
        Store(tmp_path)


def test_a_writer_that_cannot_write_stops_the_harvest(
    tmp_path: Path, loaded: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(context=16)
    windows = windowed(tmp_path, loaded, policy)
    store = capture.prepare(tmp_path, loaded, SITES, windows, policy, per_unit=3)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(OSError, match="No space left"):
        list(capture.fill(store, loaded, windows))
    monkeypatch.undo()
    assert list(capture.fill(store, loaded, windows))[-1] == store.manifest.n_units


def test_two_at_once_into_one_folder(tmp_path: Path, loaded: Subject) -> None:
    alone = harvested(tmp_path / "alone", loaded)
    policy = Policy(context=16)
    windows = windowed(tmp_path / "both", loaded, policy)
    errors: list[BaseException] = []

    def work(mine: Subject) -> None:
        try:
            store = capture.prepare(
                tmp_path / "both", mine, SITES, windows, policy, per_unit=7, batch_tokens=64, dtype=torch.float32
            )
            list(capture.fill(store, mine, Windows(store.place)))
        except BaseException as error:
            errors.append(error)

    models = [dataclasses.replace(loaded, model=make_model("gpt2")) for _ in range(2)]
    threads = [threading.Thread(target=work, args=(mine,)) for mine in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert contents(tmp_path / "both") == contents(alone.place)
    assert Store(tmp_path / "both").missing(verify=True) == []


def test_rows_of_dead_writers_are_swept_and_of_living_ones_not(tmp_path: Path, loaded: Subject) -> None:
    store = harvested(tmp_path, loaded)
    for name, age in (("dead", 7200), ("living", 5)):
        file = tmp_path / "units" / f"000000-{name}.safetensors"
        file.write_bytes(b"rows")
        os.utime(file, (time.time() - age,) * 2)
    assert store.sweep() == 1
    assert not (tmp_path / "units" / "000000-dead.safetensors").exists()
    assert (tmp_path / "units" / "000000-living.safetensors").exists()
    assert store.missing(verify=True) == []


def test_a_unit_is_a_function_of_its_number(tmp_path: Path, loaded: Subject) -> None:
    store = harvested(tmp_path, loaded)
    windows = Windows(store.place)
    for unit in (2, 0):
        tensors, _ = make_unit(store, loaded, windows, unit)
        record = store.record(unit)
        assert record is not None
        assert hash_tensors(tensors, preferred_hash()) == record.hash
    assert weights_hash(loaded.model) == weights_hash(make_model("gpt2"))


def test_sha256_where_there_is_no_xxhash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = synthetic(tmp_path / "fast", [100])
    monkeypatch.setitem(sys.modules, "xxhash", None)
    assert preferred_hash() == "sha256"
    plain = synthetic(tmp_path / "plain", [100])
    assert plain.missing(verify=True) == []
    assert plain.records()[0].hash.startswith("sha256:")
    if store.manifest.hashed == "xxh3":
        with pytest.raises(ModuleNotFoundError, match="install xxhash"):
            store.missing(verify=True)
    with pytest.raises(FormatError, match="no hash 'md5'"):
        hash_tensors({}, "md5")


Server = Callable[..., str]


@pytest.fixture(scope="module")
def server(model_folder: Path, text_folder: Path) -> Iterator[Server]:
    """Runs harvests into a folder, the first killed after so many seconds; how they ended."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killed_harvest.py")), str(model_folder), str(text_folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    into, out = process.stdin, process.stdout
    assert out.readline().strip() == "ready"

    def run(folder: Path, after: float | None, at_once: int = 1) -> str:
        into.write(f"{folder}\t{'never' if after is None else after}\t{at_once}\n")
        into.flush()
        return out.readline().strip()

    yield run
    into.close()
    process.wait(30)
    out.close()


def kill_and_resume(run: Server, tmp_path: Path, kills: int, seed: int) -> None:
    began = time.monotonic()
    assert run(tmp_path / "whole", None) == "ended 0"
    length = time.monotonic() - began
    whole = contents(tmp_path / "whole")
    assert len(whole) >= 8
    generator = random.Random(seed)
    killed, trial = 0, 0
    while killed < kills:
        folder = tmp_path / f"trial{trial}"
        trial += 1
        assert trial < 10 * kills, "the harvest ends before it can be killed"
        # Up to three deaths of one harvest, each anywhere in what is left of it.
        for _ in range(3):
            killed += run(folder, generator.uniform(0, length)) == "killed"
            if (folder / "manifest.json").exists():
                store = Store(folder)
                for record in store.records():
                    assert store.is_whole(record), "a record stands beside rows that are not its own"
        assert run(folder, None) == "ended 0"
        assert contents(folder) == whole
        assert Store(folder).missing(verify=True) == []
        assert (folder / "text.json").read_bytes() == (tmp_path / "whole" / "text.json").read_bytes()


def test_killed_harvests_resume_to_the_same_store(server: Server, tmp_path: Path) -> None:
    kill_and_resume(server, tmp_path, kills=4, seed=0)


@pytest.mark.slow
def test_many_killed_harvests_resume_to_the_same_store(server: Server, tmp_path: Path) -> None:
    kill_and_resume(server, tmp_path, kills=40, seed=1)


def made(folder: Path) -> dict[str, list[int]]:
    """The units that each process made."""
    found: dict[str, list[int]] = {}
    for line in Path(f"{folder}.made").read_text().splitlines():
        process, unit = line.split()
        found.setdefault(process, []).append(int(unit))
    return found


def test_two_harvests_at_once_share_the_units(server: Server, tmp_path: Path) -> None:
    assert server(tmp_path / "shared", None, 2) == "ended 0, ended 0"
    units = made(tmp_path / "shared")
    assert len(units) == 2, "one of them did all the work"
    assert sorted(itertools.chain(*units.values())) == list(range(Store(tmp_path / "shared").manifest.n_units))
    assert not list((tmp_path / "shared").glob("units/*.claim"))


def survive(server: Server, tmp_path: Path, kills: int, seed: int) -> None:
    assert server(tmp_path / "whole", None) == "ended 0"
    whole = contents(tmp_path / "whole")
    generator = random.Random(seed)
    killed = trial = 0
    while killed < kills:
        folder = tmp_path / f"shared{trial}"
        trial += 1
        assert trial < 10 * kills, "the harvest ends before it can be killed"
        how = server(folder, generator.uniform(0.02, 0.25), 2)
        killed += how == "killed, ended 0"
        assert how in ("killed, ended 0", "ended 0, ended 0")
        assert contents(folder) == whole
        # Each unit stands once; the dead one may not have come to say what it had just made.
        units = sorted(itertools.chain(*made(folder).values()))
        assert len(set(units)) == len(units) >= len(whole) - 1


def test_who_is_killed_leaves_its_units_to_the_other(server: Server, tmp_path: Path) -> None:
    survive(server, tmp_path, kills=1, seed=0)


@pytest.mark.slow
def test_whoever_is_killed_leaves_its_units_to_the_other(server: Server, tmp_path: Path) -> None:
    survive(server, tmp_path, kills=20, seed=1)


def test_workers_of_two_harvests_share_the_units(
    tmp_path: Path, loaded: Subject, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(context=16)
    windows = windowed(tmp_path, loaded, policy)
    loaded = capture.load(str(model_folder))
    store = capture.prepare(tmp_path, loaded, SITES, windows, policy, per_unit=3)
    write, units = Store.write, []

    def noted(store: Store, unit: int, *tensors: Any, **facts: Any) -> Record:
        units.append(unit)
        return write(store, unit, *tensors, **facts)

    monkeypatch.setattr(Store, "write", noted)
    release = store.claim(2)
    assert release is not None
    assert store.claim(2) is None
    # The other command makes it while ours waits for it.
    tensors, facts = make_unit(store, loaded, windows, 2)
    other = threading.Timer(0.5, lambda: (write(store, 2, tensors, **facts), release()))
    other.start()
    assert list(capture.fill(store, loaded, windows, executor=Inline()))[-1] == store.manifest.n_units
    other.join()
    assert sorted(units) == [unit for unit in range(store.manifest.n_units) if unit != 2]
