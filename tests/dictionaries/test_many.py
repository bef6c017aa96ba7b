from __future__ import annotations

import copy
import inspect

import pytest
import torch

from superscope.core import Activations, ActivationSource, ShapeError
from superscope.dictionaries import SHORT, BatchTopK, Gated, JumpReLU, Ramp, ReLU, TopK, grid, train
from superscope.dictionaries.many import _is_screened, _stacks, train_many
from superscope.kernels import Screen, can_screen, choice, screen
from superscope.worlds import exactly_k


def members(dtype: torch.dtype) -> list:
    saes = [
        TopK(d=16, n=40, k=2, seed=0),
        TopK(d=16, n=40, k=2, seed=1),
        TopK(d=16, n=24, k=5, seed=2),
        ReLU(d=16, n=40, seed=3),
        BatchTopK(d=16, n=40, k=3, seed=4),
        TopK(d=16, n=64, k=1, seed=5),
    ]
    return [sae.to(dtype) for sae in saes]


class Double(ActivationSource):
    """A world far from the origin, so that rounding about the bias shows."""

    d = 16

    def __init__(self, dtype: torch.dtype) -> None:
        self.world, self.dtype, self.asked = exactly_k(n=32, d=16, k=2), dtype, 0

    def batches(self, size: int, *, seed: int):
        self.asked += 1
        for batch in self.world.batches(size, seed=seed):
            yield Activations((batch.x + 3.0).to(self.dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 3e-2)])
@pytest.mark.parametrize(("dead_after", "recipe"), [(256, {}), (10**6, {}), (256, SHORT)])
def test_each_member_is_what_it_is_alone(dtype, tolerance, dead_after, recipe) -> None:
    options = {**recipe, "steps": 30, "batch": 64, "lr": 0.01, "seed": 3, "dead_after": dead_after}
    together, source = members(dtype), Double(dtype)
    steps = list(train_many(together, source, **options))
    assert len(steps) == 30
    for index, (sae, alone) in enumerate(zip(together, members(dtype), strict=True)):
        last = list(train(alone, Double(dtype), **options))[-1]
        assert last.loss == pytest.approx(steps[-1][index].loss, rel=tolerance, abs=tolerance)
        for name in ("fraction_variance_unexplained", "l0", "dead"):
            assert steps[-1][index].numbers[name] == pytest.approx(last.numbers[name], rel=tolerance, abs=tolerance)
        for name, tensor in alone.state_dict().items():
            assert float((sae.state_dict()[name] - tensor).norm()) <= tolerance * max(float(tensor.norm()), 1e-3), name


def test_dead_latents_are_revived_in_the_test_above() -> None:
    saes = members(torch.float64)
    found = list(train_many(saes, Double(torch.float64), steps=30, batch=64, lr=0.01, seed=3, dead_after=256))
    assert max(step.numbers["dead"] for steps in found for step in steps) > 0


def test_the_stream_is_read_once() -> None:
    source = Double(torch.float32)
    for _ in train_many(members(torch.float32), source, steps=3, batch=16):
        pass
    assert source.asked == 1


def test_equal_members_share_one_choice_and_learn_the_truth() -> None:
    world = exactly_k(n=32, d=16, k=2)
    saes = [TopK(d=16, n=32, k=2, seed=seed) for seed in range(3)]
    *_, last = train_many(saes, world, steps=301, batch=256, lr=0.01)
    assert all(step.numbers["mmcs"] > 0.9 for step in last)


def test_members_can_be_saved_and_used_afterwards(tmp_path) -> None:
    saes = [TopK(d=16, n=32, k=2, seed=seed) for seed in range(2)]
    for _ in train_many(saes, exactly_k(n=32, d=16, k=2), steps=3, batch=16):
        pass
    saes[1].save(tmp_path / "one")
    torch.testing.assert_close(TopK.load(tmp_path / "one").atoms, saes[1].atoms)


