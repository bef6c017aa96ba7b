"""The script that makes the pocket model: parts obey their formulas, a stopped training goes on as if never stopped."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.capture import pocket

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "train_pocket.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_pocket", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_pocket"] = module  # dataclasses look their module up there
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # the script sets it for itself; undone here
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recipe(script: ModuleType) -> object:
    """A training of eight steps, small enough to repeat."""
    return script.Recipe(
        "pocket", n_embd=8, n_layer=1, n_head=2, token_budget=8 * 2 * 256, rows=2, topic_rows=1, warmup_steps=2
    )


def packed(gram: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(gram[-8:], "big"))


@settings(max_examples=30, deadline=None)
@given(
    train=st.lists(st.binary(min_size=1, max_size=60).map(lambda b: b.replace(b"\0", b"a")), min_size=1, max_size=4),
    order=st.integers(1, 8),
    context=st.binary(min_size=7, max_size=7),
)
def test_byte_model_is_a_distribution(script: ModuleType, train: list[bytes], order: int, context: bytes) -> None:
    model = script.ByteModel(train, order)
    seen = (b"\0" * 8 + train[0])[: 7 + len(train[0])][-7:]
    for before in (context, seen, b"\0" * 7):
        grams = np.array([packed(before + bytes([byte])) for byte in range(256)], dtype=np.uint64)
        p = model.probabilities(grams)
        assert p.min() >= 0
        assert p.sum() == pytest.approx(1, abs=1e-9)


def test_byte_model_by_hand(script: ModuleType) -> None:
    # "aab": grams \0a, aa, ab, each once, so D_2 = 3 / (3 + 0) = 1 and everything backs off. One byte: a has the
    # predecessors \0 and a, b has a: counts 2 and 1, D_1 = 1 / (1 + 2) and p_1(a) = (2 - 1/3) / 3 + (1/3) (2/3) / 256.
    model = script.ByteModel([b"aab"], 2)
    p = model.probabilities(np.array([packed(b"aa"), packed(b"ab"), packed(b"zz")], dtype=np.uint64))
    rest = (1 / 3) * 2 / 3 / 256
    np.testing.assert_allclose(p, [5 / 9 + rest, 2 / 9 + rest, rest])
    assert model.bits(b"a") == pytest.approx(-math.log2(5 / 9 + rest))


def test_byte_model_learns_what_repeats(script: ModuleType) -> None:
    document = b"the same line again\n" * 50
    long, short = (script.ByteModel([document], order).bits(document) for order in (5, 1))
    assert long < 0.1 * short
    with pytest.raises(ValueError, match="order is 9"):
        script.ByteModel([document], 9)


def test_conditional_size_sees_repetition(script: ModuleType) -> None:
    noise = np.random.default_rng(0).integers(1, 256, 5000, dtype=np.uint8).tobytes()
    sizes = script.compressed(noise, noise[:4000])
    assert sizes["xz -9"]["alone"] > 7.9
    assert sizes["xz -9"]["conditional"] < 0.5


def test_a_pass_visits_every_piece_once(script: ModuleType) -> None:
    tokens = torch.arange(256 * 11 + 40)
    windows = script.Windows(tokens, seed=3)
    starts = [int(windows.row(i)[0]) for i in range(3 * windows.n_pieces)]
    for epoch in range(3):
        inside = sorted(starts[epoch * windows.n_pieces : (epoch + 1) * windows.n_pieces])
        assert {after - before for before, after in pairwise(inside)} == {256}
    assert len({start % 256 for start in starts}) == 3, "each pass cuts elsewhere"
    again = script.Windows(tokens, seed=3)
    order = np.random.default_rng(0).permutation(len(starts))
    assert all(torch.equal(again.row(int(i)), tokens[starts[i] : starts[i] + 257]) for i in order)
    assert Counter(starts) != Counter(int(script.Windows(tokens, seed=4).row(i)[0]) for i in range(len(starts)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_one_gradient(script: ModuleType, recipe: SimpleNamespace, threads: int) -> None:
    model = recipe.model().train()
    batch = torch.randint(4096, (6, 257), generator=torch.Generator().manual_seed(0))
    expected = model(batch[:, :-1], labels=None).logits.flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(expected, batch[:, 1:].flatten())
    reference = torch.autograd.grad(loss, list(model.parameters()))
    found = script.backward(model, batch, ThreadPoolExecutor(threads), threads)
    assert found == pytest.approx(loss.item(), rel=1e-5)
    for weight, gradient in zip(model.parameters(), reference, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6)


def test_snapshots_are_log_spaced_and_end_at_the_end(script: ModuleType) -> None:
    steps = script.snapshot_steps(script.TWIN)
    assert len(steps) == 8
    assert (steps[0], steps[-1]) == (0, script.TWIN.steps())
    assert script.snapshot_steps(script.POCKET) == ()


def test_progress_takes_the_further_of_tokens_and_clock(script: ModuleType, recipe: SimpleNamespace) -> None:
    progress = script.Progress({}, "", step=2, seconds=30.0)
    assert progress.fraction(recipe) == 2 / 8
    assert replace(progress, minutes=1.0).fraction(recipe) == 0.5
    assert replace(progress, minutes=10.0).fraction(recipe) == 2 / 8
    assert replace(progress, step=99).fraction(recipe) == 1


def test_killed_and_resumed_is_never_killed(
    script: ModuleType, recipe: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = torch.randint(4096, (4000,), generator=torch.Generator().manual_seed(0))
    settled = (tokens, tokens[:1200], tokens[:1000], "hash")
    straight = script.train(recipe, tmp_path / "straight", *settled)
    assert (straight.step, straight.finished) == (8, True)

    class Killed(RuntimeError):
        pass

    real, left = script.backward, [3]

    def failing(*arguments: object) -> float:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(*arguments)

    clock = iter(range(0, 10**6, 100))  # every step is more than a minute after the last, so each is saved
    monkeypatch.setattr(script, "time", SimpleNamespace(monotonic=lambda: next(clock), process_time=time.process_time))
    monkeypatch.setattr(script, "backward", failing)
    for _ in range(2):
        left[0] = 3
        with pytest.raises(Killed):
            script.train(recipe, tmp_path / "stopped", *settled)
    left[0] = 3
    assert script.train(recipe, tmp_path / "stopped", *settled).step == 8
    ends = [script.recipe_of(straight).model() for _ in range(2)]
    for end, name in zip(ends, ("straight", "stopped")):
        script.load_state(tmp_path / name / "state.safetensors", end)
    for name, weight in ends[0].state_dict().items():
        assert torch.equal(weight, ends[1].state_dict()[name]), name
    assert not list(tmp_path.rglob("*.part"))

    with pytest.raises(ValueError, match="another recipe or text"):
        script.train(replace(recipe, seed=1), tmp_path / "stopped", *settled)


def test_one_command_makes_both_folders(script: ModuleType, recipe: SimpleNamespace, tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.mkdir()
    words = [f"word{i}" for i in range(300)]
    generator = np.random.default_rng(0)
    names = [f"{i}.txt" for i in range(400)]
    for name in [name for name in names if not pocket.is_held_out(name)][:12] + [
        name for name in names if pocket.is_held_out(name)
    ][:3]:
        (source / name).write_text(" ".join(generator.choice(words, 900)))
    twin = replace(recipe, name="twin", snapshots=3, token_budget=12 * 2 * 256)
    task = script.TrainPocket(source, tmp_path / "build", tmp_path / "out", recipe, twin, threads=1)
    task.run()

    model = tmp_path / "out" / "model"
    assert {file.name for file in model.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "MODEL_CARD.md",
        "results.json",
        "SHA256",
    }
    results = json.loads((model / "results.json").read_text("utf-8"))
    assert results["pocket"]["steps"] == 8
    assert results["bits_per_byte"]["n_bytes"] == results["text"]["held_out_bytes"] > 0
    assert [row["after_block"] for row in results["residual"]] == [0, 1]
    assert (model / "MODEL_CARD.md").read_text("utf-8") == script.card(results)
    index = json.loads((tmp_path / "out" / "history" / "index.json").read_text("utf-8"))
    assert [row["step"] for row in index["checkpoints"]] == [0, 10, 12]
    state = (tmp_path / "build" / "pocket" / "state.safetensors").stat().st_mtime_ns
    task.run()
    assert (tmp_path / "build" / "pocket" / "state.safetensors").stat().st_mtime_ns == state, "what is done stays done"


def test_shipped_card_is_the_scripts(script: ModuleType) -> None:
    results = json.loads((pocket.folder() / "results.json").read_text("utf-8"))
    assert (pocket.folder() / "MODEL_CARD.md").read_text("utf-8") == script.card(results)


def test_control_zero_is_where_training_began(script: ModuleType) -> None:
    fresh = script.POCKET.model().state_dict()
    for name, weight in pocket.control(0).state_dict().items():
        assert torch.equal(weight, fresh[name]), name
