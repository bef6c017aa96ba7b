"""Several processes train the dictionary that one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from superscope.core import FormatError
from superscope.dictionaries import SAE, MatchingPursuit, TopK, load, train
from superscope.dictionaries.parallel import SHARDABLE, Mesh, MeshExchange, mesh, read_sharded, shard
from superscope.testing import example

from .two import SETTINGS, D, K, N, rows

HERE = Path(__file__).parent
ROOT = str(HERE.parents[2])
NAMES = [kind.__name__ for kind in SHARDABLE]


def run(processes: int, out: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The script `two` on some processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*command, str(HERE / "two.py"), "--out", str(out), *arguments],
        env=os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def alone(kind: type[SAE], steps: int) -> tuple[SAE, torch.Tensor]:
    sae = example(kind, d=D, n=N, k=K)
    numbers = [
        [step.loss, *(step.numbers[key] for key in ("fraction_variance_unexplained", "l0", "dead"))]
        for step in train(sae, rows(), steps=steps, **SETTINGS)
    ]
    return sae, torch.tensor(numbers, dtype=torch.float64)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every shardable architecture on two shards and on two groups; 13 latents, so that shards are unequal."""
    places = {}
    for title, groups in (("shards", "1"), ("groups", "2")):
        places[title] = tmp_path_factory.mktemp(title)
        run(2, places[title], "--groups", groups, "--architectures", *NAMES)
    return places


@pytest.mark.parametrize("title", ["shards", "groups"])
@pytest.mark.parametrize("kind", SHARDABLE, ids=NAMES)
def test_two_processes_make_the_steps_of_one(kind: type[SAE], title: str, runs: dict[str, Path]) -> None:
    """Losses, numbers and, after eight steps of Adam, every weight; dead latents' losses included."""
    sae, numbers = alone(kind, 8)
    folder = runs[title] / kind.__name__
    found = torch.load(folder / "numbers.pt", weights_only=True)
    torch.testing.assert_close(found, numbers, rtol=1e-5, atol=1e-5)
    together = load(folder / "sae").state_dict()
    for name, tensor in sae.state_dict().items():
        torch.testing.assert_close(
            together[name], tensor, rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("kind", [TopK, pytest.param(SHARDABLE[1], marks=pytest.mark.slow)], ids=lambda k: k.__name__)
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, 3)])
def test_a_checkpoint_resumes_at_another_world_size(kind: type[SAE], first: int, then: int, tmp_path: Path) -> None:
    arguments = ("--architectures", kind.__name__, "--save")
    run(first, tmp_path, *arguments, "--stop", "5")
    run(then, tmp_path, *arguments)
    sae, numbers = alone(kind, 8)
    found = torch.load(tmp_path / kind.__name__ / "numbers.pt", weights_only=True)
    torch.testing.assert_close(found, numbers[5:], rtol=1e-5, atol=1e-5)
    together = load(tmp_path / kind.__name__ / "sae").state_dict()
    for name, tensor in sae.state_dict().items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-4)


def test_a_killed_rank_is_named_and_leaves_a_checkpoint_that_goes_on(tmp_path: Path) -> None:
    arguments = ("--architectures", "TopK", "--save")
    done = run(2, tmp_path, *arguments, "--die", "4", check=False)
    assert done.returncode != 0
    assert "another process of the mesh was lost" in done.stderr
    run(2, tmp_path, *arguments)
    sae, _ = alone(TopK, 8)
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


def here(shards: int = 1) -> Mesh:
    return Mesh(1, shards, 0, 0, None, None)


def test_what_does_not_shard_says_so() -> None:
    with pytest.raises(TypeError, match="MatchingPursuit cannot be shared among devices: .* These can: AbsTopK"):
        shard(MatchingPursuit(4, 8, k=2), here())
    with pytest.raises(ValueError, match="2 latents are fewer than 3 shards"):
        shard(TopK(4, 2, k=1), here(3))
    with pytest.raises(ValueError, match="not started by torchrun"):
        mesh()


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
