"""Several processes train the dictionary that one does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from superscope.core import FormatError
from superscope.dictionaries import (
    ARCHITECTURES,
    SAE,
    TRANSCODERS,
    MatchingPursuit,
    TopK,
    load,
    train,
)
from superscope.dictionaries.checkpoint import save_state
from superscope.dictionaries.parallel import Mesh, MeshExchange, launched, mesh, newest, read_sharded, shard
from superscope.testing import example

from .conftest import Processes, wait_for
from .two import NUMBERS, SETTINGS, WIDE, D, K, N, make_shy, rows, watch_gradients, wide_settings

SHARDABLE = [kind for kind in ARCHITECTURES if kind.shards]
NAMES = [kind.__name__ for kind in SHARDABLE]


def alone(
    kind: type[SAE], steps: int, dtype: torch.dtype = torch.float32, **changed: Any
) -> tuple[SAE, torch.Tensor, list[dict[str, torch.Tensor]]]:
    sae = example(kind, d=D, n=N, k=K).to(dtype)
    training = train(sae, rows(dtype=dtype), steps=steps, **(SETTINGS | changed))
    make_shy(training)
    gradients = watch_gradients(training)
    numbers = [[step.loss, *(step.numbers[key] for key in NUMBERS)] for step in training]
    return sae, torch.tensor(numbers, dtype=torch.float64), gradients


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> dict[str, Path]:
    """Every shardable architecture on two shards and on two groups; 13 latents, so that shards are unequal."""
    places = {}
    for title, groups in (("shards", "1"), ("groups", "2")):
        places[title] = tmp_path_factory.mktemp(title)
        processes.run(2, places[title], "--groups", groups, "--double", "--architectures", *NAMES)
    return places


@pytest.mark.parametrize("title", ["shards", "groups"])
@pytest.mark.parametrize("kind", SHARDABLE, ids=NAMES)
def test_two_processes_make_the_steps_of_one(kind: type[SAE], title: str, runs: dict[str, Path]) -> None:
    """Losses, numbers, the gradients of every parameter at every step, and after eight steps of Adam every weight.

    In float64: what float32 rounds away is more or less by processor, and some gradients magnify it (PAnnealed's, of a
    power below 1, to 1.5e-5 of the largest on one).
    """
    sae, numbers, gradients = alone(kind, 8, torch.float64)
    folder = runs[title] / kind.__name__
    found = torch.load(folder / "numbers.pt", weights_only=True)
    torch.testing.assert_close(found, numbers, rtol=1e-7, atol=1e-7)
    _, without, _ = alone(kind, 8, torch.float64, auxiliary=0.0)
    assert not torch.equal(without, numbers), "the loss of dead latents was never felt, and so not compared"
    parts = [torch.load(folder / f"gradients{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert len(gradients) == len(parts[0]) == len(parts[1]) == 8
    for step, wanted in enumerate(gradients):
        assert set(wanted) == {name for name, _ in sae.named_parameters()}
        for name, gradient in wanted.items():
            first, second = (part[step][name] for part in parts)
            whole = torch.cat([first, second]) if title == "shards" and name != "bias" else first
            if name == "bias" or title == "groups":
                assert torch.equal(first, second), f"{name} differs between processes at step {step + 1}"
            # Of the largest entry: a bound that small gradients cannot slip through.
            size = float(gradient.abs().max())
            assert float((whole - gradient).abs().max()) <= 1e-7 * size, f"gradient of {name} at step {step + 1}"
    together = load(folder / "sae").state_dict()
    for name, tensor in sae.state_dict().items():
        torch.testing.assert_close(
            together[name], tensor, rtol=1e-7, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_wide_dictionaries_make_the_steps_of_one_too(tmp_path: Path, processes: Processes) -> None:
    """What an architecture guesses from some rows must not depend on how many latents a shard has.

    Two steps: from the third on Adam magnifies rounding among a thousand latents, to 5e-5 of a JumpReLU's loss.
    """
    processes.run(2, tmp_path, "--wide", "--steps", "2", "--architectures", *NAMES)
    for kind in SHARDABLE:
        training = train(example(kind, d=D, n=WIDE, k=K), rows(4096), steps=2, **wide_settings())
        make_shy(training)
        wanted = [[step.loss, *(step.numbers[key] for key in NUMBERS)] for step in training]
        found = torch.load(tmp_path / kind.__name__ / "numbers.pt", weights_only=True)
        torch.testing.assert_close(
            found,
            torch.tensor(wanted, dtype=torch.float64),
            rtol=1e-5,
            atol=1e-5,
            msg=lambda text, k=kind: f"{k.__name__}: {text}",
        )


@pytest.mark.parametrize("kind", [TopK, SHARDABLE[1]], ids=lambda k: k.__name__)
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, 3)])
def test_a_checkpoint_resumes_at_another_world_size(
    kind: type[SAE], first: int, then: int, tmp_path: Path, processes: Processes
) -> None:
    arguments = ("--architectures", kind.__name__, "--save")
    processes.run(first, tmp_path, *arguments, "--stop", "5")
    processes.run(then, tmp_path, *arguments)
    sae, numbers, _ = alone(kind, 8)
    found = torch.load(tmp_path / kind.__name__ / "numbers.pt", weights_only=True)
    torch.testing.assert_close(found, numbers[5:], rtol=1e-5, atol=1e-5)
    together = load(tmp_path / kind.__name__ / "sae").state_dict()
    for name, tensor in sae.state_dict().items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-4)


def test_a_state_of_one_process_is_taken_up_in_shards(tmp_path: Path) -> None:
    """`newest` cuts it as `shard` cuts the weights, and prefers what is further on."""
    training = train(TopK(D, N, k=K), rows(), steps=8, **SETTINGS)
    next(training)
    state = training.state()
    save_state(tmp_path / "state", state)
    assert newest(tmp_path, None, 0, N) is None
    part = newest(tmp_path, tmp_path / "state", 4, 9)
    assert part is not None
    assert part.facts == state.facts
    for name, tensor in state.tensors.items():
        whole = tensor.ndim == 0 or "bias" in name.split(".")
        assert torch.equal(part.tensors[name], tensor if whole else tensor[4:9]), name


def test_a_killed_rank_is_named_and_leaves_a_checkpoint(tmp_path: Path, processes: Processes) -> None:
    outcome = processes.run(2, tmp_path, "--architectures", "TopK", "--save", "--die", "4", check=False)
    assert outcome.codes == [1, -signal.SIGKILL]
    assert "ConnectionError: Step 5: another process of the mesh was lost" in outcome.errors[0]
    assert read_sharded(tmp_path / "TopK" / "checkpoint", 0, N).facts["done"] == 4


def test_a_slow_rank_is_named_and_its_checkpoint_goes_on(tmp_path: Path, processes: Processes) -> None:
    arguments = ("--architectures", "TopK", "--save")
    children = processes.begin(2, tmp_path, *arguments, "--sleep", "4", "--minutes", "0.03")
    said = tmp_path / "err0"
    wait_for(lambda: said.exists() and "was lost or is too slow" in said.read_text())
    os.kill(children[1], signal.SIGKILL)
    outcome = processes.end()
    assert outcome.codes == [1, -signal.SIGKILL]
    assert "ConnectionError: Step 5: another process of the mesh was lost or is too slow" in outcome.errors[0]
    assert "they go on from the last checkpoint" in outcome.errors[0]
    processes.run(2, tmp_path, *arguments)
    sae, _, _ = alone(TopK, 8)
    for name, tensor in load(tmp_path / "TopK" / "sae").state_dict().items():
        torch.testing.assert_close(tensor, sae.state_dict()[name], rtol=1e-4, atol=1e-4)
    checkpoint = tmp_path / "TopK" / "checkpoint"
    listed = sorted(file.name for file in checkpoint.glob("step-*"))
    assert listed == [f"step-00000008-shard-000{i}-of-0002.safetensors" for i in (0, 1)]
    damaged = checkpoint / listed[1]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(FormatError, match="missing or has changed since it was written"):
        read_sharded(checkpoint, 0, N)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_two_ranks_lose_no_more_than_a_step(
    kills: int, tmp_path: Path, processes: Processes
) -> None:
    """Either rank, with signal 9, at moments drawn at random; the other says so and ends; begun again, the run goes on
    from the last checkpoint and ends with the weights, to the bit, of one that was left alone."""
    arguments = ("--architectures", "TopK", "--save", "--steps", str(18 * kills), "--minutes", "10")
    checkpoint = tmp_path / "cut" / "TopK" / "checkpoint"
    random = torch.Generator().manual_seed(7)
    done, moments = 0, set()
    for kill in range(kills):
        children = processes.begin(2, tmp_path / "cut", *arguments)
        out = tmp_path / "cut" / "out0"
        # Some lines on, of which each is a step; then anywhere within a step or a checkpoint.
        lines = int(torch.randint(1, 12, (), generator=random))
        wait_for(lambda out=out, lines=lines: out.exists() and out.read_text().count("\n") >= lines)
        time.sleep(0.02 * float(torch.rand((), generator=random)))
        victim = int(torch.randint(2, (), generator=random))
        os.kill(children[victim], signal.SIGKILL)
        outcome = processes.end()
        assert outcome.codes[victim] == -signal.SIGKILL, f"kill {kill}: the run had ended; make it longer"
        assert outcome.codes[1 - victim] == 1
        assert "another process of the mesh was lost or is too slow" in outcome.errors[1 - victim], outcome.errors
        if (checkpoint / "checkpoint.json").exists():
            now = read_sharded(checkpoint, 0, N).facts["done"]
            assert now >= done
            done = now
            moments.add(done)
    assert len(moments) > kills / 2, "the kills met too few moments of the run"
    processes.run(2, tmp_path / "cut", *arguments)
    processes.run(2, tmp_path / "whole", *arguments)
    cut, whole = (load(tmp_path / title / "TopK" / "sae").state_dict() for title in ("cut", "whole"))
    for name, tensor in whole.items():
        assert torch.equal(cut[name], tensor), name
    left = sorted(file.name for file in checkpoint.iterdir())
    assert len(left) == 3, left


def here(shards: int = 1) -> Mesh:
    return Mesh(1, shards, 0, 0, None, None)


@pytest.mark.parametrize(
    "kind", [k for k in (*ARCHITECTURES, *TRANSCODERS) if k not in SHARDABLE], ids=lambda k: k.__name__
)
def test_what_does_not_shard_says_so(kind: type[SAE]) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} cannot be shared among devices: .* These can: AbsTopK"):
        shard(example(kind), here())


def test_what_no_mesh_can_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MatchingPursuit not in SHARDABLE
    monkeypatch.delenv("RANK", raising=False)
    assert not launched()
    with pytest.raises(ValueError, match="2 latents are fewer than 3 shards"):
        shard(TopK(4, 2, k=1), here(3))
    with pytest.raises(ValueError, match="not started by torchrun"):
        mesh()
    with pytest.raises(ValueError, match="minutes must be positive and finite; got 0"):
        mesh(minutes=0.0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched()


def test_a_shard_holds_its_rows() -> None:
    sae = TopK(4, 7, k=2)
    parts = [shard(sae, Mesh(1, 3, 0, index, None, None)) for index in range(3)]
    assert torch.equal(torch.cat([part.atoms for part in parts]), sae.atoms)
    assert [part.n for part in parts] == [2, 2, 3]
    assert all(torch.equal(part.bias, sae.bias) for part in parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radix_search_finds_the_kth_largest(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, so that sums over processes are what each has; negative values, ties and zeros among them."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda *arguments, **options: None)
    found = MeshExchange(here(), 0)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(500, generator=generator, dtype=dtype)
    values[:50], values[50:60] = values[100], 0.0
    for k in (1, 2, 40, 250, 499, 500):
        assert found.threshold(values, k) == float(values.topk(k).values[-1])
    assert found.threshold(values, 501) == float("-inf")
