"""A training that was interrupted ends with the weights of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from superscope.capture import MemorySource
from superscope.core import Activations, ActivationSource, Dictionary, FormatError
from superscope.dictionaries import ARCHITECTURES, SAE, Archetypal, MatchingPursuit, TopK, train
from superscope.dictionaries.checkpoint import load_state, save_state
from superscope.dictionaries.step.adam import Adam
from superscope.testing import example


def rows(count: int = 330, d: int = 6) -> MemorySource:
    return MemorySource(torch.randn(count, d, generator=torch.Generator().manual_seed(0)) + 1)


SETTINGS = {"steps": 14, "batch": 64, "lr": 0.01, "dead_after": 200, "auxiliary_k": 2, "seed": 3}


def weights(sae: SAE) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in sae.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.__name__)
@pytest.mark.parametrize("after", [1, 7, 13])
def test_a_resumed_training_is_bit_equal(architecture: type[SAE], after: int, tmp_path: Path) -> None:
    """5 batches an epoch: the interruptions fall into the first, the second and the last of three epochs."""
    whole = example(architecture, d=6, n=12, k=2)
    losses = [step.loss for step in train(whole, rows(), **SETTINGS)]
    begun = example(architecture, d=6, n=12, k=2)
    training = train(begun, rows(), **SETTINGS)
    for _ in range(after):
        next(training)
    save_state(tmp_path / "state", training.state())
    resumed = example(architecture, d=6, n=12, k=2)
    rest = train(resumed, rows(), **SETTINGS).restore(load_state(tmp_path / "state"))
    assert [step.loss for step in rest] == losses[after:]
    same(weights(resumed), weights(whole))


def test_resampling_and_clipping_resume_too(tmp_path: Path) -> None:
    settings = SETTINGS | {"resample_every": 4, "dead_after": 64, "auxiliary": 0, "clip": 1e-3, "clip_by": "row"}
    whole, begun, resumed = (TopK(6, 40, k=1) for _ in range(3))
    list(train(whole, rows(), **settings))
    training = train(begun, rows(), **settings)
    for _ in range(6):
        next(training)
    save_state(tmp_path / "state", training.state())
    list(train(resumed, rows(), **settings).restore(load_state(tmp_path / "state")))
    same(weights(resumed), weights(whole))


def test_resampling_goes_by_what_an_architecture_learns() -> None:
    settings = SETTINGS | {"resample_every": 4, "dead_after": 64, "auxiliary": 0}
    # Its encoder is its dictionary: the other one has no gradients and no moments.
    pursuit = MatchingPursuit(6, 40, k=1)
    list(train(pursuit, rows(), **settings))
    assert bool(pursuit.atoms.isfinite().all())
    with pytest.raises(ValueError, match="those of Archetypal are made of other parameters. Leave it at 0"):
        train(Archetypal(6, 40, k=1, candidates=20), rows(), **settings)


def test_taking_the_state_changes_nothing() -> None:
    one, other = TopK(6, 12, k=2), TopK(6, 12, k=2)
    list(train(one, rows(), **SETTINGS))
    training = train(other, rows(), **SETTINGS)
    for _ in training:
        training.state()
    same(weights(one), weights(other))


def test_resampling_revives_the_dead() -> None:
    sae = TopK(6, 40, k=1)
    with torch.no_grad():
        sae.encoder_bias[:10] = -100
    settings = SETTINGS | {"steps": 12, "resample_every": 4, "dead_after": 128, "auxiliary": 0, "initialise": False}
    dead = [step.numbers["dead"] for step in train(sae, rows(), **settings)]
    assert dead[3] >= 10
    assert float(sae.encoder_bias.detach().min()) > -1
    assert all(torch.isfinite(tensor).all() for tensor in sae.state_dict().values())


@pytest.mark.parametrize("by", ["global", "row"])
def test_clipped_gradients_are_no_longer_than_asked(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = TopK(6, 12, k=2)
    lengths: list[float] = []
    step = Adam.step

    def watched(self: Adam) -> object:
        gradients = [p.grad for p in sae.parameters() if p.grad is not None]
        if by == "global":
            lengths.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        else:
            lengths.extend(float(g.norm(dim=-1).max() if g.ndim > 1 else g.abs().max()) for g in gradients)
        return step(self)

    monkeypatch.setattr(Adam, "step", watched)
    list(train(sae, rows(), **SETTINGS, clip=1e-3, clip_by=by))
    assert max(lengths) <= 1e-3 * (1 + 1e-5)
    assert max(lengths) > 0.99e-3


class TruthKnown(ActivationSource):
    d = 4
    dictionary = Dictionary(torch.eye(4))

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        random = torch.Generator().manual_seed(seed)
        while True:
            yield Activations(torch.eye(4)[torch.randint(4, (size,), generator=random)])


def test_the_truth_is_watched_where_it_is_known() -> None:
    sae = TopK(4, 8, k=1)
    training = train(sae, TruthKnown(), steps=101, batch=64, lr=0.03)
    steps = [next(training) for _ in range(50)]
    by_hand = float(sae.atoms.detach().amax(0).mean())
    steps += list(training)
    watched = {step.index: step.numbers["mmcs"] for step in steps if "mmcs" in step.numbers}
    assert list(watched) == [1, 51, 101]
    assert watched[51] == pytest.approx(by_hand)
    assert watched[1] < watched[101]


def test_states_of_other_trainings_are_refused(tmp_path: Path) -> None:
    training = train(TopK(6, 12, k=2), rows(), **SETTINGS)
    with pytest.raises(ValueError, match="nothing has been trained yet"):
        training.state()
    next(training)
    state = training.state()
    for sae, settings, what in (
        (TopK(6, 12, k=3), SETTINGS, "k was 2 and is 3"),
        (
            example(next(a for a in ARCHITECTURES if a.__name__ == "BatchTopK"), d=6, n=12, k=2),
            SETTINGS,
            "architecture was 'TopK'",
        ),
        (TopK(6, 12, k=2), SETTINGS | {"lr": 0.02}, "lr was 0.01 and is 0.02"),
    ):
        before = weights(sae)
        with pytest.raises(ValueError, match=what):
            train(sae, rows(), **settings).restore(state)
        same(weights(sae), before)
    with pytest.raises(ValueError, match="has begun"):
        training.restore(state)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    training = train(TopK(6, 12, k=2), rows(), **SETTINGS)
    next(training)
    path = tmp_path / "state"
    save_state(path, training.state())
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(FormatError, match="truncated"):
        load_state(path)
    path.write_bytes(whole[:-10] + bytes([whole[-10] ^ 1]) + whole[-9:])
    with pytest.raises(FormatError, match="has changed since it was written"):
        load_state(path)
    TopK(6, 12, k=2).save(tmp_path / "sae")
    with pytest.raises(FormatError, match="no checkpoint of a training"):
        load_state(tmp_path / "sae" / "weights.safetensors")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_state(tmp_path / "none")


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = train(TopK(6, 12, k=2), rows(), **SETTINGS)
    next(training)
    path = tmp_path / "state"
    save_state(path, training.state())
    before = path.read_bytes()
    next(training)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(path, training.state())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_bad_data_stops_the_run_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    source = rows()
    training = train(TopK(6, 12, k=2), source, **SETTINGS)
    next(training)
    save_state(tmp_path / "state", training.state())
    source.x[:] = torch.nan
    with pytest.raises(FloatingPointError, match="batch 1 holds a NaN or infinite activation in row 0"):
        list(training)
    assert load_state(tmp_path / "state").facts["done"] == 1


_KILLED = """
import torch
from pathlib import Path
from superscope.capture import MemorySource
from superscope.dictionaries import TopK, train
from superscope.dictionaries.checkpoint import load_state, save_state
torch.set_num_threads(1)
path, sae = Path({path!r}), TopK(6, 12, k=2)
source = MemorySource(torch.randn(330, 6, generator=torch.Generator().manual_seed(0)) + 1)
training = train(sae, source, **{settings!r})
if path.exists():
    training.restore(load_state(path))
print("ready", flush=True)
for step in training:
    save_state(path, training.state())
sae.save({folder!r})
"""


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_run_loses_no_more_than_its_interval(kills: int, tmp_path: Path) -> None:
    """Killed with signal 9 at moments drawn at random, begun again each time, it ends as one that was left alone."""
    root = str(Path(__file__).parents[2])
    settings = SETTINGS | {"steps": 25 * kills}
    script = _KILLED.format(path=str(tmp_path / "state"), folder=str(tmp_path / "sae"), settings=settings)
    pause = torch.Generator().manual_seed(5)
    done = 0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root}
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2 * float(torch.rand((), generator=pause)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (tmp_path / "state").exists():
            now = load_state(tmp_path / "state").facts["done"]
            assert now >= done
            done = now
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": root}, capture_output=True
    )
    whole = TopK(6, 12, k=2)
    list(train(whole, rows(), **settings))
    same(weights(TopK.load(tmp_path / "sae")), weights(whole))