def test_bad_input_is_told_in_sentences() -> None:
    world = exactly_k(n=32, d=16, k=2)
    sae = TopK(d=16, n=32, k=2)
    with pytest.raises(ValueError, match="no SAE"):
        train_many([], world, steps=1)
    with pytest.raises(ValueError, match="twice"):
        train_many([sae, sae], world, steps=1)
    with pytest.raises(ShapeError, match="member 1"):
        train_many([sae, TopK(d=8, n=32, k=2)], world, steps=1)
    with pytest.raises(ValueError, match="float64"):
        train_many([sae, TopK(d=16, n=32, k=2).double()], world, steps=1)
    with pytest.raises(ValueError, match="lr must be"):
        train_many([sae], world, steps=1, lr=-1.0)
    assert list(train_many([sae], world, steps=0)) == []


def test_a_diverging_member_is_named() -> None:
    saes = [TopK(d=16, n=32, k=2), TopK(d=16, n=32, k=2, seed=1)]
    run = train_many(saes, exactly_k(n=32, d=16, k=2), steps=5, batch=16)
    next(run)
    with torch.no_grad():
        saes[1].atoms.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="member 1"):
        next(run)


@pytest.mark.parametrize("precision", ["full", "bfloat16", "auto"])
def test_ramps_and_precision_do_to_each_what_they_do_to_it_alone(precision) -> None:
    options = {"steps": 12, "batch": 64, "lr": 0.01, "seed": 3, "precision": precision}
    ramps = {"k_ramp": Ramp(3, 0.5), "penalty_ramp": Ramp(0, 0.5)}
    together = members(torch.float32)
    steps = list(train_many(together, Double(torch.float32), **options, **ramps))
    for index, sae in enumerate(members(torch.float32)):
        own = {"penalty_ramp": ramps["penalty_ramp"]} if isinstance(sae, ReLU) else {"k_ramp": ramps["k_ramp"]}
        alone = list(train(sae, Double(torch.float32), **options, **own))
        for mine, its in zip(steps, alone, strict=True):
            assert mine[index].numbers["l0"] == pytest.approx(its.numbers["l0"], rel=0.03)
            assert mine[index].loss == pytest.approx(its.loss, rel=0.03)
        assert together[index].about == sae.about
    with pytest.raises(ValueError, match="penalty_ramp has nothing to act on: no member has a coefficient"):
        train_many([TopK(16, 32, 2)], Double(torch.float32), steps=1, penalty_ramp=Ramp(0))


@pytest.mark.skipif(
    not can_screen("cpu"), reason="wants int8 products: would check that those large enough are screened"
)
def test_int8_screens_whom_it_would_screen_alone(monkeypatch) -> None:
    saes = [TopK(d=16, n=256, k=2, seed=0), TopK(d=16, n=40, k=2, seed=1), TopK(d=16, n=40, k=5, seed=2)]
    options = {"steps": 6, "batch": 64, "lr": 0.01, "seed": 3, "precision": "int8"}
    looked: list[int] = []
    topk = Screen.topk
    monkeypatch.setattr(
        Screen, "topk", lambda self, x, *a, **o: looked.append(len(self.encoder)) or topk(self, x, *a, **o)
    )
    # As it comes all three are too small to be screened, alone or together.
    list(train_many(copy.deepcopy(saes), Double(torch.float32), **options))
    list(train(copy.deepcopy(saes[0]), Double(torch.float32), **options))
    assert looked == []
    # Of the largest that a stack takes it depends on how often the loops that screen would run.
    largest, small = TopK(256, 2048, 2), TopK(256, 128, 2)
    asked = {"precision": "int8", "batch": 256, "steps": 256}
    assert [_is_screened(sae, asked) for sae in (largest, small)] == [True, False]
    assert not _is_screened(largest, asked | {"steps": 255})
    assert not _is_screened(largest, asked | {"precision": "full"})
    assert _stacks([largest, small, small], [True, False, False]) == [[1, 2]]
    # Where bounds are said to pay from 256 latents on, the first is, and is no part of the stack.
    for module, name, value in (
        (screen, "_ROWS", 1),
        (screen, "_D", 1),
        (screen, "_N", 256),
        (choice, "_WORTH_COMPILING", 1),
    ):
        monkeypatch.setattr(module, name, value)
    steps = list(train_many(copy.deepcopy(saes), Double(torch.float32), **options))
    assert set(looked) == {256}
    assert len(looked) >= 6
    for index, sae in enumerate(copy.deepcopy(saes)):
        alone = list(train(sae, Double(torch.float32), **options))
        assert steps[-1][index].loss == pytest.approx(alone[-1].loss, rel=0.03)


