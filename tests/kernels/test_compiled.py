"""Compiled loops, and torch's pieces where those are not installed, against the references."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from superscope.kernels import Plan, above, adam_rows, choice, compiled_loops, topk
from superscope.kernels.above import reference as above_reference
from superscope.kernels.adam_rows import reference as adam_reference

INF, NAN = float("inf"), float("nan")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loops(kernel: str) -> ModuleType:
    pytest.importorskip("numba", reason="needs the extra superscope[fast]")
    return importlib.import_module(f"superscope.kernels.{kernel}.compiled")


ROWS = {
    "plain": drawn(5, 1100),
    "ties": drawn(5, 1024).mul(2).round() / 2,
    "zeros": torch.zeros(3, 1024),
    "negative": -drawn(3, 1088).abs(),
    "infinite": drawn(3, 1024).index_fill(1, torch.tensor([7]), INF).index_fill(1, torch.tensor([9]), -INF),
    "no rows": torch.zeros(0, 1024),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("k", [1, 5, 32])
def test_the_largest_are_found_whoever_looks(name: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pre = ROWS[name]
    compiled = loops("topk")
    wanted = pre.topk(k).values
    found = [compiled.topk(pre, k)] if compiled.suits(pre.shape[1], k) else []
    with compiled_loops(False):
        found.append(topk(pre, k))
    for values, indices in found:
        assert torch.equal(values, pre.gather(1, indices))
        assert torch.equal(values.sort(1, descending=True).values, wanted)
        assert all(len(set(row)) == k for row in indices.tolist())


def test_a_row_with_nan_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pre = drawn(4, 1024).index_fill(1, torch.tensor([1023]), NAN)
    assert loops("topk").topk(pre, 2) is None
    monkeypatch.setattr(choice, "_WORTH_COMPILING", 1)
    assert topk(pre, 2)[0].isnan().any(1).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", [*ROWS, "nan"])
@pytest.mark.parametrize("floor", [2.0, "each"])
def test_what_is_above_is_found_whoever_looks(name: str, floor: float | str, threads: int) -> None:
    pre = ROWS["plain"].index_fill(1, torch.tensor([3]), NAN) if name == "nan" else ROWS[name]
    given = drawn(pre.shape[1], seed=3).abs() + 2.0 if isinstance(floor, str) else floor
    floors = given if isinstance(given, Tensor) else torch.tensor(given)
    wanted = above_reference.above(pre, floors)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        compiled = loops("above").above(pre, floors)
    finally:
        torch.set_num_threads(before)
    assert compiled is not None
    with compiled_loops(False):
        composed = above(pre, given)
    for found in (compiled, composed):
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one, other)


def test_a_crowd_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pre = drawn(4, 1024)
    assert loops("above").above(pre, torch.tensor(0.0)) is None
    monkeypatch.setattr(choice, "_WORTH_COMPILING", 1)
    for one, other in zip(above(pre, 0.0), above_reference.above(pre, torch.tensor(0.0)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_atoms_are_stepped_as_the_reference_steps_them(
    compiled: bool, more: bool, unit: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loops("adam_rows") if compiled else None
    # Blocks of three atoms. The package's name for the module is the function's.
    monkeypatch.setattr(sys.modules["superscope.kernels.adam_rows"], "_CPU_BYTES", 3 * 9 * 4)
    n, d, b = 13, 9, 7
    states = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for fast in (True, False):
            parameter = torch.nn.functional.normalize(drawn(n, d))
            parameter[4] = 0
            mean, square = torch.zeros(n, d), torch.zeros(n, d)
            for step in (1, 2, 3):
                counts = torch.tensor([3, 0, 4, 1, 2, 0, 3])
                columns = torch.cat([drawn(n - 1, seed=step + i).argsort()[:c] for i, c in enumerate(counts.tolist())])
                plan = Plan(columns, torch.cat([torch.zeros(1).long(), counts.cumsum(0)]), n)
                given = (drawn(len(columns), seed=step), drawn(b, d, seed=step + 9), plan)
                gradient = drawn(n, d, seed=step + 5) if more else None
                settings = {"step": step, "lr": 0.01, "unit": unit, "gradient": gradient}
                if fast:
                    adam_rows(parameter, mean, square, *given, **settings, engine=engine)
                else:
                    adam_reference.adam_rows(parameter, mean, square, *given, **settings)
            states.append((parameter, mean, square))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-6)


def test_a_step_counts_as_a_change() -> None:
    parameter = drawn(4, 3)
    version = parameter._version
    plan = Plan(torch.tensor([1, 2]), torch.tensor([0, 1, 2]), 4)
    engine = loops("adam_rows")
    moments = torch.zeros(4, 3), torch.zeros(4, 3)
    adam_rows(parameter, *moments, torch.ones(2), drawn(2, 3), plan, step=1, lr=0.1, engine=engine)
    assert parameter._version > version


def test_no_loop_goes_by_functions_that_other_packages_replace() -> None:
    """nnsight 0.3 puts its own functions into `math`; numba then knows neither them nor `abs`, which goes by one."""
    modules = [loops(kernel) for kernel in ("above", "adam_rows", "screen", "topk")]
    modules.append(importlib.import_module("superscope.recovery.fast"))
    written = [loop for module in modules for loop in vars(module).values() if hasattr(loop, "py_func")]
    assert len(written) > 10
    for loop in written:
        assert not {"abs", "math", "cmath"} & set(loop.py_func.__code__.co_names), loop


def test_loops_are_chosen_by_the_sizes_of_the_whole_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never by what is loaded already: a training that another process resumes keeps its loops, and so its bits."""
    pytest.importorskip("numba", reason="needs the extra superscope[fast]")
    parameter = torch.empty(1536, 192)
    assert not choice.compiles(parameter)
    with choice.repeated(120):
        assert not choice.compiles(parameter)
    with choice.repeated(120, 1024 * 1536):
        assert choice.compiles(parameter)
    with choice.repeated(50, 1024 * 1536):
        assert not choice.compiles(parameter)