def test_every_argument_reaches_every_member() -> None:
    """Each that `train_many` shares with `train` changes both alike, in a stack and beside it."""
    start = {"steps": 8, "batch": 64, "lr": 0.01, "seed": 3, "dead_after": 128}
    changes = {
        "steps": 6,
        "batch": 32,
        "lr": 0.003,
        "seed": 4,
        "warmup": 0.5,
        "decay": 0.9,
        "betas": (0.5, 0.95),
        "atoms_lr": 2.0,
        "start": "residuals",
        "centre": "median",
        "k_ramp": Ramp(3, 0.5),
        "precision": "bfloat16",
        "dead_after": 400,
        "auxiliary": 0.5,
        "auxiliary_k": 1,
    }
    shared = set(inspect.signature(train_many).parameters) - {"saes", "source", "penalty_ramp"}
    assert shared == set(changes), "an argument that this test does not try"

    def made() -> list[TopK]:
        return [TopK(d=16, n=40, k=2, seed=0), TopK(d=16, n=24, k=5, seed=1), TopK(d=16, n=96, k=1, seed=2)]

    source = Double(torch.float32)
    plain = list(train_many(made(), source, **start))[-1]
    for name, value in changes.items():
        options = start | {name: value}
        together = list(train_many(made(), source, **options))[-1]
        alone = [list(train(sae, source, **options))[-1] for sae in made()]
        assert [s.loss for s in together] == pytest.approx([s.loss for s in alone], rel=0.02), name
        assert [s.loss for s in together] != [s.loss for s in plain], name


def test_what_is_small_is_stacked_and_what_is_large_is_not() -> None:
    small, large = TopK(64, 1024, 2), TopK(256, 4096, 2)
    assert _stacks([small, large, small, ReLU(64, 128), small]) == [[0, 2, 4]]
    assert _stacks([large, large]) == []
    assert _stacks([small]) == [], "one alone has nothing to share"
    # Sixteen fill a stack of 2^20 numbers; the seventeenth is alone and no stack.
    assert [len(stack) for stack in _stacks([small] * 17)] == [16]


def test_a_grid_has_one_sae_for_each_combination() -> None:
    saes = grid(JumpReLU, d=8, n=(16, 32), k=[2, 4], coefficient=0.5, seed=range(2))
    assert [(sae.n, sae.k, sae.about["seed"]) for sae in saes] == [
        (16, 2, 0), (16, 2, 1), (16, 4, 0), (16, 4, 1), (32, 2, 0), (32, 2, 1), (32, 4, 0), (32, 4, 1),
    ]  # fmt: skip
    assert len(grid(ReLU, d=8, n=16, coefficient=(1.0, 2.0, 3.0))) == 3
    *_, last = train_many(
        grid(Gated, d=16, n=24, coefficient=[0.1, 5.0]), Double(torch.float32), steps=60, batch=64, lr=0.01
    )
    assert last[1].numbers["l0"] < last[0].numbers["l0"], "the larger penalty leaves fewer on"
    with pytest.raises(ValueError, match="grid: k has no value"):
        grid(TopK, d=8, n=16, k=[])
